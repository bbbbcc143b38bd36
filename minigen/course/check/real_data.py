"""Checks of notebook 10: the file of a row, the rows that a process compares, the rows that fit into memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, call, numbers, same, stopped

# youtube_id, start_time, names of the files there, and the one that holds the row's clip (None: there is none)
ROWS = (
    ("lesson00001", "30", {"lesson00001_30.wav", "other000001.wav"}, "lesson00001_30.wav"),
    ("lesson00001", "30", {"lesson00001.wav"}, "lesson00001.wav"),
    ("lesson00001", "30", {"Ylesson00001_30.wav"}, "Ylesson00001_30.wav"),
    ("lesson00001", "30", {"Ylesson00001.wav"}, "Ylesson00001.wav"),
    ("lesson00001", "30", {"other000001.wav", "lesson00001.txt"}, None),
    ("lesson00001", "30", {"lesson00001_300.wav"}, None),
    ("-_a30", "5", {"-_a30_5.wav"}, "-_a30_5.wav"),
)
MEMORY = ((24e9, 55e6, 1.4e9), (8e9, 8.5e6, 0.37e9), (80e9, 420e6, 0.5e9), (1e9, 420e6, 3.6e9))  # free, weights, a row


def clip_of(function: Callable) -> Verdict:
    """Which file holds a row's clip: function(youtube_id, start_time, names) -> a name out of the set, or None."""
    for video, start, names, right in ROWS:
        given, failed = call("clip_of", function, video, start, set(names))
        if failed:
            return failed
        if given != right:
            asked = f"clip_of({video!r}, {start!r}, {sorted(names)})"
            return Verdict(False, f"{asked} gives {given!r}, not {right!r}. {_clip_hint(given, right, names)}")
    return Verdict(True, "four names, tried in turn: with start_time and without, and both after a Y.")


def _clip_hint(given, right, names) -> str:
    if given is not None and given not in names:
        return "Give the name of a file that is there, with its suffix, or None."
    if right is None:
        return "Compare whole names: the beginning of a name is not enough, and a .txt is no sound."
    if given is None and right.startswith("Y"):
        return "Some sets put a Y before the name, so that none begins with a minus."
    if given is None and "_" not in right:
        return "Some sets leave the start_time out."
    return "Try <youtube_id>_<start_time>, <youtube_id>, and both after a Y, each with .wav."


def gathered(function: Callable[[Tensor, slice], Tensor]) -> Verdict:
    """function(rows [B, D], own) must give all rows, of which only rows[own] carry a gradient.

    Its gradients, added over the processes, must be the gradient of one process that has the whole batch.
    """
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, pulls = torch.zeros_like(rows), torch.arange(18, dtype=torch.float64).view(6, 3) + 1
    for own in (slice(0, 2), slice(2, 4), slice(4, 6)):
        live = rows.clone().requires_grad_()
        try:
            answer = function(live, own)
            if answer is ...:
                return UNANSWERED
            if not isinstance(answer, Tensor) or answer.shape != rows.shape:
                return Verdict(False, f"{_shape(answer)} for rows of [6, 3]. Give all rows, [B, D].")
            if not torch.equal(answer.detach(), rows):
                return Verdict(False, f"for own = rows {own.start} to {own.stop - 1}, other values or another "
                                      "order than the rows that were given. Pairs would be wrong.")  # fmt: skip
            if not answer.requires_grad:
                return Verdict(False, "no row carries a gradient: the loss would train nothing, without an error.")
            (answer * pulls).sum().backward()
        except Exception as error:  # a reader's function may raise anything
            return stopped("gathered", error)
        total += live.grad
    if torch.equal(total, pulls):
        return Verdict(True, "added over the processes, the gradients are those of the whole batch.")
    if torch.equal(total, 3 * pulls):
        return Verdict(False, "every row carries a gradient in all 3 processes: added up, 3 times too much.")
    if torch.equal(total, 2 * pulls):
        return Verdict(False, "the gradient goes to the others' rows. Detach those, and keep it on your own.")
    return Verdict(False, "the gradients do not add up to that of the whole batch. Only rows[own] carry one.")


def _shape(answer: object) -> str:
    return f"the shape is {list(answer.shape)}" if isinstance(answer, Tensor) else f"{type(answer).__name__}"


def rows_that_fit(function: Callable) -> Verdict:
    """Rows of a batch that fit: floor((free − 4 · 7 · parameters) / bytes of a row), and never below 0."""
    right = [max(0, int((free - 28 * weights) // row)) for free, weights, row in MEMORY]
    given, failed = numbers("rows_that_fit", function, MEMORY)
    if failed:
        return failed
    if same(given, right):
        return Verdict(
            True, "(free − 28 · parameters) / bytes of a row, rounded down: nothing fits where the weights do not."
        )
    mistakes = (
        (lambda f, w, r: f // r, "leave no room for the weights and their six companions, 28 bytes a parameter."),
        (
            lambda f, w, r: max(0, (f - 4 * w) // r),
            "keep the weights only. Gradients, two moments, average, two copies: 7 · 4.",
        ),
        (lambda f, w, r: max(0, (f - 7 * w) // r), "take a parameter for one byte. A float32 has four."),
        (lambda f, w, r: max(0, (f - 28 * w) / r), "are not whole. Half a row cannot be trained: round down."),
        (lambda f, w, r: max(0, -(-(f - 28 * w) // r)), "are rounded up: the last row does not fit."),
        (lambda f, w, r: (f - 28 * w) // r, "fall below 0 where not even the weights fit. Give 0 there."),
        (lambda f, w, r: int((f - 28 * w) / r), "fall below 0 where not even the weights fit. Give 0 there."),
    )
    return _diagnose(
        "rows_that_fit", given, right, MEMORY, mistakes, "What is left beside the weights, divided by a row?"
    )


def _diagnose(name: str, given: list, right: list, cases: tuple, mistakes: Iterator, hint: str) -> Verdict:
    wrong = next(i for i in range(len(cases)) if not same(given[i : i + 1], right[i : i + 1]))
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in cases]):
            return Verdict(False, f"{name}{_call(cases[wrong])}: the {as_float(given[wrong]):g} {text}")
    return Verdict(False, f"{name}{_call(cases[wrong])} gives {as_float(given[wrong]):g}, not {right[wrong]:g}. {hint}")


def _call(case: tuple) -> str:
    return f"({', '.join(f'{value:g}' for value in case)})"
