"""Checks of notebook 07: the nucleus of top-p, a guided probability, Ho and Salimans' scale, what guidance costs."""

from collections.abc import Callable, Iterable

import torch

from minigen.course.check.verdict import UNANSWERED, Verdict, number
from minigen.patterns import DelayPattern

NUCLEI = (  # (probabilities, p): sorted and not, a first code that reaches p alone, p reached exactly, all of them
    ((0.5, 0.25, 0.125, 0.125), 0.6), ((0.125, 0.5, 0.125, 0.25), 0.6), ((0.0625, 0.9375), 0.5),
    ((0.25, 0.5, 0.25), 0.5), ((0.375, 0.0625, 0.3125, 0.25), 0.7), ((0.3125, 0.1875, 0.5), 1.0),
)  # fmt: skip


def nucleus(function: Callable[[torch.Tensor, float], Iterable]) -> Verdict:
    """function(probs [V], p) must give the codes that top-p keeps: their numbers in any order, or a bool for each."""
    given = []
    for probs, p in NUCLEI:
        try:
            answer = function(torch.tensor(probs), p)
            if answer is ...:
                return UNANSWERED
            given.append(_codes(answer, len(probs)))
        except Exception as error:  # whatever a reader's function may raise or give
            said = f"nucleus({list(probs)}, {p}) stopped with {type(error).__name__}: {error}"
            return Verdict(False, said + " Give the numbers of the codes that are kept.")
    right = [_nucleus(*case) for case in NUCLEI]
    if given == right:
        return Verdict(True, "a code stays while those more likely than it do not reach p by themselves.")
    return Verdict(False, _nucleus_mistake(given, right))


def _codes(answer: object, size: int) -> set[int]:
    """The codes named by an answer: a mask of `size` bools, or numbers of codes."""
    values = answer.tolist() if hasattr(answer, "tolist") else answer
    values = list(values) if isinstance(values, Iterable) else [values]
    if len(values) == size and all(isinstance(value, bool) for value in values):
        return {code for code, kept in enumerate(values) if kept}
    if any(isinstance(value, bool) or int(value) != value for value in values):
        raise ValueError(f"{values} are no codes.")
    return {int(value) for value in values}


def _nucleus(probs: tuple[float, ...], p: float) -> set[int]:
    kept, total = set(), 0.0
    for code in _by_probability(probs):
        if total >= p:
            break
        kept.add(code)
        total += probs[code]
    return kept


def _by_probability(probs: tuple[float, ...]) -> list[int]:
    return sorted(range(len(probs)), key=lambda code: -probs[code])


def _too_early(probs: tuple[float, ...], p: float) -> set[int]:
    order = _by_probability(probs)
    return {code for n, code in enumerate(order, 1) if sum(probs[c] for c in order[:n]) <= p}


def _too_late(probs: tuple[float, ...], p: float) -> set[int]:
    order = _by_probability(probs)
    return set(order[: len(_nucleus(probs, p)) + 1])


def _unsorted(probs: tuple[float, ...], p: float) -> set[int]:
    return {code for code in range(len(probs)) if sum(probs[:code]) < p}


def _places(probs: tuple[float, ...], p: float) -> set[int]:
    return set(range(len(_nucleus(probs, p))))


def _nucleus_mistake(given: list[set[int]], right: list[set[int]]) -> str:
    mistakes = (
        (_too_early, "the code with which the sum reaches p is missing: the kept codes must have at least p together."),
        (_too_late, "one code too many: stop as soon as the sum has reached p."),
        (_unsorted, "the sum runs in the order of the codes. Sort them by probability first."),
        (_places, "these are places in the sorted order. Turn them back into the numbers of the codes."),
        (
            lambda probs, p: {code for code, value in enumerate(probs) if value >= p},
            "p is compared with single probabilities. It is the sum of the likeliest that has to reach p.",
        ),
        (
            lambda probs, p: set(range(len(probs))) - _nucleus(probs, p),
            "these are the codes that are struck out. Give those that stay.",
        ),
    )
    for function, text in mistakes:
        if given == [function(*case) for case in NUCLEI]:
            return text
    wrong = next(i for i in range(len(NUCLEI)) if given[i] != right[i])
    probs, p = NUCLEI[wrong]
    return f"nucleus({list(probs)}, {p}) keeps codes {sorted(given[wrong])}, top-p keeps {sorted(right[wrong])}."


def guided(answer: object, cond: Iterable[float], uncond: Iterable[float], scale: float) -> Verdict:
    """The guided probability of code 0, for the probabilities cond and uncond with and without text."""
    c, u = (torch.as_tensor(values, dtype=torch.float64) for values in (cond, uncond))
    right = _share(u * (c / u) ** scale)
    mistakes = (
        (c[0].item(), "is the probability with the text: that is scale 1."),
        (u[0].item(), "is the probability without text: that is scale 0."),
        ((u + scale * (c - u))[0].item(), "guides the probabilities themselves. Guide their logarithms, then softmax."),
        (_share((u + scale * (c - u)).clamp(min=0)), "guides the probabilities themselves. Guide their logarithms."),
        (_share((u + scale * (c - u)).exp()), "takes the probabilities for logits. Their logarithms are logits."),
        (_share(c**scale), "leaves out p(audio): this is the conditional at the temperature 1 / scale."),
        (_share(c * (c / u) ** scale), "starts from cond: cond + w (cond − uncond). Start from uncond."),
        (_share(c * (u / c) ** scale), "has the difference the wrong way round: cond − uncond."),
        ((u * (c / u) ** scale)[0].item(), "does not sum to 1 with that of the other codes. Divide by the sum."),
    )
    said = f"uncond × (cond / uncond)^{scale:g}, scaled to a sum of 1: {right:.4f}, where the text alone said {c[0]:g}."
    return number(_rounded(answer, right), right, said, mistakes, "Guide log p code by code, then take the softmax.")


def _share(weights: torch.Tensor) -> float:
    return (weights[0] / weights.sum()).item()


def _rounded(answer: object, right: float) -> object:
    """`right` where the answer is it to three digits or to the precision of float32, else the answer."""
    try:
        return right if abs(float(answer) - right) < 6e-4 else answer
    except (TypeError, ValueError, RuntimeError):
        return answer


def their_scale(answer: object, ours: float = 3.0) -> Verdict:
    """Ho and Salimans' w for our scale: (1 + w) cond − w uncond = uncond + ours (cond − uncond)."""
    mistakes = (
        (ours, "is our scale. Compare the factors of cond: theirs is 1 + w."),
        (ours + 1, "goes the other way: their 1 + w is our scale."),
        (1 - ours, "has the wrong sign. The factor of uncond is −w in theirs, 1 − scale in ours."),
    )
    said = f"1 + w = {ours:g}. Their 0 is our 1, plain conditional sampling. Their −1 is our 0."
    return number(answer, ours - 1, said, mistakes, "Compare the factors of cond on both sides.")


def cells(answer: object, captions: int, frames: int, delays: tuple[int, ...]) -> Verdict:
    """Columns that the model works out for guided clips: 2 rows a caption, S columns a row."""
    steps = DelayPattern(delays).steps(frames)
    mistakes = (
        (captions * steps, "counts one row a caption. Guidance needs a second one, without text."),
        (2 * captions * frames, f"counts frames. The delays make it {steps} columns for {frames} frames."),
        (captions * frames, "counts one row a caption, and frames instead of columns."),
        (2 * steps, "is what one caption takes."),
        (2 * captions * steps * len(delays), f"counts codes. A column holds {len(delays)} of them at once."),
        (3 * captions * steps, "has three rows a caption. The scale is a factor, not a number of rows."),
    )
    said = f"{captions} captions × 2 rows × {steps} columns = {2 * captions * steps}; at scale 1 or 0 it is half of it."
    right = 2 * captions * steps
    return number(answer, right, said, mistakes, "Multiply captions, rows a caption and columns a row.")
