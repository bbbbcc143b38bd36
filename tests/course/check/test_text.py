"""The checks of notebook 04 accept what is right in every form, and say what is wrong with typical wrong answers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.models.t5.modeling_t5 import T5Attention

from minigen.course.check import text as check


def by_filling(q, k, v, mask):
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None, None], -torch.inf)
    return scores.softmax(-1).nan_to_num() @ v


def by_renormalising(q, k, v, mask):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).exp() * mask[:, None, None]
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30) @ v


def clip_by_clip(q, k, v, mask):
    out = torch.zeros_like(q)
    for b, real in enumerate(mask):
        if real.any():
            out[b] = F.scaled_dot_product_attention(q[b], k[b][:, real], v[b][:, real])
    return out


@pytest.mark.parametrize(
    "function", [by_filling, by_renormalising, clip_by_clip, lambda *arguments: by_filling(*arguments).numpy()]
)
def test_any_cross_attention_that_survives_an_empty_caption_is_accepted(function):
    assert check.cross_attention(function).right


def scores_of(q, k):
    return q @ k.mT / 2


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda q, k, v, m: scores_of(q, k).masked_fill(~m[:, None, None], -torch.inf).softmax(-1) @ v, "NaN"),
        (lambda q, k, v, m: by_filling(2 * q, k, v, m), "not divided by √d"),
        (lambda q, k, v, m: by_filling(q / 2, k, v, m), "divided by d"),
        (lambda q, k, v, m: scores_of(q, k).softmax(-1) @ v, "no effect"),
        (lambda q, k, v, m: by_filling(q, k, v, ~m), "wrong way round"),
        (lambda q, k, v, m: scores_of(q, k).softmax(-1) * m[:, None, None] @ v, "after the softmax"),
        (lambda q, k, v, m: (scores_of(q, k) * m[:, None, None]).softmax(-1) @ v, "counts as e⁰"),
        (lambda q, k, v, m: scores_of(q, k).masked_fill(~m[:, None, None], -1e9).softmax(-1) @ v, "reads its padding"),
        (lambda q, k, v, m: by_filling(q, k, v, m)[0], "has shape [2, 5, 4]"),
        (lambda q, k, v, m: 0 * q, "compare each step"),
        (lambda q, k, v, m: "done", "not a tensor"),
        (lambda q, k, v, m: q @ k, "stopped with RuntimeError"),
        (lambda q, k, v, m: ..., "no answer"),
    ],
)
def test_a_wrong_cross_attention_gets_its_diagnosis(function, diagnosis):
    verdict = check.cross_attention(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def one_sided(n, exact=16, shared=16, last=31):
    return n if n < exact else min(last, exact + int(math.log(n / exact) / math.log(128 / exact) * shared))


def by_the_official_decoder(n):
    distance = torch.tensor([[-n]])
    return T5Attention._relative_position_bucket(distance, bidirectional=False, num_buckets=32, max_distance=128)


@pytest.mark.parametrize("function", [one_sided, by_the_official_decoder])
def test_the_buckets_of_the_decoder_are_accepted(function):
    assert check.decoder_bucket(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda n: one_sided(n, 8, 8, 15), "the encoder's half"),
        (lambda n: one_sided(n, last=99), "above 31"),
        (lambda n: one_sided(n, 8, 24), "8 exact buckets"),
        (lambda n: min(n, 31), "must share"),
        (lambda n: 16 + one_sided(n, 8, 8, 15), "after n"),
        (lambda n: one_sided(n) + (n > 30), "distance 40 gives"),
        (lambda n: 3, "distance 0 gives 3, not 0. Distances below 16"),
        (lambda n: None, "not a number"),
        (lambda n: n / 0, "stopped with ZeroDivisionError"),
        (lambda n: ..., "no answer"),
    ],
)
def test_wrong_buckets_get_their_diagnosis(function, diagnosis):
    verdict = check.decoder_bucket(function)
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
