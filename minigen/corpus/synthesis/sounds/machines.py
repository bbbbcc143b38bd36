"""Sounds of machines and people's things for the built-in corpus: `SOUNDS` maps a kind to its synthesiser.

    sound(rng, samples, count, pitch) -> float32 [samples], 16 kHz, peak in (0, 1]

Motors are trains of firing pulses that ring an exhaust; bells, clocks, doors and keys are strikes that ring modes;
horns and sirens are rich tones. church_bell, telephone, knock, car_horn and alarm_beep sound exactly `count` times,
closer together when there is little room; the others ignore `count`. `pitch` in [-1, 1] moves size.
"""

import numpy as np
from scipy.signal import lfilter

from minigen.corpus.synthesis.dsp import (
    RATE,
    bandpass,
    buzz,
    decay,
    formants,
    noise,
    place,
    seconds,
    swell,
    to_peak,
    wander,
)
from minigen.corpus.synthesis.sounds.nature import coloured, modes, sparks, unit


def turns(rng: np.random.Generator, samples: int, count: int, every: float) -> tuple[list[float], float]:
    """Start times in seconds of `count` sounds about `every` seconds apart, and the room each has until the next."""
    slot = min(every, (samples / RATE - 0.01) / count)
    return [0.01 + slot * (i + 0.05 * rng.uniform(0, 1) * (i > 0)) for i in range(count)], 0.95 * slot


def strikes(samples: int, starts: list[float], gains: list[float]) -> np.ndarray:
    """Impulses of the given strengths at the given seconds, [samples]; those past the end are left out."""
    train = np.zeros(samples)
    for start, gain in zip(starts, gains, strict=True):
        if start * RATE < samples:
            train[int(start * RATE)] += gain
    return train


def scrapes(rng: np.random.Generator, train: np.ndarray, time: float, curve: list[tuple[float, float]]) -> np.ndarray:
    """Each strike of `train` [samples] as a burst of `coloured` noise that falls by 60 dB in `time` seconds."""
    return lfilter([1], [1, -(10 ** (-3 / (time * RATE)))], train) * coloured(rng, len(train), curve)


def gated(tone: np.ndarray, starts: list[float], length: float, attack: float, release: float) -> np.ndarray:
    """The tone [samples], heard for `length` seconds from each start; attack and release in seconds."""
    gate = np.zeros(len(tone))
    for start in starts:
        place(gate, swell(int(length * RATE), attack, release), start)
    return tone * gate


def firing(rng: np.random.Generator, rate: np.ndarray, cylinders: int, uneven: float) -> tuple[np.ndarray, np.ndarray]:
    """Firing impulses of an engine along a `rate` curve in Hz, and the phase 0..1 since the last one; both [samples].

    Each cylinder has its own strength, `uneven` from the mean; a rotor is an engine whose cylinders are blades.
    """
    phase = np.cumsum(rate) / RATE
    at = np.flatnonzero(np.diff(np.floor(phase)) > 0) + 1
    own = 1 + uneven * rng.standard_normal(cylinders)
    train = np.zeros(len(rate))
    train[at] = own[np.arange(len(at)) % cylinders] * (1 + 0.1 * rng.standard_normal(len(at)))
    return train, (phase % 1).astype(np.float32)


def throttle(rng: np.random.Generator, samples: int, longest: float, lag: float) -> np.ndarray:
    """Speed under a hand on the throttle, 0 idle to 1 full, [samples]; pulled or let go every 0.3 to `longest` s.

    The engine follows with a time constant of `lag` seconds.
    """
    steps = np.cumsum(rng.uniform(0.3, longest, int(samples / RATE / 0.3) + 2))
    open_wide = (np.searchsorted(steps, seconds(samples)) + rng.integers(2)) % 2 * rng.uniform(0.7, 1)
    slow = np.exp(-1 / (lag * RATE))
    return lfilter([1 - slow], [1, -slow], open_wide, zi=[slow * open_wide[0]])[0]


def helicopter(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Helicopter: blades chop the air 9 to 20 times a second and gate its rush; tail rotor buzzes, turbine whines.

    Far air swallows the treble (some 30 dB at 8 kHz), and wind and echoes from the ground make the level drift.
    """
    scale, near = 2 ** (0.4 * pitch), rng.uniform(0.3, 1)
    beat = rng.uniform(9, 17) * scale * (1 + 0.01 * wander(rng, samples, 1))
    chops, phase = firing(rng, beat, 2, 0.08)
    slap = formants(chops, [(80, 30, 0.6), (160, 50, 1), (300, 90, 0.8), (700, 300, 0.25 * near)])
    gate = rng.uniform(0.3, 2.2 - 1.5 * near) + (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** rng.uniform(1, 2)
    steep = rng.uniform(12, 22) - 4 * near  # dB lost from 300 Hz to 1 kHz
    curve = [(30, -2), (90, 0), (300, -4), (1000, -4 - steep), (4000, -8 - 1.7 * steep), (8000, -14 - 2.3 * steep)]
    rush = coloured(rng, samples, curve, 0.5 * pitch)
    thump = coloured(rng, samples, [(30, -6), (90, 0), (300, -4), (700, -24), (8000, -70)], 0.5 * pitch)
    air = unit(gate * thump) + unit((1 + 0.8 * near**2 * (gate / np.mean(gate) - 1)) * rush)  # echoes fill the treble
    tail = bandpass(firing(rng, beat * rng.uniform(5, 6.5), 3, 0.1)[0], 60, 400, 1)
    mix = rng.uniform(0.1, 0.2 + 0.4 * near) * unit(slap) + 0.7 * air + rng.uniform(0.2, 0.5) * unit(tail)
    turbine = 2 * np.pi * rng.uniform(1200, 4800) * scale * seconds(samples)
    mix += rng.choice([0, 0.02, 0.06]) * np.sin(turbine + wander(rng, samples, 3))
    drift = np.exp(0.12 * wander(rng, samples, 1.5)) * np.linspace(*rng.uniform(0.5, 1, 2), samples)
    return to_peak(bandpass(mix * drift, 25, 8000, 1))


def chainsaw(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Chainsaw: a two-stroke fires once a turn, 60 Hz idling to 180 Hz cutting, with the rasp of chain and muffler."""
    high, steady = rng.uniform(110, 185) * 2 ** (0.4 * pitch), rng.uniform() < 0.4
    hand = 0.85 + 0.1 * wander(rng, samples, 2) if steady else throttle(rng, samples, 1.4, rng.uniform(0.07, 0.2))
    rate = high * (0.42 + 0.58 * hand) * (1 + 0.02 * wander(rng, samples, 12))
    pulses, phase = firing(rng, rate, 2, 0.12)
    peaks = [(140, 0.5), (260, 1), (600, 0.9), (1200, 0.8), (2300, 0.6), (4000, 0.3)]
    body = formants(pulses, [(f * rng.uniform(0.8, 1.25), f / 2.5, g) for f, g in peaks])
    rasp = coloured(rng, samples, [(60, -8), (300, -6), (1000, -1), (2500, 0), (5000, -8), (8000, -22)],
                    0.3 * pitch)  # fmt: skip
    rasp *= (0.3 + np.exp(-3 * phase)) * rng.uniform(0.3, 0.9)
    return to_peak(bandpass(np.tanh(1.2 * unit(body) + rasp), 60, 8000, 1) * (rate / high) ** 1.5)


def engine(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Engine: an idling diesel with its clatter, or a car that revs; each firing rings block and exhaust."""
    diesel, scale = rng.uniform() < 0.5, 2 ** (0.5 * pitch)
    idle = rng.uniform(17, 26) * scale if diesel else rng.uniform(26, 40) * scale
    revs = 1 if diesel else 1 + rng.uniform(1, 2.5) * throttle(rng, samples, 1.6, rng.uniform(0.25, 0.5))
    rate = idle * revs * (1 + 0.015 * wander(rng, samples, 6))
    pulses, phase = firing(rng, rate, 4, 0.2 if diesel else 0.08)
    exhaust = formants(pulses, [(85 * scale, 40, 1), (170 * scale, 80, 1), (330 * scale, 170, 0.8), (650, 350, 0.5)])
    clatter = formants(pulses, [(1100 * scale, 350, 1), (1900 * scale, 500, 1), (3200, 900, 0.7)])
    hiss = coloured(rng, samples, [(60, -4), (300, -2), (1500, -12), (8000, -34)], 0.4 * pitch)
    hiss *= 0.3 + np.exp(-3 * phase)
    mix = np.tanh(0.6 * (unit(exhaust) + (0.35 if diesel else 0.12) * unit(clatter) + 0.3 * hiss))
    return to_peak(bandpass(mix, 55, 8000, 2) * (rate / np.max(rate)) ** 0.5)


def siren(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Siren: a horn loudspeaker that wails (one sweep in 3 to 5 s), yelps (3 a second), or alternates two tones."""
    t, start = seconds(samples), rng.uniform(0, 1)
    low = rng.uniform(430, 650) * 2 ** (0.4 * pitch)
    model = rng.choice(["wail", "yelp", "two-tone"])
    if model == "two-tone":
        frequency = np.where((t / rng.uniform(0.45, 0.75) + start) % 2 < 1, low, low * rng.uniform(1.3, 1.4))
    else:
        turn = (t / (rng.uniform(3, 4.5) if model == "wail" else rng.uniform(0.25, 0.4)) + start) % 1
        rise = rng.uniform(0.4, 0.6) if model == "wail" else rng.uniform(0.6, 0.85)
        sweep = np.where(turn < rise, turn / rise, (1 - turn) / (1 - rise))
        frequency = low * rng.uniform(2, 2.6) ** (0.5 - 0.5 * np.cos(np.pi * sweep))
    tone = bandpass(buzz(frequency), 300, rng.uniform(900, 2200), 1)
    return to_peak(tone * swell(samples, 0.03, 0.05))


def church_bell(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Church bell, `count` strokes: hum, prime, minor third, fifth, nominal and above, some in slowly beating pairs."""
    starts, _ = turns(rng, samples, count, rng.uniform(1.3, 2.2))
    train = strikes(samples, starts, rng.uniform(0.8, 1, count))
    prime, long = rng.uniform(230, 420) * 2 ** (0.8 * pitch), rng.uniform(5, 9)
    partials = [(0.5, 1, 0.4), (1, 0.6, 0.6), (1.19, 0.5, 0.9), (1.5, 0.3, 0.4), (2, 0.35, 1), (2.51, 0.2, 0.5),
                (3.01, 0.18, 0.6), (4.1, 0.12, 0.4), (5.3, 0.08, 0.3), (6.6, 0.05, 0.2), (8.3, 0.02, 0.3)]  # fmt: skip
    bars = [(prime * ratio * rng.uniform(0.995, 1.005), long * time, gain) for ratio, time, gain in partials]
    pairs = [(frequency + rng.uniform(0.5, 2), time, 0.25 * gain) for frequency, time, gain in bars[:5]]
    return to_peak(modes(train, bars + pairs))


def telephone(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Telephone, `count` rings: a clapper between two small gongs 20 times a second, or an electronic warble."""
    starts, slot = turns(rng, samples, count, rng.uniform(1.4, 2.2))
    length, speed, scale = slot * rng.uniform(0.5, 0.65), rng.uniform(18, 24), 2 ** (0.5 * pitch)
    if rng.uniform() < 0.5:
        hits = [start + k / speed for start in starts for k in range(max(2, int(length * speed)))]
        gains, low = rng.uniform(0.7, 1, len(hits)), rng.uniform(1050, 1350) * scale
        bars = [(low, 0.35, 0.6), (2.43 * low, 0.25, 1.0), (4.2 * low, 0.12, 0.6)]
        first, second = (strikes(samples, hits[side::2], gains[side::2]) for side in (0, 1))
        return to_peak(modes(first, bars) + modes(second, [(1.21 * f, time, gain) for f, time, gain in bars]))
    low = rng.uniform(700, 1100) * scale
    frequency = np.where(seconds(samples) * speed % 1 < 0.5, low, low * rng.uniform(1.2, 1.35))
    return to_peak(gated(bandpass(buzz(frequency), 500, rng.uniform(1200, 4000), 1), starts, length, 0.005, 0.02))


def clock_tick(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Clock: the escapement locks and drops in two tiny clicks; tick and tock ring the case differently."""
    watch = rng.uniform() < 0.3
    every = rng.uniform(0.2, 0.25) if watch else rng.choice([0.5, 1.0, rng.uniform(0.35, 0.6)])
    base = (rng.uniform(2800, 4200) if watch else rng.uniform(900, 2000)) * 2 ** (0.5 * pitch)
    starts = np.arange(0.02 + min(every, samples / RATE / 2) * rng.uniform(0, 0.5), samples / RATE, every)
    gap, drop, ring = rng.uniform(0.006, 0.02), rng.uniform(0.3, 0.8), rng.uniform(0.8, 2.5)
    out = 0.003 * noise(rng, samples)
    for side, tune in ((0, 1), (1, rng.uniform(0.8, 0.95))):
        train = strikes(samples, starts[side::2], np.ones(len(starts[side::2])))
        train += strikes(samples, starts[side::2] + gap, np.full(len(starts[side::2]), drop))
        bars = [(1, 0.03, 1), (1.83, 0.02, 0.8), (2.7, 0.012, 0.7), (0.4, 0.03, 0.3)]
        out += modes(train, [(base * tune * r * rng.uniform(0.97, 1.03), ring * time, gain) for r, time, gain in bars])
    return to_peak(out)


def typing(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Typing: in bursts, each key clicks, hits the bottom, and clicks back up; the space bar is lower."""
    scale, speed = 2 ** (0.5 * pitch), rng.uniform(5, 9)
    out, at = 0.003 * noise(rng, samples), rng.uniform(0.01, 0.08)
    sharp, dull = rng.uniform(1800, 3200) * scale, rng.uniform(180, 320) * scale
    while at < samples / RATE:
        space, gain = 0.6 if rng.uniform() < 0.16 else 1.0, rng.uniform(0.5, 1)
        key = coloured(rng, 640, [(100, -20), (500, -8), (sharp * space, 0), (8000, -10)])
        key *= decay(640, rng.uniform(0.015, 0.035), 0.0008)
        place(out, key, at, gain)
        place(out, key, at + rng.uniform(0.06, 0.1), gain * rng.uniform(0.15, 0.35))
        thud = modes(strikes(640, [0.003], [0.5]), [(dull * rng.uniform(0.85, 1.15) * space, 0.03, 1.0)])
        place(out, thud, at, gain)
        at += rng.uniform(0.7, 1.4) / speed + (rng.uniform(0.15, 0.45) if rng.uniform() < 0.1 else 0)
    return to_peak(out)


def knock(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Knock, `count` raps: knuckles on a door panel, whose low modes die in 0.1 s, later in hollow doors."""
    starts, slot = turns(rng, samples, count, rng.uniform(0.2, 0.42))
    hollow, scale = rng.uniform() < 0.4, 2 ** (0.6 * pitch)
    base = (rng.uniform(110, 170) if hollow else rng.uniform(190, 320)) * scale
    ring = min(slot, rng.uniform(0.13, 0.2) if hollow else rng.uniform(0.06, 0.12))
    train = strikes(samples, starts, rng.uniform(0.75, 1, count))
    panel = [(1, 1, 1), (1.6, 0.9, 0.8), (2.4, 0.7, 0.7), (3.7, 0.5, 0.5), (5.6, 0.35, 0.4), (9.1, 0.2, 0.3)]
    wood = modes(train, [(base * r * rng.uniform(0.93, 1.07), ring * time, gain) for r, time, gain in panel])
    knuckles = scrapes(rng, train, 0.025, [(100, -12), (500, 0), (1500 * scale, -3), (4000, -16), (8000, -30)])
    return to_peak(wood + rng.uniform(0.4, 1.0) * knuckles)


# Ground models of footsteps: modes (Hz, seconds to -60 dB, gain), and the level of the sole's scrape.
GROUNDS = {
    "concrete": ([(160, 0.04, 0.6), (700, 0.02, 0.6), (1500, 0.02, 0.7), (2600, 0.015, 0.6), (4200, 0.01, 0.4)], 0.6),
    "wood": ([(85, 0.12, 1), (150, 0.1, 1), (270, 0.08, 0.7), (520, 0.05, 0.5), (1400, 0.02, 0.3)], 0.25),
    "gravel": ([(110, 0.06, 1.0)], 0.3),
}


def footsteps(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Footsteps: heel then sole, about two steps a second, on concrete (clack), gravel (crunch) or wood (thud)."""
    ground, scale = rng.choice(list(GROUNDS)), 2 ** (0.5 * pitch)
    every, roll = rng.uniform(0.42, 0.62) * 2 ** (-0.2 * pitch), rng.uniform(0.07, 0.12)
    starts = every * np.arange(int((samples / RATE - 0.02) / every) + 1)
    starts += 0.02 + 0.04 * every * rng.uniform(0, 1, len(starts))
    heel = strikes(samples, starts, rng.uniform(0.7, 1, len(starts)))
    sole = strikes(samples, starts + roll, rng.uniform(0.15, 0.4, len(starts)))
    bars, scraping = GROUNDS[ground]
    bars = [(f * scale * rng.uniform(0.85, 1.15), time * rng.uniform(0.8, 1.4), gain) for f, time, gain in bars]
    curve = [(100, -14), (600, 0), (2500 * scale, 0), (6000, -12), (8000, -20)]
    steps = modes(heel + sole, bars) + scraping * (scrapes(rng, heel, 0.03, curve) + scrapes(rng, sole, 0.1, curve))
    if ground == "gravel":
        grains = unit(formants(sparks(rng, samples, 900, 0.6), [(f * scale, f / 2, 1.0) for f in (1200, 2500, 4500)]))
        steps += gated(grains, list(starts), 0.24, 0.03, 0.2)
    return to_peak(steps)


def car_horn(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Car horn, `count` honks: two buzzing diaphragms a third apart, strongest from 1.5 to 4 kHz."""
    starts, slot = turns(rng, samples, count, rng.uniform(0.5, 1.5 if count == 1 else 0.9))
    low, third = np.full(samples, rng.uniform(340, 440) * 2 ** (0.4 * pitch)), rng.choice([1.19, 1.26])
    pair = buzz(low) + buzz(low * third * rng.uniform(0.995, 1.005))
    peaks = [(500, 300, 0.9), (1100, 600, 0.4), (2400, 900, 1.0), (3500, 1000, 0.5)]
    voice = formants(pair, [(f * 2 ** (0.3 * pitch), width, gain) for f, width, gain in peaks])
    return to_peak(gated(voice, starts, slot * rng.uniform(0.55, 0.72), 0.015, 0.03))


def alarm_beep(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Alarm, `count` beeps: a piezo's steady tone near 2 to 3 kHz, pure or buzzing, switched on and off."""
    starts, slot = turns(rng, samples, count, rng.uniform(0.35, 0.9))
    frequency = rng.uniform(1500, 2400) * 2 ** (0.5 * pitch)
    tone = bandpass(buzz(np.full(samples, frequency)), 0.7 * frequency, rng.choice([1.1, 3.0]) * frequency, 1)
    return to_peak(gated(tone, starts, min(slot * 0.62, rng.uniform(0.12, 0.5)), 0.003, 0.005))


SOUNDS = {
    "helicopter": helicopter,
    "chainsaw": chainsaw,
    "engine": engine,
    "siren": siren,
    "church_bell": church_bell,
    "telephone": telephone,
    "clock_tick": clock_tick,
    "typing": typing,
    "knock": knock,
    "footsteps": footsteps,
    "car_horn": car_horn,
    "alarm_beep": alarm_beep,
}
