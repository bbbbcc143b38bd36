"""Checks of notebook 05: a mask of a window, the parameters of a layer, the bytes of a cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, number, numbers, same, stopped

WINDOWS = ((6, 3), (5, 1), (4, 4), (3, 7))  # (steps, width): inside, itself alone, all of the past, wider than that
WIDTHS = (4, 8, 64, 256)
COLUMNS, LAYERS, WIDTH = 1503, 24, 1024  # 30 s of MusicGen small


def window_mask(function: Callable[[int, int], Tensor]) -> Verdict:
    """Column s sees s - width + 1 ... s: function(steps, width) -> bool [steps, steps], True = read, rows ask."""
    for steps, width in WINDOWS:
        try:
            given = function(steps, width)
        except Exception as error:  # whatever a reader's function may raise
            return stopped(f"window_mask({steps}, {width})", error)
        if given is ...:
            return UNANSWERED
        said = _mask_mistake(given, steps, width)
        if said:
            return Verdict(False, said)
    return Verdict(True, "0 ≤ s − n < width: the triangle, cut off width diagonals below its edge.")


def _mask_mistake(given: object, steps: int, width: int) -> str:
    """What is wrong with a mask; empty where nothing is."""
    place = f"window_mask({steps}, {width})"
    try:
        mask = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        return f"{place} gives {type(given).__name__}, not a tensor."
    if list(mask.shape) != [steps, steps]:
        return f"{place} has shape {list(mask.shape)}. A row for each column that asks: [{steps}, {steps}]."
    if mask.dtype != torch.bool:
        return (
            f"{place} is {mask.dtype}. SDPA adds a mask of numbers to the scores; True and False decide what is read."
        )
    back = torch.arange(steps)[:, None] - torch.arange(steps)
    right = (back >= 0) & (back < width)
    mistakes = (
        (~right, "True where nothing may be read. Turn it round: True = read."),
        (right.T, "transposed: a row is the column that reads, and what it reads lies to its left."),
        (back.abs() < width, "a window to both sides: it sees the future."),
        (back >= 0, "the causal triangle. Now cut off what lies too far back."),
        (back < width, "cut off in the past only: it sees all of the future."),
        ((back >= 0) & (back <= width), "one too wide: the column itself is one of the `width` that it sees."),
        ((back > 0) & (back < width), "without the diagonal: a column sees itself, else the first one sees nothing."),
        ((back > 0) & (back <= width), "without the diagonal: the window ends with the column itself."),
    )
    if torch.equal(mask, right):
        return ""
    found = next((text for wrong, text in mistakes if torch.equal(mask, wrong)), None)
    return f"{place} is {found}" if found else _first_wrong_row(mask, right, place)


def _first_wrong_row(mask: Tensor, right: Tensor, place: str) -> str:
    row = int((mask != right).any(1).nonzero()[0])
    read, wanted = (table[row].nonzero().flatten().tolist() for table in (mask, right))
    return f"{place}: column {row} reads {read or 'nothing'}, but {wanted} are in its window."


def layer_parameters(function: Callable[[int], int]) -> Verdict:
    """Parameters of one layer with F = 4 D: function(D) must be 16 D² + 6 D."""
    given, failed = numbers("layer_parameters", function, [(width,) for width in WIDTHS])
    if failed:
        return failed
    if same(given, [16 * D * D + 6 * D for D in WIDTHS]):
        return Verdict(True, "2 · 4 D² of attention, 2 · 4 D² of feed-forward, 3 · 2 D of norms: 16 D² + 6 D.")
    return Verdict(False, _layer_mistake(given))


def _layer_mistake(given: list) -> str:
    mistakes = (
        (lambda D: 16 * D * D, "these are the matrices. Three norms have a gain and a shift of D numbers each."),
        (lambda D: 16 * D * D + 3 * D, "a norm has two vectors, a gain and a shift."),
        (lambda D: 16 * D * D + 2 * D, "one norm only. Each of the three parts has its own."),
        (lambda D: 16 * D * D + 4 * D, "two norms only. Each of the three parts has its own."),
        (
            lambda D: 12 * D * D + 6 * D,
            "4 D² are missing: there are two attentions of 4 D² each, and two matrices of 4 D² in the feed-forward.",
        ),
        (lambda D: 12 * D * D + 4 * D, "this is a layer without cross-attention and its norm."),
        (lambda D: 12 * D * D, "one attention only, and no norms. The caption is read by a second attention."),
        (lambda D: 14 * D * D + 6 * D, "an attention has four matrices: query, key, value and the one that mixes."),
        (lambda D: 16 * D * D + 19 * D, "the linear layers have no biases here; only the norms have a shift."),
        (lambda D: 10 * D * D + 6 * D, "the feed-forward is 4 D wide inside: two matrices of 4 D² each."),
    )  # fmt: skip
    for formula, text in mistakes:
        if same(given, [formula(D) for D in WIDTHS]):
            return f"{given[0]} for D = {WIDTHS[0]}: {text}"
    D = WIDTHS[0]
    return f"{given[0]} for D = {D}, but it has {16 * D * D + 6 * D}. List its matrices and vectors, and add them up."


def cache_size(answer: object) -> Verdict:
    """Bytes of keys and values: MusicGen small, 1503 columns, two rows, 16 bits."""
    right = 2 * LAYERS * 2 * COLUMNS * WIDTH * 2
    mistakes = (
        (right / 2, "is half of it. Keys and values, two rows under guidance, two bytes a number: which 2 is missing?"),
        (right / 4, "is a quarter of it. Keys and values, two rows, two bytes: two of these factors are missing."),
        (right / 8, "is an eighth of it. Keys and values, two rows under guidance, two bytes a number."),
        (2 * right, "is twice too much. Are these 32-bit numbers, or four rows?"),
        (8 * right, "is in bits. There are 8 in a byte."),
        (right / COLUMNS * 1500, "counts the frames. The last stream starts 3 columns late: 1503 columns."),
        (right / COLUMNS * 1504, "is one column too many: V is read in front, and the last column never is."),
        (right / COLUMNS, "is what one column takes. There are 1503."),
        (right / LAYERS, "is what one layer takes. There are 24."),
        (right / 16, "counts a key of d numbers. There are 16 heads: D in all."),
        (right * 16, "counts the heads twice: 16 heads of width 64 are D together."),
        (right / 1e6, "is the answer in MB. Give bytes."),
    )  # fmt: skip
    said = "2 (keys, values) × 24 layers × 2 rows × 1503 columns × 1024 × 2 bytes, about 296 MB."
    return number(answer, right, said, mistakes, "Multiply: keys and values, layers, rows, columns, width, bytes.")
