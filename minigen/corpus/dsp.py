"""Building blocks of the built-in corpus: noise, filters, envelopes, tones, vowels and rooms.

Everything is a float32 or float64 numpy array at 16 kHz. Chance comes from the `numpy.random.Generator` that is passed in.
"""

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

RATE = 16000


def seconds(samples: int) -> np.ndarray:
    """Time axis in seconds, [samples]."""
    return np.arange(samples) / RATE


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """White Gaussian noise of unit variance, [samples]."""
    return rng.standard_normal(samples)


def bandpass(x: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """Butterworth filter that keeps `low` to `high` Hz; low 0 makes it a low-pass, high at or over 8 kHz a high-pass."""
    if low <= 0:
        return sosfilt(butter(order, min(high, 7900), "low", fs=RATE, output="sos"), x)
    if high >= RATE / 2:
        return sosfilt(butter(order, low, "high", fs=RATE, output="sos"), x)
    return sosfilt(butter(order, (low, min(high, 7900)), "band", fs=RATE, output="sos"), x)


def resonate(x: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    """Two-pole resonator at `frequency` Hz with `bandwidth` Hz, unit gain at its peak (a formant, a struck bar)."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    angle = 2 * np.pi * frequency / RATE
    gain = (1 - radius) * np.sqrt(1 - 2 * radius * np.cos(2 * angle) + radius**2)
    return lfilter([gain], [1, -2 * radius * np.cos(angle), radius**2], x)


def formants(x: np.ndarray, peaks: list[tuple[float, float, float]]) -> np.ndarray:
    """Sum of parallel resonators: `peaks` lists (frequency Hz, bandwidth Hz, gain)."""
    return sum(gain * resonate(x, frequency, width) for frequency, width, gain in peaks)


def glide(points: list[tuple[float, float]], samples: int) -> np.ndarray:
    """Curve through (position 0..1, value) points, [samples]: pitch contours and envelopes."""
    where, values = zip(*points, strict=True)
    return np.interp(np.linspace(0, 1, samples), where, values)


def harmonics(frequency: np.ndarray, count: int, rolloff: float = 1.0) -> np.ndarray:
    """Harmonic tone along a pitch curve in Hz [samples]: partial n has amplitude n ** -rolloff, silent above 7.5 kHz."""
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    tone = np.zeros(len(frequency))
    for n in range(1, count + 1):
        tone += np.where(n * frequency < 7500, np.sin(n * phase), 0) * n**-rolloff
    return tone


def decay(samples: int, time: float, attack: float = 0.002) -> np.ndarray:
    """Envelope of a strike: linear attack, then exponential fall by 60 dB in `time` seconds, [samples]."""
    t = seconds(samples)
    return np.minimum(t / max(attack, 1e-4), 1) * np.exp(-6.9 * t / time)


def swell(samples: int, attack: float = 0.02, release: float = 0.05) -> np.ndarray:
    """Flat envelope with raised-cosine attack and release in seconds, [samples]."""
    t = seconds(samples)
    rise = np.clip(t / attack, 0, 1)
    fall = np.clip((samples / RATE - t) / release, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * fall))


def wander(rng: np.random.Generator, samples: int, rate: float) -> np.ndarray:
    """Smooth random curve of roughly unit variance that changes about `rate` times a second, [samples]."""
    knots = rng.standard_normal(max(2, int(samples / RATE * rate) + 3))
    position = np.linspace(0, len(knots) - 1.001, samples)
    return np.interp(position, np.arange(len(knots)), knots)


def place(target: np.ndarray, sound: np.ndarray, start: float, gain: float = 1.0) -> None:
    """Add `sound` to `target` in place from `start` seconds on; what reaches over the end is cut."""
    first = int(start * RATE)
    if first < len(target):
        piece = sound[: len(target) - first]
        target[first : first + len(piece)] += gain * piece


def spread(rng: np.random.Generator, count: int, samples: int, length: float, jitter: float = 0.2) -> list[float]:
    """Start times in seconds for `count` sounds of `length` seconds, evenly spread with jitter, none cut off."""
    total = samples / RATE
    slot = max(total - length, 0) / max(count, 1)
    return [max(0.0, slot * (i + jitter * rng.uniform(0, 1))) for i in range(count)]


def room(rng: np.random.Generator, x: np.ndarray, time: float, wet: float) -> np.ndarray:
    """Room: the sound plus its convolution with decaying noise of `time` seconds (60 dB) at level `wet`."""
    from scipy.signal import fftconvolve

    tail = int(time * RATE)
    response = noise(rng, tail) * np.exp(-6.9 * np.arange(tail) / tail)
    response = bandpass(response, 0, 4000, 1)
    response /= np.sqrt(np.sum(response**2)) + 1e-9
    return x + wet * fftconvolve(x, response)[: len(x)]


def to_peak(x: np.ndarray, peak: float = 1.0) -> np.ndarray:
    """Scale to a peak of `peak`, as float32; silence stays silence."""
    top = np.max(np.abs(x))
    return (x * (peak / top) if top > 1e-9 else x).astype(np.float32)
