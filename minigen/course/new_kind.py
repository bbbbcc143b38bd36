"""A kind of sound that the built-in corpus lacks, for the lesson on retrieval: a slide whistle.

A tone glides up and down, with weak harmonics and breath. No model, judge or tagger was trained on it.
"""

import numpy as np
import torch
from torch import Tensor

from minigen.corpus.synthesis.dsp import RATE, bandpass, noise

CAPTIONS = ("a slide whistle glides up and down", "a slide whistle plays", "the sound of a slide whistle",
            "a slide whistle slides up", "someone plays a slide whistle")  # fmt: skip
SECONDS = 4.0


def slide_whistles(count: int, seed: int) -> Tensor:
    """`count` recordings of slide whistles of 4 s: float32 [count, 1, 64000] at 16 kHz, peak 0.5."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([_whistle(rng) for _ in range(count)])).float()[:, None]


def _whistle(rng: np.random.Generator) -> np.ndarray:
    """One recording: glides of 0.5 to 1.2 s between a low and a high pitch, with short pauses, [samples]."""
    samples = round(SECONDS * RATE)
    low, high = rng.uniform(500, 800), rng.uniform(1400, 2400)
    sound, place = np.zeros(samples), round(rng.uniform(0, 0.3) * RATE)
    rising = rng.random() < 0.5
    while place < samples - RATE // 4:
        length = min(round(rng.uniform(0.5, 1.2) * RATE), samples - place)
        ends = (low, high) if rising else (high, low)
        sound[place : place + length] = _glide(rng, *ends, length)
        place, rising = place + length + round(rng.uniform(0.02, 0.25) * RATE), not rising
    return 0.5 * sound / np.abs(sound).max()


def _glide(rng: np.random.Generator, start: float, end: float, samples: int) -> np.ndarray:
    """A tone from `start` to `end` Hz on a logarithmic scale, with vibrato, two harmonics and breath, [samples]."""
    time = np.arange(samples) / RATE
    share = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, samples))  # slow at both ends
    vibrato = 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(5, 7) * time)
    phase = 2 * np.pi * np.cumsum(start * (end / start) ** share * vibrato) / RATE
    tone = np.sin(phase) + 0.15 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase)
    breath = 0.1 * bandpass(noise(rng, samples), 1000, 6000)
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.03)
    return edge * (tone + breath)
