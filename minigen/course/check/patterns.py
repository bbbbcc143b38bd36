"""Checks of notebook 03: what a parallel draw invents, what a delay lets a code see, undoing it, how long it takes."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from minigen.course.check.verdict import Verdict, as_float, call, number, same
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


def revert(function: Callable[[Tensor, tuple], object]) -> Verdict:
    """Undo a delay: function(sequence [B, K, S], delays) -> codes [B, K, T]."""
    for delays in DELAYS:
        codes = torch.arange(2 * len(delays) * 9).view(2, len(delays), 9)
        sequence = DelayPattern(delays).apply(codes, fill=999)
        value, failed = call("revert", function, sequence.clone(), delays)
        if failed:
            return failed
        verdict = _judge_reverted(value, codes, sequence, delays)
        if verdict:
            return verdict
    return Verdict(True, "codes[b, k, t] = sequence[b, k, t + delays[k]], for T = S − max(delays) frames.")


def latency(answer: object, delays: tuple[int, ...] = (0, 2, 4, 6), frame_rate: float = 50.0) -> Verdict:
    """Milliseconds of sound time until the first frame is whole: (max(delays) + 1) / frame_rate, in ms."""
    late, frame = max(delays), 1000 / frame_rate
    mistakes = (
        (
            late * frame,
            f"is {late} columns. Column 0 counts as well: the last code of frame 0 stands in column {late}.",
        ),
        ((late + 2) * frame, "is one column too many. The start column is read, not written."),
        (frame, "is one column: without delays frame 0 would be whole after it. When is its last codebook written?"),
        (len(delays) * frame, "counts codebooks. The delays grow by more than 1 here."),
        (sum(delays) * frame, "adds the delays up. The streams wait at the same time."),
        ((late + 1) * frame / 1000, "is the answer in seconds. Give milliseconds."),
        (late + 1, "is the number of columns. How long does one take?"),
    )
    said = f"frame 0 is whole after columns 0 … {late}: {late + 1} × {frame:g} ms = {(late + 1) * frame:g} ms."
    return number(answer, (late + 1) * frame, said, mistakes, "In which column stands the last code of frame 0?")


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


def _judge_reverted(value: object, codes: Tensor, sequence: Tensor, delays: tuple) -> Verdict | None:
    """None where it is right, else what went wrong."""
    if not isinstance(value, Tensor):
        return Verdict(False, f"revert gives {type(value).__name__}, not a tensor.")
    if value.shape == codes.shape and torch.equal(value, codes):
        return None
    T, late = codes.shape[-1], max(delays)
    if value.ndim == 3 and value.shape[-1] == sequence.shape[-1] != T:
        return Verdict(
            False, f"delays {delays}: {T} frames were laid out, {value.shape[-1]} come back. T = S − max(delays)."
        )
    if value.shape != codes.shape:
        return Verdict(
            False, f"delays {delays}: codes {list(codes.shape)} were laid out, {list(value.shape)} come back."
        )
    wrongly = {
        "the delays are still in it: stream k starts in column delays[k].": [0] * len(delays),
        "the streams move the wrong way: to undo a delay, read later columns, t + delays[k].": [-d for d in delays],
        "one column too late in every stream: there is no start column in this sequence.": [d + 1 for d in delays],
        "one column too early in every stream.": [d - 1 for d in delays],
        "every stream is cut alike. Each has its own delay.": [late] * len(delays),
    }
    for text, starts in wrongly.items():
        if torch.equal(value, _rolled(sequence, starts, T)) or _agree_inside(value, sequence, starts):
            return Verdict(False, f"delays {delays}: {text}")
    if (value == 999).any():
        return Verdict(False, f"delays {delays}: the special token is among the codes. No gap may come back.")
    return Verdict(False, f"delays {delays}: the shape is right, the codes are not. Try it on DelayPattern's drawing.")


def _rolled(sequence: Tensor, starts: list[int], frames: int) -> Tensor:
    """Stream k from column starts[k] on, going round at the ends."""
    return torch.stack(
        [row.roll(-start, -1)[..., :frames] for row, start in zip(sequence.unbind(1), starts, strict=True)], 1
    )


def _agree_inside(value: Tensor, sequence: Tensor, starts: list[int]) -> bool:
    """As `_rolled`, where an end was filled or clamped rather than rolled: a middle that all such answers share."""
    inside = slice(value.shape[-1] // 3 + 1, value.shape[-1] // 3 + 2)
    wanted = _rolled(sequence, starts, value.shape[-1])
    return any(start != 0 for start in starts) and torch.equal(value[..., inside], wanted[..., inside])
