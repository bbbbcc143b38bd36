"""Checks of notebook 06: accumulated gradients, clipping by the norm, a broken step, settings that train faster."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, stopped
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.optim import TrainConfig, learning_rate, make_optimizers, set_rate
from minigen.patterns import DelayPattern

GRADIENTS = ([3.0, -4.0], [[0.0, 12.0], [0.0, 0.0]])  # of norms 5 and 12, together 13
LIMITS = (1.0, 6.5, 20.0)  # the last one is above the norm
PARTS = (5, 2, 1)  # targets in each part of a batch
MISTAKES = {
    "shift": "the model reads the column that it has to predict. Shift its input.",
    "gaps": "the gaps count as code 0. They hold no code and must not count.",
    "zero": "the gradients of earlier steps are still there when the new ones are added.",
    "clip": "the weights move before the gradients are clipped, or nothing is clipped.",
}
START: dict[str, Any] = {"learning_rate": 3e-4, "warmup": 30, "weight_decay": 0.1, "clip": 1.0}
STEPS, GOAL = 60, 1.0  # of the training whose settings are chosen


# accumulated gradients


def accumulate(function: Callable[[nn.Module, list[tuple[Tensor, Tensor]]], object]) -> Verdict:
    """Gradient of the mean over all targets of all parts: function(model, parts) leaves it in the parameters' grad."""
    model, parts = _linear_and_parts()
    try:
        value = function(model, parts)
    except Exception as error:  # a reader's function may raise anything
        return stopped("accumulate(model, parts)", error)
    if value is ...:
        return UNANSWERED
    if model.weight.grad is None:
        return Verdict(False, "the parameters have no gradient. Call backward() on each part's share of the loss.")
    given = model.weight.grad
    x, target = (torch.cat(side) for side in zip(*parts, strict=True))
    whole = _gradient(model, [F.cross_entropy(model(x), target)])
    if torch.allclose(given, whole, rtol=1e-4, atol=1e-7):
        return Verdict(True, "the sum over all parts, divided by the number of all targets, is the whole batch's mean.")
    means = [F.cross_entropy(model(one), targets) for one, targets in parts]
    mistakes = (
        (_gradient(model, means) / len(parts), "a part of 1 target weighs as much as a part of 5."),
        (_gradient(model, means), "the means of the parts are added and never divided."),
        (len(x) * whole, "this is the gradient of the sum. Divide by the number of all targets."),
        (_gradient(model, means[-1:]), "only the last part is left: the gradient is set to zero between the parts."),
        (_gradient(model, means[:1]), "only the first part is there."),
    )
    for wrong, text in mistakes:
        if torch.allclose(given, wrong, rtol=1e-4, atol=1e-7):
            return Verdict(False, text)
    ratio = (given.norm() / whole.norm()).item()
    return Verdict(False, f"the gradient has {ratio:.2f} times the right norm. Compare it with one batch of all parts.")


def _linear_and_parts() -> tuple[nn.Linear, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(4, 6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    parts = [(torch.randn(n, 4, generator=generator), torch.randint(6, (n,), generator=generator)) for n in PARTS]
    return model, parts


def _gradient(model: nn.Linear, losses: list[Tensor]) -> Tensor:
    """Gradient of the sum of the losses with respect to the weight."""
    return torch.autograd.grad(torch.stack(losses).sum(), model.weight, retain_graph=True)[0]


# clipping


def clip(function: Callable[[list[Tensor], float], list[Tensor]]) -> Verdict:
    """Gradients scaled down to a norm of `limit` in all: function(gradients, limit) -> list of tensors."""
    for limit in LIMITS:
        gradients = [torch.tensor(values) for values in GRADIENTS]
        try:
            given = function([one.clone() for one in gradients], limit)
        except Exception as error:  # a reader's function may raise anything
            return stopped(f"clip(gradients, {limit:g})", error)
        if given is ...:
            return UNANSWERED
        mistake = _clip_mistake(given, gradients, limit)
        if mistake:
            return Verdict(False, mistake)
    return Verdict(True, "one norm for all of them, one factor min(1, limit / norm): the direction stays.")


def _clip_mistake(given: object, gradients: list[Tensor], limit: float) -> str:
    """What is wrong with clipped gradients; empty if nothing is."""
    shapes = [list(one.shape) for one in gradients]
    if not isinstance(given, list | tuple) or [list(getattr(one, "shape", [-1])) for one in given] != shapes:
        return f"clip gives {type(given).__name__}, not a list of tensors of the shapes {shapes}, like the gradients."
    norms = [one.norm() for one in gradients]
    norm = math.hypot(*norms)
    factors = (
        ([min(1.0, limit / one) for one in norms], "each by its own norm: the direction changes. One norm for all."),
        ([limit / norm] * 2, "a small gradient has been made larger. The factor is never above 1."),
        ([min(1.0, limit / norm**2)] * 2, "divided by the sum of squares. The norm is its square root."),
        ([min(1.0, limit / sum(norms))] * 2, "the norms are added. Add the squares and take the root."),
        ([1.0] * 2, "nothing has changed, but the norm is above the limit."),
    )  # fmt: skip
    if _alike(given, [one * min(1.0, limit / norm) for one in gradients]):
        return ""
    for factor, text in factors:
        if _alike(given, [one * scale for one, scale in zip(gradients, factor, strict=True)]):
            return f"norm {norm:g}, limit {limit:g}: {text}"
    if _alike(given, [one.clamp(-limit, limit) for one in gradients]):
        return f"limit {limit:g}: every number is clipped by itself, which changes the direction. Scale all of them."
    found = math.hypot(*(float(one.norm()) for one in given))
    return f"norm {norm:g}, limit {limit:g}: the norm is now {found:g}, not {min(norm, limit):g}."


def _alike(given: Sequence[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.allclose(one.float(), other, rtol=1e-4) for one, other in zip(given, wanted, strict=True))


# a broken step


def step(function: Callable) -> Verdict:
    """A step of training: function(model, optimizer, codes [B, K, T], pattern) moves the weights, returns the loss.

    Three steps of the reader's function are compared with three steps of all combinations of the four `MISTAKES`.
    """
    model, optimizer, codes, pattern = _tiny_training()
    try:
        losses = [function(model, optimizer, codes, pattern) for _ in range(3)]
    except Exception as error:  # a reader's function may raise anything
        return stopped("step(model, optimizer, codes, pattern)", error)
    if losses[0] is ...:
        return UNANSWERED
    given = [as_float(loss.detach() if isinstance(loss, Tensor) else loss) for loss in losses]
    numbers = [loss for loss in given if loss is not None]
    if len(numbers) < len(losses):
        return Verdict(False, f"step gives {losses[0]!r}. Return the loss as a number.")
    for left in sorted(product((False, True), repeat=4), key=sum):
        mistakes: dict[str, Any] = dict(zip(MISTAKES, left, strict=True))
        if _follows(model, numbers, mistakes):
            return _step_verdict([name for name, there in mistakes.items() if there])
    hint = "Shift, loss over the codes only, zero_grad, backward, clip at norm 1, step."
    return Verdict(
        False, f"three steps give the losses {[round(loss, 3) for loss in numbers]}, as no known step. {hint}"
    )


def _step_verdict(left: list[str]) -> Verdict:
    if not left:
        return Verdict(True, "shifted input, no gaps in the loss, fresh gradients, and clipping before the step.")
    return Verdict(
        False, f"{len(left)} of the 4 mistakes {'is' if len(left) == 1 else 'are'} left. {MISTAKES[left[0]]}"
    )


def _follows(model: AudioLM, losses: list, mistakes: dict[str, Any]) -> bool:
    """Whether three steps with these mistakes give these losses and weights."""
    other, optimizer, codes, pattern = _tiny_training()
    expected = [_some_step(other, optimizer, codes, pattern, **mistakes) for _ in range(3)]
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    alike = all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    return alike and all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(losses, expected, strict=True))


def _some_step(model, optimizer, codes: Tensor, pattern, shift: bool, gaps: bool, zero: bool, clip: str) -> float:
    """One step with mistakes, named as in `MISTAKES`. clip: "" in its place, "late" after the step, "missing"."""
    V = model.config.codebook_size
    sequence = pattern.apply(codes, V)  # [B, K, S]
    logits = model(sequence if shift else shift_right(sequence, V))  # [B, K, S, V]
    targets = sequence.masked_fill(sequence == V, 0) if gaps else sequence
    loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=V)
    if not zero:
        optimizer.zero_grad()
    loss.backward()
    if not clip:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if clip == "late":
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss.item()


def _tiny_training() -> tuple[AudioLM, torch.optim.Optimizer, Tensor, DelayPattern]:
    """A model with large heads, so that its gradient exceeds the clipping limit; SGD, codes and pattern."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioLM(AudioLMConfig(2, 8, 16, 1, 2, 32, 4, (0, 1)))
        codes = torch.randint(8, (3, 2, 6))
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(50)
    return model, torch.optim.SGD(model.parameters(), lr=0.3), codes, DelayPattern((0, 1))


# settings


def settings(answer: object) -> Verdict:
    """Settings of a short training, a dict with the keys of START: its last loss must be below GOAL nats a code."""
    if answer is ...:
        return UNANSWERED
    if not isinstance(answer, dict) or set(answer) != set(START):
        return Verdict(False, f"give a dict with the keys {', '.join(START)}.")
    try:
        config = TrainConfig(steps=STEPS, **answer)
    except Exception as error:  # a value that the library refuses
        return stopped("TrainConfig", error)
    before, after = _last_loss(TrainConfig(steps=STEPS, **START)), _last_loss(config)
    said = f"{after:.2f} nats a code, against {before:.2f} with the first settings."
    if after < GOAL:
        return Verdict(True, said)
    if not math.isfinite(after) or after > before:
        return Verdict(False, f"{said} Is the rate too high, or too low?")
    return Verdict(False, f"{said} The goal is below {GOAL:.1f}.")


def _last_loss(config: TrainConfig) -> float:
    """Mean loss of the last five steps of a tiny model that learns one melody in two codebooks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioLM(AudioLMConfig(2, 16, 32, 1, 2, 64, 4, (0, 1)))
        codes = torch.randint(16, (4, 2, 24))
    pattern, losses = DelayPattern((0, 1)), []
    sequence = pattern.apply(codes, 16)  # [B, K, S]
    optimizers = make_optimizers(model, config)
    for number in range(config.steps):
        logits = model(shift_right(sequence, 16))  # [B, K, S, V]
        loss = F.cross_entropy(logits.flatten(0, 2), sequence.flatten(), ignore_index=16)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer in optimizers:
            set_rate(optimizer, learning_rate(number, config))
            optimizer.step()
        losses.append(loss.item())
    return sum(losses[-5:]) / 5
