"""The checks of notebook 07 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest
import torch

from minigen.course.check import guidance as check
from minigen.generate import keep_top_p
from minigen.guidance import guide

UNCOND, COND = (0.5, 0.3, 0.2), (0.7, 0.2, 0.1)


def by_loop(probs, p):
    kept, total = [], 0.0
    for code in probs.argsort(descending=True, stable=True).tolist():
        if total < p:
            kept.append(code)
        total += probs[code].item()
    return kept


def sorted_sums(probs, p, keep):
    """Codes by probability, and which of them `keep` wants, given the sum before each and with it."""
    ordered, order = probs.sort(descending=True, stable=True)
    sums = ordered.cumsum(0)
    return order[keep(sums - ordered, sums)]


@pytest.mark.parametrize(
    "function",
    [
        by_loop,
        lambda probs, p: keep_top_p(probs, p) > 0,
        lambda probs, p: (keep_top_p(probs, p) > 0).tolist(),
        lambda probs, p: set(by_loop(probs, p)),
        lambda probs, p: np.array(by_loop(probs, p)),
        lambda probs, p: sorted_sums(probs, p, lambda before, _: before < p),
    ],
)
def test_the_nucleus_is_accepted_as_numbers_or_as_a_mask(function):
    assert check.nucleus(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda probs, p: sorted_sums(probs, p, lambda _, sums: sums <= p), "with which the sum reaches p is missing"),
        (lambda probs, p: sorted_sums(probs, p, lambda _, sums: sums > 2).tolist(), "keeps codes []"),
        (lambda probs, p: probs.argsort(descending=True, stable=True)[: len(by_loop(probs, p)) + 1], "one code too"),
        (lambda probs, p: (probs.cumsum(0) - probs) < p, "Sort them"),
        (lambda probs, p: range(len(by_loop(probs, p))), "places in the sorted order"),
        (lambda probs, p: probs >= p, "single probabilities"),
        (lambda probs, p: keep_top_p(probs, p) == 0, "struck out"),
        (lambda probs, p: keep_top_p(probs, p), "are no codes"),
        (lambda probs, p: None, "stopped with TypeError"),
        (lambda probs, p: probs[p], "stopped with"),
        (lambda probs, p: ..., "no answer"),
    ],
)
def test_a_wrong_nucleus_gets_its_diagnosis(function, diagnosis):
    verdict = check.nucleus(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def test_the_guided_probability_is_that_of_the_library():
    logits = guide(torch.tensor(COND).log(), torch.tensor(UNCOND).log(), 3.0)
    assert check.guided(logits.softmax(-1)[0], COND, UNCOND, 3.0).right


@pytest.mark.parametrize("answer", [0.923, 0.9234, np.float64(1.372 / 1.4858888888)])
def test_the_guided_probability_is_accepted_rounded(answer):
    assert check.guided(answer, COND, UNCOND, 3.0).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (0.7, "scale 1"),
        (0.5, "scale 0"),
        (1.1, "guides the probabilities"),
        (1.0, "guides the probabilities"),
        (0.343 / 0.352, "leaves out p(audio)"),
        (1.372, "Divide by the sum"),
        (0.9, "too small"),
        ("much", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_guided_probability_gets_its_diagnosis(answer, diagnosis):
    verdict = check.guided(answer, COND, UNCOND, 3.0)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [2, 2.0, torch.tensor(2.0)])
def test_their_scale_is_ours_less_one(answer):
    assert check.their_scale(answer).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [(3, "our scale"), (4, "other way"), (-2, "sign"), (7, "too large"), ("w", "not a number"), (..., "no answer")],
)
def test_a_wrong_scale_gets_its_diagnosis(answer, diagnosis):
    verdict = check.their_scale(answer)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [3248, 8 * 2 * 203, np.int64(3248)])
def test_the_columns_of_guided_clips_are_counted(answer):
    assert check.cells(answer, 8, 200, (0, 1, 2, 3)).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (8 * 203, "one row a caption"),
        (16 * 200, "counts frames"),
        (8 * 200, "frames instead of columns"),
        (2 * 203, "one caption takes"),
        (16 * 203 * 4, "counts codes"),
        (24 * 203, "three rows"),
        (12, "too small"),
        (..., "no answer"),
    ],
)
def test_a_wrong_count_of_columns_gets_its_diagnosis(answer, diagnosis):
    verdict = check.cells(answer, 8, 200, (0, 1, 2, 3))
    assert not verdict.right
    assert diagnosis in verdict.text
