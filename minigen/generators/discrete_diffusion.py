"""Discrete diffusion: codes are replaced by noise step by step, and a network learns the way back.

It is Diffsound's generator (arXiv 2207.09983), VQ-Diffusion (arXiv 2111.14822) applied to sound. One step of noise
leaves a code with probability α, replaces it by any of the V codes with probability β each, or masks it with
probability γ. A masked cell stays masked. The matrix of one step, from the row to the column, for V = 2:

            code 0   code 1   mask
    code 0   α + β     β       γ             α + V β + γ = 1
    code 1     β     α + β     γ
    mask       0       0       1

A product of such matrices has the same form. From time 0, the clean clip, to time t it has

    ᾱ_t  stays        β̄_t = (1 - ᾱ_t - γ̄_t) / V  each code        γ̄_t  mask                              `cumulative`

and from s to t > s, since M(0, t) = M(0, s) M(s, t):

    α_ts = ᾱ_t / ᾱ_s        γ_ts = 1 - (1 - γ̄_t) / (1 - γ̄_s)        β_ts = (1 - α_ts - γ_ts) / V

The network sees the noised clip x_t and predicts the clean one, p_k = p(x_0 = k) for each cell. Bayes gives the cell at
the earlier time s, for any s < t:

    p(x_s | x_t) = Σ_k p_k q(x_t | x_s) q(x_s | x_0 = k) / q(x_t | x_0 = k)                               `posterior`

    x_t = mask    mask: γ̄_s / γ̄_t      code k: γ_ts (ᾱ_s p_k + β̄_s) / γ̄_t
    x_t = j       mask: 0                code k: (α_ts [k = j] + β_ts) (ᾱ_s r_k + β̄_s Σ r)
                                                 with r_k = p_k / (ᾱ_t [k = j] + β̄_t)

Sampling starts with noise and draws from the posterior until s = 0. A step may pass over many times, because the
matrix from s to t is exact for any stride. Three kinds of noise:

    "mask"          codes are masked only. A cell that has a code is never changed again, as in masked generation.
    "mask_uniform"  codes are also replaced: the sampler can revise what it wrote. Diffsound's kind.
    "uniform"       codes are replaced only; every cell may change at every step.

Training: t is uniform in 1 … `steps`; the loss is the cross-entropy of the clean codes (`DiscreteObjective`).

Symbols: B batch · K codebooks · T frames · V codebook size, and the mask · x_t noised codes · p prediction of x_0.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.engine import distributed
from minigen.engine.errors import MinigenError
from minigen.engine.settings import GUIDANCE, Range, check_number
from minigen.generate import keep_top_p
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.filling import blank, check_known, fill
from minigen.generators.iterate import Guidance, iterate
from minigen.generators.masked import crop
from minigen.guidance import Condition
from minigen.loss import at_least_float32, heads_cross_entropy
from minigen.optim import TrainConfig
from minigen.text import TextEncoder

KINDS = ("mask", "mask_uniform", "uniform")
STAY = (0.99999, 0.000009)  # ᾱ at t = 1 and at the last t, linear between; VQ-Diffusion's values
MASK = (0.000009, 0.9)  # γ̄ of "mask_uniform", likewise
LOSSES = ("cross_entropy", "kl")
LEAST = 1e-30  # smallest probability that a logarithm is taken of
AUXILIARY = 5e-4  # weight of the cross-entropy beside the KL divergence, VQ-Diffusion's value


@dataclass(frozen=True)
class Transitions:
    """The noise: probabilities of the module for all times 0 … steps, and draws from them.

    ᾱ falls linearly from 0.99999 at t = 1 to 0.000009 at t = steps. γ̄ is 1 - ᾱ for "mask", rises linearly from 0.000009
    to 0.9 for "mask_uniform", and is 0 for "uniform". Time 0 is the clean clip, with ᾱ = 1.

    Attributes:
        codebook_size: V; the mask is the code V.
        steps: number of steps of noise, 2 or more.
        kind: "mask", "mask_uniform" or "uniform".

    Raises:
        MinigenError: an unknown kind, a codebook without codes, fewer than 2 steps.
    """

    codebook_size: int
    steps: int = 100
    kind: str = "mask"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise MinigenError(f"the kind of transitions is {self.kind!r}. Choose one of {', '.join(KINDS)}.")
        check_number("codebook_size", self.codebook_size, Range(int, 1))
        check_number("steps of the noise", self.steps, Range(int, 2))

    @cached_property
    def table(self) -> Tensor:
        """ᾱ, β̄ and γ̄ of the times 0 … steps: float64 [steps + 1, 3]."""
        stay = torch.linspace(*STAY, self.steps, dtype=torch.float64)  # [steps]
        nothing = torch.zeros_like(stay)
        if self.kind == "mask":
            uniform, mask = nothing, 1 - stay
        else:
            mask = nothing if self.kind == "uniform" else torch.linspace(*MASK, self.steps, dtype=torch.float64)
            uniform = (1 - stay - mask) / self.codebook_size
        clean = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
        return torch.cat([clean, torch.stack([stay, uniform, mask], dim=1)])

    def cumulative(self, t: int) -> tuple[float, float, float]:
        """Give ᾱ_t, β̄_t and γ̄_t: probability of staying, of each single code, and of the mask, from time 0 to t.

        Raises:
            MinigenError: t outside 0 … steps.
        """
        self._check_time("t", t, 0)
        stay, uniform, mask = self.table[int(t)].tolist()
        return stay, uniform, mask

    def corrupt(self, codes: Tensor, t: int | Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the codes at time t: int64, V where a cell is masked.

        Args:
            codes: clean codes int64, 0 to V - 1, in any shape.
            t: time 0 … steps, or one for each row, int64 [B].
            generator: source of chance, on the device of the codes.

        Raises:
            MinigenError: codes or times out of range.
        """
        self._check_codes("codes", codes, self.codebook_size)
        self._check_time("t", t, 0)
        stay, _, mask = self._at(t, codes.ndim, torch.empty(0, dtype=torch.float64, device=codes.device))
        chance = torch.empty(codes.shape, dtype=torch.float64, device=codes.device).uniform_(generator=generator)
        other = torch.randint(self.codebook_size, codes.shape, generator=generator, device=codes.device)
        changed = torch.where(chance < stay + mask, self.codebook_size, other)
        return torch.where(chance < stay, codes, changed)

    def posterior(self, probabilities: Tensor, noised: Tensor, t: int | Tensor, s: int | Tensor) -> Tensor:
        """Give the probabilities of the codes and of the mask at an earlier time: [..., V] -> [..., V + 1].

        A code of the kind "mask" is certain, and stays whatever p is.

        Args:
            probabilities: p(x_0), float [..., V], each row sums to 1. float64 stays float64; half precision becomes
                float32.
            noised: codes x_t int64 [...], V = masked.
            t: time of x_t, or one for each row, int64 [B].
            s: earlier time, 0 ≤ s < t, or one for each row.

        Raises:
            MinigenError: shapes that do not fit, codes or times out of range, s that is not before t.
        """
        self._check_posterior(probabilities, noised, t, s)
        p = at_least_float32(probabilities)
        stay_t, uniform_t, mask_t = self._at(t, p.ndim, p)
        stay_s, uniform_s, mask_s = self._at(s, p.ndim, p)
        stay, uniform, mask = self._between(t, s, p.ndim, p)
        hidden = (noised == self.codebook_size)[..., None]  # [..., 1]
        same = F.one_hot(noised.clamp(max=self.codebook_size - 1), self.codebook_size).to(p)  # [..., V], [k = j]
        if self.kind == "mask":
            from_code = same
        else:
            r = p / (stay_t * same + uniform_t)  # [..., V]
            from_code = (stay * same + uniform) * (stay_s * r + uniform_s * r.sum(-1, keepdim=True))
        if self.kind == "uniform":
            return F.pad(from_code, (0, 1))
        from_mask = mask / mask_t * (stay_s * p + uniform_s)  # [..., V]
        codes = torch.where(hidden, from_mask, from_code)
        still = torch.where(hidden, mask_s / mask_t, 0.0).expand(*codes.shape[:-1], 1)  # [..., 1]
        return torch.cat([codes, still], dim=-1)

    def _at(self, t: int | Tensor, dimensions: int, like: Tensor) -> list[Tensor]:
        """ᾱ, β̄ and γ̄ of times, with the type and device of `like`, to be broadcast to tensors of so many dimensions."""
        return [_broadcast(value, dimensions, like) for value in self.table[torch.as_tensor(t).cpu()].unbind(-1)]

    def _between(self, t: int | Tensor, s: int | Tensor, dimensions: int, like: Tensor) -> list[Tensor]:
        """α, β and γ from time s to time t."""
        later, earlier = (self.table[torch.as_tensor(time).cpu()] for time in (t, s))
        stay = later[..., 0] / earlier[..., 0]
        mask = 1 - (1 - later[..., 2]) / (1 - earlier[..., 2])
        uniform = (1 - stay - mask) / self.codebook_size
        return [_broadcast(value, dimensions, like) for value in (stay, uniform, mask)]

    def _check_posterior(self, probabilities: Tensor, noised: Tensor, t: int | Tensor, s: int | Tensor) -> None:
        if probabilities.shape != (*noised.shape, self.codebook_size) or not probabilities.is_floating_point():
            raise MinigenError(
                f"probabilities are {probabilities.dtype} {list(probabilities.shape)} for noised codes "
                f"{list(noised.shape)}. Give float {[*noised.shape, self.codebook_size]}."
            )
        self._check_codes("noised", noised, self.codebook_size + (self.kind != "uniform"))
        self._check_time("t", t, 1)
        self._check_time("s", s, 0)
        if not (torch.as_tensor(s) < torch.as_tensor(t)).all():
            raise MinigenError(f"s is {s} and t is {t}. Give a time s before t.")

    def _check_codes(self, name: str, codes: Tensor, count: int) -> None:
        if codes.is_floating_point() or (codes.numel() and not 0 <= codes.min() <= codes.max() < count):
            found = codes.dtype if codes.is_floating_point() else f"from {codes.min()} to {codes.max()}"
            raise MinigenError(
                f'{name}: codes are {found}. Give whole numbers from 0 to {count - 1} for "{self.kind}".'
            )

    def _check_time(self, name: str, t: int | Tensor, least: int) -> None:
        times = torch.as_tensor(t)
        if times.is_floating_point() or not least <= times.min() <= times.max() <= self.steps:
            raise MinigenError(f"{name} is {t}. Give whole times from {least} to {self.steps}.")


def _broadcast(value: Tensor, dimensions: int, like: Tensor) -> Tensor:
    """[] or [B] as a tensor that can be broadcast to [B, ...], with the type and device of `like`."""
    return value.to(like).view(*value.shape, *[1] * (dimensions - value.ndim))


# sampling


@dataclass(frozen=True)
class DiscreteSampler:
    """Draws from the posterior of the module, for `iterate`. States are codes [B, K, T], with V at masked cells.

    Guidance of VQ-Diffusion acts on log p and normalises again (Improved VQ-Diffusion, arXiv 2205.16007, section 3.1).
    log p differs from the logits by one number for each cell, so this is the guidance of the logits in `iterate`.

    Attributes:
        transitions: the noise that the model was trained with.
        truncation: share of the predicted probability that is kept, the most likely codes first: a code stays if the
            codes before it sum to less. 1 keeps all. VQ-Diffusion's value is 0.85.

    Raises:
        MinigenError: a truncation outside (0, 1].
    """

    transitions: Transitions
    truncation: float = 0.85

    def __post_init__(self):
        check_number("truncation", self.truncation, Range(float, 0, 1, above=True))

    def start(self, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the cells marked V in `known` at the last time, where no cell shows its code: noise."""
        _, uniform, mask = self.transitions.cumulative(self.transitions.steps)
        size = self.transitions.codebook_size
        other = torch.randint(size, known.shape, generator=generator, device=known.device)
        chance = torch.empty(known.shape, device=known.device).uniform_(generator=generator)
        noise = torch.where(chance < mask / (mask + size * uniform), size, other)
        return torch.where(known == size, noise, known)

    def times(self, steps: int, known: Tensor) -> list[float]:
        """List the times: `steps` + 1 from the last time to 0, evenly spaced and rounded to whole times.

        The posterior is exact for every stride, so the number of steps need not divide that of the noise.

        Raises:
            MinigenError: more steps than the noise has.
        """
        most = self.transitions.steps
        if steps > most:
            raise MinigenError(f"steps is {steps}, but the noise has {most} steps. Give at most {most}.")
        return [float(round(most * (steps - step) / steps)) for step in range(steps + 1)]

    def noise_level(self, time: float) -> float:
        """Give the model's time input: the share of the noise's steps, from 1 at the start to 0."""
        return time / self.transitions.steps

    def attend(self, state: Tensor, time: float) -> None:
        """Give None: every frame reads every frame."""
        return None

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draw all cells that are not known at time s.

        Args:
            state: [B, K, T], codes at time t.
            known: [B, K, T], the cells that were given, V at all others.
            t: time before the step, from `times`.
            s: time after it.
            predicted: logits [B, K, T, V].
            generator: source of chance.
        """
        p = at_least_float32(predicted).softmax(-1)  # [B, K, T, V]
        if self.truncation < 1:
            p = keep_top_p(p, self.truncation)
        posterior = self.transitions.posterior(p, state, int(t), int(s))  # [B, K, T, V + 1]
        drawn = torch.multinomial(posterior.flatten(0, 2), 1, generator=generator).view(state.shape)
        return torch.where(known == self.transitions.codebook_size, drawn, known)


class DiscreteDiffusionGenerator:
    """A timed `Denoiser` of codes as a generator of the pipeline, which can also fill holes.

    Raises:
        MinigenError: a denoiser that is not one of discrete diffusion.
    """

    name = "discrete"

    def __init__(self, model: Denoiser):
        if model.config.kind != "codes" or model.config.process not in KINDS:
            raise MinigenError(
                f"the denoiser is one of {model.config.kind} with the process {model.config.process!r}. Discrete "
                f"diffusion needs one of codes with one of {', '.join(KINDS)}."
            )
        self.model, self.config = model, model.config
        self.transitions = Transitions(model.config.codebook_size, kind=model.config.process)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.norm.weight.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "DiscreteDiffusionGenerator":
        """Load the denoiser, see `Denoiser.from_pretrained`."""
        return cls(Denoiser.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Save the denoiser, see `Denoiser.save_pretrained`."""
        self.model.save_pretrained(folder, dtype)

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        prompt: Tensor | None = None,
        **options,
    ) -> Tensor:
        """Codes int64 [B, K, frames]; the options are those of `fill`.

        prompt: codes [B, K, P] or [1, K, P] with P < frames, which become the first P frames.
        """
        known = blank(text, frames, self.config, self.device, prompt)  # [B, K, frames]
        return self.fill(text, known, guidance, generator, progress, **options)

    def fill(
        self,
        text: Condition,
        known: Tensor,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        steps: int = 25,
        truncation: float = 0.85,
    ) -> Tensor:
        """Make the missing cells of codes: int64 [B, K, T], where V marks a missing cell, -> int64 [B, K, T].

        Given cells stay as they are, at every step: the model sees them without noise.

        Args:
            text: states of B captions.
            known: the codes.
            guidance: a number, see `minigen.guidance.guide`, or a function of the progress from 0 to 1.
            generator: source of chance on the device of the weights; None: PyTorch's.
            progress: whether to show a bar on stderr.
            steps: number of steps, 1 to 100; each evaluates the model twice. A clip of several windows takes them for
                each (`minigen.generators.filling`).
            truncation: see `DiscreteSampler`.

        Raises:
            MinigenError: codes of another shape or outside 0 … V, options out of range, a guidance so large that the
                prediction is not finite.
        """
        check_known(known, self.config, text)
        if not callable(guidance):
            check_number("guidance", guidance, GUIDANCE)
        sampler = DiscreteSampler(self.transitions, truncation)

        def make(part: Tensor, bar: bool) -> Tensor:
            texts = text.memory, text.memory_mask
            return iterate(self.model, sampler, part, *texts, steps, guidance, generator, bar).state

        return fill(known, self.config.codebook_size, make, progress)


# training


class DiscreteObjective:
    """Loss of discrete diffusion, as an objective of `minigen.train`; t is uniform in 1 … steps for each clip.

    "cross_entropy": -log p(x_0), the mean over the cells that may have changed. For the kind "mask" these are the
    masked ones. For the others these are all: at a cell that did not change the network learns to tell a code that
    stayed from one that was replaced, and the posterior relies on it.

    "kl": VQ-Diffusion's loss, a bound of -log p(clip) in nats for each cell, and a weak cross-entropy beside it,

        steps · (KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)) + 0.0005 w(t) (-log p(x_0)))    w(t) = 2 - (t - 1) / steps

    At t = 1 the divergence is -log p(x_0). The posteriors of all cells, [B, K, T, V + 1], are held in memory.
    VQ-Diffusion draws the t of large loss more often; that needs thousands of steps to pay.

    Half of the batches are crops, as in `MaskedObjective`. The text of the whole batch is left out with probability
    `text_dropout`, as for the language model.

    Args:
        sizes (DenoiserConfig): sizes of the model that is trained; its `process` is the kind of noise.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout.
        loss (str): "cross_entropy" or "kl".

    Raises:
        MinigenError: an unknown loss or process.
    """

    generator = "discrete"
    same_shapes = False  # crops have other lengths in every step

    def __init__(self, sizes: DenoiserConfig, encoder: TextEncoder, config: TrainConfig, loss: str = "cross_entropy"):
        if loss not in LOSSES:
            raise MinigenError(f"the loss is {loss!r}. Choose one of {', '.join(LOSSES)}.")
        self.encoder, self.config, self.kind_of_loss = encoder, config, loss
        self.transitions = Transitions(sizes.codebook_size, kind=sizes.process)

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Crop, add noise and encode the text; validation (`drop` given) does not crop."""
        if drop is None:
            drop = rng.random() < self.config.text_dropout
            codes = crop(codes, rng)  # [B, K, T']
        times = torch.from_numpy(rng.integers(1, self.transitions.steps + 1, size=len(codes)))  # [B]
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        state = self.transitions.corrupt(codes.cpu(), times, chance)  # [B, K, T']
        batch = {"state": state, "codes": codes, "times": times}
        if not drop:
            batch["memory"], batch["memory_mask"] = self.encoder(captions)  # [B, N, M], [B, N]
        return batch

    def loss(
        self,
        model: Denoiser,
        state: Tensor,
        codes: Tensor,
        times: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the cells: state and codes [B, K, T], times int64 [B]."""
        level = times / self.transitions.steps  # [B]
        hidden = model.hidden_states(state, memory, memory_mask, level)  # [B, T, D]
        if self.kind_of_loss == "kl":
            value = self.divergence(model.head(hidden), state, codes, times).mean()
        else:
            value = heads_cross_entropy(hidden, model.heads, *self.targets(state, codes))
        return value, {"loss": value}

    def targets(self, state: Tensor, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes of the cells that count, V elsewhere: [B, K, T]; and their number, the mean over all processes."""
        if self.transitions.kind != "mask":
            return codes, None  # as many cells in every process
        masked = state == self.transitions.codebook_size
        target = torch.where(masked, codes, self.transitions.codebook_size)
        return target, distributed.average(masked.sum()).clamp(min=1)

    def divergence(self, logits: Tensor, state: Tensor, codes: Tensor, times: Tensor) -> Tensor:
        """The loss "kl" of each cell: logits [B, K, T, V], state and codes [B, K, T], times [B] -> [B, K, T]."""
        steps, earlier = self.transitions.steps, times - 1
        log_p = at_least_float32(logits).log_softmax(-1)  # [B, K, T, V]
        clean = F.one_hot(codes, self.transitions.codebook_size).to(log_p)
        true = self.transitions.posterior(clean, state, times, earlier)  # [B, K, T, V + 1]
        guess = self.transitions.posterior(log_p.exp(), state, times, earlier)
        divergence = (true * (true.clamp(min=LEAST).log() - guess.clamp(min=LEAST).log())).sum(-1)  # [B, K, T]
        entropy = -log_p.gather(-1, codes[..., None])[..., 0]  # [B, K, T]
        weight = (2 - earlier / steps)[:, None, None]  # [B, 1, 1]
        return steps * (divergence + AUXILIARY * weight * entropy)
