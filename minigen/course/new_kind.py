"""Kinds of sound that the built-in corpus lacks, for the lessons on retrieval and on fine-tuning.

    recordings("owl", count=10, seed=0)  ─► [10, 1, 64000]        NEW_KINDS["owl"].captions ─► "an owl hoots", ...

No model, judge or tagger was trained on them. Some resemble kinds of the corpus: a sheep bleats somewhat like a cow
moos, a woodpecker drums as if it knocked. Others do not: no sound of the corpus glides like a slide whistle, which is
the kind that notebook 15 fine-tunes to.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigen.corpus.synthesis.dsp import (
    RATE,
    bandpass,
    bend,
    buzz,
    decay,
    formants,
    glide,
    noise,
    place,
    resonate,
    seconds,
    swell,
    to_peak,
    voiced,
    wander,
)

SECONDS = 4.0
PAUSES = (0.1, 0.5)  # shortest and longest pause between two sounds, in seconds


def slide_whistles(count: int, seed: int) -> Tensor:
    """`count` recordings of slide whistles of 4 s: float32 [count, 1, 64000] at 16 kHz, peak 0.5."""
    return recordings("slide whistle", count, seed)


def recordings(kind: str, count: int, seed: int) -> Tensor:
    """`count` recordings of a new kind, each of 4 s: float32 [count, 1, 64000] at 16 kHz, peak 0.5.

    kind: a key of `NEW_KINDS`.
    """
    rng = np.random.default_rng(seed)
    make = NEW_KINDS[kind].recording
    return torch.from_numpy(np.stack([to_peak(make(rng), 0.5) for _ in range(count)])).float()[:, None]


def _row(make: Callable[[np.random.Generator], np.ndarray]) -> Callable[[np.random.Generator], np.ndarray]:
    """A function that makes a recording out of sounds of `make`, one after the other with short pauses."""

    def recording(rng: np.random.Generator) -> np.ndarray:
        out, start = np.zeros(round(SECONDS * RATE)), rng.uniform(0, 0.3)
        while start < SECONDS - 0.2:
            sound = make(rng)
            place(out, sound, start)
            start += len(sound) / RATE + rng.uniform(*PAUSES)
        return out

    return recording


def _whistle(rng: np.random.Generator) -> np.ndarray:
    """One recording: glides of 0.5 to 1.2 s between a low and a high pitch, with short pauses, [samples]."""
    samples = round(SECONDS * RATE)
    low, high = rng.uniform(500, 800), rng.uniform(1400, 2400)
    sound, first = np.zeros(samples), round(rng.uniform(0, 0.3) * RATE)
    rising = rng.random() < 0.5
    while first < samples - RATE // 4:
        length = min(round(rng.uniform(0.5, 1.2) * RATE), samples - first)
        ends = (low, high) if rising else (high, low)
        sound[first : first + length] = _glide(rng, *ends, length)
        first, rising = first + length + round(rng.uniform(0.02, 0.25) * RATE), not rising
    return sound


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


def _woodpecker(rng: np.random.Generator) -> np.ndarray:
    """A burst of 8 to 15 knocks on wood, about 20 a second, each softer than the one before."""
    knocks, rate, pitch = rng.integers(8, 16), rng.uniform(16, 24), rng.uniform(900, 1600)
    sound = np.zeros(round((knocks / rate + 0.15) * RATE))
    for number in range(knocks):
        knock = resonate(noise(rng, 1600) * decay(1600, 0.02, 0.0005), pitch, 250) * decay(1600, 0.08)
        place(sound, knock, number / rate, 1 - 0.5 * number / knocks)
    return sound


def _foghorn(rng: np.random.Generator) -> np.ndarray:
    """A long, low tone with many partials."""
    samples, pitch = round(rng.uniform(1.2, 2.2) * RATE), rng.uniform(95, 160)
    horn = buzz(np.full(samples, pitch) * (1 + 0.003 * wander(rng, samples, 5)))
    return formants(horn, [(300, 120, 1.0), (600, 150, 0.6), (1100, 250, 0.2)]) * swell(samples, 0.15, 0.25)


def _owl(rng: np.random.Generator) -> np.ndarray:
    """Three soft tones of one pitch: a longer one, a short one, a long one."""
    pitch, parts = rng.uniform(320, 460), []
    for length in (rng.uniform(0.25, 0.35), rng.uniform(0.12, 0.18), rng.uniform(0.5, 0.7)):
        samples = round(length * RATE)
        phase = _phase(pitch * bend([(0, 0.95), (0.3, 1.02), (1, 0.93)], samples))
        tone = np.sin(phase) + 0.12 * np.sin(2 * phase) + 0.02 * noise(rng, samples)
        parts += [tone * swell(samples, 0.06, 0.08), np.zeros(round(0.12 * RATE))]
    return np.concatenate(parts)


def _kettle(rng: np.random.Generator) -> np.ndarray:
    """A high whistle that rises and stays, with steam."""
    samples, pitch = round(rng.uniform(1.5, 3) * RATE), rng.uniform(2000, 2900)
    phase = _phase(pitch * glide([(0, 0.75), (0.4, 1), (1, 1.01)], samples) * (1 + 0.004 * wander(rng, samples, 12)))
    steam = 0.4 * bandpass(noise(rng, samples), 1500, 6000)
    return (np.sin(phase) + 0.2 * np.sin(2 * phase) + steam) * swell(samples, 0.4, 0.15)


def _sheep(rng: np.random.Generator) -> np.ndarray:
    """A bleat: a voice that is interrupted about eight times a second."""
    samples, pitch = round(rng.uniform(0.6, 1.0) * RATE), rng.uniform(180, 280)
    tremble = 1 + 0.3 * np.sign(np.sin(2 * np.pi * rng.uniform(7, 10) * seconds(samples)))
    mouth = [(750, 120, 1.0), (1700, 180, 0.7), (2600, 250, 0.4)]
    voice = voiced(rng, pitch * bend([(0, 0.95), (0.4, 1.05), (1, 0.85)], samples), mouth, 1.0, 0.15, 0.3)
    return voice * tremble * swell(samples, 0.05, 0.12)


def _bicycle_bell(rng: np.random.Generator) -> np.ndarray:
    """Two or three strokes on a small bell."""
    samples, pitch = round(0.9 * RATE), rng.uniform(2200, 2900)
    sound, time = np.zeros(samples), seconds(samples)
    for stroke in range(rng.integers(2, 4)):
        partials = ((1, 1, 0.9), (1.51, 0.5, 0.6), (2.3, 0.3, 0.35))  # pitch, level, seconds
        bell = sum(a * np.sin(2 * np.pi * pitch * m * time) * decay(samples, d) for m, a, d in partials)
        place(sound, bell, 0.16 * stroke)
    return sound


def _vacuum_cleaner(rng: np.random.Generator) -> np.ndarray:
    """One recording: a motor's hum in the noise of air."""
    samples = round(SECONDS * RATE)
    motor = buzz(np.full(samples, rng.uniform(220, 330)) * (1 + 0.002 * wander(rng, samples, 3)))
    return (0.5 * motor + bandpass(noise(rng, samples), 300, 3500)) * swell(samples, 0.3, 0.3)


def _duck(rng: np.random.Generator) -> np.ndarray:
    """A short, nasal, falling quack."""
    samples, pitch = round(rng.uniform(0.14, 0.22) * RATE), rng.uniform(190, 260)
    mouth = [(1100, 150, 1.0), (2000, 250, 0.8), (3000, 300, 0.4)]
    voice = voiced(rng, pitch * bend([(0, 1.1), (0.3, 1.15), (1, 0.8)], samples), mouth, 0.6, 0.2, 0.35)
    return voice * swell(samples, 0.01, 0.05)


def _phase(pitch: np.ndarray) -> np.ndarray:
    """Phase in radians of a tone along a pitch curve in Hz, [samples]."""
    return 2 * np.pi * np.cumsum(pitch) / RATE


class NewKind(NamedTuple):
    """A kind of sound. recording: makes 4 s, [64000]. captions: of its recordings. asked: other captions of it."""

    recording: Callable[[np.random.Generator], np.ndarray]
    captions: tuple[str, ...]
    asked: tuple[str, ...]


NEW_KINDS = {
    "slide whistle": NewKind(
        _whistle,
        ("a slide whistle glides up and down", "a slide whistle plays", "the sound of a slide whistle",
         "a slide whistle slides up", "someone plays a slide whistle"),
        ("somebody blows a slide whistle", "a slide whistle goes up", "a slide whistle falls and rises"),
    ),
    "woodpecker": NewKind(
        _row(_woodpecker),
        ("a woodpecker drums", "the drumming of a woodpecker", "a woodpecker hammers", "a woodpecker in a tree"),
        ("a woodpecker drums on a trunk", "a woodpecker hammers again and again", "a woodpecker works on a tree"),
    ),
    "foghorn": NewKind(
        _row(_foghorn),
        ("a foghorn sounds", "the sound of a foghorn", "a foghorn blows", "a foghorn at sea"),
        ("a foghorn blares", "a distant foghorn sounds", "a foghorn sounds again and again"),
    ),
    "owl": NewKind(
        _row(_owl),
        ("an owl hoots", "the hooting of an owl", "an owl calls", "an owl at night"),
        ("an owl hoots in the dark", "an owl hoots again and again", "somewhere an owl calls"),
    ),
    "kettle": NewKind(
        _row(_kettle),
        ("a kettle whistles", "the whistling of a kettle", "a kettle boils", "a kettle on a stove"),
        ("a kettle whistles loudly", "a kettle whistles on the stove", "a kettle starts to whistle"),
    ),
    "sheep": NewKind(
        _row(_sheep),
        ("a sheep bleats", "the bleating of a sheep", "a sheep calls", "a sheep on a meadow"),
        ("a sheep bleats loudly", "a sheep bleats again and again", "somewhere a sheep bleats"),
    ),
    "bicycle bell": NewKind(
        _row(_bicycle_bell),
        ("a bicycle bell rings", "the ringing of a bicycle bell", "a bicycle bell", "a bicycle rings its bell"),
        ("a bicycle bell rings twice", "somebody rings a bicycle bell", "a bicycle bell rings in the street"),
    ),
    "vacuum cleaner": NewKind(
        _vacuum_cleaner,
        ("a vacuum cleaner runs", "the noise of a vacuum cleaner", "a vacuum cleaner hums", "a vacuum cleaner"),
        ("a vacuum cleaner whirs", "somebody uses a vacuum cleaner", "a vacuum cleaner hums loudly"),
    ),
    "duck": NewKind(
        _row(_duck),
        ("a duck quacks", "the quacking of a duck", "a duck calls", "a duck on a pond"),
        ("a duck quacks loudly", "a duck quacks again and again", "somewhere a duck quacks"),
    ),
}  # fmt: skip
CAPTIONS = NEW_KINDS["slide whistle"].captions
