"""The checks of notebook 09 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest

from minigen.course.check import comparing as check
from minigen.metrics import bootstrap_interval, frechet_distance


def by_sets(m, s, n, t):
    """Two points a side have mean m and standard deviation s."""
    x, y = (np.array([[mean - dev], [mean + dev]]) * 1.0 for mean, dev in ((m, s / 2**0.5), (n, t / 2**0.5)))
    return frechet_distance(x, y)


@pytest.mark.parametrize(
    "function", [lambda m, s, n, t: (m - n) ** 2 + (s - t) ** 2, by_sets,
                 lambda m, s, n, t: np.float32((m - n) ** 2 + s * s + t * t - 2 * s * t)]
)  # fmt: skip
def test_the_distance_is_accepted_however_it_is_computed(function):
    assert check.gaussians(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda m, s, n, t: (m - n) ** 2 + s**2 + t**2, "overlap"),
        (lambda m, s, n, t: (m - n) ** 2 + (s**2 - t**2) ** 2, "roots already"),
        (lambda m, s, n, t: (m - n) ** 2, "where are s1 and s2"),
        (lambda m, s, n, t: abs(m - n) + abs(s - t), "square both"),
        (lambda m, s, n, t: ((m - n) ** 2 + (s - t) ** 2) ** 0.5, "root"),
        (lambda m, s, n, t: 7, "9 is needed"),
        (lambda m, s, n, t: None, "not a number"),
        (lambda m, s, n, t: m / 0, "ZeroDivisionError"),
        (lambda m, s, n, t: ..., "no answer"),
    ],
)
def test_a_wrong_distance_gets_its_diagnosis(function, diagnosis):
    verdict = check.gaussians(function)
    assert not verdict.right and diagnosis in verdict.text


@pytest.mark.parametrize("replay", ["clap", "KL", " recall "])
def test_any_metric_of_pairs_shows_a_replay(replay):
    assert check.shown_by({"replay": replay, "repeat": "diversity", "swap": "order"}).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        ({"replay": "fad", "repeat": "diversity", "swap": "order"}, "perfect set"),
        ({"replay": "clap", "repeat": "fad", "swap": "order"}, "does not tell which"),
        ({"replay": "clap", "repeat": "diversity", "swap": "recall"}, "same for both orders"),
        ({"replay": "clap", "repeat": "order", "swap": "order"}, "does not show it"),
        ({"replay": "clap", "repeat": "diversity", "swap": "loudness"}, "not on the list"),
        ({"replay": "clap"}, "dictionary"),
        ("clap", "dictionary"),
        ({"replay": ..., "repeat": "diversity", "swap": "order"}, "no answer"),
        (..., "no answer"),
    ],
)
def test_a_wrong_metric_gets_its_diagnosis(answer, diagnosis):
    verdict = check.shown_by(answer)
    assert not verdict.right and diagnosis in verdict.text


@pytest.mark.parametrize("answer", [100, 100.0, np.int64(100)])
def test_the_judgements_needed_are_accepted_as_any_number(answer):
    assert check.judgements(answer).right and "60 of 100" in check.judgements(answer).text


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [(70, "one-sided"), (200, "four tests of five"), (90, "just too few"), (110, "not the smallest"), (60, "wins"),
     (20, "too small"), ("many", "not a number"), (..., "no answer")],
)  # fmt: skip
def test_a_wrong_number_of_judgements_gets_its_diagnosis(answer, diagnosis):
    verdict = check.judgements(answer)
    assert not verdict.right and diagnosis in verdict.text


def by_hand(one, other):
    """Another generator, a thousand resamples, indices instead of values."""
    rng, gains = np.random.default_rng(9), one - other
    means = [gains[rng.integers(len(gains), size=len(gains))].mean() for _ in range(1000)]
    return list(np.percentile(means, [2.5, 97.5]))


def unpaired(one, other):
    rng = np.random.default_rng(0)
    means = [rng.choice(one, 40).mean() - rng.choice(other, 40).mean() for _ in range(1000)]
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("function", [by_hand, lambda one, other: bootstrap_interval(one - other, seed=3)])
def test_a_paired_interval_is_accepted_whatever_its_random_numbers(function):
    assert check.paired(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (unpaired, "clip by clip"),
        (lambda one, other: bootstrap_interval(other - one, 0), "sign is turned"),
        (lambda one, other: bootstrap_interval(one - other, 0)[::-1], "exchanged"),
        (lambda one, other: (0.049, 0.051), "is needed"),
        (lambda one, other: 0.05, "two ends"),
        (lambda one, other: one.nothing, "AttributeError"),
        (lambda one, other: ..., "no answer"),
    ],
)
def test_a_wrong_interval_gets_its_diagnosis(function, diagnosis):
    verdict = check.paired(function)
    assert not verdict.right and diagnosis in verdict.text
