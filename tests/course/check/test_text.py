"""The checks of notebook 04 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest
import torch

from minigen.course.check import text as check
from minigen.lm import AudioLM, AudioLMConfig


def by_filling(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


def by_renormalising(scores, mask):
    weights = scores.exp() * mask
    return weights / weights.sum(-1, keepdim=True)


def by_loop(scores, mask):
    rows = []
    for row, real in zip(scores.tolist(), mask.tolist(), strict=True):
        shares = [np.exp(score) if word else 0.0 for score, word in zip(row, real, strict=True)]
        rows.append(np.array(shares) / sum(shares))
    return np.stack(rows)


@pytest.mark.parametrize("function", [by_filling, by_renormalising, by_loop, lambda s, m: by_filling(s.float(), m)])
def test_any_way_of_masking_a_softmax_is_accepted(function):
    assert check.masked_softmax(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, m: s.softmax(-1), "no effect"),
        (lambda s, m: s.softmax(-1) * m, "no longer add up"),
        (lambda s, m: by_filling(s, ~m), "upside down"),
        (lambda s, m: (s * m).softmax(-1), "is not small"),
        (lambda s, m: s.masked_fill(~m, -torch.inf).softmax(0), "dim −1"),
        (lambda s, m: s.masked_fill(~m, -torch.inf), "still to come"),
        (lambda s, m: s.masked_fill(~m, -1.0).softmax(-1), "Use −∞"),
        (lambda s, m: by_filling(s, m)[0], "has shape [4]"),
        (lambda s, m: by_filling(s, m) / 0 * 0, "NaN comes back"),
        (lambda s, m: "done", "not a tensor"),
        (lambda s, m: s[m, m], "stopped with IndexError"),
        (lambda s, m: ..., "no answer"),
    ],
)
def test_a_wrong_mask_gets_its_diagnosis(function, diagnosis):
    verdict = check.masked_softmax(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def mean_by_sum(states, mask):
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@pytest.mark.parametrize(
    "function",
    [
        mean_by_sum,
        lambda states, mask: torch.stack([s[m].mean(0) for s, m in zip(states, mask, strict=True)]),
        lambda states, mask: states.masked_fill(~mask[..., None], torch.nan).nanmean(1),
        lambda states, mask: mean_by_sum(states, mask).numpy(),
    ],
)
def test_any_mean_over_the_real_words_is_accepted(function):
    assert check.mean_pool(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, m: s.mean(1), "divides by N"),
        (lambda s, m: s.sum(1) / m.sum(1, keepdim=True), "padding is added in"),  # right only where padding is zero
        (lambda s, m: s.masked_fill(~m[..., None], -torch.inf).amax(1), "maximum"),
        (lambda s, m: (s * m[..., None]).sum(1), "this is the sum"),
        (lambda s, m: s.mean(-1), "[2, 4], but [2, 2]"),
        (lambda s, m: s[:, 0], "Add up"),
        (lambda s, m: 1.0, "not a tensor"),
        (lambda s, m: s / m, "stopped with RuntimeError"),
        (lambda s, m: ..., "no answer"),
    ],
)
def test_a_wrong_mean_gets_its_diagnosis(function, diagnosis):
    verdict = check.mean_pool(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


@pytest.mark.parametrize(
    "answer", [set(check.NO_TEXT[:2]), list(check.NO_TEXT[:2]), ("mask  all False", "memory=None")]
)
def test_what_counts_as_no_text_is_accepted_as_a_set_or_a_list(answer):
    assert check.no_text(answer).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (set(check.NO_TEXT[:3]), "bias"),
        (check.NO_TEXT, "a word like any other"),
        ("memory=None", "mask all False is missing"),
        (set(), "memory=None is missing"),
        ({"guidance 0"}, "not on the list"),
        (..., "no answer"),
    ],
)
def test_a_wrong_notion_of_no_text_gets_its_diagnosis(answer, diagnosis):
    verdict = check.no_text(answer)
    assert not verdict.right and diagnosis in verdict.text, verdict


def test_what_the_check_calls_no_text_is_what_the_model_does():
    torch.manual_seed(0)
    lm = AudioLM(AudioLMConfig(2, 8, 16, 2, 2, 32, 4, delays=(0, 1))).eval()
    torch.nn.init.normal_(lm.memory_projection.bias)
    sequence, memory = torch.randint(9, (1, 2, 5)), torch.randn(1, 3, 4)
    real = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        without = lm(sequence)
        torch.testing.assert_close(lm(sequence, memory, ~real), without)
        assert not torch.allclose(lm(sequence, 0 * memory, real), without, atol=1e-5)


@pytest.mark.parametrize("answer", [0.41, 0.3 * 0.9 + 0.7 * 0.2, np.float32(0.41), torch.tensor(0.41)])
def test_the_mixture_is_accepted_as_any_kind_of_number(answer):
    assert repr(check.dropped(answer)).startswith("Right: 0.3 × 0.9 + 0.7 × 0.2 = 0.41")


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (0.55, "both captions alike"),
        (0.5, "before training. The"),
        (0.041, "share of dropped steps"),
        (0.9, "p(bark | dog)"),
        (0.2, "p(bark | rain)"),
        (0.69, "wrong way round"),
        (0.27, "leaves out the captions"),
        (0.59, "nothing barks"),
        (0.1, "too small"),
        ("41%", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_mixture_gets_its_diagnosis(answer, diagnosis):
    verdict = check.dropped(answer)
    assert not verdict.right and diagnosis in verdict.text, verdict
