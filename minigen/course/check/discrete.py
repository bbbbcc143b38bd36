"""Checks of notebook 12: the noise from time 0 to t, a posterior, counts of revisions, a repaired fast sampler."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from minigen.course.check.verdict import Verdict, call
from minigen.generators.discrete_diffusion import KINDS, MASK, STAY, Transitions

STEPS, SIZE = 100, 5  # steps of the noise; V of the toy
TIMES = (0, 1, 37, 100)

Values = tuple[float, float, float]  # ᾱ, β̄, γ̄


# the noise from time 0 to t


def cumulative(function: Callable[[int, str, int], object]) -> Verdict:
    """function(t, kind, size) must be `Transitions(size, 100, kind).cumulative(t)`: (ᾱ_t, β̄_t, γ̄_t)."""
    cases = [(t, kind, size) for kind in KINDS for size in (SIZE, 1024) for t in TIMES]
    given = []
    for case in cases:
        value, failed = call(f"cumulative{case}", function, *case)
        if failed:
            return failed
        try:
            given.append([float(number) for number in value])  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            return Verdict(False, f"cumulative{case} gives {value!r}. Give the three numbers (stay, uniform, mask).")
    wanted = [Transitions(size, STEPS, kind).cumulative(t) for t, kind, size in cases]
    if _alike(given, wanted):
        return Verdict(True, "two straight lines from t = 1 on, the rest divided among V codes, and t = 0 is clean.")
    for mistake, text in CUMULATIVE_MISTAKES:
        if _alike(given, [mistake(*case) for case in cases]):
            return Verdict(False, text)
    case, found, right = next(row for row in zip(cases, given, wanted, strict=True) if not _alike(row[1:2], row[2:]))
    shown, needed = (", ".join(f"{number:.6g}" for number in numbers) for numbers in (found, right))
    return Verdict(False, f"cumulative{case} gives ({shown}). Right is ({needed}).")


def _line(ends: tuple[float, float], t: int, first: int = 1) -> float:
    """Value of the straight line through (first, ends[0]) and (100, ends[1]) at t."""
    return ends[0] + (ends[1] - ends[0]) * (t - first) / (STEPS - first)


def _values(t: int, kind: str, size: int, first: int = 1, clean: bool = True, share: int = 0) -> Values:
    """The cumulative values; the named arguments make typical mistakes. share: what is added to V in the division."""
    if t == 0 and clean:
        return 1.0, 0.0, 0.0
    stay = _line(STAY, t, first)
    mask = {"mask": 1 - stay, "mask_uniform": _line(MASK, t, first), "uniform": 0.0}[kind]
    return stay, (1 - stay - mask) / (size + share), mask


def _reordered(t: int, kind: str, size: int, order: tuple[int, int, int]) -> Values:
    values = _values(t, kind, size)
    return values[order[0]], values[order[1]], values[order[2]]


def _whole_share(t: int, kind: str, size: int) -> Values:
    stay, uniform, mask = _values(t, kind, size)
    return stay, size * uniform, mask


def _always_masks(t: int, kind: str, size: int) -> Values:
    return _values(t, "mask_uniform", size)


def _one_step(t: int, kind: str, size: int) -> Values:
    return _between(_values(max(0, t - 1), kind, size), _values(t, kind, size), size) if t else (1.0, 0.0, 0.0)


CUMULATIVE_MISTAKES: tuple[tuple[Callable[[int, str, int], Values], str], ...] = (
    (
        partial(_values, clean=False),
        "t = 0 is the clean clip: (1, 0, 0). The lines begin at t = 1.",
    ),
    (
        partial(_values, first=0),
        "the lines begin at t = 0. They begin at t = 1 and have 99 intervals.",
    ),
    (_whole_share, "the uniform share of all V codes together. Divide it by V: β̄ is that of a single code."),
    (
        partial(_values, share=1),
        "the uniform share is divided by V + 1. The mask is none of the V codes.",
    ),
    (
        partial(_values, share=-1),
        "the uniform share is divided by V − 1. The code itself can be drawn.",
    ),
    (_always_masks, "every kind has the masks of mask_uniform. For mask γ̄ is 1 − ᾱ, for uniform it is 0."),
    (
        partial(_reordered, order=(0, 2, 1)),
        "uniform and mask are exchanged: (stay, uniform, mask).",
    ),
    (partial(_reordered, order=(2, 1, 0)), "stay and mask are exchanged: (stay, uniform, mask)."),
    (_one_step, "these are the probabilities of the single step from t − 1 to t."),
)


def _alike(given: Iterable[Sequence[float]], wanted: Iterable[Sequence[float]]) -> bool:
    """Whether all rows are equal to within 10⁻⁹."""
    return all(
        len(one) == len(other) and all(abs(a - b) < 1e-9 for a, b in zip(one, other, strict=True))
        for one, other in zip(given, wanted, strict=True)
    )


# the posterior

POINTS = ((60, 30), (100, 99), (37, 1), (10, 0))  # t, s


def posterior(function: Callable) -> Verdict:
    """function(p [cells, V], seen [cells], at_s, at_t) must be the posterior of "mask_uniform": [cells, V + 1].

    at_s, at_t: the values (ᾱ, β̄, γ̄) from time 0 to s and to t.
    """
    noise = Transitions(SIZE, STEPS, "mask_uniform")
    p, seen = _cells(noise)
    given: list[Tensor] = []
    for t, s in POINTS:
        at_s, at_t = noise.cumulative(s), noise.cumulative(t)
        value, failed = call("posterior(p, seen, at_s, at_t)", function, p.clone(), seen.clone(), at_s, at_t)
        failed = failed or _wrong_table(value, len(seen))
        if failed:
            return failed
        given.append(value.double())  # type: ignore[attr-defined]
    wanted = [noise.posterior(p, seen, t, s) for t, s in POINTS]
    if _same(given, wanted):
        return Verdict(
            True, "matrices, Bayes and the closed form are one thing, for every stride, and each row sums to 1."
        )
    for changes, text in POSTERIOR_MISTAKES:
        if _same(given, [_bayes(noise, p, seen, t, s, **changes) for t, s in POINTS]):
            return Verdict(False, text)
    if _same([x / x.sum(-1, keepdim=True) for x in given], wanted):
        return Verdict(False, "right up to a factor: a row does not sum to 1. Bayes needs no factor at the end.")
    hidden = seen == SIZE
    parts = [all(torch.allclose(x[row], y[row], atol=1e-5) for x, y in zip(given, wanted, strict=True))
             for row in (hidden, ~hidden)]  # fmt: skip
    if any(parts):
        right, wrong = ("masked cells", "cells with a code")[:: 1 if parts[0] else -1]
        return Verdict(False, f"right for {right}, not for {wrong}.")
    return Verdict(False, "not right for the values tried. Σ_k p_k q(x_t | x_s) q(x_s | x_0 = k) / q(x_t | x_0 = k).")


POSTERIOR_MISTAKES: tuple[tuple[dict, str], ...] = (
    ({"divide": False}, "the division by q(x_t | x_0 = k) is missing: p is what the network says after it saw x_t."),
    (
        {"divide": False, "scale": True},
        "q(x_t | x_0 = k) is missing: scaling the sum to 1 is not the same. Divide p_k by it, code by code.",
    ),
    ({"on": "t"}, "the matrix from s to t is missing: q(x_t | x_s) is not q(x_t | x_0). Divide the values of t and s."),
    ({"on": "t", "scale": True}, "the matrix from s to t is missing: q(x_t | x_s) is not q(x_t | x_0)."),
    ({"on": "difference"}, "the values from s to t are quotients, not differences: α = ᾱ_t / ᾱ_s."),
    ({"on": "forward"}, "the row of x_t is taken instead of its column: a masked cell would stay masked for ever."),
    ({"to_s": False}, "q(x_s | x_0 = k) is missing: s has no effect."),
    ({"share": 1}, "the uniform share is divided by V + 1. The mask is none of the V codes."),
)


def _cells(noise: Transitions) -> tuple[Tensor, Tensor]:
    """Predictions [12, V] and what the cells show [12]: every code twice, and the mask twice."""
    p = 2 * torch.randn(2 * (noise.codebook_size + 1), noise.codebook_size, generator=torch.Generator().manual_seed(0))
    return p.double().softmax(-1), torch.arange(len(p)) % (noise.codebook_size + 1)


def _between(at_s: Sequence[float], at_t: Sequence[float], size: int) -> Values:
    """Values from s to t."""
    stay, mask = at_t[0] / at_s[0], 1 - (1 - at_t[2]) / (1 - at_s[2])
    return stay, (1 - stay - mask) / size, mask


def _matrix(stay: float, mask: float, size: int, share: int = 0) -> Tensor:
    """Matrix [V + 1, V + 1] of noise; share: what is added to V in the division, a mistake."""
    matrix = torch.full((size + 1, size + 1), (1 - stay - mask) / (size + share), dtype=torch.float64)
    matrix[:size, :size] += stay * torch.eye(size, dtype=torch.float64)
    matrix[:, size], matrix[size] = mask, 0.0
    matrix[size, size] = 1.0
    return matrix


def _bayes(
    noise: Transitions, p: Tensor, seen: Tensor, t: int, s: int, divide: bool = True, scale: bool = False,
    on: str = "", to_s: bool = True, share: int = 0,
) -> Tensor:  # fmt: skip
    """The posterior by matrices; the named arguments make typical mistakes."""
    size = noise.codebook_size
    at_s, at_t = noise.cumulative(s), noise.cumulative(t)
    between = _between(at_s, at_t, size)
    if on == "difference":
        between = (at_t[0] - at_s[0], 0.0, at_t[2] - at_s[2])
    first, whole, step = (_matrix(values[0], values[2], size, share) for values in (at_s, at_t, between))
    step = whole if on == "t" else step
    weight = p / whole[:size, seen].T if divide else p  # [cells, V]
    total = weight @ first[:size] if to_s else torch.nn.functional.pad(weight, (0, 1), value=1.0)  # [cells, V + 1]
    total = total * (step[seen] if on == "forward" else step[:, seen].T)
    return total / total.sum(-1, keepdim=True) if scale else total


def _wrong_table(value: object, cells: int) -> Verdict | None:
    if torch.is_tensor(value) and value.is_floating_point() and tuple(value.shape) == (cells, SIZE + 1):
        return None
    if torch.is_tensor(value) and tuple(value.shape) == (cells, SIZE):
        return Verdict(
            False, f"the shape is {list(value.shape)}: the probability of the mask is missing, the last one."
        )
    return Verdict(False, f"{_kind(value)} comes back. Give float [cells, V + 1] = {[cells, SIZE + 1]}.")


def _same(given: Iterable[Tensor], wanted: Iterable[Tensor]) -> bool:
    return all(torch.allclose(one, other, atol=1e-5, rtol=1e-5) for one, other in zip(given, wanted, strict=True))


# revisions

RUN = (  # codes [2, 4] before and after each of four steps; 9 is the mask
    ((9, 9, 3, 9), (9, 9, 9, 9)),
    ((9, 5, 4, 9), (2, 9, 9, 9)),
    ((1, 5, 3, 9), (2, 9, 7, 9)),
    ((1, 6, 3, 9), (3, 9, 7, 0)),
    ((1, 5, 8, 2), (4, 4, 7, 0)),
)


def revisions(function: Callable[[list[Tensor], int], object]) -> Verdict:
    """function(states, mask), codes [K, T] before and after each step, must count the revisions of each cell."""
    states, mask = [torch.tensor(state) for state in RUN], 9
    value, failed = call("revisions(states, mask)", function, [state.clone() for state in states], mask)
    if failed:
        return failed
    try:
        counts = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return Verdict(False, f"{_kind(value)} comes back. Give whole numbers [K, T] = {list(states[0].shape)}.")
    pairs = list(zip(states, states[1:], strict=False))
    shown = [(before != mask) & (after != mask) for before, after in pairs]
    changed = [before != after for before, after in pairs]
    wanted = _count(a & b for a, b in zip(shown, changed, strict=True))
    if counts.dtype == torch.bool:
        return Verdict(False, "True and False come back. Count the steps.")
    if counts.shape == wanted.shape and torch.equal(counts.double(), wanted.double()):
        return Verdict(True, f"{int(wanted.sum())} revisions. In masked generation every count is 0.")
    mistakes = (
        (_count(changed), "a masked cell that gets its first code is counted. A revision replaces a code."),
        (_count(a & ~b for a, b in zip(shown, changed, strict=True)), "the steps that keep the code are counted."),
        (((states[0] != states[-1]) & (states[0] != mask)).long(), "only the first and the last state are compared."),
        ((wanted > 0).long(), "each cell counts once. Count every step that replaces its code."),
        (wanted.sum(), "this is the number of all cells together. Give one for each cell: [K, T]."),
        (torch.stack([(a & b).sum() for a, b in zip(shown, changed, strict=True)]),
         "this is the number of each step. Give one for each cell: [K, T]."),
    )  # fmt: skip
    for wrong, text in mistakes:
        if counts.shape == wrong.shape and torch.equal(counts.double(), wrong.double()):
            return Verdict(False, text)
    if counts.shape != wanted.shape:
        return Verdict(
            False, f"the shape is {list(counts.shape)}. Give one number for each cell: {list(wanted.shape)}."
        )
    return Verdict(False, f"{counts.tolist()} for the run tried. Right is {wanted.tolist()}.")


def _count(steps: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(steps)).sum(0)


# a fast sampler to repair

FAST_BUGS = {  # mistakes of the function to repair
    "share": "the uniform share is divided by V + 1 (the rows of the matrix do not sum to 1)",
    "stride": "x_t is taken for x_{s+1} (use the matrices of t)",
    "row": "the row of the cell's code is taken (Bayes needs its column: how likely each x_s leads to it)",
}


def fast_posterior(function: Callable) -> Verdict:
    """function(noise, p [cells, V], seen [cells], t, s) must be the posterior of noise from t to s: [cells, V + 1].

    Names each of the three mistakes that is still in it.
    """
    noise = Transitions(SIZE, STEPS, "mask_uniform")
    p, seen = _cells(noise)
    given: list[Tensor] = []
    for t, s in POINTS:
        value, failed = call("fast_posterior(...)", function, noise, p.clone(), seen.clone(), t, s)
        failed = failed or _wrong_table(value, len(seen))
        if failed:
            return failed
        given.append(value.double())  # type: ignore[attr-defined]
    for there in product((False, True), repeat=3):
        bugs = dict(zip(FAST_BUGS, there, strict=True))
        if _same(given, [_fast(noise, p, seen, t, s, bugs) for t, s in POINTS]):
            return _left([text for name, text in FAST_BUGS.items() if bugs[name]])
    return Verdict(False, "another posterior than that of the library, and by none of the three mistakes alone.")


def _left(texts: list[str]) -> Verdict:
    if not texts:
        return Verdict(
            True, "rows that sum to 1, the column of the code, and the matrices of t: exact for every stride."
        )
    begun = "no answer so far: " if len(texts) == len(FAST_BUGS) else ""
    return Verdict(False, f"{begun}{len(texts)} of 3 left: {'; '.join(texts)}.")


def _fast(noise: Transitions, p: Tensor, seen: Tensor, t: int, s: int, bugs: dict[str, bool]) -> Tensor:
    """The function of the exercise with the mistakes that `bugs` names."""
    return _bayes(
        noise, p, seen, s + 1 if bugs["stride"] else t, s, share=int(bugs["share"]), on="forward" if bugs["row"] else ""
    )


def _kind(value: object) -> str:
    """Type and shape of a value."""
    return f"{value.dtype} {list(value.shape)}" if torch.is_tensor(value) else f"{type(value).__name__}"
