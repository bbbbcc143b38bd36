"""Integrated loudness of a clip (ITU-R BS.1770-4), and clips matched to one loudness.

    wav --K-weighting--> blocks of 0.4 s --mean square--> gate: silent blocks left out --mean--> LUFS

Listeners tend to prefer the louder of two clips, so the clips of a listening test are compared at one loudness. A plain
root mean square is no measure of it. It weights 50 Hz like 3 kHz, which the ear does not; the K-weighting corrects that
(+4 dB above 2 kHz, less below 40 Hz). It also rates a bark in silence lower than the same bark in rain; the gate
corrects that by leaving out blocks below -70 LUFS, or 10 LU below the others.
"""

import numpy as np
from torch import Tensor

from minigen.audio import SAMPLE_RATE

TARGET = -23.0  # LUFS, the level of broadcasting in EBU R128
PEAK = 0.95  # largest absolute sample after matching; above 1 a file would clip
SILENCE = -70.0  # LUFS; quieter blocks are left out of the mean, and quieter clips are not amplified
# The two filters of BS.1770-4, tables 1 and 2: numerator and denominator in z^-1, at 48 kHz
HEAD = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)


def loudness(wav: Tensor, sample_rate: int = SAMPLE_RATE) -> float:
    """Integrated loudness of one mono clip in LUFS: -inf for silence, about -3 for a full-scale sine of 1 kHz.

        -0.691 + 10 log10(mean over blocks of the mean square of the K-weighted samples)

    Blocks last 0.4 s and start every 0.1 s. Blocks above -70 LUFS are kept, and of these the blocks within 10 LU of
    their mean. A clip shorter than a block is one block. wav: [..., samples], one clip.

    Source: ITU-R BS.1770-4, annex 1.
    """
    powers = _blocks(_k_weighted(wav.detach().cpu().double().flatten().numpy(), sample_rate), sample_rate)
    powers = powers[_lufs(powers) > SILENCE]
    if not len(powers):
        return -np.inf
    return float(_lufs(powers[_lufs(powers) > _lufs(powers.mean()) - 10].mean()))


def match_loudness(wavs: list[Tensor], sample_rate: int = SAMPLE_RATE, target: float = TARGET) -> list[Tensor]:
    """Clips scaled to `target` LUFS.

    If a sample of any clip would exceed 0.95, all clips are scaled down by one factor and stay equally loud.
    Silence stays silence.
    """
    levels = [loudness(wav, sample_rate) for wav in wavs]
    gains = [10 ** ((target - level) / 20) if level > SILENCE else 0.0 for level in levels]
    peak = max((gain * float(wav.abs().max()) for wav, gain in zip(wavs, gains, strict=True)), default=0.0)
    return [wav * (gain * PEAK / max(peak, PEAK)) for wav, gain in zip(wavs, gains, strict=True)]


def _k_weighted(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Both filters, applied to the spectrum: exact at any sample rate."""
    spectrum = np.fft.rfft(samples, 2 * len(samples))  # zero-padded: the end must not wrap around to the start
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * len(samples), 1 / sample_rate) / 48000)
    for (b0, b1, b2), (a0, a1, a2) in (HEAD, HIGH_PASS):
        spectrum = spectrum * (b0 + b1 * z + b2 * z**2) / (a0 + a1 * z + a2 * z**2)
    return np.fft.irfft(spectrum)[: len(samples)]


def _blocks(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean square of each block: [samples] -> [blocks]."""
    length, step = min(len(samples), round(0.4 * sample_rate)), round(0.1 * sample_rate)
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::step]
    return (windows**2).mean(axis=1)


def _lufs(power: np.ndarray) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))
