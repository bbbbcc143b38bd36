"""Bandwidth extension: a diffusion of latents makes the high bands that a muffled clip lacks. It needs no training.

    muffled clip ─► log spectra y of the bands below the cutoff ─┐
    noise ─► denoiser ─► x_0 ─► x_0 + A⁺ (y - A x_0) ◄────────────┘ at every step ─► latents ─► codec.synthesize

The codec's latents z are principal components of log spectra f: f ≈ Wᵀ (z - b), with the weight W and the bias b of its
encoder. The bands below the cutoff are therefore a linear function of the scaled components x_0,

    y = A x_0 + rest        A = (Wᵀ)_low · scale        rest: what the first C components leave out

and the step above replaces what the model predicts for the low bands by what was measured there. The high bands are
left to the model, which has learnt what goes with such low bands, and with the text. This is the null-space method of
DDNM (Wang et al., arXiv 2212.00490, equation 13) with the regularised inverse A⁺ = Aᵀ (A Aᵀ + r)⁻¹, r the variance of
the rest.

Symbols: B batch · T frames · F features of a frame · L those below the cutoff · C components · D latent width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.audio import check_waveform
from minigen.codec import Codec
from minigen.engine.errors import MinigenError
from minigen.engine.settings import TORCH_SEED, Range, check_number
from minigen.generate import TextToAudio
from minigen.generators.latent_diffusion import LatentDenoiser, LatentDiffusionGenerator
from minigen.guidance import Condition

MARGIN = 0.85  # bands up to this share of the cutoff count as measured: a filter is not steep
REST = 0.02  # r: variance of a log10 magnitude that 64 components leave out


def extend_bandwidth(
    tta: TextToAudio,
    wav: Tensor,
    caption: str | list[str] | None = None,
    cutoff: float = 2000.0,
    guidance: float = 3.0,
    steps: int = 50,
    seed: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Clips with high bands made anew: float32 [B, 1, samples] -> float32 [B, 1, T · hop].

    Args:
        tta: a pipeline with the generator "latent".
        wav: muffled clips in [-1, 1], at the codec's sample rate.
        caption: what is heard, one for all clips or one for each; None: the model is not told.
        cutoff: frequency in Hz up to which the clips are intact.
        guidance: strength of the caption.
        steps: see `LatentDiffusionGenerator.generate`.
        seed: the same seed gives the same sound.
        progress: whether to show a bar.

    Raises:
        MinigenError: another generator, a cutoff outside 200 Hz … half the sample rate, captions that do not fit.
    """
    generator = tta.generator
    if not isinstance(generator, LatentDiffusionGenerator) or generator.config.stride != 1:
        raise MinigenError(
            f"the {generator.name} generator cannot extend a clip. Use a latent one, such as mini-latent."
        )
    check_waveform(wav)
    check_number("cutoff", cutoff, Range(float, 200, tta.codec.sample_rate / 2))
    if seed is not None:
        check_number("seed", seed, TORCH_SEED)
    text = _condition(tta, caption, len(wav), generator.device)
    draw = None if seed is None else torch.Generator(generator.device).manual_seed(int(seed))
    constraint = low_bands(tta.codec, generator.model, wav, cutoff)
    frames = -(-wav.shape[-1] // tta.codec.config.hop)
    strength = 0.0 if caption is None else guidance  # without a caption one pass is enough
    made = generator.generate(text, frames, strength, draw, progress, steps, constraint=constraint)
    return tta.sound(made.to(wav.device))


def _condition(tta: TextToAudio, caption: str | list[str] | None, rows: int, device: torch.device) -> Condition:
    """States of the captions of `rows` clips; without a caption, states that are all masked."""
    if caption is None:
        captions = ["sound"] * rows  # any text: its states are masked
    else:
        captions = [caption] * rows if isinstance(caption, str) else caption
    if len(captions) != rows:
        raise MinigenError(f"{len(captions)} captions for {rows} clips. Give one, or one for each clip.")
    states, mask = tta.encoder(captions)  # [B, N, M], [B, N]
    return Condition(states.to(device), (mask & (caption is not None)).to(device))


@torch.no_grad()
def low_bands(codec: Codec, model: LatentDenoiser, wav: Tensor, cutoff: float) -> Callable[[Tensor], Tensor]:
    """Function that puts the low bands of clips into scaled components: x_0 [B, T, C] -> x_0 [B, T, C].

    wav: [B, 1, samples], intact up to `cutoff` Hz.
    """
    low = below(codec, MARGIN * cutoff)  # bool [F]
    weight = codec.encoder.weight[:, low]  # W of the low bands, [D, L]
    first = model.config.components
    matrix = (weight[:first] * model.scale[:, None]).T  # A [L, C]
    offset = (model.mean - codec.encoder.bias[:first]) @ weight[:first] - codec.encoder.bias[first:] @ weight[first:]
    measured = codec.features(wav)[..., low] - offset  # y [B, T, L]
    square = matrix @ matrix.T + REST * torch.eye(len(matrix), device=matrix.device)  # [L, L]
    inverse = torch.linalg.solve(square, matrix)  # (A⁺)ᵀ [L, C]

    def constrain(x0: Tensor) -> Tensor:
        return x0 + (measured - x0 @ matrix.T) @ inverse

    return constrain


def below(codec: Codec, hertz: float) -> Tensor:
    """Which of the codec's features see only frequencies below `hertz`: bool [F]."""
    features, config = codec.features, codec.config
    bins = torch.arange(config.long_window // 2 + 1) * config.sample_rate / config.long_window
    short = torch.arange(config.short_window // 2 + 1) * config.sample_rate / config.short_window
    highest = (features.bands.cpu().mT > 0).mul(short).amax(1)  # [bands], upper edge of each mel band
    return torch.cat([bins < hertz, (highest < hertz).repeat(4)]).to(features.weight.device)
