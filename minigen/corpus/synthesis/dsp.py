"""Building blocks of the built-in corpus: noise, filters, envelopes, tones, vowels and rooms.

Sounds are float32 or float64 numpy arrays at 16 kHz. Random numbers come from the `numpy.random.Generator` passed in.
"""

from collections.abc import Callable

import numpy as np
from scipy import fft
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, lfilter, sosfilt

RATE = 16000


def seconds(samples: int) -> np.ndarray:
    """Time axis in seconds, [samples]."""
    return np.arange(samples) / RATE


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """White Gaussian noise of unit variance, [samples]."""
    return rng.standard_normal(samples)


def bandpass(x: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """Butterworth filter that keeps `low` to `high` Hz; low 0 makes it a low-pass, high from 8 kHz on a high-pass."""
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


def bend(points: list[tuple[float, float]], samples: int) -> np.ndarray:
    """`glide` without corners (monotone cubic through the points), [samples], for the pitch of voices."""
    knots = np.linspace(0, 1, 65)
    return np.interp(np.linspace(0, 1, samples), knots, PchipInterpolator(*zip(*points, strict=True))(knots))


def scaled(points: list[tuple[float, float]], factor: float) -> list[tuple[float, float]]:
    """The points of a `glide` with every value times `factor`, such as formants of a larger or smaller mouth."""
    return [(position, value * factor) for position, value in points]


def decay(samples: int, time: float, attack: float = 0.002) -> np.ndarray:
    """Envelope of a struck body: linear attack, then exponential decay by 60 dB in `time` seconds, [samples]."""
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
    """Add `sound` to `target` in place from `start` seconds on; it is cut at the end of `target`."""
    first = int(start * RATE)
    if first < len(target):
        piece = sound[: len(target) - first]
        target[first : first + len(piece)] += gain * piece


def room(rng: np.random.Generator, x: np.ndarray, time: float, wet: float) -> np.ndarray:
    """Add reverberation: convolution with noise that decays by 60 dB in `time` seconds, at level `wet`."""
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


def buzz(frequency: np.ndarray, subharmonic: float | np.ndarray = 0.0) -> np.ndarray:
    """Pulse train along a pitch curve in Hz [samples]: all partials below 7.5 kHz at equal strength, unit variance.

        sum of cos(n p) for n = 1..M  =  sin((M + 1/2) p) / (2 sin(p / 2)) - 1/2

    The closed form (Dirichlet kernel) costs the same for any number of partials and does not alias.
    subharmonic: 0 to 1, weakens every other pulse, as in rough voices.
    """
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    room_for = 7500 / frequency
    whole = np.floor(room_for)
    below = 2 * np.sin(phase / 2)
    top = np.abs(below) < 1e-7  # at the peak of a pulse the quotient is 0 / 0, and all cosines are 1
    pulses = np.where(top, whole, np.sin((whole + 0.5) * phase) / np.where(top, 1, below) - 0.5)
    pulses += (room_for - whole) * np.cos((whole + 1) * phase)  # the next partial fades in without a click
    return pulses * (1 + subharmonic * np.cos(phase / 2)) / np.sqrt(room_for / 2)


Peak = tuple[float | list[tuple[float, float]], float, float]


def moving_formants(x: np.ndarray, peaks: list[Peak], tilt: float = 0.0) -> np.ndarray:
    """Formants that move: `peaks` lists (frequency Hz or `glide` points, bandwidth Hz, gain), [samples].

    Overlapping 16 ms frames are filtered in the frequency domain by the sum of two-pole resonators
    b / (1 - u^2 + i u b), with u = f / frequency and b = bandwidth / frequency, then faded into each other. `tilt` also
    weakens high frequencies as f ** -tilt (1 kHz unchanged).
    """
    hop, size = 128, 512
    count = len(x) // hop + 2
    padded = np.zeros((count + 1) * hop, np.float32)
    padded[hop : hop + len(x)] = x
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop]
    window = (0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)).astype(np.float32)
    f = np.arange(size // 2 + 1, dtype=np.float32) * RATE / size
    gain = np.zeros((count, len(f)), np.complex64)
    for number, (frequency, width, level) in enumerate(peaks):
        track = glide(frequency, count) if isinstance(frequency, list) else np.full(count, frequency)
        u = f / track[:, None].astype(np.float32)
        b = (width / track[:, None]).astype(np.float32)
        gain += level * (-1) ** number * b / (1 - u * u + 1j * u * b)  # alternating signs: no notch between peaks
    gain *= (np.maximum(f, 100) / 1000) ** np.float32(-tilt)
    filtered = fft.irfft(fft.rfft(frames * window, size) * gain, size)
    out = np.zeros(((count + 4), hop), np.float32)
    for part in range(size // hop):
        out[part : part + count] += filtered[:, part * hop : (part + 1) * hop]
    return out.ravel()[hop : hop + len(x)]


def voiced(
    rng: np.random.Generator, pitch: np.ndarray, peaks: list[Peak], tilt: float = 1.0, breath: float = 0.1,
    rough: float | np.ndarray = 0.0,
) -> np.ndarray:  # fmt: skip
    """A voice: pulses of the vocal folds plus breath, filtered by the formants of a moving mouth, [samples].

    pitch: curve in Hz [samples]. peaks, tilt: see `moving_formants`. breath: level of turbulent noise relative to the
    pulses. rough: 0 to 1, a number or a curve: unsteady and doubled periods (a growl, a scream); at 0 there is the
    slight jitter and shimmer of every voice.
    """
    unsteady = 1 + (0.004 + 0.05 * rough) * wander(rng, len(pitch), 90)
    shimmer = 1 + (0.05 + 0.25 * rough) * wander(rng, len(pitch), 70)
    turbulence = lfilter([0.75, -0.65], [1], noise(rng, len(pitch)))
    source = buzz(pitch * unsteady, 0.8 * rough) * shimmer + breath * turbulence
    return moving_formants(source, peaks, tilt)


def repeat(
    rng: np.random.Generator, samples: int, count: int, length: float, make: Callable, loose: float = 0.3
) -> np.ndarray:
    """`count` sounds in a row, each made by `make(samples)` with a length of about `length` seconds, less if crowded.

    loose: largest random delay of a sound, as a share of the pause after it.
    """
    out = np.zeros(samples)
    slot = samples / max(count, 1)
    for i in range(max(count, 1)):
        size = max(32, int(min(length * rng.uniform(0.9, 1.1) * RATE, 0.8 * slot)))
        late = loose * rng.uniform() * (slot - size) * (i > 0)
        place(out, make(min(size, samples)), (i * slot + late) / RATE)
    return out
