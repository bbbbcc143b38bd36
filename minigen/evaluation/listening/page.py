"""The page of the listening test: a name, then trial after trial, each stored before the next one is shown.

`listening.server` serves it. It knows of a trial its number, its caption and two meaningless file names. Clips come as
blobs, so that a browser that insists on byte ranges plays them from a server that has none.
"""

POLICY = ("default-src 'none'; connect-src 'self'; media-src blob:; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")  # fmt: skip

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>minigen: a listening test</title>
<style>
:root { --ink: #1d1f22; --soft: #5c6370; --paper: #fff; --card: #f4f5f7; --line: #d8dbe0; --mark: #0b62a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #a0a7b4; --paper: #16181c; --card: #22252b; --line: #3a3f48; --mark: #6db7f2; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem; max-width: 44rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; }
[hidden] { display: none !important; }
#caption { font-size: 1.3rem; margin: 1rem 0; overflow-wrap: anywhere; }
.pair { display: grid; gap: 1rem; grid-template-columns: 1fr 1fr; }
.clip { background: var(--card); border-radius: .5rem; padding: 1rem; display: grid; gap: .8rem; }
button, input { font: inherit; padding: .7rem 1rem; border-radius: .4rem; border: 1px solid var(--line);
  color: var(--ink); background: var(--paper); }
button { cursor: pointer; }
button.answer, #begin { background: var(--mark); border-color: var(--mark); color: var(--paper); font-weight: 600; }
button:disabled { opacity: .4; cursor: default; }
button:focus-visible, input:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
progress { width: 100%; accent-color: var(--mark); }
.note { color: var(--soft); font-size: .9rem; }
#wrong { color: #c0392b; min-height: 1.5em; }
</style>
</head>
<body>
<h1>Which sound fits the caption better?</h1>
<form id="who">
<p>You hear pairs of sounds, each with a caption. Choose the one that fits its caption better; where you hear no
difference, guess. Headphones help. You can stop at any time: with the same name you go on where you stopped.</p>
<p><label>Your name <input id="name" maxlength="40" autocomplete="off" required></label>
<button id="begin">Begin</button></p>
</form>
<main id="test" hidden>
<progress id="bar" value="0"></progress>
<p class="note" id="count"></p>
<p id="caption"></p>
<div class="pair">
<div class="clip"><button type="button" id="playleft">▶ Play the first</button>
<progress id="heardleft" value="0" max="1" aria-label="first sound"></progress>
<button type="button" class="answer" id="left" disabled>The first fits better</button></div>
<div class="clip"><button type="button" id="playright">▶ Play the second</button>
<progress id="heardright" value="0" max="1" aria-label="second sound"></progress>
<button type="button" class="answer" id="right" disabled>The second fits better</button></div>
</div>
<p class="note">Both answers open when both sounds were heard to their end. Keys: 1 and 2 play, f and s answer.</p>
</main>
<p id="end" hidden>That was all. Thank you; you can close this page.</p>
<p id="wrong" role="alert"></p>
<script>
const get = id => document.getElementById(id), SIDES = ['left', 'right'];
const sounds = {left: new Audio(), right: new Audio()}, blobs = new Map();
let listener = '', trials = [], done = 0, of = 0, heard = new Set(), busy = false;

async function post(path, said) {
  const options = {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(said)};
  const reply = await fetch(path, options).catch(() => {
    throw Error('The server does not answer. Is minigen listen still running? Your earlier answers are safe.');
  });
  const answer = await reply.json();
  if (answer.error) throw Error(answer.error);
  return answer;
}

function fetchClip(name) {
  if (!blobs.has(name)) {
    const clip = fetch('/clips/' + name + '.flac').then(reply => {
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
    const answer = await post('/start', {listener});
    trials = answer.trials; of = answer.of; done = of - trials.length;
    try { localStorage.setItem('listener', listener); } catch {}
    get('who').hidden = true;
    await show();
  } catch (error) { get('wrong').textContent = error.message; }
});
try { get('name').value = localStorage.getItem('listener') || ''; } catch {}
</script>
</body>
</html>
"""
