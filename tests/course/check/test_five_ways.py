"""The checks of notebook 16 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest

from minigen.course.check import five_ways as check
from minigen.evaluation.bootstrap import Ratio, paired_difference

# quality against cost


def by_pairs(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    return [name for name, point in points.items() if not any(beats(other, point) for other in points.values())]


def by_sorting(points):
    kept, best = set(), -1.0
    for name, (_, quality) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if quality > best:
            kept.add(name)
            best = quality
    return kept


@pytest.mark.parametrize("function", [by_pairs, by_sorting])
def test_a_front_is_accepted_as_a_list_and_as_a_set(function):
    assert check.front(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda points: set(points) - set(by_pairs(points)), "Return the others"),
        (lambda points: ["a", "b", "c", "d", "e"], "c and d are beaten"),
        (lambda points: [max(points, key=lambda name: points[name][1])], "the best point"),
        (lambda points: [min(points, key=lambda name: points[name][0])], "the fastest point"),
        (lambda points: ["a", "e"], "b lies between"),
        (lambda points: [], "compare a point with the others only"),
        (lambda points: list(points), "look again"),
        (lambda points: ["z"], "no point z"),
        (lambda points: 3, "Return the names"),
        (lambda points: 1 / 0, "ZeroDivisionError"),
        (lambda points: ..., "no answer"),
    ],
)
def test_a_wrong_front_gets_its_diagnosis(function, diagnosis):
    verdict = check.front(function)
    assert not verdict.right and diagnosis in verdict.text


# which family

RIGHT = {
    "laptop": "language model", "hole": "masked", "muffled": "continuous diffusion", "doubts": "discrete diffusion",
    "like this": "style",
}  # fmt: skip


@pytest.mark.parametrize("answer", [RIGHT, {name: f" {family.title()} " for name, family in RIGHT.items()}])
def test_a_choice_is_accepted_in_any_letters(answer):
    assert check.choice(answer).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (RIGHT | {"hole": "language model"}, "4 of 5 fit. hole, language model: it has no factor"),
        (RIGHT | {"muffled": "masked"}, "stands for all frequencies"),
        (RIGHT | {"laptop": "masked", "hole": "style"}, "3 of 5 fit. laptop, masked: sixteen guided steps"),
        (RIGHT | {"doubts": "masked"}, "never revises"),
        (RIGHT | {"like this": "language model"}, "like this, language model: the recording itself"),
        (RIGHT | {"hole": "magic"}, "magic is not on the list"),
        ({"hole": "masked"}, "a family for each of"),
        ([1], "a family for each of"),
        (RIGHT | {"hole": ...}, "no answer"),
        (..., "no answer"),
    ],
)
def test_a_wrong_choice_gets_its_diagnosis(answer, diagnosis):
    verdict = check.choice(answer)
    assert not verdict.right and diagnosis in verdict.text


# a paired interval


def by_loop(one, other, resamples=1500, seed=5, ends=(0.025, 0.975)):
    rng, gaps, means = np.random.default_rng(seed), one - other, []
    for _ in range(resamples):
        rows, columns = rng.integers(len(one), size=len(one)), rng.integers(one.shape[1], size=one.shape[1])
        means.append(gaps[rows][:, columns].mean())
    return gaps.mean(), *np.quantile(means, ends)


def by_library(one, other):
    ones = np.ones_like(one)
    return paired_difference(Ratio(one, ones), Ratio(other, ones))[:3]


def by_sampler(draw, resamples=2000):
    """A wrong interval: the quantiles of what `draw` gives."""

    def function(one, other):
        rng = np.random.default_rng(1)
        return (one - other).mean(), *np.quantile([draw(one, other, rng) for _ in range(resamples)], [0.025, 0.975])

    return function


def columns_only(one, other, rng):
    return (one - other)[:, rng.integers(one.shape[1], size=one.shape[1])].mean()


def rows_only(one, other, rng):
    return (one - other)[rng.integers(len(one), size=len(one))].mean()


def unpaired(one, other, rng):
    both = []
    for scores in (one, other):
        rows, columns = rng.integers(len(one), size=len(one)), rng.integers(one.shape[1], size=one.shape[1])
        both.append(scores[rows][:, columns].mean())
    return both[0] - both[1]


def cells(one, other, rng):
    return rng.choice((one - other).ravel(), one.size).mean()


@pytest.mark.parametrize("function", [by_loop, by_library])
def test_a_paired_interval_is_accepted_however_it_is_drawn(function):
    assert check.paired(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (by_sampler(columns_only), "seeds are not drawn"),
        (by_sampler(rows_only), "captions are not drawn"),
        (by_sampler(unpaired), "captions of its own"),
        (by_sampler(cells), "as if all were independent"),
        (lambda one, other: by_loop(one, other, ends=(0.05, 0.95)), "middle 90 %"),
        (lambda one, other: by_loop(other, one), "the sign is wrong"),
        (lambda one, other: (by_loop(one, other)[0], *by_loop(one, other)[:0:-1]), "the ends are exchanged"),
        (lambda one, other: (one.mean(), 0, 1), "the mean is"),
        (lambda one, other: (by_loop(one, other)[0], -1, 1), "is needed"),
        (lambda one, other: by_loop(one, other)[0], "Return three numbers"),
        (lambda one, other: one[99], "IndexError"),
        (lambda one, other: ..., "no answer"),
    ],
)
def test_a_wrong_interval_gets_its_diagnosis(function, diagnosis):
    verdict = check.paired(function)
    assert not verdict.right and diagnosis in verdict.text


# a fair comparison


def compare(systems, captions, validation, judge):
    def scores(make, asked, guidance):
        return [judge(make(caption, row, guidance), caption) for row, caption in enumerate(asked)]

    chosen = {name: max(check.GUIDANCES, key=lambda w, make=make: sum(scores(make, validation, w)))
              for name, make in systems.items()}  # fmt: skip
    return {name: scores(make, captions, chosen[name]) for name, make in systems.items()}


def compare_as_arrays(systems, captions, validation, judge):
    rows = {}
    for name, make in systems.items():
        means = [np.mean([judge(make(text, 7, w), text) for text in validation]) for w in check.GUIDANCES]
        w = check.GUIDANCES[int(np.argmax(means))]
        rows[name] = np.array([judge(make(text, row, w), text) for row, text in enumerate(captions)])
    return rows


def unfair(captions=False, seeds=False, guidance=False, wrong_caption=False):
    """A comparison with some of the mistakes."""

    def function(systems, asked, validation, judge):
        rows = {}
        for number, (name, make) in enumerate(systems.items()):
            texts = [asked[(row + number) % len(asked)] for row in range(len(asked))] if captions else asked

            def scores(texts, w, make=make, number=number):
                return [
                    judge(make(text, number if seeds else asked.index(text) if text in asked else 0, w),
                          texts[0] if wrong_caption else text)
                    for text in texts
                ]  # fmt: skip

            w = max(check.GUIDANCES, key=lambda w: sum(scores(texts if guidance else validation, w)))
            rows[name] = scores(texts, w)
        return rows

    return function


@pytest.mark.parametrize("function", [compare, compare_as_arrays, unfair()])
def test_a_fair_comparison_is_accepted(function):
    assert check.fair(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (unfair(captions=True), "1 of 3 left: each system gets captions of its own"),
        (unfair(seeds=True), "1 of 3 left: the seed depends on the system"),
        (unfair(guidance=True), "1 of 3 left: the guidance is chosen on the test captions"),
        (unfair(captions=True, guidance=True), "2 of 3 left"),
        (unfair(True, True, True), "no answer so far: 3 of 3 left"),
        (unfair(wrong_caption=True), "its own caption"),
        (lambda *given: {"one": [1.0]}, "the scores of one and other"),
        (lambda *given: {"one": [1.0], "other": [1.0]}, "each of the 4 captions"),
        (lambda *given: 1 / 0, "ZeroDivisionError"),
        (lambda *given: ..., "no answer"),
    ],
)
def test_an_unfair_comparison_gets_its_diagnosis(function, diagnosis):
    verdict = check.fair(function)
    assert not verdict.right and diagnosis in verdict.text
