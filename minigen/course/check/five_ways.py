"""Checks of notebook 16: quality against cost, choice of a family, a paired interval over seeds, a fair comparison."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from minigen.course.check.verdict import UNANSWERED, Verdict, call, stopped

# quality against cost

POINTS = {  # name -> (seconds for a clip, CLAP score)
    "a": (1.0, 0.50), "b": (2.0, 0.62), "c": (2.0, 0.55), "d": (4.0, 0.62), "e": (8.0, 0.71), "f": (9.0, 0.40),
}  # fmt: skip
FRONT = {"a", "b", "e"}


def front(function: Callable[[dict], object]) -> Verdict:
    """function(points), name -> (seconds, quality), must give the names that no other point beats."""
    value, failed = call("front(points)", function, dict(POINTS))
    if failed:
        return failed
    if isinstance(value, str) or not isinstance(value, Iterable):
        return Verdict(False, f"front gives {value!r}. Return the names of the points.")
    names = {str(name) for name in value}
    if names == FRONT:
        return Verdict(True, f"{', '.join(sorted(FRONT))}: each of the others is beaten by one that is not slower.")
    if names == set(POINTS) - FRONT:
        return Verdict(False, "these are the points that are beaten. Return the others.")
    if unknown := names - set(POINTS):
        return Verdict(False, f"there is no point {', '.join(sorted(unknown))}.")
    for mistake, hint in FRONT_MISTAKES:
        if names == mistake:
            return Verdict(False, hint)
    wrong = sorted(names ^ FRONT)
    return Verdict(False, f"{', '.join(wrong)}: look again. A point is beaten by another that is at least as fast "
                          "and as good, and better in one of the two.")  # fmt: skip


FRONT_MISTAKES = (
    ({"a", "b", "c", "d", "e"}, "c and d are beaten: b is as fast as c and better, and as good as d and faster."),
    ({"a", "b", "d", "e"}, "d is beaten: b is as good and faster."),
    ({"a", "b", "c", "e"}, "c is beaten: b is as fast and better."),
    ({"e"}, "this is the best point. Faster ones may be worth their lower quality."),
    ({"a"}, "this is the fastest point. Better ones may be worth their time."),
    ({"a", "e"}, "b lies between the two and is beaten by neither: faster than e, better than a."),
    (set(), "no point beats itself: compare a point with the others only."),
)


# which family

SITUATIONS = {  # situation -> (the families that fit, why)
    "laptop": ({"language model"}, "one clip on one core, soon: a cached column is cheaper than a pass over a clip"),
    "hole": ({"masked"}, "half a second of a recording made anew: both sides of the hole must be read, the rest kept"),
    "muffled": ({"continuous diffusion"}, "missing high frequencies: latents are linear in the bands, codes are not"),
    "doubts": ({"discrete diffusion"}, "codes that may be wrong: the noise of its training has such codes"),
    "like this": ({"style"}, "a sound that words do not describe: the recording itself is the condition"),
}  # fmt: skip
FAMILIES = ("language model", "masked", "discrete diffusion", "continuous diffusion", "style")
OTHERWISE = {
    ("hole", "language model"): "it has no factor for a column given what comes after it.",
    ("hole", "discrete diffusion"): "it could, but it also revises; masked generation decides each cell once, in "
                                    "fewer evaluations, and is the model that was trained for holes.",
    ("muffled", "masked"): "a code stands for all frequencies of a frame. There is no hole to mark.",
    ("laptop", "masked"): "sixteen guided steps are 32 passes over the clip. Look at the seconds.",
    ("doubts", "masked"): "it never revises a visible cell.",
    ("like this", "masked"): "it varies a given clip; the sound wanted here has another content.",
}  # fmt: skip


def choice(answer: object) -> Verdict:
    """Which family fits which situation. answer: situation -> family, for each of `SITUATIONS`."""
    if answer is ... or (isinstance(answer, Mapping) and any(value is ... for value in answer.values())):
        return UNANSWERED
    if not isinstance(answer, Mapping) or set(answer) != set(SITUATIONS):
        return Verdict(False, f"give a dictionary with a family for each of {', '.join(map(repr, SITUATIONS))}.")
    named = {situation: str(family).strip().lower() for situation, family in answer.items()}
    for family in named.values():
        if family not in FAMILIES:
            return Verdict(False, f"{family} is not on the list. Choose among {', '.join(FAMILIES)}.")
    wrong = [situation for situation, family in named.items() if family not in SITUATIONS[situation][0]]
    if not wrong:
        return Verdict(True, "each for what its training has seen: " + "; ".join(why for _, why in SITUATIONS.values()))
    first = wrong[0]
    reason = OTHERWISE.get((first, named[first]), f"{SITUATIONS[first][1].split(':')[1].strip()}.")
    return Verdict(False, f"{len(SITUATIONS) - len(wrong)} of {len(SITUATIONS)} fit. {first}, {named[first]}: {reason}")


# a paired interval

NEAR = 0.022  # largest difference between the ends of two bootstraps with different draws


def paired(function: Callable[[np.ndarray, np.ndarray], object]) -> Verdict:
    """function(one, other), scores [seeds, captions], must give (mean, low, high) of the paired difference.

    The 95 % bootstrap interval; seeds and captions are drawn, the same for both models.
    """
    one, other = _scores()
    value, failed = call("paired(one, other)", function, one.copy(), other.copy())
    if failed:
        return failed
    try:
        mean, low, high = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return Verdict(False, f"paired gives {value!r}. Return three numbers: (mean, low, high).")
    right = float((one - other).mean())
    if abs(mean + right) < 1e-9:
        return Verdict(False, "the sign is wrong: the first model less the second.")
    if abs(mean - right) > 1e-9:
        return Verdict(False, f"the mean is {mean:.4f}, but that of the difference is {right:.4f}.")
    if low > high:
        return Verdict(False, f"low is {low:.3f} and high {high:.3f}: the ends are exchanged.")
    ends = {name: _ends(one, other, name) for name in ("", *PAIRED_MISTAKES)}
    distance = {name: max(abs(low - wanted[0]), abs(high - wanted[1])) for name, wanted in ends.items()}
    nearest = min(distance, key=lambda name: distance[name])
    if distance[nearest] > NEAR:
        return Verdict(
            False, f"[{low:+.3f}, {high:+.3f}], but about [{ends[''][0]:+.3f}, {ends[''][1]:+.3f}] is needed."
        )
    if nearest:
        return Verdict(False, f"[{low:+.3f}, {high:+.3f}]: {PAIRED_MISTAKES[nearest]}")
    return Verdict(True, "seeds and captions are drawn, the same ones for both models.")


PAIRED_MISTAKES = {
    "captions": "seeds are not drawn: this holds for these trainings only. Draw rows as well as columns.",
    "seeds": "captions are not drawn: this holds for these captions only. Draw columns as well as rows.",
    "unpaired": "each model has captions of its own. Draw the row and column numbers once, and use them for both.",
    "cells": "single cells are drawn as if all were independent. Draw whole rows and whole columns.",
    "ninety": "this is the middle 90 %. For 95 % take the quantiles 0.025 and 0.975.",
    "deviation": "this is ± one standard deviation of the resampled means. Take the quantiles 0.025 and 0.975.",
}


def _scores() -> tuple[np.ndarray, np.ndarray]:
    """Scores of two models at four seeds, [4, 40] each: captions hard for both or for one, good seeds and bad."""
    rng = np.random.default_rng(3)
    captions, own = rng.normal(0, 0.6, 40), rng.normal(0, 0.46, (2, 1, 40))
    seeds, noise = rng.normal(0, 0.18, (2, 4, 1)), rng.normal(0, 0.1, (2, 4, 40))
    one, other = captions + own + seeds + noise
    return one, other


def _ends(one: np.ndarray, other: np.ndarray, mistake: str = "", resamples: int = 4000) -> tuple[float, float]:
    """Ends of the interval; with a mistake of `PAIRED_MISTAKES`."""
    rng, (seeds, captions) = np.random.default_rng(0), one.shape

    def draws() -> tuple[np.ndarray, np.ndarray]:
        rows, columns = rng.integers(seeds, size=seeds), rng.integers(captions, size=captions)
        return (
            np.arange(seeds) if mistake == "captions" else rows,
            np.arange(captions) if mistake == "seeds" else columns,
        )

    means = []
    for _ in range(resamples):
        first = draws()
        second = draws() if mistake == "unpaired" else first
        if mistake == "cells":
            means.append(rng.choice((one - other).ravel(), one.size).mean())
        else:
            means.append(one[np.ix_(*first)].mean() - other[np.ix_(*second)].mean())
    if mistake == "deviation":
        return float(np.mean(means) - np.std(means)), float(np.mean(means) + np.std(means))
    ends = [0.05, 0.95] if mistake == "ninety" else [0.025, 0.975]
    low, high = np.quantile(means, ends)
    return float(low), float(high)


# a fair comparison

GUIDANCES = (1.0, 3.0, 5.0)
COMPARED = ("a dog barks", "rain falls", "a bell rings", "a siren wails")
VALIDATION = ("wind blows", "a cat meows", "waves break")
BEST = {"one": (3.0, 5.0), "other": (5.0, 1.0)}  # system -> its best guidance on validation, and on the test captions
FAIR_MISTAKES = {
    "captions": "each system gets captions of its own (give all of them every test caption, in the same order)",
    "seeds": "the seed depends on the system (let it be the caption's number, for every system)",
    "guidance": "the guidance is chosen on the test captions (choose it on the validation captions)",
}  # fmt: skip


class _System:
    """A toy system: make(caption, seed, guidance) notes what it is asked for. Its sound is what it was asked for."""

    def __init__(self, name: str):
        self.name, self.asked = name, []

    def __call__(self, caption: str, seed: int, guidance: float) -> tuple:
        self.asked.append((caption, int(seed), float(guidance)))
        return self.name, caption, int(seed), float(guidance)


def _judge(sound: tuple, caption: str) -> float:
    """Score of a toy sound; the guidance that is best on validation captions is not the best one on test captions."""
    name, made_for, seed, guidance = sound
    best = BEST[name][0 if caption in VALIDATION else 1]
    level = 0.8 - 0.1 * abs(guidance - best)
    return level + 0.001 * len(caption) + 0.0001 * (seed % 7) - (0.5 if made_for != caption else 0.0)


def fair(function: Callable) -> Verdict:
    """function(systems, captions, validation, judge) must give name -> scores [n] of a fair comparison.

    systems: name -> make(caption, seed, guidance); judge(sound, caption) -> score. Each system's guidance, of
    `GUIDANCES`, is the one of the best mean score on validation captions.
    """
    systems = {name: _System(name) for name in BEST}
    try:
        given = function(dict(systems), list(COMPARED), list(VALIDATION), _judge)
    except Exception as error:  # a reader's function may raise anything
        return stopped("compare", error)
    if given is ...:
        return UNANSWERED
    if not isinstance(given, Mapping) or set(given) != set(BEST):
        return Verdict(False, f"return a dictionary with the scores of {' and '.join(BEST)}.")
    scores = {name: [float(score) for score in given[name]] for name in BEST}
    if any(len(values) != len(COMPARED) for values in scores.values()):
        return Verdict(False, f"give a score for each of the {len(COMPARED)} captions of every system.")
    left = _unfair(systems, scores)
    if left:
        begun = "no answer so far: " if len(left) == len(FAIR_MISTAKES) else ""
        hints = "; ".join(FAIR_MISTAKES[name] for name in left)
        return Verdict(False, f"{begun}{len(left)} of {len(FAIR_MISTAKES)} left: {hints}.")
    wanted = {name: [_judge((name, caption, row, BEST[name][0]), caption) for row, caption in enumerate(COMPARED)]
              for name in BEST}  # fmt: skip
    if any(abs(a - b) > 1e-9 for name in BEST for a, b in zip(scores[name], wanted[name], strict=True)):
        return Verdict(False, "captions, seeds and guidance are right, and the scores are not: judge each sound with "
                              "its own caption, once.")  # fmt: skip
    return Verdict(
        True, "same captions, same seeds, a guidance that was chosen elsewhere: so the difference is paired."
    )


def _unfair(systems: dict[str, _System], scores: dict[str, list[float]]) -> list[str]:
    """Names of the mistakes that a comparison makes, from what it asked for and what it returned."""
    tested = {name: [ask for ask in system.asked if ask[0] in COMPARED] for name, system in systems.items()}
    left = []
    if any(list(dict.fromkeys(ask[0] for ask in asked)) != list(COMPARED) for asked in tested.values()):
        left.append("captions")
    if any(ask[1] != COMPARED.index(ask[0]) for asked in tested.values() for ask in asked):
        left.append("seeds")
    if any({ask[2] for ask in tested[name]} != {BEST[name][0]} for name in systems):
        left.append("guidance")
    return left
