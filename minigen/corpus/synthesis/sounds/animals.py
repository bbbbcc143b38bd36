"""Animals of the built-in corpus: the same source and filter as `voices.py`, other throats (and wings).

Every entry of SOUNDS is `sound(rng, samples, count, pitch)` -> float32 [samples] at 16 kHz with peak <= 1. `pitch` in
[-1, 1] goes from a large, deep animal to a small, high one.
"""

from collections.abc import Callable

import numpy as np

from minigen.corpus.synthesis.dsp import (
    RATE,
    bandpass,
    bend,
    decay,
    glide,
    noise,
    place,
    repeat,
    scaled,
    swell,
    to_peak,
    voiced,
    wander,
)


def dog_bark(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A bark: 0.1 to 0.3 s, hoarse; pitch leaps up and falls while the jaw opens and shuts. Small dogs yap."""
    small = np.clip(rng.uniform(0, 1) + 0.5 * pitch, 0, 1)
    fold = 330 * 2 ** (1.1 * small + rng.uniform(-0.2, 0.2) + 0.35 * pitch)
    jaw = 2 ** (0.7 * small - 0.35 + 0.15 * pitch) * rng.uniform(0.9, 1.1)
    rough, breath, bright = rng.uniform(0.1, 0.6), rng.uniform(0.2, 1.0), rng.uniform(0.03, 0.18)
    length = rng.uniform(0.2, 0.28) - 0.1 * small

    def bark(n: int) -> np.ndarray:
        top = rng.uniform(0.25, 0.4)
        curve = fold * rng.uniform(0.93, 1.07) * bend([(0, 0.7), (top, 1.1), (0.6, 1), (1, 0.6)], n)
        first = scaled([(0, 450), (top, 950), (0.6, 850), (1, 500)], jaw)
        second = scaled([(0, 1100), (top, 1700), (1, 1100)], jaw)
        mouth = [(first, 250 * jaw, 1), (second, 300 * jaw, 0.6), (3200 * jaw, 600, bright), (5500, 1200, 0.6 * bright)]
        voice = to_peak(bandpass(voiced(rng, curve, mouth, 1.2, breath, rough), 450 * jaw, 8000))
        start = bandpass(noise(rng, n), 500, 6000) * decay(n, 0.04, 0.004)
        body = bend([(0, 0), (0.08, 0.8), (top, 1), (0.5, 0.5), (0.75, 0.12), (1, 0)], n)
        return (voice * body + 0.03 * start) * rng.uniform(0.75, 1)

    return to_peak(repeat(rng, samples, count, length, bark, 0.6), 0.95)


def cat_meow(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A "m-ee-a-ow": pitch arches over 400 to 800 Hz while the mouth opens (first formant up) and rounds again."""
    fold = rng.uniform(430, 620) * 2 ** (0.45 * pitch)
    size = rng.uniform(0.9, 1.1) * 2 ** (0.3 * pitch)
    plaint, end, length = rng.uniform(0.08, 0.3), rng.uniform(0.6, 0.9), rng.uniform(0.55, 1.1)

    def meow(n: int) -> np.ndarray:
        top = rng.uniform(0.25, 0.5)
        drift = 1 + 0.012 * wander(rng, n, 6)
        curve = fold * drift * bend([(0, 0.8), (top, 1 + plaint), (0.8, 0.95), (1, end)], n)
        low = scaled([(0, 350), (0.12, 500), (0.5, 1300), (0.8, 1000), (1, 550)], size)
        high = scaled([(0, 1800), (0.12, 2500), (0.5, 2000), (0.8, 1500), (1, 1000)], size)
        mouth = [(low, 200, 1), (high, 300, 0.8), (3900 * size, 500, 0.4), (5600, 800, 0.2)]
        voice = to_peak(voiced(rng, curve, mouth, 0.8, 0.06, rng.uniform(0, 0.08)))
        return voice * bend([(0, 0), (0.08, 0.25), (0.2, 0.7), (0.5, 1), (0.8, 0.6), (1, 0)], n)

    return to_peak(repeat(rng, samples, count, length, meow), 0.9)


def rooster(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Cock-a-doodle-doo: three short syllables and a long one that holds, then falls; harmonics at 600 to 3000 Hz."""
    fold = rng.uniform(620, 900) * 2 ** (0.4 * pitch)
    size, rough, length = rng.uniform(0.85, 1.1) * 2 ** (0.25 * pitch), rng.uniform(0, 0.45), rng.uniform(1.6, 2.2)

    def crow(n: int) -> np.ndarray:
        a, b, c = np.array([0.12, 0.29, 0.4]) + rng.uniform(-0.02, 0.02, 3)
        e, fall = 0.012, rng.uniform(0.9, 1.1)
        curve = bend([(0, 0.7), (a / 2, 0.8), (a + 0.05, 0.78), (a + 0.09, 1), (b - 0.03, 1.02), (b, 0.92),
                      (b + 0.03, 1.05), (c - e, 1.05), (c, 0.96), (c + 0.05, 1.13), (0.65, 1.12), (0.9, fall),
                      (1, 0.85 * fall)], n)  # fmt: skip
        loud = glide([(0, 0), (e, 0.5), (a - e, 0.5), (a, 0), (a + 0.05, 0), (a + 0.05 + e, 0.9), (b - e, 0.9),
                      (b, 0.15), (b + e, 0.9), (c - e, 0.8), (c, 0.15), (c + 2 * e, 1), (0.75, 0.9), (0.93, 0.4),
                      (1, 0)], n)  # fmt: skip
        mouth = [(1500 * size, 450, 0.6), (2050 * size, 450, 1), (3600 * size, 900, 0.06), (6000, 1200, 0.015)]
        hoarse = rough * glide([(0, 1), (c, 1), (c + 0.1, 0.1), (0.9, 0.1), (1, 0.5)], n)
        return to_peak(voiced(rng, fold * curve, mouth, 0.9, 0.06 + 2 * hoarse, hoarse)) * loud

    return to_peak(repeat(rng, samples, count, length, crow), 0.9)


def bird_chirp(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A syrinx is nearly a pure tone at 2 to 6 kHz: phrases of slow whistles, of a fast trill, or of short chirps."""
    style = rng.integers(3)
    centre = rng.uniform(3000, 4200) * 2 ** (0.45 * pitch)
    notes = int((rng.integers(2, 4), rng.integers(8, 16), rng.integers(3, 6))[style])
    length = (rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.7))[style]
    filled, depth = (0.85, 0.6, 0.5)[style], (0.2, 0.35, 0.55)[style]
    shapes = rng.uniform(-depth, depth, (1 if style == 1 else 2, 3))  # octaves; whistles and chirps take turns of two

    def phrase(n: int) -> np.ndarray:
        out, slot = np.zeros(n), n // notes
        for i in range(notes):
            m = int(slot * filled)
            start, middle, end = shapes[i % len(shapes)]
            curve = np.minimum(centre * 2 ** bend([(0, start), (0.4, middle), (1, end)], m), 7200)
            phase = 2 * np.pi * np.cumsum(curve) / RATE
            tone = np.sin(phase) + 0.06 * np.sin(2 * phase) * (curve < 3700)
            place(out, tone * np.sin(np.pi * np.linspace(0, 1, m)) ** 0.7 * rng.uniform(0.7, 1), i * slot / RATE)
        return out

    return to_peak(repeat(rng, samples, count, length, phrase), 0.8)


def crickets(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Wings scrape: each stroke is a 10 to 20 ms pulse near 4.5 kHz, in chirps of 3 or 4 strokes or as a trill."""
    out = np.zeros(samples)
    trill = rng.uniform() < 0.35
    carrier = rng.uniform(4000, 4900) * 2 ** (0.4 * pitch)
    for gain in [1.0, *rng.uniform(0.1, 0.5, rng.integers(1, 4))]:
        stroke = rng.uniform(32, 50) if trill else rng.uniform(24, 32)
        beat = np.arange(samples) * stroke / RATE + rng.uniform(0, 20) + 0.15 * wander(rng, samples, 3)
        number, within = np.divmod(beat, 1)
        pulses = np.sin(np.pi * np.minimum(within / 0.6, 1)) ** 2
        if not trill:  # the first `strokes` of every `period` strokes sound, each louder than the last
            strokes, period = rng.integers(3, 5), rng.integers(9, 17)
            pulses *= (number % period < strokes) * (0.6 + 0.4 * (number % period) / strokes)
        phase = 2 * np.pi * carrier * rng.uniform(0.96, 1.04) / RATE * np.arange(samples)
        out += gain * np.sin(phase - 1.5 * within) * pulses  # the pitch of a stroke sinks a little as the wing slows
    return to_peak(out * swell(samples, 0.02, 0.05), 0.8)


def frog_croak(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A train of pulses, 40 to 110 a second, that ring in the throat sac: a "ribbit" rises, a bullfrog booms."""
    bull = rng.uniform() < 0.35 - 0.25 * pitch
    sac = (rng.uniform(300, 450) if bull else rng.uniform(900, 1500)) * 2 ** (0.45 * pitch)
    rate = rng.uniform(85, 115) if bull else rng.uniform(40, 75)
    length = rng.uniform(0.5, 0.8) if bull else rng.uniform(0.28, 0.5)

    def croak(n: int) -> np.ndarray:
        move = scaled([(0, 1), (1, 0.9)] if bull else [(0, 0.75), (0.35, 0.85), (0.45, 1.1), (1, 1.3)], sac)
        mouth = [(move, 0.2 * sac, 1), (scaled(move, 2.3), 0.4 * sac, 0.5), (3.8 * sac, sac, 0.1)]
        voice = to_peak(voiced(rng, rate * bend([(0, 0.9), (0.5, 1.05), (1, 0.95)], n), mouth, 0.6, 0.1, 0.1))
        two = [(0, 0), (0.08, 0.8), (0.33, 0.7), (0.4, 0.25), (0.5, 1), (0.85, 0.9), (1, 0)]
        return voice * glide([(0, 0), (0.15, 0.8), (0.5, 1), (0.8, 0.7), (1, 0)] if bull else two, n)

    return to_peak(repeat(rng, samples, count, length, croak), 0.9)


def cow_moo(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A "mmm-ooo": 80 to 200 Hz for 1.2 to 2.2 s, rich in harmonics; shut lips first (nasal), then the mouth opens."""
    fold = rng.uniform(95, 145) * 2 ** (0.5 * pitch)
    size = rng.uniform(0.9, 1.1) * 2 ** (0.25 * pitch)
    rough, rise, length = rng.uniform(0, 0.2), rng.uniform(1.1, 1.6), rng.uniform(1.3, 2.1)

    def moo(n: int) -> np.ndarray:
        opens = rng.uniform(0.15, 0.35)
        curve = fold * bend([(0, 0.75), (opens, 1), (0.6, rise), (0.85, 0.9 * rise), (1, 0.8)], n)
        first = scaled([(0, 220), (opens, 300), (0.55, 560), (0.85, 480), (1, 280)], size)
        second = scaled([(0, 700), (opens, 800), (0.55, 1080), (1, 700)], size)
        third = scaled([(0, 1500), (0.5, 2100), (1, 1500)], size)
        mouth = [(first, 110, 1), (second, 150, 0.7), (third, 300, 0.35), (3000 * size, 500, 0.15)]
        voice = to_peak(voiced(rng, curve, mouth, 0.6, 0.1, rough * glide([(0, 1), (0.5, 0.3), (1, 1)], n)))
        return voice * bend([(0, 0), (0.08, 0.3), (opens, 0.5), (0.55, 1), (0.85, 0.7), (1, 0)], n)

    return to_peak(repeat(rng, samples, count, length, moo), 0.9)


SOUNDS: dict[str, Callable] = {
    "dog_bark": dog_bark,
    "cat_meow": cat_meow,
    "rooster": rooster,
    "bird_chirp": bird_chirp,
    "crickets": crickets,
    "frog_croak": frog_croak,
    "cow_moo": cow_moo,
}
