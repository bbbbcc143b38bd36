"""Checks of notebook 06: the loss of knowing nothing, the pairs that text dropout leaves, clipping by the norm."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, number, numbers, same, stopped

BATCHES = ((16, 0.1), (2, 0.5), (8, 1.0), (5, 0.3))  # (B, p)
GRADIENTS = ([3.0, -4.0], [[0.0, 12.0], [0.0, 0.0]])  # of norms 5 and 12, together 13
LIMITS = (1.0, 6.5, 20.0)  # the last one is above the norm


def first_loss(answer: object) -> Verdict:
    """Nats a code of a model that gives 2048 entries the same probability."""
    mistakes = (
        (math.log2(2048), "is in bits. A nat is a natural logarithm: use log."),
        (math.log10(2048), "comes from log10. Nats are natural logarithms."),
        (math.log(1024), "is for 1024 entries, as here. These models have 2048."),
        (4 * math.log(2048), "is for the four codes of a frame. What does one cost?"),
        (-math.log(2048), "has the wrong sign: the loss is minus the logarithm of a probability below 1."),
        (1 / 2048, "is the probability of each code. The loss is minus its logarithm."),
        (2048, "is the number of equally likely codes. The loss is its logarithm."),
    )
    said = "−log(1/2048) = log 2048 = 7.62 nats."
    return number(answer, math.log(2048), said, mistakes, "Minus the natural logarithm of the probability of one code.")


def pairs(function: Callable[[int, float], float]) -> Verdict:
    """Mean number of ordered pairs of which both are dropped: function(B, p) must be B (B - 1) p²."""
    given, failed = numbers("pairs", function, BATCHES)
    if failed:
        return failed
    if same(given, [B * (B - 1) * p * p for B, p in BATCHES]):
        return Verdict(True, "B (B − 1) pairs, each without text with probability p · p.")
    return Verdict(False, _pairs_mistake(given))


def _pairs_mistake(given: list) -> str:
    mistakes = (
        (lambda B, p: B * (B - 1) * p * p / 2, "counts each pair once. Ordered pairs: (i, j) and (j, i) are two."),
        (lambda B, p: B * (B - 1) * p, "is for one draw a batch. Here each of the two clips has its own draw."),
        (lambda B, p: B * B * p * p, "pairs every clip with itself, too: B − 1 partners each."),
        (lambda B, p: B * p * (B * p - 1), "puts the mean of n into n (n − 1), whose mean is another number."),
        (lambda B, p: B * p, "is the number of clips without text. How many pairs do they make?"),
        (lambda B, p: B * (B - 1), "counts all pairs of the batch, with text or without."),
    )
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in BATCHES]):
            return f"{as_float(given[0]):g} for B = 16, p = 0.1 {text}"
    return f"{as_float(given[0]):g} for B = 16, p = 0.1; the cell above measured about 2.4. How likely is one pair?"


def clip(function: Callable[[list[Tensor], float], list[Tensor]]) -> Verdict:
    """Gradients scaled down to a norm of `limit` in all: function(gradients, limit) -> list of tensors."""
    for limit in LIMITS:
        gradients = [torch.tensor(values) for values in GRADIENTS]
        try:
            given = function([one.clone() for one in gradients], limit)
        except Exception as error:  # whatever a reader's function may raise
            return stopped(f"clip(gradients, {limit:g})", error)
        if given is ...:
            return UNANSWERED
        said = _clip_mistake(given, gradients, limit)
        if said:
            return Verdict(False, said)
    return Verdict(True, "one norm for all of them, one factor min(1, limit / norm): the direction stays.")


def _clip_mistake(given: object, gradients: list[Tensor], limit: float) -> str:
    """What is wrong with clipped gradients; empty where nothing is."""
    shapes = [list(one.shape) for one in gradients]
    if not isinstance(given, list | tuple) or [list(getattr(one, "shape", [-1])) for one in given] != shapes:
        return f"clip gives {type(given).__name__}, not a list of tensors of the shapes {shapes}, like the gradients."
    norms = [one.norm() for one in gradients]
    norm = math.hypot(*norms)
    factors = (
        ([min(1.0, limit / one) for one in norms], "each by its own norm: the direction changes. One norm for all."),
        ([limit / norm] * 2, "a small gradient has been made larger. The factor is never above 1."),
        ([min(1.0, limit / norm**2)] * 2, "divided by the sum of squares. The norm is its square root."),
        ([min(1.0, limit / sum(norms))] * 2, "norms are not added: the squares are, then comes the root."),
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


def _alike(given: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.allclose(one.float(), other, rtol=1e-4) for one, other in zip(given, wanted, strict=True))
