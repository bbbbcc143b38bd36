"""Checks of notebook 09: the distance of two Gaussians, which metric sees what, judgements needed, paired intervals."""

from collections.abc import Callable, Mapping

import numpy as np

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, close, number, numbers, same, stopped
from minigen.evaluation.listening.results import wilson
from minigen.metrics import bootstrap_interval

CASES = ((0.0, 1.0, 3.0, 1.0), (0.0, 1.0, 0.0, 3.0), (1.0, 0.5, -2.0, 2.0), (2.0, 1.5, 2.0, 1.5))  # (m1, s1, m2, s2)
METRICS = ("fad", "kernel", "kl", "clap", "recall", "order", "diversity")
SEEN_BY = {  # fault -> the metrics that show it, and why the others do not
    "replay": ({"clap", "kl", "recall"}, "a metric that compares each clip with its own caption"),
    "repeat": ({"diversity"}, "a metric that compares the clips with each other"),
    "swap": ({"order"}, "a metric of when events happen, not only of whether they do"),
}


def gaussians(function: Callable[[float, float, float, float], float]) -> Verdict:
    """The Fréchet distance of two Gaussians: function(m1, s1, m2, s2) must be (m1 − m2)² + (s1 − s2)²."""
    given, failed = numbers("gaussians", function, CASES)
    if failed:
        return failed
    right = [(m - n) ** 2 + (s - t) ** 2 for m, s, n, t in CASES]
    if same(given, right):
        return Verdict(True, "s1² + s2² − 2 s1 s2 = (s1 − s2)²: in one dimension the root is s1 s2.")
    return Verdict(False, _gaussians_mistake(given, right))


def _gaussians_mistake(given: list, right: list) -> str:
    mistakes = (
        (lambda m, s, n, t: (m - n) ** 2 + s**2 + t**2, "the overlap − 2 s1 s2 is missing: equal ones must be at 0."),
        (lambda m, s, n, t: (m - n) ** 2 + (s**2 - t**2) ** 2, "s1 and s2 are roots already: no squares inside."),
        (lambda m, s, n, t: (m - n) ** 2 + abs(s**2 - t**2), "subtract s1 and s2, not their squares, then square."),
        (lambda m, s, n, t: (m - n) ** 2, "Gaussians of other width are apart, too: where are s1 and s2?"),
        (lambda m, s, n, t: (s - t) ** 2, "the means m1 and m2 must come in."),
        (lambda m, s, n, t: abs(m - n) + abs(s - t), "square both differences before adding."),
        (lambda m, s, n, t: ((m - n) ** 2 + (s - t) ** 2) ** 0.5, "that is its root. FAD is the squared distance."),
    )  # fmt: skip
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in CASES]):
            return text
    wrong = next(i for i in range(len(CASES)) if not close(as_float(given[i]), right[i]))
    return f"gaussians{CASES[wrong]} gives {float(given[wrong]):g}, but {right[wrong]:g} is needed."


def shown_by(answer: object) -> Verdict:
    """Which metric shows which fault. answer: {"replay": metric, "repeat": metric, "swap": metric}."""
    if answer is ... or (isinstance(answer, Mapping) and any(value is ... for value in answer.values())):
        return UNANSWERED
    if not isinstance(answer, Mapping) or set(answer) != set(SEEN_BY):
        return Verdict(False, f"give a dictionary with a metric for each of {', '.join(map(repr, SEEN_BY))}.")
    named = {fault: str(metric).strip().lower() for fault, metric in answer.items()}
    for metric in named.values():
        if metric not in METRICS:
            return Verdict(False, f"{metric} is not on the list. Choose among {', '.join(METRICS)}.")
    for fault, metric in named.items():
        right, hint = SEEN_BY[fault]
        if metric not in right:
            return Verdict(False, f"{fault}: {_why_not(fault, metric)} Take {hint}.")
    return Verdict(
        True, "FAD and kernel compare sets; CLAP, KL and recall see the pairs, order the times, diversity the copies."
    )


def _why_not(fault: str, metric: str) -> str:
    if fault == "replay" and metric in ("fad", "kernel"):
        return f"{metric} compares whole sets, and replayed recordings are a perfect set."
    if fault == "repeat" and metric in ("fad", "kernel"):
        return f"{metric} rises, as it does for every other difference: it does not tell which."
    if fault == "swap" and metric in ("clap", "kl", "recall", "fad", "kernel"):
        return f"{metric} is the same for both orders, or nearly so."
    return f"{metric} does not show it."


def judgements(answer: object) -> Verdict:
    """Smallest multiple of ten at which 60 % wins have a Wilson interval above 50 %."""
    right = next(n for n in range(10, 1000, 10) if wilson(round(0.6 * n), n)[0] > 0.5)
    low, high = wilson(round(0.6 * right), right)
    wins = round(0.6 * right)
    said = f"{wins} of {right}: {low:.1%} to {high:.1%}. One evening is too short to show a preference of 60 %."
    mistakes = (
        (70, "is enough for a one-sided interval (z 1.64). Here both ends count: z 1.96."),
        (200, "is enough to find it in four tests of five. Asked is when 60 % of n, exactly, leave out 50 %."),
        (60, "would be the wins, not the judgements."),
        (right - 10, "is just too few: print wilson(0.6 n, n)."),
    )
    given = as_float(answer) if answer is not ... else None
    if given is not None and given > right and given != 200:
        return Verdict(False, f"{given:g} is enough, but not the smallest. Go down by tens.")
    return number(answer, right, said, mistakes, "Try n = 10, 20, 30, ... with wilson(0.6 n, n).")


def paired(function: Callable) -> Verdict:
    """A paired interval: function(one, other) -> (low, high) of the mean of one − other, bootstrapped over clips."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, 40)  # how hard each caption is, for both models
    one, other = hard + 0.05 + rng.normal(0, 0.05, 40), hard + rng.normal(0, 0.05, 40)
    try:
        given = function(one.copy(), other.copy())
    except Exception as error:  # whatever a reader's function may raise
        return stopped("paired", error)
    if given is ...:
        return UNANSWERED
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        return Verdict(False, f"paired gives {given!r}. Return the two ends, (low, high).")
    return _judge_ends(low, high, one, other)


def _judge_ends(low: float, high: float, one: np.ndarray, other: np.ndarray) -> Verdict:
    wanted = bootstrap_interval(one - other, seed=0)
    near = 0.25 * (wanted[1] - wanted[0])
    if abs(low - wanted[0]) < near and abs(high - wanted[1]) < near:
        said = "how hard a caption is for both models cancels in the differences: the interval is narrow."
        return Verdict(True, said)
    if abs(low + wanted[1]) < near and abs(high + wanted[0]) < near:
        return Verdict(False, "the sign is turned: take one − other.")
    if low > high:
        return Verdict(False, f"low is {low:.3f} and high {high:.3f}: the ends are exchanged.")
    if high - low > 2.5 * (wanted[1] - wanted[0]):
        return Verdict(False, f"{low:.3f} to {high:.3f} is as wide as for different captions. Subtract "
                              "clip by clip first, then bootstrap the differences.")  # fmt: skip
    return Verdict(False, f"{low:.3f} to {high:.3f}, but about {wanted[0]:.3f} to {wanted[1]:.3f} is needed: the "
                          "95 % interval of the mean of one − other.")  # fmt: skip
