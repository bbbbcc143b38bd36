"""What the codec knows before any step of training: its encoder, codebooks and outline, by linear algebra alone.

    features --principal components--> latents --k-means, stage by stage--> codes --look-up--> sums of entries
                                                       three frames of sums --least squares--> log |S| of the middle one

No gradient reaches the codes, and none is needed: the components keep nearly all of the features' variance, pitch with
it, and residual k-means is how EnCodec's codebooks begin (arXiv 2210.13438, section 3.2). Minutes on one core; what is
left for training is to draw a sound from the codes (`codec.py`).
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.codec import Codec
from minigen.engine.errors import MinigenError
from minigen.quantizer import VectorQuantizer

SILENCE = 1e-4  # least magnitude that the outline aims at
ROUNDS = 15  # of k-means
RIDGE = 1e-3  # of the mean diagonal: two columns that always agree share their weight


@torch.no_grad()
def fit_codec(codec: Codec, clips: Callable[[], Iterable[Tensor]], generator: torch.Generator, vectors: int) -> None:
    """Set encoder, codebooks and outline of a codec from sounds, in three passes over them.

    Args:
        codec: changed in place; its decoder's blocks are left as they are.
        clips: starts a pass: waveforms [1, 1, samples], the same in every pass.
        generator: chooses the vectors of the k-means and where its entries begin.
        vectors: how many latents the k-means sees at most.

    Raises:
        MinigenError: fewer frames than a codebook has entries.
    """
    _set_encoder(codec, (codec.features(wav)[0] for wav in clips()))
    latents = torch.cat([codec.latents(wav)[0] for wav in clips()])
    chosen = torch.randperm(len(latents), generator=generator)[:vectors]
    left = latents[chosen.to(latents.device)]
    for stage in codec.quantizer.stages:
        _set_codebook(stage, left, generator)
        left = left - stage.decode(stage.encode(left))
    _set_outline(codec, clips())


def _set_encoder(codec: Codec, features: Iterable[Tensor]) -> None:
    """Rows of the weight: the directions in which features [T, F] vary most; the bias moves their mean to 0."""
    count, total, square = 0, 0.0, 0.0
    for x in features:
        x = x.double()
        count, total, square = count + len(x), total + x.sum(0), square + x.T @ x
    if count < codec.codebook_size:
        raise MinigenError(f"a codebook needs at least {codec.codebook_size} frames, got {count}. Give more audio.")
    mean = total / count
    directions = torch.linalg.eigh(square / count - torch.outer(mean, mean)).eigenvectors  # from least to most variance
    weight = directions[:, -codec.config.latent :].flip(1).T
    codec.encoder.weight.copy_(weight)
    codec.encoder.bias.copy_(-(weight @ mean))


def _set_codebook(stage: VectorQuantizer, x: Tensor, generator: torch.Generator) -> None:
    """k-means on vectors [n, D], evener than the plain one of `VectorQuantizer.start`.

    A vector counts with one over its squared distance (plus a tenth of the median) in the mean of those that chose an
    entry, so that a few odd ones far out do not own the codebook; idle entries move into crowds until the last rounds.
    """
    stage.codebook.copy_(x[torch.randperm(len(x), generator=generator)[: len(stage.codebook)]])
    for left in reversed(range(ROUNDS)):
        codes = stage.encode(x)
        distance = (x - stage.decode(codes)).square().sum(1)
        weight = 1 / (distance + 0.1 * distance.median()).clamp(min=1e-9)
        shares = torch.zeros_like(stage.counts).index_add_(0, codes, weight)
        sums = torch.zeros_like(stage.codebook).index_add_(0, codes, x * weight[:, None])
        means = sums / shares[:, None].clamp(min=1e-9)
        stage.codebook.copy_(torch.where(shares[:, None] > 0, means, stage.codebook))
        if left > 3:
            _move_idle(stage, x, codes, generator)
    stage.settle()


def _move_idle(stage: VectorQuantizer, x: Tensor, codes: Tensor, generator: torch.Generator) -> None:
    """Put entries with less than 0.15 of the mean number of vectors where others have more than the mean."""
    counts = torch.bincount(codes, minlength=len(stage.codebook)).float()
    idle, crowded = counts < 0.15 * counts.mean(), counts > counts.mean()
    if idle.any() and crowded.any():
        chosen = torch.multinomial(crowded[codes].float().cpu(), int(idle.sum()), generator=generator)
        stage.codebook[idle] = x[chosen.to(x.device)]


def _set_outline(codec: Codec, clips: Iterable[Tensor]) -> None:
    """Least squares: A W = B with A = Σ zᵀz and B = Σ zᵀ log |S| over frames, z three frames of latents and a 1."""
    width, kernel = codec.config.latent, codec.outline.kernel_size[0]
    a = b = 0.0
    for wav in clips:
        z, target = (x.double() for x in _pair(codec, wav, kernel))
        a, b = a + z.T @ z, b + z.T @ target
    ridge = RIDGE * a.trace() / len(a) * torch.eye(len(a)).to(a)
    weight = torch.linalg.solve(a + ridge, b).float()
    codec.outline.weight.copy_(weight[:-1].T.reshape(-1, width, kernel))
    codec.outline.bias.copy_(weight[-1])


def _pair(codec: Codec, wav: Tensor, kernel: int) -> Iterator[Tensor]:
    """Of a waveform [1, 1, samples]: z [T, D · kernel + 1], and log |S| of the codec frames [T, parts · bins]."""
    latents = codec.quantizer.decode(codec.encode(wav))[0]
    edge = kernel // 2
    near = F.pad(latents, (0, 0, edge, edge)).unfold(0, kernel, 1).flatten(1)
    yield torch.cat([near, near.new_ones(len(near), 1)], 1)
    whole = F.pad(wav[:, 0], (0, -wav.shape[-1] % codec.config.hop))
    yield codec.spectrum(whole)[0].abs().clamp(min=SILENCE).log().view(len(latents), -1)
