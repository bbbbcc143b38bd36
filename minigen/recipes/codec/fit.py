"""The parts of the codec that have a closed form: encoder, codebooks, restorer and outline.

    features --principal components--> latents z --k-means, stage by stage--> codes --look-up--> sums of entries q
                                                        nine frames of q --ridge regression--> z of the middle frame
                                                        three frames of z --least squares--> log |S| of the middle one

The codes need no gradient: the principal components keep nearly all of the variance of the features, and pitch with it,
and EnCodec's codebooks start from residual k-means, too (arXiv 2210.13438, section 3.2). The fit takes minutes on one
core. Training then learns to make sound from the codes (`train.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.codec import Codec, CodecConfig
from minigen.engine.errors import MinigenError
from minigen.quantizer import VectorQuantizer

SILENCE = 1e-4  # least magnitude in the outline's target
ROUNDS = 15  # of k-means
RIDGE = 1e-3  # relative to the mean diagonal of the normal equations
OPEN = 0.1  # share of the mean error of quantisation from which on the restorer's gate is open


@torch.no_grad()
def fit_codec(codec: Codec, clips: Callable[[], Iterable[Tensor]], generator: torch.Generator, vectors: int) -> None:
    """Set encoder, codebooks, restorer (where the codec has one) and outline from sounds, one pass over them for each.

    Args:
        codec: changed in place, but for the blocks of the decoder.
        clips: starts a pass: waveforms [1, 1, samples], the same in every pass.
        generator: chooses the vectors of the k-means and its first entries.
        vectors: number of latents that the k-means uses at most.

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
    if codec.restorer is not None:
        fit_restorer(codec, clips())
    _set_outline(codec, clips())


def add_restorer(codec: Codec) -> Codec:
    """A codec with the same weights and codes, and with locked phases and a restorer that changes nothing yet."""
    settings = asdict(codec.config) | {"restorer": True, "lock_phases": True}
    extended = Codec(CodecConfig(**settings)).to(codec.encoder.weight.device)
    extended.load_state_dict(codec.state_dict(), strict=False)  # strict: its weights are missing here
    return extended.train(codec.training)


@torch.no_grad()
def fit_restorer(codec: Codec, clips: Iterable[Tensor]) -> None:
    """Set the restorer: ridge regression of z - q on the frames of q around, and the gate; q are the sums of entries.

        gate[v] = min(1, E_v / (OPEN · E))

    E_v is the mean of ||z - q||² over the frames with first code v, E the mean over all frames.
    """
    width, kernel = codec.config.latent, codec.restorer.linear.kernel_size[0]
    errors, counts = torch.zeros_like(codec.restorer.gate), torch.zeros_like(codec.restorer.gate)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for wav in clips:
            z = codec.latents(wav)
            codes = codec.quantizer.encode(z)
            z, q, first = z[0], codec.quantizer.decode(codes)[0], codes[0, 0]  # [T, D], [T, D], [T]
            errors.index_add_(0, first, (z - q).square().sum(1))
            counts.index_add_(0, first, torch.ones_like(first, dtype=counts.dtype))
            yield _neighbours(q, kernel), z - q

    weight = _least_squares(pairs())
    codec.restorer.linear.weight.copy_(weight[:-1].T.reshape(-1, width, kernel))
    codec.restorer.linear.bias.copy_(weight[-1])
    gate = (errors / counts) / (OPEN * errors.sum() / counts.sum())
    codec.restorer.gate.copy_(torch.where(counts > 0, gate.clamp(max=1), 1.0))


def _set_encoder(codec: Codec, features: Iterable[Tensor]) -> None:
    """Principal components of features [T, F] as rows of the weight, first the largest; the bias removes the mean."""
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
    """Weighted k-means on vectors [n, D]: it uses the entries more evenly than `VectorQuantizer.start`.

    The weight of a vector is one over its squared distance from its entry (plus a tenth of the median distance), so
    that outliers do not take many entries. Rarely used entries move to crowded places until the last rounds.
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
    """Move entries with less than 0.15 of the mean number of vectors to vectors of entries with more than the mean."""
    counts = torch.bincount(codes, minlength=len(stage.codebook)).float()
    idle, crowded = counts < 0.15 * counts.mean(), counts > counts.mean()
    if idle.any() and crowded.any():
        chosen = torch.multinomial(crowded[codes].float().cpu(), int(idle.sum()), generator=generator)
        stage.codebook[idle] = x[chosen.to(x.device)]


def _set_outline(codec: Codec, clips: Iterable[Tensor]) -> None:
    """Least squares from three frames of latents, as they are restored from the codes, to log |S| of the middle one."""
    width, kernel = codec.config.latent, codec.outline.kernel_size[0]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for wav in clips:
            latents = codec.restore(codec.encode(wav))[0]  # [T, D]
            whole = F.pad(wav[:, 0], (0, -wav.shape[-1] % codec.config.hop))
            target = codec.spectrum(whole)[0].abs().clamp(min=SILENCE).log()  # [T · parts, bins]
            yield _neighbours(latents, kernel), target.view(len(latents), -1)

    weight = _least_squares(pairs())
    codec.outline.weight.copy_(weight[:-1].T.reshape(-1, width, kernel))
    codec.outline.bias.copy_(weight[-1])


def _neighbours(x: Tensor, kernel: int) -> Tensor:
    """Each frame of x [T, D] with the frames around it, and a 1 for the bias: [T, D · kernel + 1]."""
    edge = kernel // 2
    near = F.pad(x, (0, 0, edge, edge)).unfold(0, kernel, 1).flatten(1)
    return torch.cat([near, near.new_ones(len(near), 1)], 1)


def _least_squares(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """W of the ridge regression y ≈ x W over all pairs x [n, a], y [n, b]: float32 [a, b].

    (Σ xᵀx + ridge I) W = Σ xᵀy
    """
    square = product = 0.0
    for x, y in pairs:
        x, y = x.double(), y.double()
        square, product = square + x.T @ x, product + x.T @ y
    ridge = RIDGE * square.trace() / len(square) * torch.eye(len(square)).to(square)
    return torch.linalg.solve(square + ridge, product).float()
