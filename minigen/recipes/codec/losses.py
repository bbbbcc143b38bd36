"""Distances between an original and a decoded sound: the losses of the codec and the figures of its card.

    mel_distance      |log mel(x) - log mel(y)|              level of each band, with several windows
    spectral distance ||X|^.3 - |Y|^.3|                      single lines, which mel bands blur
    grain distance    |std of the grain of x - that of y|    roughness of the spectrogram
    texture_distance  |statistics of x - those of y|         level, modulation and contrast of the bands over seconds
    size_distance     |log |X| - log size|                   the decoder's magnitudes before the synthesis
    turn_distance     1 - cos(turn of x - turn of y)         frequency of a line, finer than a bin

The mel and the spectral distance compare bin with bin. Grain and texture are compared as statistics, because a codec of
2 kb/s cannot transmit where each grain of a noise lies. Sources: EnCodec (arXiv 2210.13438, section 3.4); statistics of
bands as texture: McDermott and Simoncelli (Neuron 71, 2011); phase from frame to frame: APNet (arXiv 2305.07952).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 128))  # STFT window in samples, mel bands
LONG = (4096, 160)  # one more for training only: it separates the harmonics of an engine, 4 Hz per bin
TEXTURES = ((1024, 320, 64), (512, 160, 48), (2048, 320, 96))  # STFT window and hop in samples, mel bands
SPEEDS = (0.4, 1.4, 3, 6, 12, 18, 25, 50)  # Hz, edges of the ranges of modulation
FLOOR = 1e-10  # of power: magnitudes are clamped at 1e-5


@lru_cache(maxsize=16)
def _mel(window: int, bands: int, rate: int) -> Tensor:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(window // 2 + 1, 0.0, rate / 2, bands, rate)


def power(x: Tensor, window: int) -> Tensor:
    """|STFT|² of waveforms [B, 1, samples], hop a quarter of the window: [B, bins, frames]."""
    z = torch.stft(x[:, 0], window, window // 4, window=torch.hann_window(window, device=x.device), return_complex=True)
    return z.real.square() + z.imag.square()


def log_mel_of(power: Tensor, window: int, bands: int, rate: int) -> Tensor:
    """log10 of mel magnitudes clamped at 1e-5, from |STFT|²: [B, frames, bands]."""
    magnitude = (power + 1e-12).sqrt().transpose(1, 2)
    return (magnitude @ _mel(window, bands, rate).to(power)).clamp(min=1e-5).log10()


def mel_distance(x: Tensor, y: Tensor, rate: int = 16000, scales: tuple = SCALES) -> Tensor:
    """Multi-scale log-mel distance of waveforms [B, 1, samples]: mean |log10 mel(x) - log10 mel(y)| over the scales.

    Magnitudes are clamped at 1e-5; 0.3 means a typical band is off by a factor of two.
    """
    pairs = [(log_mel_of(power(wav, window), window, bands, rate) for wav in (x, y)) for window, bands in scales]
    return torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()


def grain(power: Tensor) -> tuple[Tensor, Tensor]:
    """Grain of a spectrogram: log10 magnitude minus its 5 × 5 local mean, and that mean; [B, bins, frames] each."""
    size = power.clamp(min=FLOOR).log10() / 2
    mean = F.avg_pool2d(size[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    return size - mean, mean


def window_distances(x: Tensor, y: Tensor, window: int, bands: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mel, spectral and grain distance of waveforms [B, 1, samples] for one window, from one STFT of each.

    Grain: its standard deviation over patches of 9 × 9 bins and frames, compared where the original is above -4.
    """
    both = power(torch.cat([x, y]), window)
    a, b = log_mel_of(both, window, bands, 16000).chunk(2)
    u, v = ((both + 1e-7) ** 0.15).chunk(2)
    fine, mean = grain(both)
    deviation = (F.avg_pool2d(fine.square()[:, None], 9, 4, 4, count_include_pad=False) + 1e-6).sqrt()
    loud = F.avg_pool2d(mean[: len(x), None], 9, 4, 4, count_include_pad=False) > -4
    p, q = deviation.chunk(2)
    texture = ((p - q).abs() * loud).sum() / loud.sum().clamp(min=1)
    return (a - b).abs().mean(), (u - v).abs().mean(), texture


def texture_distance(x: Tensor, y: Tensor, window: int, hop: int, bands: int) -> Tensor:
    """Distance between the statistics of log10 mel power of waveforms [B, 1, samples] over the whole crop.

        mean |Δ mean| + 2 mean |Δ deviation| + mean |Δ modulation| / 2 + 5 mean |Δ contrast|

    Mean and deviation over time of each band; modulation: log10 power of the fluctuation of each four bands, in ranges
    of speed (an engine's level is steady, a noise of the same spectrum fluctuates); contrast: root mean square
    difference from the mean of three neighbouring bands (harmonics). Levels are relative to the loudest frame of x and
    clamped at -5. The weights bring the four to about the same size.
    """
    spectra = torch.stft(
        torch.cat([x, y])[:, 0], window, hop, window=torch.hann_window(window, device=x.device), return_complex=True
    )
    levels = (spectra.real.square() + spectra.imag.square()).transpose(1, 2) @ _mel(window, bands, 16000).to(x)
    levels = levels.clamp(min=1e-5).log10()  # [2 B, frames, bands]
    loudest = (10 ** levels[: len(x)]).sum(2).log10().amax(1)  # [B]
    levels = levels - torch.cat([loudest, loudest])[:, None, None]
    levels = F.softplus(8 * (levels + 5)) / 8 - 5  # a smooth clamp
    contrast = levels[:, :, 1:-1] - levels.unfold(2, 3, 1).mean(3)  # [2 B, frames, bands - 2]
    parts = (
        (1.0, levels.mean(1)),
        (2.0, (levels.var(1) + 1e-4).sqrt()),
        (0.5, _modulation(levels.unflatten(2, (-1, 4)).mean(3), 16000 / hop)),
        (5.0, (contrast.square().mean(1) + 1e-5).sqrt()),
    )
    return sum(weight * (part[: len(x)] - part[len(x) :]).abs().mean() for weight, part in parts)


def _modulation(levels: Tensor, rate: float) -> Tensor:
    """log10 power of the fluctuation of levels [n, frames, bands] in ranges of speed: [n, ranges, bands].

    rate: frames per second. Ranges above rate / 2, or too narrow for so few frames, are left out.
    """
    frames = levels.shape[1]
    power = torch.fft.rfft(levels - levels.mean(1, keepdim=True), dim=1).abs().square() / frames
    hertz = torch.arange(power.shape[1], device=levels.device) * rate / frames
    ranges = [(hertz >= low) & (hertz < high) for low, high in zip(SPEEDS, SPEEDS[1:], strict=False)]
    means = [power[:, inside].mean(1) for inside in ranges if inside.any()]
    return torch.stack(means, 1).clamp(min=1e-4).log10()


def size_distance(spectrum: Tensor, size: Tensor) -> Tensor:
    """Distance of the decoder's magnitudes from those of the original, bin by bin and without phases.

        mean |log10 |S| - log10 size| / 2  +  mean ||S|^0.3 - size^0.3| / 2

    It teaches pitch early in the training: the magnitudes show harmonics before the phases are good enough for lines.
    spectrum: complex [B, F, bins] of the original; size: [B, F, bins].
    """
    true, size = spectrum.abs().clamp(min=1e-3), size.clamp(min=1e-3)
    return ((true.log10() - size.log10()).abs().mean() + (true**0.3 - size**0.3).abs().mean()) / 2


def turn_distance(spectrum: Tensor, turn: Tensor, advance: Tensor) -> Tensor:
    """Distance of the decoder's turns from the true ones: mean of 1 - cos(true - turn), weighted by |S|^0.6.

    The true turn of a bin is its phase advance from one frame to the next beyond that of the bin's own frequency.
    spectrum: complex [B, F, bins] of the original; turn: radians [B, F, bins]; advance: [bins].
    """
    gained = (spectrum[:, 1:] * spectrum[:, :-1].conj()).angle() - advance
    weight = spectrum[:, 1:].abs() ** 0.6
    return (weight * (1 - torch.cos(gained - turn[:, 1:]))).sum() / weight.sum().clamp(min=1e-3)


def roughness_ratio(original: Tensor, decoded: Tensor) -> float:
    """Standard deviation of the decoded clip's grain over the original's, where the original's local mean is above -3.

    Window 512, hop 128. At 1 the spectrogram is as grainy as the original's; at 0.6 it is visibly too smooth.
    """
    fine, mean = grain(power(original, 512))
    loud = mean > -3
    return float(grain(power(decoded, 512))[0][loud].std() / fine[loud].std())


def frame_lines(wav: Tensor, frame_rate: float, rate: int = 16000) -> float:
    """Level of the lines at multiples of the frame rate above the level between them, in dB; wav [1, 1, samples].

    A decoder that repeats equal frames makes noise hum at the frame rate. Measured in power spectra of windows of one
    second (bins of 1 Hz), mean over the lines from 100 Hz on. Recordings have 0, within a few tenths.
    """
    level = power(wav, rate).mean(2)[0].log10() * 10
    lines = (torch.arange(100 / frame_rate, 0.49 * rate / frame_rate) * frame_rate).round().long()
    between = torch.stack([level[lines + apart] for apart in (-17, -11, 11, 17)]).mean(0)
    return float((level[lines] - between).mean())


def perplexities(codes: Tensor, size: int) -> list[float]:
    """Perplexity of each codebook as a share of its entries, from codes int64 [K, n]: exp(entropy) / V."""
    shares = [torch.bincount(stream, minlength=size).double() / stream.numel() for stream in codes]
    return [float(torch.exp(-torch.special.xlogy(share, share).sum())) / size for share in shares]
