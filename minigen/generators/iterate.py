"""Iterative generation: the loop that masked generation and both diffusions share.

A denoiser predicts the whole clean clip at every step. A sampler decides how much of the prediction is kept:

    x = sampler.start(...)                                     all masked, or noise
    for t, s in steps:                                         from much noise (t) to less (s)
        predicted = guided prediction of the model for x       two passes: with the text and without
        x = sampler.step(x, known, t, s, predicted)            known cells stay what they are

Guidance acts on the hidden states before the heads. The heads are linear, so this is guidance of the logits,

    heads(uncond + w (cond - uncond)) = heads(uncond) + w (heads(cond) - heads(uncond))

for half of the work. w may change with the progress of the loop (MAGNeT, arXiv 2401.04577, anneals it).

Symbols: B batch · K codebooks · T frames · N text tokens · w guidance.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.settings import COUNT, check_number
from minigen.generate import progress_bar
from minigen.generators.denoiser import Denoiser
from minigen.guidance import guide, rescale_guidance
from minigen.loss import at_least_float32

Guidance = float | Callable[[float], float]  # a number, or a function of the progress from 0 to 1


class Sampler(Protocol):
    """One way from noise to a clip. States are codes int64 [B, K, T] or latents [B, T, C]."""

    def start(self, known: Tensor, generator: torch.Generator | None) -> Tensor:
        """Give the state before the first step. known: the clips, with a mark where something is to be made."""

    def times(self, steps: int, known: Tensor) -> list[float]:
        """List the times of the process, `steps` + 1 of them, from the start to the end."""

    def noise_level(self, time: float) -> float | None:
        """Give the model's time input, None for a model that takes none."""

    def attend(self, state: Tensor, time: float) -> Tensor | None:
        """Give the self-attention mask of a step, None where every frame reads every frame."""

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Move the state from time t to time s, given the model's prediction; known cells stay what they are."""


class Made(NamedTuple):
    """A generated state, and the number of evaluations of the network: a guided step counts two for each clip."""

    state: Tensor
    evaluations: int


@torch.no_grad()
def iterate(
    model: Denoiser,
    sampler: Sampler,
    known: Tensor,
    memory: Tensor | None = None,
    memory_mask: Tensor | None = None,
    steps: int = 16,
    guidance: Guidance = 3.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
    each: Callable[[Tensor], None] | None = None,
    rescale: float = 0.0,
) -> Made:
    """Run the loop of the module.

    Args:
        model: the denoiser, in any mode; dropout is off.
        sampler: the rule of a step.
        known: state of the clips to make, with the sampler's mark of unknown cells where something is to be made.
        memory: text states [B, N, M]; None: no text, and no guidance.
        memory_mask: bool [B, N].
        steps: number of steps, 1 or more.
        guidance: w, or a function of progress. 0 ignores the text, 1 is the plain conditional model.
        generator: source of chance, on the model's device.
        progress: whether to show a bar.
        each: called with the state after every step, for pictures.
        rescale: for latents, share of `minigen.guidance.rescale_guidance`.

    Raises:
        MinigenError: steps below 1; a prediction that is not finite.
    """
    check_number("steps", steps, COUNT)
    was_training, evaluations = model.training, 0
    model.eval()
    try:
        state, times = sampler.start(known, generator), sampler.times(steps, known)
        pairs = list(zip(times[:-1], times[1:], strict=True))
        for number, (t, s) in enumerate(progress_bar(pairs, "steps", progress)):
            weight = guidance(number / max(1, steps - 1)) if callable(guidance) else guidance
            predicted, used = guided(model, sampler, state, t, memory, memory_mask, weight, rescale)
            evaluations += used
            state = sampler.step(state, known, t, s, predicted, generator)
            if each is not None:
                each(state)
    finally:
        model.train(was_training)
    return Made(state, evaluations)


def guided(
    model: Denoiser, sampler: Sampler, state: Tensor, t: float, memory: Tensor | None, mask: Tensor | None, w: float,
    rescale: float = 0.0,
) -> tuple[Tensor, int]:  # fmt: skip
    """Guided prediction for a state, and the number of evaluations it took (1, or 2 with guidance)."""
    level, attend = sampler.noise_level(t), sampler.attend(state, t)
    time = None if level is None else torch.full((len(state),), level, device=state.device)  # [B]
    if memory is None or w == 0:
        hidden, evaluations = model.hidden_states(state, None, None, time, attend), 1  # [B, T, D]
    elif w == 1:
        hidden, evaluations = model.hidden_states(state, memory, mask, time, attend), 1
    else:
        uncond = model.hidden_states(state, None, None, time, attend)
        cond = model.hidden_states(state, memory, mask, time, attend)
        hidden, evaluations = guide(cond, uncond, w), 2
    predicted = at_least_float32(model.head(hidden))  # [B, K, T, V] or [B, T, C]
    if rescale and evaluations == 2:
        predicted = rescale_guidance(predicted, at_least_float32(model.head(cond)), rescale)
    if not torch.isfinite(predicted).all():
        raise MinigenError(f"the prediction is not finite at guidance {w:g}. Give a smaller guidance, such as 3.")
    return predicted, evaluations
