"""The fixed parts of the report page: its frame, its styles, its script.

`minigen.app.demo.report` puts the rest in the places marked <!--name-->. Nothing here refers to anything outside the
page; the content security policy forbids it, too.
"""

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>minigen: a caption becomes a sound</title>
<style><!--style--></style>
</head>
<body>
<header>
<h1>A caption becomes a sound</h1>
<!--summary-->
</header>
<main>
<section aria-labelledby="chain">
<h2 id="chain">The chain</h2>
<p>A frozen text encoder turns the caption into one vector per token. A Transformer writes four streams of codes, each
a step later than the one before, and looks at the caption through cross-attention while it does. Guidance moves every
prediction away from what the model would say without the caption. The codec turns the codes into sound.</p>
<p>Dashed: only in training, where the codec writes the codes of a recording and the model learns to predict each from
those before it. Now and then it must do so without the caption; the regulariser asks that, in these steps, what it
hears be arranged as the captions would arrange it.</p>
<figure class="box" tabindex="0"><img src="<!--chain-->" alt="The chain, from a caption to a sound"></figure>
<p class="note">The numbers are those of the course's notebooks.</p>
</section>
<section aria-labelledby="listen">
<h2 id="listen">Listen</h2>
<p>Captions of held-out clips. Press play, or a place in a picture. Pictures: <!--seconds--> s from left to right, 0 to
8 kHz on the mel scale from bottom to top, brighter is louder, the same colours everywhere. Below each, what the tagger
hears: ✓ asked for, + not asked for.</p>
<!--examples-->
</section>
<section aria-labelledby="curves" class="figures">
<div><h2 id="curves">Learning</h2><!--losses--></div>
<div><h2>Guidance</h2><!--sweep--></div>
</section>
<section aria-labelledby="table">
<h2 id="table">The table</h2>
<p>Controls first: read every other row between real clips and the codec above, noise, silence and shuffled captions
below. ↓ less is better, ↑ more is better.</p>
<div class="box" tabindex="0" role="region" aria-label="Measurements"><!--table--></div>
<p class="note"><!--samples--></p>
<details open><summary>How to read each column</summary><dl><!--readings--></dl></details>
</section>
<section aria-labelledby="says">
<h2 id="says">What this says, and what it does not</h2>
<!--findings-->
</section>
</main>
<footer>
<p><!--times--></p>
<p>Follows AudioGen (arXiv 2209.15352), MusicGen (arXiv 2306.05284) and “Enhance audio generation controllability
through representation similarity regularization” (arXiv 2309.08773). The numbers behind the table and the sweep lie
beside this page in table.csv and sweep.csv, the sounds in audio/.</p>
</footer>
<script><!--script--></script>
</body>
</html>
"""

STYLE = """
:root { --ink: #1d1f22; --soft: #5c6370; --paper: #fff; --card: #f4f5f7; --line: #d8dbe0; --mark: #0b62a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #a0a7b4; --paper: #16181c; --card: #22252b; --line: #3a3f48; --mark: #6db7f2; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem); max-width: 1240px; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.35rem; margin: 0 0 .6rem; }
h3 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0 0 .8rem; }
section { margin: 2.4rem 0; }
figure { margin: 0; }
img, svg { display: block; width: 100%; height: auto; }
.figures { display: grid; gap: 1.5rem 3rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.box img { min-width: 40rem; max-width: 60rem; }
.figures img { max-width: 34rem; }
.figures figcaption, .note, footer, .asked { color: var(--soft); font-size: .9rem; }
article { margin: 1.2rem 0 1.8rem; }
.asked { margin: .1rem 0 .5rem; }
.clips { display: grid; gap: .8rem; grid-template-columns: repeat(6, minmax(0, 1fr)); }
.clip { background: var(--card); border-radius: .5rem; padding: .5rem; min-width: 0; }
.clip figcaption { display: flex; align-items: end; min-height: 2.5em; font-size: .82rem; font-weight: 600;
  margin-bottom: .3rem; line-height: 1.25; }
.picture { position: relative; cursor: pointer; overflow: hidden; border-radius: .25rem; }
.picture img { height: 5.5rem; image-rendering: auto; }
.picture i { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; opacity: 0; }
.begun .picture i { opacity: .9; }
audio[controls] { display: block; width: 100%; margin-top: .4rem; }
.bar { display: flex; align-items: center; gap: .5rem; margin-top: .4rem; font-size: .78rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.bar[hidden] { display: none; }
.play { display: grid; place-items: center; width: 2.4rem; height: 2.4rem; border: 0; border-radius: 50%;
  background: var(--mark); color: var(--paper); cursor: pointer; }
.play:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
.play::before { content: ""; margin-left: .2rem; border: solid transparent; border-width: .45rem 0 .45rem .75rem;
  border-left-color: currentColor; }
.playing .play::before { margin: 0; width: .75rem; height: .8rem; border: solid currentColor; border-width: 0 .22rem; }
.heard { font-size: .78rem; line-height: 1.3; color: var(--soft); margin: .4rem 0 0; overflow-wrap: anywhere; }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; margin-bottom: .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); font-weight: 600; }
thead th, thead th:first-child { background: var(--card); }
tbody tr.control th { font-weight: 400; }
tbody tr.control th, tbody tr.control td { color: var(--soft); }
tbody tr:last-child > * { border-bottom: 0; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--mark); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: .6rem 0 0; font-size: .92rem; }
dt { font-weight: 600; }
dd { margin: 0; max-width: 46rem; }
footer { border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 900px) { .clips { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
@media (max-width: 560px) {
  .clips { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  dl { grid-template-columns: 1fr; gap: .1rem; } dd { margin-bottom: .5rem; }
  th, td { padding: .35rem .5rem; } table th:first-child { white-space: normal; min-width: 7.5rem; }
}
@media print { audio, .bar { display: none !important; } }
"""

SCRIPT = """
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
"""
