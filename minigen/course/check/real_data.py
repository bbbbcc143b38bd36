"""Checks of notebook 10: the file of a row, the pairs that processes see alone, the rows that fit into memory."""

from collections.abc import Callable, Iterator

from minigen.course.check.verdict import Verdict, as_float, call, numbers, same

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
SHARED = ((8, 2), (256, 8), (16, 1), (64, 32))  # clips, processes
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


def pairs(function: Callable) -> Verdict:
    """Ordered pairs that are compared where each of P processes sees only its own B / P clips: B (B / P − 1)."""
    right = [clips * (clips // count - 1) for clips, count in SHARED]
    given, failed = numbers("pairs", function, SHARED)
    if failed:
        return failed
    if same(given, right):
        return Verdict(
            True, "B (B / P − 1) of B (B − 1): with 8 processes and 256 clips only one pair in eight is left."
        )
    mistakes = (
        (lambda b, p: b * (b - 1), "are the pairs of the whole batch, which only gathering gives."),
        (lambda b, p: b // p * (b // p - 1), "are the pairs of one process. There are P of them."),
        (lambda b, p: b * b // p, "count each clip with itself; its similarity to itself is 1 and says nothing."),
        (
            lambda b, p: b * (b // p - 1) / 2,
            "count each pair once. The loss is a mean over i ≠ j, so (i, j) and (j, i).",
        ),
        (lambda b, p: b * (b - 1) / p, "divide all pairs by P. But most pairs lie in two processes: they are lost."),
        (lambda b, p: b * (b - p), "need dividing: a process holds B / P clips, each of which has B / P − 1 others."),
    )
    return _diagnose(
        "pairs", given, right, SHARED, mistakes, "P processes, B / P clips in each: how many pairs in one?"
    )


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
