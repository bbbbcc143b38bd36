"""The checks of notebook 08 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch

from minigen.course.check import similarity as check
from minigen.regularizer import pool


def by_loop(states, mask):
    rows = [[max(row[m][:, d].tolist()) for d in range(row.shape[1])] for row, m in zip(states, mask, strict=True)]
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "function",
    [
        lambda states, mask: states.masked_fill(~mask[..., None], -torch.inf).amax(1),
        lambda states, mask: torch.where(mask[..., None], states, -1e9).max(dim=1).values,
        lambda states, mask: pool(states, mask),
        by_loop,
    ],
)
def test_max_pooling_is_accepted_however_it_is_computed(function):
    assert check.max_pool(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, m: s.amax(1), "zeros of the padding win"),
        (lambda s, m: (s * m[..., None]).amax(1), "zeros of the padding win"),
        (lambda s, m: pool(s, m, "mean"), "mean over the real tokens"),
        (lambda s, m: s.mean(1), "counts the padding"),
        (lambda s, m: s.masked_fill(~m[..., None], torch.inf).amin(1), "smallest"),
        (lambda s, m: s[:, 0], "first token"),
        (lambda s, m: s.amax(2), "the shape is [3, 4]"),
        (lambda s, m: torch.where(s == 0, -torch.inf, s).amax(1), "only while the padding is zero"),
        (lambda s, m: 2 * s.amax(1), "other numbers"),
        (lambda s, m: s[m].unknown, "AttributeError"),
        (lambda s, m: ..., "no answer"),
    ],
)
def test_wrong_pooling_gets_its_diagnosis(function, diagnosis):
    verdict = check.max_pool(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def double_loop(text, audio):
    clips, total = len(text), 0.0
    for i in range(clips):
        for j in range(clips):
            total += (text[i, j].item() - audio[i, j].item()) ** 2 if i != j else 0.0
    return total / (clips * (clips - 1))


def off(matrix):
    return matrix[~torch.eye(len(matrix)).bool()]


@pytest.mark.parametrize(
    "function",
    [
        double_loop,
        lambda text, audio: off(text - audio).square().mean(),
        lambda text, audio: torch.nn.functional.mse_loss(off(audio), off(text)),
        lambda text, audio: (text - audio).square().triu(1).sum() * 2 / (len(text) * (len(text) - 1)),
    ],
)
def test_the_loss_is_accepted_however_it_is_computed(function):
    assert check.loss(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda t, a: (t - a).square().mean(), "diagonal is in the mean"),
        (lambda t, a: (t - a).square().sum(), "this is the sum"),
        (lambda t, a: (t - a).square().sum() / 10, "twice"),
        (lambda t, a: (t - a).square().triu(1).sum() / 20, "one triangle"),
        (lambda t, a: off(t - a).abs().mean(), "absolute"),
        (lambda t, a: off(t - a).mean(), "cancel"),
        (lambda t, a: off(t - a).square().mean().sqrt(), "no root"),
        (lambda t, a: (t - a).square(), "one number"),
        (lambda t, a: 7.0, "for the matrices tried"),
        (lambda t, a: t @ None, "TypeError"),
        (lambda t, a: ..., "no answer"),
    ],
)
def test_a_wrong_loss_gets_its_diagnosis(function, diagnosis):
    verdict = check.loss(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [64 * 63 * 0.1**2, 40.32, torch.tensor(40.32)])
def test_the_pairs_of_a_coin_are_counted_in_both_directions(answer):
    assert check.pairs(answer, 64, 0.1).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (20.16, "each pair once"),
        (403.2, "coin for the whole batch"),
        (4032, "all pairs"),
        (6.4, "clips, not of pairs"),
        (6.4 * 5.4, "mean of a square"),
        (6.4**2, "paired with itself"),
        (1, "too small"),
        (..., "no answer"),
    ],
)
def test_a_wrong_number_of_pairs_gets_its_diagnosis(answer, diagnosis):
    verdict = check.pairs(answer, 64, 0.1)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [0.8, 1 - 48 / 240, torch.tensor(0.8, dtype=torch.float64)])
def test_the_share_of_lost_pairs_is_counted(answer):
    assert check.lost(answer, 16, 4).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (0.2, "share that is left"),
        (0.75, "counts the diagonal"),
        (0.25, "diagonal included"),
        (80, "per cent"),
        (48, "pairs that are left"),
        (192, "pairs that are lost"),
        (0.5, "too small"),
        (..., "no answer"),
    ],
)
def test_a_wrong_share_of_lost_pairs_gets_its_diagnosis(answer, diagnosis):
    verdict = check.lost(answer, 16, 4)
    assert not verdict.right
    assert diagnosis in verdict.text
