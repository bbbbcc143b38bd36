const clips = [...document.querySelectorAll('.clip')];
for (const clip of clips) {
  const [sound, picture, line, bar, time] = ['audio', '.picture', 'i', '.bar', '.time'].map(q => clip.querySelector(q));
  const draw = () => {
    line.style.left = 100 * sound.currentTime / (sound.duration || 1) + '%';
    time.textContent = sound.currentTime.toFixed(1) + ' / ' + (sound.duration || 0).toFixed(1) + ' s';
    clip.classList.toggle('playing', !sound.paused);
    if (!sound.paused) requestAnimationFrame(draw);
  };
  sound.controls = false;
  bar.hidden = false;
  for (const event of ['loadedmetadata', 'pause', 'seeked', 'ended']) sound.addEventListener(event, draw);
  sound.addEventListener('play', () => {
    for (const other of clips) if (other !== clip) other.querySelector('audio').pause();
    clip.classList.add('begun');
    draw();
  });
  bar.querySelector('button').addEventListener('click', () => sound.paused ? sound.play() : sound.pause());
  picture.addEventListener('click', event => {
    const box = picture.getBoundingClientRect();
    sound.currentTime = (sound.duration || 0) * (event.clientX - box.left) / box.width;
    sound.play();
  });
  draw();
}
