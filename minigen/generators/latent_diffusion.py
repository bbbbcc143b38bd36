"""Continuous diffusion: noise becomes latents of the codec, and `codec.synthesize` makes sound of them.

    noise x_1 [B, T, C] ─► denoiser at t = 1 … 0, with the text ─► x_0 ─► latents [B, T, D] ─► codec.synthesize

The codec's latents before quantisation are principal components of log spectra, sorted by variance: a spectrogram in
other coordinates. The first C = 64 of D = 192 hold 97.6 % of their variance. They are scaled to mean 0 and variance 1;
the others are set to 0, their mean. No quantiser limits the sound, as it does for generators of codes.

A process mixes the clean clip x_0 with noise ε ~ N(0, 1), from t = 0 (clean) to t = 1 (noise):

    x_t = α x_0 + σ ε
    "cosine"   α = cos(π t / 2)   σ = sin(π t / 2)   v = α ε - σ x_0      Salimans and Ho (arXiv 2202.00512)
    "flow"     α = 1 - t          σ = t              v = ε - x_0          flow matching, Lipman et al. (2210.02747)

The network predicts v. At any t, v and x_t determine x_0 and ε (`Process.to_x0`, `Process.to_noise`), even at t = 1,
where a prediction of ε says nothing about x_0. v is the direction of the path: dx/dt = (π/2) v for "cosine", v for
"flow".

A sampler takes S steps from t to s < t. Each starts from the predicted x_0, limited by a threshold, and the ε that
belongs to it:

    "ddim"        x_s = α_s x_0 + σ_s ε                                       Song et al. (arXiv 2010.02502)
    "ancestral"   x_s = α_s x_0 + √(σ_s² - η²) ε + η z,  z ~ N(0, 1)          DDPM, Ho et al. (arXiv 2006.11239)
                  η² = (σ_s / σ_t)² (σ_t² - (α_t / α_s)² σ_s²)
    "euler"       x_s = x_t + (s - t) dx/dt

For "flow", "ddim" and "euler" are the same. Guidance pushes x_0 out of the range of real clips. The dynamic threshold
(Imagen, Saharia et al., arXiv 2205.11487, section 2.3) scales each clip back into it.

Symbols: B batch · T frames · C components of a frame · D latent width · t noise level · v, ε, x_0 as above.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.settings import COUNT, GUIDANCE, SHARE, check_number
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.iterate import Guidance, iterate
from minigen.generators.masked import crop
from minigen.guidance import Condition
from minigen.loss import at_least_float32
from minigen.optim import TrainConfig
from minigen.text import TextEncoder

PROCESSES = ("cosine", "flow")
METHODS = ("ddim", "ancestral", "euler")
THRESHOLDS = ("none", "static", "dynamic")
QUANTILE = 0.995  # of |x_0| in a clip: what the dynamic threshold limits
FARTHEST = 1000.0  # deviations: beyond it a clip is refused
MEASURED = 2048  # clips that the scale is measured on


def _choose(what: str, value: object, names: tuple[str, ...]) -> None:
    if value not in names:
        raise MinigenError(f"{what} is {value!r}. Choose {', '.join(names[:-1])} or {names[-1]}.")


# the process


@dataclass(frozen=True)
class Process:
    """How noise is added: "cosine" or "flow", see the module.

    t is a number, or a tensor [B] with a noise level for each clip. All states have the shape [B, ...].

    Raises:
        MinigenError: an unknown name.
    """

    name: str = "cosine"

    def __post_init__(self):
        _choose("process", self.name, PROCESSES)

    @property
    def speed(self) -> float:
        """dx/dt divided by v."""
        return math.pi / 2 if self.name == "cosine" else 1.0

    def alpha_sigma(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Shares of the clip and of the noise, α and σ, in the shape of t (float32 for a number)."""
        t = torch.as_tensor(t, dtype=torch.get_default_dtype() if isinstance(t, float | int) else None)
        if self.name == "cosine":
            return torch.sin(math.pi / 2 * (1 - t)), torch.sin(math.pi / 2 * t)  # α(1) is 0 exactly
        return 1 - t, t

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """x_t = α x_0 + σ ε."""
        alpha, sigma = self._shares(t, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """v, which the network learns to predict."""
        if self.name == "flow":
            return noise - x0
        alpha, sigma = self._shares(t, x0)
        return alpha * noise - sigma * x0

    def to_x0(self, prediction: Tensor, x: Tensor, t: Tensor | float, kind: str = "v") -> Tensor:
        """x_0 of the state x at t, from a prediction of v, of the noise or of x_0 itself.

        kind: "v", "noise" or "x0". From the noise, x_0 = (x - σ ε) / α, which is not finite at t = 1.
        """
        _choose("kind", kind, ("v", "noise", "x0"))
        alpha, sigma = self._shares(t, x)
        if kind == "x0":
            return prediction
        if kind == "noise":
            return (x - sigma * prediction) / alpha
        return alpha * x - sigma * prediction if self.name == "cosine" else x - sigma * prediction

    def to_noise(self, prediction: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """ε of the state x at t, from a prediction of v."""
        alpha, sigma = self._shares(t, x)
        return sigma * x + alpha * prediction if self.name == "cosine" else x + alpha * prediction

    def _shares(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ that multiply x: [B, 1, ..., 1] for t [B]."""
        alpha, sigma = (share.to(x.device) for share in self.alpha_sigma(t))
        shape = (-1,) + (1,) * (x.ndim - 1) if alpha.ndim else ()
        return alpha.view(shape), sigma.view(shape)


# the sampler


def static_threshold(x0: Tensor, limit: float = 1.0) -> Tensor:
    """Clamp x_0 to [-limit, limit]."""
    return x0.clamp(-limit, limit)


def dynamic_threshold(x0: Tensor, limit: float = 1.0) -> Tensor:
    """Clamp each clip at its 99.5th percentile of |x_0|, if that exceeds the limit, and scale it down to the limit.

        s = max(limit, percentile of |x_0|)         x_0 <- limit / s · clamp(x_0, -s, s)

    A static threshold saturates every component that guidance has pushed too far; this one keeps their order.

    x0: [B, ...]. limit: of real data; 1 for images in [-1, 1]. Source: Imagen (arXiv 2205.11487), section 2.3.
    """
    size = torch.quantile(x0.flatten(1).abs(), QUANTILE, dim=1).clamp(min=limit)  # [B]
    size = size.view(-1, *(1,) * (x0.ndim - 1))
    return x0.clamp(-size, size) * (limit / size)


@dataclass(frozen=True)
class LatentSampler:
    """The steps of the module, for `iterate`. States are float [B, T, C]; unknown cells of `known` are NaN.

    Known cells replace the predicted x_0 at every step, and so does `constraint`, if given: a function x_0 -> x_0 that
    puts back what is known about the clip (DDNM, Wang et al., arXiv 2212.00490).

    Attributes:
        process: the process that the model was trained with.
        method: "ddim", "ancestral" or "euler".
        threshold: "none", "static" or "dynamic".
        limit: of |x_0| in real data, for the threshold.
        constraint: see above.

    Raises:
        MinigenError: an unknown method or threshold.
    """

    process: Process = Process()
    method: str = "ddim"
    threshold: str = "dynamic"
    limit: float = 1.0
    constraint: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        _choose("method", self.method, METHODS)
        _choose("threshold", self.threshold, THRESHOLDS)

    def start(self, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the first state, noise in the shape of `known`."""
        return _normal(known, generator)

    def times(self, steps: int, known: Tensor) -> list[float]:
        """List the noise levels 1 … 0, evenly spaced.

        Raises:
            MinigenError: a schedule of one step, which would be the mean of all clips.
        """
        if steps < 2:
            raise MinigenError(f"steps is {steps}. Give 2 or more: one step gives the mean of all clips.")
        return [1 - step / steps for step in range(steps + 1)]

    def noise_level(self, time: float) -> float:
        """Give t itself: the model is told the noise level."""
        return time

    def attend(self, state: Tensor, time: float) -> None:
        """Give None: every frame reads every frame."""
        return None

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Move the state [B, T, C] from noise level t to s < t. predicted: v [B, T, C]."""
        process = self.process
        x0 = self.clean(process.to_x0(predicted, state, t), known)
        alpha, sigma = process.alpha_sigma(t)
        noise = (state - alpha * x0) / sigma  # the ε that belongs to the limited x_0
        if self.method == "euler":
            return state + (s - t) * process.speed * process.target(x0, noise, t)
        if self.method == "ancestral":
            return self._ancestral(x0, noise, t, s, generator)
        return process.noised(x0, noise, s)

    def clean(self, x0: Tensor, known: Tensor) -> Tensor:
        """Limit a predicted x_0, and put in what is known."""
        if self.threshold == "static":
            x0 = static_threshold(x0, self.limit)
        elif self.threshold == "dynamic":
            x0 = dynamic_threshold(x0, self.limit)
        x0 = torch.where(known.isnan(), x0, known)
        return x0 if self.constraint is None else self.constraint(x0)

    def _ancestral(self, x0: Tensor, noise: Tensor, t: float, s: float, generator) -> Tensor:
        """A step with new noise: a draw from q(x_s | x_t, x_0); the formula is in the module's docstring."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.process.alpha_sigma(t), self.process.alpha_sigma(s)
        fresh = sigma_s / sigma_t * (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2).clamp(min=0).sqrt()  # η
        kept = (sigma_s**2 - fresh**2).clamp(min=0).sqrt()
        return alpha_s * x0 + kept * noise + fresh * _normal(x0, generator)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


# the model


@dataclass(frozen=True)
class LatentConfig(DenoiserConfig):
    """Sizes of a model of latents.

    Attributes:
        latent: D, latent width of the codec.
        process: "cosine" or "flow".
        stride: codec frames whose mean is one frame of the model: 4 for the coarse model of a cascade.
        conditioned: whether C + 1 more components stand beside those of the state: a coarse clip and the level of its
            corruption (`minigen.generators.cascade`).

    Raises:
        MinigenError: an unknown process, more components than the codec has.
    """

    kind: str = "latents"
    layers: int = 8
    timed: bool = True
    latent: int = 192
    process: str = "cosine"
    stride: int = 1
    conditioned: bool = False

    @property
    def inputs(self) -> int:
        """Components that the network reads in each frame."""
        return 2 * self.components + 1 if self.conditioned else self.components

    def __post_init__(self):
        super().__post_init__()
        Process(self.process)
        if self.kind != "latents" or not self.timed:
            raise MinigenError(f"kind {self.kind!r}, timed {self.timed}. A diffusion of latents needs both.")
        if self.components > self.latent:
            raise MinigenError(f"{self.components} components of {self.latent}. Give at most as many as the codec has.")


class LatentDenoiser(Denoiser):
    """A denoiser of scaled latents, with the scale.

    Buffers: mean and scale [C] of the latents, limit: 99.5th percentile of |x_0|, the size of real data.
    """

    Config: ClassVar = LatentConfig
    config: LatentConfig
    mean: Tensor
    scale: Tensor
    limit: Tensor

    def __init__(self, config: LatentConfig):
        super().__init__(config)
        self.process = Process(config.process)
        if config.conditioned:
            self.input = torch.nn.Linear(config.inputs, config.width)
        self.register_buffer("mean", torch.zeros(config.components))
        self.register_buffer("scale", torch.ones(config.components))
        self.register_buffer("limit", torch.ones(()))

    @torch.no_grad()
    def measure(self, latents: np.ndarray) -> None:
        """Set mean, scale and limit from latents [n, T, C'], C' at least C; about 2048 clips are read.

        Raises:
            MinigenError: fewer components than the model has.
        """
        if latents.shape[2] < self.config.components:
            raise MinigenError(
                f"the clips have {latents.shape[2]} components, the model {self.config.components}. Change its config."
            )
        clips = latents[:: max(1, len(latents) // MEASURED)][:, :, : self.config.components]
        coarse = pool_frames(torch.from_numpy(np.asarray(clips, np.float32)), self.config.stride)
        flat = coarse.flatten(0, 1)  # [n T / stride, C]
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(flat.std(0).clamp(min=1e-3))
        sizes = ((flat - self.mean) / self.scale).abs().flatten()
        self.limit.copy_(sizes.kthvalue(math.ceil(QUANTILE * len(sizes))).values)

    def to_state(self, latents: Tensor) -> Tensor:
        """Scaled components: latents [B, T, C'] -> x_0 [B, T, C]."""
        return (latents[..., : self.config.components] - self.mean) / self.scale

    def to_latents(self, x0: Tensor) -> Tensor:
        """Latents [B, T, D] of x_0 [B, T, C]; the components that the model leaves out are 0, their mean."""
        missing = self.config.latent - self.config.components
        return torch.nn.functional.pad(x0 * self.scale + self.mean, (0, missing))

    def _check(self, state: Tensor, memory: Tensor | None, mask: Tensor | None, time: Tensor | None) -> None:
        if state.ndim == 3 and state.shape[2] != self.config.inputs:
            raise MinigenError(f"state has shape {list(state.shape)}. Give [B, T, {self.config.inputs}].")
        super()._check(state[..., : self.config.components], memory, mask, time)

    def copy_fitting(self, other: torch.nn.Module) -> int:
        """Copy the weights of another model, such as a language model, that have the same name and shape.

        A conditioned model also takes the input weights of the state from a model that is not conditioned.

        Returns:
            The number of tensors copied.
        """
        own, theirs = self.state_dict(), dict(other.state_dict())
        state, columns = theirs.get("input.weight"), own["input.weight"]  # [D, C'], [D, inputs]
        if state is not None and state.shape[1] == self.config.components < columns.shape[1]:
            theirs["input.weight"] = torch.cat([state, columns[:, state.shape[1] :]], dim=1)
        fitting = {name: theirs[name] for name in own if name in theirs and theirs[name].shape == own[name].shape}
        self.load_state_dict({**own, **fitting})
        return len(fitting)


def pool_frames(latents: Tensor, stride: int) -> Tensor:
    """Means of `stride` frames: [B, T, C] -> [B, T // stride, C]; frames at the end that fill no mean are left out."""
    whole = latents.shape[1] // stride * stride
    return latents[:, :whole].unflatten(1, (-1, stride)).mean(2)


class LatentDiffusionGenerator:
    """A `LatentDenoiser` with the members of `minigen.generators.base.Generator`; it makes latents, not codes."""

    name = "latent"

    def __init__(self, model: LatentDenoiser):
        self.model, self.config = model, model.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.norm.weight.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "LatentDiffusionGenerator":
        """Load the model, see `Denoiser.from_pretrained`."""
        return cls(LatentDenoiser.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Save the model, see `Denoiser.save_pretrained`."""
        self.model.save_pretrained(folder, dtype)

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        steps: int = 50,
        method: str = "ddim",
        threshold: str = "dynamic",
        rescale: float = 0.7,
        known: Tensor | None = None,
        constraint: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Latents [B, frames, D] for `codec.synthesize`; a coarse model repeats each frame `stride` times.

        Args:
            text: states of B captions.
            frames: T.
            guidance: strength of the text, or a function of the progress.
            generator: source of chance on the device of the weights.
            progress: whether to show a bar.
            steps: number of steps, 2 or more; a guided step evaluates the network twice.
            method: "ddim", "ancestral" or "euler".
            threshold: "none", "static" or "dynamic".
            rescale: share of `minigen.guidance.rescale_guidance`, from 0 to 1.
            known: latents [B, frames / stride, D'], D' at least C, NaN where something is to be made; None: everything.
            constraint: see `LatentSampler`; a function of scaled components [B, T, C].

        Raises:
            MinigenError: an option out of range, a result that is not finite because guidance is too large.
        """
        check_number("frames", frames, COUNT)
        if not callable(guidance):
            check_number("guidance", guidance, GUIDANCE)
        check_number("rescale", rescale, SHARE)
        model, batch = self.model, 1 if text.memory is None else len(text.memory)
        sampler = LatentSampler(model.process, method, threshold, model.limit.item(), constraint)
        stride = self.config.stride
        shape = (batch, math.ceil(frames / stride), self.config.components)
        canvas = torch.full(shape, math.nan, device=self.device)  # float32, whatever the type of the weights
        if known is not None:
            canvas = canvas.where(known[..., : canvas.shape[2]].isnan(), model.to_state(known))
        made = iterate(model, sampler, canvas, text.memory, text.memory_mask, steps, guidance, generator, progress,
                       rescale=rescale)  # fmt: skip
        check_range(made.state, guidance)
        return model.to_latents(made.state).repeat_interleave(stride, 1)[:, :frames]


def check_range(state: Tensor, guidance: Guidance) -> None:
    """Refuse a clip that no sound could have.

    Raises:
        MinigenError: components that are not finite, or more than 1000 deviations from their mean.
    """
    if not (state.abs() < FARTHEST).all():  # true for NaN, too
        largest = state.abs().max().item()
        at = "" if callable(guidance) else f" at guidance {guidance:g}"
        raise MinigenError(
            f"the clip is out of range{at}: its largest component is {largest:.3g}, that of real clips below 20. Give "
            "a smaller guidance, such as 3, or a threshold."
        )


# training


class LatentObjective:
    """Mean square error of v, as an objective of `minigen.train`; the clips are latents (`LatentSet`), not codes.

        loss = Σ_c w_c E (v_c - v̂_c)² / Σ_c w_c         w_c = √scale_c

    The scaled components have the same variance, but not the same use: the first carries the loudness, the last ones
    fine detail of the spectrum. The weight favours the first ones; each component has the same optimum as without it.

    The noise levels of a batch are spread evenly over (0, 1), one random number for all clips (Kingma et al.,
    "Variational diffusion models", arXiv 2107.00630, appendix I.1). As in masked generation, half of the batches are
    crops, and the text of the whole batch is left out with probability `text_dropout`.

    Args:
        model (LatentDenoiser): the model that is trained, after `measure`.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout.
    """

    generator = "latent"
    same_shapes = False  # crops have other lengths in every step

    def __init__(self, model: LatentDenoiser, encoder: TextEncoder, config: TrainConfig):
        self.encoder, self.config, self.process = encoder, config, model.process
        self.stride = model.config.stride
        self.mean, self.scale = model.mean.detach().cpu().clone(), model.scale.detach().cpu().clone()
        self.weight = self.scale.sqrt() / self.scale.sqrt().mean()  # [C]

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Noised clips, their noise levels and targets; validation (`drop` given) takes whole clips.

        codes: latents [B, T, C'].
        """
        if drop is None:
            drop = rng.random() < self.config.text_dropout
            codes = crop(codes.mT, rng).mT  # [B, T', C']
        batch = self.noised(self.clean(codes), rng)
        if not drop:
            batch["memory"], batch["memory_mask"] = self.encoder(captions)  # [B, N, M], [B, N]
        return batch

    def clean(self, latents: Tensor) -> Tensor:
        """x_0 [B, T / stride, C] of latents [B, T, C']."""
        return (pool_frames(latents, self.stride)[..., : len(self.mean)] - self.mean) / self.scale

    def noised(self, x0: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """The state at random noise levels, the levels, and v."""
        noise = torch.from_numpy(rng.standard_normal(x0.shape, np.float32))
        time = spread(len(x0), rng)  # [B]
        process = self.process
        return {"state": process.noised(x0, noise, time), "target": process.target(x0, noise, time), "time": time}

    def loss(
        self,
        model: LatentDenoiser,
        state: Tensor,
        target: Tensor,
        time: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted mean square error of v: state and target [B, T, C], time [B]."""
        predicted = model(state, memory, memory_mask, time)  # [B, T, C]
        error = (at_least_float32(predicted) - target).square().mean((0, 1))  # [C]
        loss = (self.weight.to(error) * error).mean()
        return loss, {"loss": loss}


def spread(rows: int, rng: np.random.Generator) -> Tensor:
    """Noise levels of a batch, float32 [B]: (row + u) / B with one u ~ U(0, 1), in random order."""
    levels = (rng.permutation(rows) + rng.random()) / rows
    return torch.from_numpy(levels.astype(np.float32))
