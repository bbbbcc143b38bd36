const get = id => document.getElementById(id), SIDES = ['left', 'right'];
const sounds = {left: new Audio(), right: new Audio()}, blobs = new Map();
let listener = '', code = '', pass = '', trials = [], done = 0, of = 0, heard = new Set(), busy = false;

async function post(path, said) {
  const options = {method: 'POST', headers: {'Content-Type': 'application/json', 'X-Code': code},
                   body: JSON.stringify({...said, pass})};
  const reply = await fetch(path, options).catch(() => {
    throw Error('The server does not answer. Is minigen listen still running? Your earlier answers are safe.');
  });
  const answer = await reply.json();
  if (answer.error) throw Error(answer.error);
  return answer;
}

function fetchClip(name) {
  if (!blobs.has(name)) {
    const clip = fetch('/clips/' + name + '.flac', {headers: {'X-Code': code}}).then(reply => {
      if (!reply.ok) throw Error('A clip is missing. Make the test again.');
      return reply.blob();
    }).then(URL.createObjectURL);
    clip.catch(() => blobs.delete(name));
    blobs.set(name, clip);
  }
  return blobs.get(name);
}

async function show() {
  for (const side of SIDES) sounds[side].pause();
  heard = new Set();
  get('bar').max = of; get('bar').value = done;
  get('test').hidden = !trials.length; get('end').hidden = trials.length > 0;
  if (!trials.length) return;
  get('count').textContent = 'Pair ' + (done + 1) + ' of ' + of;
  get('caption').textContent = '“' + trials[0].caption + '”';
  for (const side of SIDES) {
    get(side).disabled = true; get('heard' + side).value = 0;
    sounds[side].src = await fetchClip(trials[0][side]);
  }
  if (trials[1]) for (const side of SIDES) fetchClip(trials[1][side]).catch(() => {});
}

function play(side) {
  for (const other of SIDES) if (other !== side) sounds[other].pause();
  sounds[side].currentTime = 0;
  sounds[side].play().catch(error => { get('wrong').textContent = 'This browser cannot play it: ' + error.message; });
}

async function answer(side) {
  if (busy || get(side).disabled) return;
  busy = true;
  get('wrong').textContent = '';
  try {
    await post('/answer', {listener, trial: trials[0].trial, answer: side});
    trials.shift(); done++;
    await show();
  } catch (error) { get('wrong').textContent = error.message; }
  busy = false;
}

for (const side of SIDES) {
  get('play' + side).addEventListener('click', () => play(side));
  get(side).addEventListener('click', () => answer(side));
  sounds[side].addEventListener('timeupdate', () => {
    get('heard' + side).value = sounds[side].currentTime / (sounds[side].duration || 1);
  });
  sounds[side].addEventListener('ended', () => {
    get('heard' + side).value = 1; heard.add(side);
    if (heard.size === 2) for (const each of SIDES) get(each).disabled = false;
  });
}

document.addEventListener('keydown', event => {
  if (get('test').hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === '1') play('left'); else if (event.key === '2') play('right');
  else if (event.key === 'f') answer('left'); else if (event.key === 's') answer('right');
});

get('who').addEventListener('submit', async event => {
  event.preventDefault();
  get('wrong').textContent = '';
  try {
    listener = get('name').value;
    code = get('code') ? get('code').value.replace(/[^\x21-\x7e]/g, '') : '';
    try { pass = localStorage.getItem('pass ' + listener) || ''; } catch {}
    const answer = await post('/start', {listener});
    trials = answer.trials; of = answer.of; done = of - trials.length; pass = answer.pass || '';
    try { localStorage.setItem('listener', listener); localStorage.setItem('pass ' + listener, pass); } catch {}
    get('who').hidden = true;
    await show();
  } catch (error) { get('wrong').textContent = error.message; }
});
try { get('name').value = localStorage.getItem('listener') || ''; } catch {}
