"""How far a decoded sound is from the original: what the codec learns by, and what its card reports.

    mel_distance      |log mel(x) - log mel(y)|                how loud every band is, over five windows
    spectral_distance ||X|^.3 - |Y|^.3|                        single lines, which mel bands blur
    grain_distance    |std of the grain of x - that of y|      texture: noise decoded as a smooth surface is no noise
    size_distance     |log |X| - log size|                     the decoder's magnitudes before they sound
    turn_distance     1 - cos(turn of x - turn of y)           the frequency of a line, finer than a bin

Only the first two compare bin with bin. Grain is compared as a statistic, since no codec of 2 kb/s can say where each
grain lies. Sources: EnCodec (arXiv 2210.13438, section 3.4); moments of subbands as texture: McDermott and Simoncelli
(Neuron 71, 2011); phase from frame to frame: APNet (2305.07952).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 128))  # STFT window in samples, mel bands
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
    """The spectrogram's grain: log10 magnitude less its 5 × 5 local mean, and that mean; [B, bins, frames] each."""
    size = power.clamp(min=FLOOR).log10() / 2
    mean = F.avg_pool2d(size[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    return size - mean, mean


def window_distances(x: Tensor, y: Tensor, window: int, bands: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mel, spectral and grain distance of waveforms [B, 1, samples] for one window, from one pair of transforms.

    Grain: standard deviation over patches of 9 × 9 bins and frames, compared where the original is above -4.
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


def size_distance(spectrum: Tensor, size: Tensor) -> Tensor:
    """How wrong the named magnitudes are, before any of them sounds: bin by bin, phases left aside.

        mean |log10 |S| - log10 size| / 2  +  mean ||S|^0.3 - size^0.3| / 2

    What teaches the codes a pitch: harmonics stand in the bins long before the phases make lines of them.
    spectrum: complex [B, F, bins] of the original; size: [B, F, bins].
    """
    true, size = spectrum.abs().clamp(min=1e-3), size.clamp(min=1e-3)
    return ((true.log10() - size.log10()).abs().mean() + (true**0.3 - size**0.3).abs().mean()) / 2


def turn_distance(spectrum: Tensor, turn: Tensor, advance: Tensor) -> Tensor:
    """How wrong the named turns are: mean of 1 - cos(true - named), weighted by |S|^0.6 of the original.

    The true turn of a bin is the phase it gains from one frame to the next, beyond that of its own frequency.
    spectrum: complex [B, F, bins] of the original; turn: radians [B, F, bins]; advance: [bins].
    """
    gained = (spectrum[:, 1:] * spectrum[:, :-1].conj()).angle() - advance
    weight = spectrum[:, 1:].abs() ** 0.6
    return (weight * (1 - torch.cos(gained - turn[:, 1:]))).sum() / weight.sum().clamp(min=1e-3)


def roughness_ratio(original: Tensor, decoded: Tensor) -> float:
    """Standard deviation of the decoded clip's grain over the original's, where the original's local mean is above -3.

    Window 512, hop 128. 1 is a spectrogram as grainy as the original's, 0.6 one that looks ironed.
    """
    fine, mean = grain(power(original, 512))
    loud = mean > -3
    return float(grain(power(decoded, 512))[0][loud].std() / fine[loud].std())


def frame_lines(wav: Tensor, frame_rate: float, rate: int = 16000) -> float:
    """How far lines at multiples of the frame rate stand above what lies between them, in dB; [1, 1, samples].

    A decoder that says the same frame again and again makes a period of it: noise then hums. Power spectrum in windows
    of a second (bins of 1 Hz), mean over the lines from 100 Hz on; what was recorded shows 0, within a few tenths.
    """
    level = power(wav, rate).mean(2)[0].log10() * 10
    lines = (torch.arange(100 / frame_rate, 0.49 * rate / frame_rate) * frame_rate).round().long()
    between = torch.stack([level[lines + apart] for apart in (-17, -11, 11, 17)]).mean(0)
    return float((level[lines] - between).mean())


def perplexities(codes: Tensor, size: int) -> list[float]:
    """Perplexity of each codebook as a share of its entries, from codes int64 [K, n]: exp(entropy) / V."""
    shares = [torch.bincount(stream, minlength=size).double() / stream.numel() for stream in codes]
    return [float(torch.exp(-torch.special.xlogy(share, share).sum())) / size for share in shares]
