"""Sounds of weather, water and fire for the built-in corpus: `SOUNDS` maps a kind to its synthesiser.

    sound(rng, samples, count, pitch) -> float32 [samples], 16 kHz, peak in (0, 1]

Two materials make them all: noise with a drawn spectrum (`coloured`), and showers of small impacts (`sparks`) that ring
resonators. Only thunder is countable; the other kinds are textures and ignore `count`. Rooms, levels and backgrounds
come later, from the scene mixer. `pitch` in [-1, 1] moves size: -1 is large and deep, +1 small and bright.
"""

import numpy as np
from scipy import fft
from scipy.signal import lfilter

from minigen.corpus.synthesis.dsp import RATE, formants, place, seconds, to_peak, wander

# Rain models: (drops a second, lowest and highest drop resonance in Hz, drop level over the hiss in dB)
RAIN = {
    "drizzle on leaves": (90, 1400, 5200, 2.0),
    "rain on a roof": (500, 350, 2600, 0.0),
    "downpour": (1500, 700, 4500, -7.0),
}


def unit(x: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 1; silence stays silence."""
    return x / (np.sqrt(np.mean(x**2)) + 1e-9)


def coloured(
    rng: np.random.Generator, samples: int, curve: list[tuple[float, float]], octaves: float = 0.0
) -> np.ndarray:
    """Gaussian noise of unit rms whose power density runs through the (Hz, dB) points of `curve`, moved up `octaves`.

    The spectrum is drawn directly, one complex normal number a bin, and transformed back; [samples] float32.
    """
    size = fft.next_fast_len(samples, real=True)
    hz, level = np.array(curve, float).T
    grid = np.geomspace(10, RATE / 2, 200)
    gain = 10 ** (np.interp(np.log(grid), np.log(hz) + octaves * np.log(2), level) / 20)
    bins = size // 2 + 1
    draw = rng.standard_normal((2, bins), dtype=np.float32)
    spectrum = (draw[0] + 1j * draw[1]) * np.interp(np.linspace(0, RATE / 2, bins), grid, gain).astype(np.float32)
    return unit(fft.irfft(spectrum, size)[:samples])


def sparks(rng: np.random.Generator, samples: int, rate: float, spread: float) -> np.ndarray:
    """Poisson impulses, `rate` a second, random sign, log-normal strength of `spread` nepers, [samples]."""
    train = np.zeros(samples)
    at = rng.integers(0, samples, max(3, rng.poisson(rate * samples / RATE)))
    train[at] = np.exp(spread * rng.standard_normal(len(at))) * rng.choice([-1, 1], len(at))
    return train


def modes(strikes: np.ndarray, bars: list[tuple[float, float, float]]) -> np.ndarray:
    """Modal synthesis: `strikes` [samples] ring damped sines, `bars` lists (Hz, seconds to -60 dB, gain)."""
    total = np.zeros(len(strikes))
    for frequency, time, gain in bars:
        if frequency < 7600:
            angle, radius = 2 * np.pi * frequency / RATE, 10 ** (-3 / (time * RATE))
            total += lfilter([gain * np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], strikes)
    return total


def rain(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Rain: a hiss of far drops below a shower of near ones, each a click that rings what it falls on."""
    rate, low, high, level = RAIN[rng.choice(list(RAIN))]
    low_end, high_end = rng.uniform(-12, 10), rng.uniform(-10, 3)
    bed = [(40, low_end), (200, rng.uniform(-6, 3)), (1000, 0), (4000, 0.7 * high_end), (7000, high_end - 2),
           (8000, high_end - 8)]  # fmt: skip
    hiss = coloured(rng, samples, bed, 0.7 * pitch) * (1 + 0.12 * wander(rng, samples, 3))
    drops = np.zeros(samples)
    for frequency in np.geomspace(low, high, 5) * rng.uniform(0.85, 1.15, 5) * 2 ** (0.5 * pitch):
        near = sparks(rng, samples, rate * rng.uniform(0.12, 0.3), 0.6)
        drops += formants(near, [(min(frequency, 7000), frequency / rng.uniform(2.5, 5), 1.0)])
    return to_peak(hiss + 10 ** ((level + rng.uniform(-3, 3)) / 20) * unit(drops))


def wind(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Wind: gusts make turbulence louder and brighter; a gap or a wire whistles at a pitch that follows the gust."""
    gust = np.clip(0.55 + 0.3 * wander(rng, samples, rng.uniform(0.6, 1.2)), 0.12, 1.4)
    gust *= 1 + 0.12 * wander(rng, samples, 6)
    body = coloured(rng, samples, [(30, -2), (80, 2), (250, 0), (600, -10), (1500, -24), (8000, -50)], 0.8 * pitch)
    leaves = coloured(rng, samples, [(100, -40), (600, -12), (2500, 0), (6000, -6), (8000, -12)], 0.4 * pitch)
    phase = np.cumsum(rng.uniform(280, 480) * 2 ** (0.8 * pitch) * (0.75 + 0.6 * gust)) * 2 * np.pi / RATE
    width = rng.choice([15, 60])  # Hz: a whistling wire, or a hollow moan
    howl = wander(rng, samples, width) * np.sin(phase) + wander(rng, samples, width) * np.cos(phase)
    howling, leafy = rng.choice([0.1, 0.4, 0.9]), rng.choice([0.03, 0.2])
    return to_peak(gust * body + howling * gust**2 * howl + leafy * gust**2 * leaves)


def sea_waves(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Waves: every 4 to 9 s a swell rises, crashes in all bands, and runs out as a hiss of foam."""
    t, total = seconds(samples).astype(np.float32), samples / RATE
    period = rng.uniform(4.5, 8.5) * 2 ** (-0.4 * pitch)
    crests = min(period, total) * rng.uniform(0.15, 0.75) + period * np.arange(-1, int(total / period) + 2)
    rise, fall = rng.uniform(0.3, 0.9), rng.uniform(0.7, 1.5)
    low, mid, high = np.full((3, samples), rng.uniform(0.06, 0.2), np.float32)
    for crest, size in zip(crests, rng.uniform(0.7, 1.2, len(crests)), strict=True):
        after, foaming = t - crest, t - crest - 0.4
        low += size * np.exp(-np.abs(after) / 0.9)
        mid += size * np.exp(np.minimum(after / rise, -after / fall))
        high += size * np.exp(np.minimum(foaming / rise, -foaming / 1.8))
    rumble = coloured(rng, samples, [(30, -12), (90, 0), (250, 0), (600, -10), (2000, -40)], 0.5 * pitch)
    crash = coloured(rng, samples, [(150, -24), (450, 0), (1200, -2), (3000, -12), (8000, -30)], 0.5 * pitch)
    foam = coloured(rng, samples, [(400, -40), (1500, -8), (3500, 0), (6000, -4), (8000, -10)], 0.4 * pitch)
    crash *= 1 + 0.25 * wander(rng, samples, 9)  # it boils
    foam *= np.exp(0.3 * wander(rng, samples, 25))  # and bursts, bubble by bubble
    return to_peak(rng.uniform(0.3, 0.9) * low * rumble + mid * crash + rng.uniform(0.2, 0.5) * high * foam)


def thunder(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Thunder, `count` claps: a torn crack when it is near, then the far ends of the channel roll in as rumble."""
    slot, near = samples // count, rng.uniform(0, 1)
    out = np.zeros(samples)
    for i in range(count):
        length = min(slot, int(rng.uniform(3, 6) * RATE))
        t = seconds(length)
        rumble = coloured(rng, length, [(20, -8), (60, 0), (130, -2), (300, -13), (900, -30), (8000, -60)], 0.7 * pitch)
        rolls = np.clip(0.6 + 0.35 * wander(rng, length, 5), 0.3, 1.5) * np.exp(-4.5 * np.arange(length) / length)
        crack = coloured(rng, length, [(80, -8), (300, 0), (1500, -5), (5000, -14), (8000, -20)], 0.7 * pitch)
        tears = np.abs(wander(rng, length, 45)) * np.exp(-t / rng.uniform(0.12, 0.35))
        attack = np.minimum(t / (0.005 + 0.15 * (1 - near) * min(1, length / RATE)), 1)
        place(out, attack * (rolls * rumble + near * 0.9 * tears * crack), i * slot / RATE, rng.uniform(0.75, 1))
    return to_peak(out)


def crackling_fire(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Fire: snaps of bursting wood, few loud and many faint, in flurries, over the flutter and hiss of the flames."""
    flurry, rate = np.exp(0.6 * wander(rng, samples, 4)), rng.uniform(12, 45)
    snaps = np.zeros(samples)
    for frequency in rng.uniform([700, 1500, 2800, 4200], [1300, 2600, 4200, 6000]) * 2 ** (0.5 * pitch):
        snaps += formants(sparks(rng, samples, rate / 4, 1.1), [(min(frequency, 7000), frequency / 4, 1.0)])
    flames = coloured(rng, samples, [(20, 0), (90, 0), (250, -10), (700, -24), (3000, -34), (8000, -40)], 0.4 * pitch)
    flames *= 1 + 0.3 * wander(rng, samples, 9)
    hiss = coloured(rng, samples, [(500, -30), (3000, 0), (7000, 0)])
    return to_peak(unit(snaps * flurry) + rng.uniform(0.5, 2.5) * flames + rng.uniform(0.02, 0.1) * hiss)


def stream(rng: np.random.Generator, samples: int, count: int, pitch: float) -> np.ndarray:
    """Running water: bubbles ring at Minnaert's pitch, 3 m/s over the radius, rising a little (van den Doel 2005)."""
    t = seconds(1200).astype(np.float32)
    frequency = np.exp(rng.normal(np.log(900), 0.55, (40, 1))).astype(np.float32) * np.float32(2 ** (0.7 * pitch))
    rising = frequency * t * (1 + rng.uniform(0, 6, (40, 1)).astype(np.float32) * t)
    bubbles = np.sin(2 * np.pi * rising) * np.exp(-np.maximum(92, 0.12 * frequency) * t)
    starts = rng.integers(0, samples, int(rng.uniform(120, 260) * samples / RATE) + 1)
    loudness = np.exp(0.7 * rng.standard_normal(len(starts)))
    out = np.zeros(samples + 1200)
    for start, which, gain in zip(starts, rng.integers(0, 40, len(starts)), loudness, strict=True):
        out[start : start + 1200] += gain * bubbles[which]
    rush = coloured(rng, samples, [(60, -22), (300, -6), (900, 0), (2500, -6), (8000, -24)], 0.6 * pitch)
    return to_peak(unit(out[:samples]) + rng.uniform(0.25, 0.7) * rush)


SOUNDS = {
    "rain": rain,
    "wind": wind,
    "sea_waves": sea_waves,
    "thunder": thunder,
    "crackling_fire": crackling_fire,
    "stream": stream,
}
