"""Loudness: how loud a clip sounds, so that two can be compared at the same level. A louder clip wins a listening test.

    wav --K-weighting--> blocks of 0.4 s --mean square--> those that sound --mean--> LUFS          ITU-R BS.1770-4
            |  +4 dB above 2 kHz (the head), little below 40 Hz        all clips of a caption --gain--> one level

The root of the mean square counts 50 Hz as much as 3 kHz, and a bark in silence as quieter than a bark in rain. The
K-weighting mends the first, and leaving out silent blocks (below -70 LUFS, or 10 LU below the rest) the second.
"""

import numpy as np
from torch import Tensor

from minigen.audio import SAMPLE_RATE

TARGET = -23.0  # LUFS, EBU R128's level of broadcasting
PEAK = 0.95  # of the loudest sample after matching: above 1 a file would clip
SILENCE = -70.0  # LUFS; what lies below is left out of the mean, and is not amplified
# The two filters of BS.1770-4, tables 1 and 2: numerator and denominator in z^-1 at 48 kHz
HEAD = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)


def loudness(wav: Tensor, sample_rate: int = SAMPLE_RATE) -> float:
    """Integrated loudness of one mono clip in LUFS: -inf for silence, about -3 for a full-scale sine of 1 kHz.

        -0.691 + 10 log10(mean over blocks of the mean square of the K-weighted samples)

    Blocks of 0.4 s, one every 0.1 s; first those above -70 LUFS are kept, then those within 10 LU of their mean. A clip
    shorter than a block is one block. wav: [..., samples] holding one clip. Source: ITU-R BS.1770-4, annex 1.
    """
    powers = _blocks(_k_weighted(wav.detach().cpu().double().flatten().numpy(), sample_rate), sample_rate)
    powers = powers[_lufs(powers) > SILENCE]
    if not len(powers):
        return -np.inf
    return float(_lufs(powers[_lufs(powers) > _lufs(powers.mean()) - 10].mean()))


def match_loudness(wavs: list[Tensor], sample_rate: int = SAMPLE_RATE, target: float = TARGET) -> list[Tensor]:
    """The clips at one loudness: `target` LUFS, or less where a sample of any of them would exceed 0.95.

    All of them are turned down together then: they stay equally loud. Silence stays silence.
    """
    levels = [loudness(wav, sample_rate) for wav in wavs]
    gains = [10 ** ((target - level) / 20) if level > SILENCE else 0.0 for level in levels]
    peak = max((gain * float(wav.abs().max()) for wav, gain in zip(wavs, gains, strict=True)), default=0.0)
    return [wav * (gain * PEAK / max(peak, PEAK)) for wav, gain in zip(wavs, gains, strict=True)]


def _k_weighted(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """The weighting applied to the spectrum: its size counts, not its phase, and it is exact at any sample rate."""
    spectrum = np.fft.rfft(samples, 2 * len(samples))  # as much silence after it, so that the end is not the start
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * len(samples), 1 / sample_rate) / 48000)
    for (b0, b1, b2), (a0, a1, a2) in (HEAD, HIGH_PASS):
        spectrum = spectrum * (b0 + b1 * z + b2 * z**2) / (a0 + a1 * z + a2 * z**2)
    return np.fft.irfft(spectrum)[: len(samples)]


def _blocks(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean square of each block."""
    length, step = min(len(samples), round(0.4 * sample_rate)), round(0.1 * sample_rate)
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::step]
    return (windows**2).mean(axis=1)


def _lufs(power: np.ndarray) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))
