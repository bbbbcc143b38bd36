"""Random scenes, the kinds of event with count, pitch, loudness, distance and times, and their sound.

    single       |   dog dog      |     followed by  | dog dog  siren~~~~ |      X followed by Y while Z
    while        |   dog dog      |                                              | dog dog  siren~~~~ |
                 |~~~~~rain~~~~~~~|                                              |~~~~~~~rain~~~~~~~~~|

A scene is drawn first (`sample_scene`), then described (`captions.caption`) and rendered (`render_scene`), so captions
are true by construction. About one pair of kinds in eight is held out: it occurs together in the test split only.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.dsp import RATE, bandpass, noise, room, swell
from minigen.corpus.synthesis.sounds import machines, nature, voices

SOUNDS = {**voices.SOUNDS, **nature.SOUNDS, **machines.SOUNDS}

# Seconds of one sound (shortest, usual) of the kinds that sound `count` times; captions may state the count.
COUNTED = {
    "dog_bark": (0.25, 0.5), "cat_meow": (0.55, 1.1), "rooster": (1.2, 2.3), "frog_croak": (0.4, 0.8),
    "cow_moo": (1.1, 2.2), "sneeze": (1.0, 1.4), "cough": (0.3, 0.5), "thunder": (1.4, 3.2), "church_bell": (0.8, 1.8),
    "telephone": (0.8, 1.6), "knock": (0.2, 0.38), "car_horn": (0.4, 0.8), "alarm_beep": (0.25, 0.6),
}  # fmt: skip
# Seconds of one cry or call, of textures that consist of repeated sounds which listeners do not count.
PHRASED = {"baby_cry": 1.3, "bird_chirp": 0.9}
# Attack and release in seconds of a sound that begins or ends inside the clip.
FADES = {"counted": (0.003, 0.03), "gradual": (0.3, 0.4), "other": (0.08, 0.12)}
GRADUAL = frozenset({"rain", "wind", "sea_waves", "crackling_fire", "stream", "helicopter", "engine", "applause",
                     "crickets"})  # fmt: skip
CUT = 0.004  # attack and release in seconds of a sound that reaches the beginning or the end of the clip
# Kinds that would mask each other at the same time.
MASKING = (
    frozenset({"rain", "wind", "sea_waves", "stream", "applause", "crackling_fire"}),
    frozenset({"helicopter", "chainsaw", "engine", "thunder"}),
)
OUTDOOR = frozenset(KINDS) - {"sneeze", "cough", "telephone", "clock_tick", "typing", "knock", "alarm_beep", "baby_cry",
                              "applause", "cat_meow", "dog_bark", "footsteps"}  # fmt: skip
GAIN_DB = {"loud": 3.5, "ordinary": 0.0, "soft": -8.0, "near": 1.0, "background": -6.0, "far": -5.0}
ROOMS = {"open": None, "room": (0.3, 0.25), "hall": (0.9, 0.3)}  # seconds to -60 dB, level of the echo
HELD_OUT_SHARE = 0.12


@dataclass(frozen=True)
class SceneEvent:
    """One event.

    count: 1 for textures. pitch: -1 (large, deep) to 1 (small, high). loudness: "loud", "ordinary" or "soft". distance:
    "near", "ordinary", "background" or "far". onset, offset: seconds.
    """

    kind: str
    count: int
    pitch: float
    loudness: str
    distance: str
    onset: float
    offset: float


@dataclass(frozen=True)
class Scene:
    """A scene of `seconds`, its events in order of onset.

    relation: "single", "while" or "followed by". background: kind that sounds behind the others, or None; with three
    events, X followed by Y while `background`. room: a key of ROOMS. noise_db: level of the recorder's noise in dB
    relative to the loudest event.
    """

    events: tuple[SceneEvent, ...]
    relation: str
    background: str | None
    room: str
    noise_db: float
    seconds: float

    @property
    def foreground(self) -> tuple[SceneEvent, ...]:
        """The events other than the background, in order of onset."""
        return tuple(event for event in self.events if event.kind != self.background)

    @property
    def under(self) -> SceneEvent | None:
        """The background event, or None."""
        return next((event for event in self.events if event.kind == self.background), None)

    @property
    def held_out(self) -> bool:
        """Whether two of the kinds are a held-out pair."""
        return has_held_out([event.kind for event in self.events])


def _held_out_pairs() -> frozenset[frozenset[str]]:
    pairs = sorted(combinations(KINDS, 2), key=lambda pair: hashlib.sha256("+".join(pair).encode()).digest())
    chosen: list[tuple[str, str]] = []
    used = dict.fromkeys(KINDS, 0)
    wanted = round(HELD_OUT_SHARE * len(pairs))
    for most in range(1, len(KINDS)):  # each kind occurs in about equally many pairs
        for pair in pairs:
            if len(chosen) < wanted and pair not in chosen and max(used[kind] for kind in pair) < most:
                chosen.append(pair)
                used.update({kind: used[kind] + 1 for kind in pair})
    return frozenset(map(frozenset, chosen))


_HELD_OUT = _held_out_pairs()


def held_out_pairs() -> frozenset[frozenset[str]]:
    """The unordered pairs of kinds (12 % of all, each kind in about three) that sound together only in test scenes."""
    return _HELD_OUT


def has_held_out(kinds: list[str]) -> bool:
    """Whether any two of `kinds` are a held-out pair."""
    return any(frozenset(pair) in _HELD_OUT for pair in combinations(kinds, 2))


def _audible_together(first: str, second: str) -> bool:
    return not any({first, second} <= group for group in MASKING)


def _fits(rng: np.random.Generator, kinds: list[str], relation: str) -> bool:
    """Whether these kinds may form a scene: none masks another, and a counted sound over a texture is preferred."""
    if relation != "while" and len(kinds) < 3:
        return True
    *over, under = kinds
    if not all(_audible_together(kind, under) for kind in over):
        return False
    if len(kinds) == 3:
        return under not in COUNTED
    counted = sum(kind in COUNTED for kind in kinds)
    return rng.uniform() < (0.4, 1.0, 0.25)[counted]


def _draw_kinds(rng: np.random.Generator, size: int, relation: str, combos: str) -> list[str]:
    while True:
        kinds = [str(kind) for kind in rng.choice(KINDS, size, replace=False)]
        if _fits(rng, kinds, relation) and has_held_out(kinds) == (combos == "held_out"):
            return kinds


def _draw_event(rng: np.random.Generator, kind: str, start: float, end: float, fill: bool = False) -> SceneEvent:
    """An event of `kind` between `start` and `end`, seconds, at an ordinary level; fill: it lasts all of this time."""
    count, length = 1, end - start
    if kind in COUNTED:
        shortest, usual = COUNTED[kind]
        most = int(np.clip(length / shortest, 1, 6))
        weights = np.array([0.35, 0.25, 0.2, 0.1, 0.06, 0.04])[:most]
        count = 1 + int(rng.choice(most, p=weights / weights.sum()))
        length = min(length, count * usual * rng.uniform(0.9, 1.2) + (1.2 if kind == "church_bell" else 0))
    elif not fill and rng.uniform() < 0.4:
        length *= rng.uniform(0.75, 1)
    onset = start + rng.uniform(0, 1) * (end - start - length)
    extreme = rng.uniform() < 0.4
    pitch = rng.choice([-1, 1]) * rng.uniform(0.8, 1) if extreme else rng.uniform(-0.35, 0.35)
    when = round(onset, 3), min(round(onset + length, 3), end)
    return SceneEvent(kind, count, round(float(pitch), 3), "ordinary", "ordinary", *when)


def _draw_level(rng: np.random.Generator, event: SceneEvent, choices: list[tuple[str, str, float]]) -> SceneEvent:
    """The event with loudness and distance drawn from `choices` of (loudness, distance, weight)."""
    weights = np.array([weight for _, _, weight in choices])
    loudness, distance, _ = choices[rng.choice(len(choices), p=weights / weights.sum())]
    return SceneEvent(**{**vars(event), "loudness": loudness, "distance": distance})


_ORDINARY = ("ordinary", "ordinary", 0.45)
_ALONE = [_ORDINARY, ("loud", "ordinary", 0.14), ("loud", "near", 0.04), ("ordinary", "near", 0.06),
          ("soft", "ordinary", 0.14), ("ordinary", "far", 0.10), ("soft", "far", 0.07)]  # fmt: skip
_OVER = [("ordinary", "ordinary", 0.6), ("loud", "ordinary", 0.3), ("ordinary", "near", 0.1)]
_UNDER = [("ordinary", "background", 0.6), ("soft", "ordinary", 0.2), ("ordinary", "far", 0.2)]


def _levels_together(rng: np.random.Generator, over: list[SceneEvent], under: SceneEvent) -> list[SceneEvent]:
    """Levels of simultaneous events; at most one is not ordinary, so that all stay audible."""
    if rng.uniform() < 0.5:
        return [*over, _draw_level(rng, under, _UNDER)]
    chosen = int(rng.integers(len(over)))
    return [_draw_level(rng, event, _OVER) if i == chosen else event for i, event in enumerate(over)] + [under]


def _draw_while(rng: np.random.Generator, kinds: list[str], seconds: float) -> tuple[list[SceneEvent], str | None]:
    over, under = sorted(kinds, key=lambda kind: COUNTED[kind][1] if kind in COUNTED else 99)  # the longer is under
    longer = _draw_event(rng, under, 0, seconds, fill=rng.uniform() < 0.7)
    shorter = _draw_event(rng, over, longer.onset, longer.offset)
    return _levels_together(rng, [shorter], longer), None if under in COUNTED else under


def _draw_followed(rng: np.random.Generator, kinds: list[str], seconds: float) -> tuple[list[SceneEvent], str | None]:
    split, gap = seconds * rng.uniform(0.42, 0.58), 0.02 * seconds
    first = _draw_event(rng, kinds[0], 0, split - gap)
    second = _draw_event(rng, kinds[1], split + gap, seconds)
    if len(kinds) == 2:
        return [_draw_level(rng, first, _ALONE), _draw_level(rng, second, _ALONE)], None
    return _levels_together(rng, [first, second], _draw_event(rng, kinds[2], 0, seconds, fill=True)), kinds[2]


def sample_scene(rng: np.random.Generator, seconds: float = 4.0, combos: str = "seen") -> Scene:
    """A random scene of `seconds`.

    combos "seen": one event (40 %), two (45 %, half at once, half in a row) or three (15 %, two in a row over a third),
    never a held-out pair. combos "held_out": two or three events with at least one held-out pair.
    """
    size = int(rng.choice([1, 2, 3], p=[0.4, 0.45, 0.15] if combos == "seen" else [0.0, 0.75, 0.25]))
    if seconds < 2.5:  # too short for sounds in a row
        size = min(size, 2)
    together = size == 2 and (rng.uniform() < 0.5 or seconds < 2.5)
    relation = "single" if size == 1 else "while" if together else "followed by"
    kinds = _draw_kinds(rng, size, relation, combos)
    if relation == "single":
        whole = rng.uniform() < 0.6
        events, background = [_draw_level(rng, _draw_event(rng, kinds[0], 0, seconds, fill=whole), _ALONE)], None
    else:
        events, background = (_draw_while if together else _draw_followed)(rng, kinds, seconds)
    events.sort(key=lambda event: (event.onset, event.offset))
    where = "open" if OUTDOOR & set(kinds) else str(rng.choice(list(ROOMS), p=[0.4, 0.4, 0.2]))
    return Scene(tuple(events), relation, background, where, round(rng.uniform(-62, -42), 1), seconds)


def loudness_rms(x: np.ndarray) -> float:
    """Root mean square over the 20 ms frames within 20 dB of the loudest frame: the level without the pauses."""
    frames = x[: len(x) // 320 * 320].reshape(-1, 320) if len(x) >= 320 else x[None]
    power = np.mean(np.square(frames, dtype=np.float64), 1)
    return float(np.sqrt(np.mean(power[power >= 0.01 * power.max()])))


def event_gain_db(event: SceneEvent) -> float:
    """Level of the event in dB relative to an ordinary one."""
    return GAIN_DB[event.loudness] + GAIN_DB[event.distance]


def _fades(event: SceneEvent, clip: float) -> tuple[float, float]:
    """Attack and release in seconds; a texture that reaches an end of the `clip` seconds is cut there, not faded."""
    style = "counted" if event.kind in COUNTED else "gradual" if event.kind in GRADUAL else "other"
    attack, release = FADES[style]
    if style == "counted":
        return attack, 0.8 if event.kind == "church_bell" else release
    return CUT if event.onset == 0 else attack, CUT if event.offset >= clip else release


def render_event(event: SceneEvent, rng: np.random.Generator, clip: float = np.inf) -> np.ndarray:
    """The event alone, float64 [(offset - onset) * 16000], at its level; an ordinary event has `loudness_rms` 1.

    clip: seconds of the clip around it.
    """
    samples = round((event.offset - event.onset) * RATE)
    length = samples / RATE
    count = max(1, round(length / PHRASED[event.kind])) if event.kind in PHRASED else event.count
    sound = SOUNDS[event.kind](rng, samples, count, event.pitch).astype(np.float64)
    if event.distance == "far":  # air and obstacles take the treble, echoes arrive from everywhere
        sound = room(rng, bandpass(sound, 0, 2200, 1), 0.9, 0.5)
    if event.distance == "background":
        sound = bandpass(sound, 0, 4500, 1)
    attack, release = _fades(event, clip)
    sound *= swell(samples, min(attack, length / 4), min(release, length / 3))
    return sound * 10 ** (event_gain_db(event) / 20) / (loudness_rms(sound) + 1e-9)


def render_scene(scene: Scene, rng: np.random.Generator, samples: int) -> np.ndarray:
    """The scene's sound, float32 [samples] at 16 kHz: events at their times and levels, room, recorder noise.

    Peak 0.2 to 0.95: 0.6 for an ordinary loudest event, more when it is loud or near, less when soft or far.
    """
    mix = np.zeros(samples)
    for event in scene.events:
        first = round(event.onset * RATE)
        sound = render_event(event, rng, scene.seconds)[: max(samples - first, 0)]
        mix[first : first + len(sound)] += sound
    if ROOMS[scene.room]:
        mix = room(rng, mix, *ROOMS[scene.room])
    loudest = max(event_gain_db(event) for event in scene.events)
    hiss = bandpass(noise(rng, samples), 0, rng.uniform(500, 4000), 1)
    mix += 10 ** ((loudest + scene.noise_db) / 20) * hiss / (np.std(hiss) + 1e-9)
    peak = np.clip(0.6 * 10 ** (loudest / 20) * rng.uniform(0.9, 1.05), 0.2, 0.95)
    return (mix * (peak / np.max(np.abs(mix)))).astype(np.float32)
