"""Voices of the built-in corpus: people and applause; `animals.py` holds the animals.

    pulses of the vocal folds ─┐
                               ├─► formants of throat and mouth, moving ─► loudness ─► one sound, placed `count` times
    breath noise ──────────────┘

Every entry of SOUNDS is `sound(rng, samples, count, pitch)` -> float32 [samples] at 16 kHz with peak <= 1. `pitch` in
[-1, 1] goes from large and deep to small and high. Source-filter model: Fant, "Acoustic theory of speech production".
"""

from collections.abc import Callable

import numpy as np

from minigen.corpus.synthesis.dsp import (
    RATE,
    bandpass,
    bend,
    decay,
    glide,
    moving_formants,
    noise,
    place,
    repeat,
    scaled,
    swell,
    to_peak,
    voiced,
    wander,
)
from minigen.corpus.synthesis.sounds import animals


def baby_cry(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Cries of 0.7 to 1.3 s at 350 to 550 Hz: a short throat puts formants near 1.1, 3 and 5 kHz; a gasp ends each."""
    fold = rng.uniform(400, 500) * 2 ** (0.4 * pitch)
    size = 2 ** (0.25 * pitch) * rng.uniform(0.9, 1.1)
    harsh = rng.choice([0.03, 0.35], p=[0.6, 0.4])
    tremor, bright, length = rng.uniform(5, 8), rng.uniform(0.4, 1.2), rng.uniform(0.85, 1.4)

    def cry(n: int) -> np.ndarray:
        inhale = int(0.16 * n)
        m = n - inhale
        top = rng.uniform(0.15, 0.6)
        curve = fold * bend([(0, 0.75), (0.08, 0.95), (top, rng.uniform(1.05, 1.25)), (0.85, 0.95), (1, 0.7)], m)
        curve *= 1 + 0.012 * np.sin(2 * np.pi * tremor * np.arange(m) / RATE) + 0.01 * wander(rng, m, 5)
        opening = scaled([(0, 700), (0.2, 1250), (0.8, 1200), (1, 800)], size)
        mouth = [(opening, 350, 1), (2900 * size, 600, bright), (4700 * size, 900, 0.6 * bright)]
        rough = harsh * rng.uniform(0.3, 1) * glide([(0, 0.3), (0.3, 0.3), (0.5, 1), (0.8, 1), (1, 0.3)], m)
        voice = to_peak(voiced(rng, curve, mouth, 0.7, 0.08 + 1.5 * rough, rough))
        swelling = bend([(0, 0), (0.06, 0.4), (rng.uniform(0.3, 0.6), 1), (0.85, rng.uniform(0.3, 0.8)), (1, 0)], m)
        voice *= rng.uniform(0.5, 1) * swelling * (1 + 0.2 * wander(rng, m, 7))
        gasp = rng.uniform(0, 0.05) * bandpass(noise(rng, inhale), 1500, 5000) * np.hanning(inhale)
        return np.concatenate([voice, gasp])

    return to_peak(repeat(rng, samples, count, length, cry), 0.9)


def sneeze(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """An "ah-tchoo": a quiet breath in, a rising vowel, a blast of air up to 7 kHz and a falling voice behind it."""
    fold = rng.uniform(190, 320) * 2 ** (0.5 * pitch)
    size = 2 ** (0.25 * pitch)
    vowel, tail, stop = rng.uniform(0.3, 1.1), rng.uniform(0.15, 1), rng.choice([0.0, 0.04])
    teeth, length = rng.uniform(2400, 4200) * size, rng.uniform(0.45, 0.8)
    soft, fast = rng.uniform(0.04, 0.15), rng.uniform(0.12, 0.4)  # shares of the blast: it rises, and falls to 0.4

    def one(n: int) -> np.ndarray:
        start, blast = int(0.25 * n), int(rng.uniform(0.42, 0.5) * n)
        inhale = 0.03 * bandpass(noise(rng, start), 1200, 4500) * np.linspace(0, 1, start) ** 2
        ah, tchoo = _ah(blast - start), _tchoo(n - blast)
        out = np.zeros(n)
        for sound, first, gain in ((inhale, 0, 1), (ah, start, vowel), (tchoo, blast, 1)):
            place(out, sound, first / RATE, gain)
        return out * rng.uniform(0.5, 1)  # no two are alike

    def _ah(n: int) -> np.ndarray:
        jaw = scaled([(0, 600), (0.6, 850), (1, 600)], size)
        mouth = [(jaw, 150, 1), (1500 * size, 250, 0.25), (2900 * size, 350, 0.25)]
        voice = voiced(rng, fold * bend([(0, 0.9), (0.8, 1.6), (1, 1.5)], n), mouth, 0.8, 0.25, 0.15)
        shut = min(stop * RATE / n, 0.3)  # the tongue stops the air before the blast
        return to_peak(voice) * glide([(0, 0), (0.2, 0.6), (0.6, 1), (0.95 - shut, 0.7), (0.99 - shut, 0), (1, 0)], n)

    def _tchoo(n: int) -> np.ndarray:
        air = [(scaled([(0, 1.3), (0.3, 1), (1, 0.6)], teeth), 1800, 1), (1500 * size, 500, 0.9), (6000, 1800, 0.7)]
        burst = to_peak(moving_formants(noise(rng, n), air, 0.3))
        burst *= bend([(0, 0), (soft, 1), (soft + fast, 0.4), (soft + 2 * fast, 0.1), (1, 0)], n)
        mouth = [(scaled([(0, 750), (1, 400)], size), 150, 1), (scaled([(0, 1700), (1, 900)], size), 200, 0.5)]
        voice = to_peak(voiced(rng, fold * bend([(0, 1.7), (0.3, 1.4), (1, 0.8)], n), mouth, 1, 0.2, 0.1))
        return burst + tail * voice * bend([(0, 0), (0.1, 0.8), (0.3, 0.5), (0.7, 0.1), (1, 0)], n)

    return to_peak(repeat(rng, samples, count, length, one, 0.7), 0.9)


def cough(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """The glottis bursts open (a broadband crack), air rushes through the throat, the folds may close with a bark."""
    fold = rng.uniform(130, 260) * 2 ** (0.5 * pitch)
    size = rng.uniform(0.9, 1.15) * 2 ** (0.25 * pitch)
    wet, close, length = rng.uniform(0, 0.5), rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.48)

    def one(n: int) -> np.ndarray:
        low = scaled([(0, 800), (0.3, 600), (1, 450)], size)
        throat = [(low, 220, 1), (1350 * size, 300, 1), (2600 * size, 500, 0.7), (4200 * size, 1300, 0.5)]
        air = noise(rng, n) * (1 + wet * np.clip(wander(rng, n, 45), -1, 2))
        rush = to_peak(moving_formants(air, throat, 0.4))
        rush *= bend([(0, 0), (0.02, 1), (0.15, 0.6), (0.3, 0.35), (0.7, 0.2), (1, 0)], n)
        voice = to_peak(voiced(rng, fold * bend([(0, 1.5), (0.3, 1.1), (1, 0.8)], n), throat, 0.9, 0.3, 0.3))
        voice *= bend([(0, 0), (0.03, 0.8), (0.12, 1), (0.3, 0.35), (0.6, 0.45), (1, 0)], n)
        return to_peak(rush + close * voice, rng.uniform(0.75, 1))

    return to_peak(repeat(rng, samples, count, length, one), 0.9)


def applause(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """A crowd: each person claps 3 to 5 times a second; a clap is 5 to 20 ms of noise that rings in cupped palms."""
    people = int(np.exp(rng.uniform(np.log(12), np.log(64))))
    claps = np.stack([_clap(rng, palm) for palm in rng.uniform(900, 2600, 32) * 2 ** (0.4 * pitch)])
    most = int(samples / RATE * 5) + 2
    gaps = rng.normal(1, 0.06, (people, most)) / rng.uniform(3, 5, (people, 1))
    times = np.cumsum(gaps, 1) - gaps[:, :1] * rng.uniform(0, 1, (people, 1))
    gain = rng.uniform(0.15, 1, (people, 1)) ** 2 * rng.uniform(0.7, 1.2, (people, most))  # near and far hands
    hands = rng.integers(len(claps), size=(people, 1)) ^ rng.integers(0, 2, (people, most))  # each has two claps
    heard = times < samples / RATE
    where = (times[heard] * RATE).astype(int)[:, None] + np.arange(claps.shape[1])
    out = np.bincount(where.ravel(), (claps[hands[heard]] * gain[heard, None]).ravel(), samples)[:samples]
    return to_peak(out * swell(samples, 0.02, 0.05), 0.9)


def _clap(rng: np.random.Generator, palm: float) -> np.ndarray:
    """One clap of 25 ms whose palms ring at `palm` Hz."""
    n = int(0.025 * RATE)
    strike = noise(rng, n) * decay(n, rng.uniform(0.012, 0.028), 0.0005)
    return to_peak(moving_formants(strike, [(palm, 0.5 * palm, 1), (2.6 * palm, palm, 0.4)], 0.2))


SOUNDS: dict[str, Callable] = {
    **animals.SOUNDS,
    "baby_cry": baby_cry,
    "sneeze": sneeze,
    "cough": cough,
    "applause": applause,
}
