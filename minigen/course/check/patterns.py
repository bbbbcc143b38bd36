"""Checks of notebook 03: impossible pairs, what a code knows under a delay, a pattern by design, a streamer."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, call, same, stopped
from minigen.patterns import DelayPattern

TENTH = Fraction(1, 10)
JOINTS = (  # tables p(a, b), a row for each a, that tell the formulas apart
    [[4 * TENTH, TENTH, 0 * TENTH], [0 * TENTH, TENTH, 4 * TENTH]],
    [[5 * TENTH, 0 * TENTH], [0 * TENTH, 5 * TENTH]],
    [[2 * TENTH, 2 * TENTH], [3 * TENTH, 3 * TENTH]],
    [[6 * TENTH, 0 * TENTH], [2 * TENTH, 2 * TENTH]],
    [[0 * TENTH, 3 * TENTH, 0 * TENTH], [TENTH, 0 * TENTH, 6 * TENTH]],
)
DELAYS = ((0, 1, 2, 3), (0, 0, 1, 1), (0, 2, 4, 6), (0, 0), (3, 0, 1))


def impossible(function: Callable[[list], object]) -> Verdict:
    """Share of frames, drawn code by code from the marginals, that never occur: function(joint) -> a number.

    joint: rows of p(a, b). Right is Σ p(a) p(b) over the pairs with p(a, b) = 0.
    """
    given = []
    for joint in JOINTS:
        value, failed = call("impossible", function, [list(row) for row in joint])
        if failed:
            return failed
        if as_float(value) is None:
            return Verdict(False, f"impossible(joint) gives {value!r}, not a number. What is returned?")
        given.append(as_float(value))
    right = [_impossible(joint) for joint in JOINTS]
    if same(given, right):
        said = "Σ p(a) p(b) over the pairs that have p(a, b) = 0: each code is possible, the pair is not."
        return Verdict(True, said)
    for formula, text in IMPOSSIBLE_MISTAKES:
        if same(given, [formula(joint) for joint in JOINTS]):
            return Verdict(False, text)
    wrong = next(i for i in range(len(JOINTS)) if not same(given[i : i + 1], right[i : i + 1]))
    table = "; ".join(", ".join(f"{float(p):g}" for p in row) for row in JOINTS[wrong])
    return Verdict(False, f"for the table [{table}] it gives {given[wrong]:g}, but {float(right[wrong]):g} are drawn.")


def known(function: Callable[[int, int, int, int, tuple], object]) -> Verdict:
    """Is code (j, u) known when code (k, t) is predicted? function(k, t, j, u, delays) -> bool."""
    cases = [
        (k, t, j, u, d)
        for d in DELAYS
        for k in range(len(d))
        for t in range(4)
        for j in range(len(d))
        for u in range(4)
    ]
    given = []
    for case in cases:
        value, failed = call("known", function, *case)
        if failed:
            return failed
        if value not in (True, False):
            return Verdict(False, f"known{case} gives {value!r}. Return True or False.")
        given.append(bool(value))
    right = [_known(*case) for case in cases]
    if given == right:
        return Verdict(True, "u + delays[j] < t + delays[k]: it is known if it stands in an earlier column.")
    for formula, text in KNOWN_MISTAKES:
        if given == [formula(*case) for case in cases]:
            return Verdict(False, text)
    k, t, j, u, delays = next(case for case, g, r in zip(cases, given, right, strict=True) if g != r)
    return Verdict(
        False,
        f"delays {delays}: code ({j}, {u}) stands in column {u + delays[j]} and ({k}, {t}) in column {t + delays[k]}, "
        f"but known({k}, {t}, {j}, {u}, delays) is {not _known(k, t, j, u, delays)}.",
    )


def pair_positions(function: Callable[[int, int], object]) -> Verdict:
    """A pattern of two columns a frame: function(K, T) -> int64 [K, T], 2 t for codebook 0, 2 t + 1 for the others."""
    for K, T in ((4, 5), (2, 3), (3, 1)):
        value, failed = call("pair_positions", function, K, T)
        if failed:
            return failed
        fault = _positions_fault(value, K, T)
        if fault:
            return Verdict(False, f"K = {K}, T = {T}: {fault}")
    return Verdict(True, "S = 2 T columns: codebook 0 knows the whole past, and the others know codebook 0.")


def _positions_fault(value: object, K: int, T: int) -> str:
    if not isinstance(value, Tensor) or value.shape != (K, T):
        given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return f"positions are a tensor [{K}, {T}], got {given}."
    if value.is_floating_point() or value.dtype == torch.bool:
        return f"positions are whole numbers, int64, got {value.dtype}."
    if torch.equal(value, 2 * torch.arange(T) + (torch.arange(K) > 0).long()[:, None]):
        return ""
    if value.min() < 0 or value.max() >= 2 * T:
        return (
            f"columns lie in 0 … {2 * T - 1}, but here in {int(value.min())} … {int(value.max())}: S = 2 T is enough."
        )
    if (value[1:] <= value[0]).any():
        return "a finer codebook does not see codebook 0 of its frame: that must stand in an earlier column."
    if (value[0, 1:] <= value[:, :-1].max(0).values).any():
        return "codebook 0 does not see all codes of the frame before: they must stand in earlier columns."
    return "codebook 0 of frame t stands in column 2 t, the others of this frame in column 2 t + 1."


def streamer(function: Callable[[Tensor, tuple, list], object]) -> Verdict:
    """A streamer: function(column [K], delays, memory) -> the frame [K] that the column completes, or None."""
    for delays in DELAYS:
        codes = torch.arange(len(delays) * 9).view(1, len(delays), 9)
        columns = DelayPattern(delays).apply(codes, fill=999)[0].T  # [S, K]
        memory: list = []
        for s, column in enumerate(columns):
            try:
                value = function(column.clone(), delays, memory)
            except Exception as error:  # whatever a reader's function may raise
                return stopped(f"delays {delays}, column {s}: push", error)
            if value is ...:
                return UNANSWERED
            fault = _frame_fault(value, codes[0], s, delays)
            if fault:
                return Verdict(False, f"delays {delays}, column {s}: {fault}")
    return Verdict(True, "column s completes frame s − max(delays): code k is from column t + delays[k].")


def _frame_fault(value: object, codes: Tensor, s: int, delays: tuple) -> str:
    """What is wrong with the answer to column s; codes [K, T]."""
    t = s - max(delays)
    if t < 0:
        return "" if value is None else f"no frame is complete before column {max(delays)}: return None."
    if value is None:
        return f"frame {t} is complete, but nothing comes out."
    frame = torch.as_tensor(value).flatten()
    if frame.shape != codes[:, t].shape:
        return f"a frame has {len(codes)} codes, got {len(frame)}."
    if torch.equal(frame, codes[:, t]):
        return ""
    if (frame == 999).any():
        return "the special token is among the codes. Each code has to be read from its own column."
    frames = [
        int((codes[k] == frame[k]).nonzero()[0]) if (codes[k] == frame[k]).any() else -1 for k in range(len(codes))
    ]
    return f"the codes come from frames {frames} and should all come from frame {t}."


def _pairs(joint: list) -> list[tuple[Fraction, Fraction]]:
    """(p(a, b), p(a) p(b)) of every pair."""
    columns = [sum(column) for column in zip(*joint, strict=True)]
    return [(p, sum(row) * columns[b]) for row in joint for b, p in enumerate(row)]


def _impossible(joint: list) -> Fraction:
    return sum(product for p, product in _pairs(joint) if p == 0)


IMPOSSIBLE_MISTAKES = (
    (lambda joint: sum(q for p, q in _pairs(joint) if p > 0), "that is the share of pairs that do occur: the rest."),
    (
        lambda joint: Fraction(sum(p == 0 for p, _ in _pairs(joint)), len(_pairs(joint))),
        "that counts pairs. Each must count as often as it is drawn, p(a) p(b).",
    ),
    (
        lambda joint: sum(p == 0 for p, _ in _pairs(joint)),
        "that is how many pairs never occur, not how often they are drawn: p(a) p(b) each.",
    ),
    (
        lambda joint: sum(p for p, _ in _pairs(joint) if p == 0),
        "the joint table gives these pairs 0 by definition. A parallel draw uses p(a) p(b).",
    ),
    (
        lambda joint: sum(abs(p - q) for p, q in _pairs(joint)) / 2,
        "that is all that is drawn too often (total variation), impossible or not. Keep the pairs with p(a, b) = 0.",
    ),
)


def _known(k: int, t: int, j: int, u: int, delays: tuple) -> bool:
    return u + delays[j] < t + delays[k]


KNOWN_MISTAKES = (
    (
        lambda k, t, j, u, d: u + d[j] <= t + d[k],
        "codes of the same column are drawn at the same moment and do not see each other: < instead of <=.",
    ),
    (
        lambda k, t, j, u, d: u < t or (u == t and j < k),
        "that is what flatten would know. Under a delay a code of an earlier frame may be still to come.",
    ),
    (lambda k, t, j, u, d: u < t, "frames are not columns: compare t + delays[k] with u + delays[j]."),
    (lambda k, t, j, u, d: u - d[j] < t - d[k], "a delay moves a code to a later column: t + delays[k], not minus."),
    (lambda k, t, j, u, d: u + d[j] > t + d[k], "the other way round: later columns are not written yet."),
    (lambda k, t, j, u, d: d[j] < d[k], "the frames t and u take part as well: compare columns."),
)
