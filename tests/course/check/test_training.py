"""The checks of notebook 06 accept what is right in every form, and say what is wrong with typical wrong answers."""

import math

import numpy as np
import pytest
import torch

from minigen.course.check import training as check


@pytest.mark.parametrize(
    "answer", [math.log(2048), 11 * math.log(2), np.float32(math.log(2048)), torch.tensor(7.624619)]
)
def test_the_first_loss_is_accepted_as_any_kind_of_number(answer):
    assert check.first_loss(answer).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (11, "bits"),
        (math.log10(2048), "log10"),
        (math.log(1024), "have 2048"),
        (-math.log(2048), "wrong sign"),
        (1 / 2048, "probability of each"),
        (4 * math.log(2048), "four codes"),
        (7.5, "too small"),
        (8, "too large"),
        ("log 2048", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_first_loss_gets_its_diagnosis(answer, diagnosis):
    verdict = check.first_loss(answer)
    assert not verdict.right
    assert diagnosis in verdict.text


def by_enumeration(B, p):
    """Mean of n (n - 1) over all numbers n of dropped clips."""
    return sum(math.comb(B, n) * p**n * (1 - p) ** (B - n) * n * (n - 1) for n in range(B + 1))


@pytest.mark.parametrize("function", [lambda B, p: B * (B - 1) * p**2, by_enumeration])
def test_pairs_are_accepted_by_formula_and_by_enumeration(function):
    assert check.pairs(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda B, p: B * (B - 1) * p * p / 2, "each pair once"),
        (lambda B, p: B * (B - 1) * p, "one draw a batch"),
        (lambda B, p: B * B * p * p, "with itself"),
        (lambda B, p: B * p * (B * p - 1), "puts the mean of n into"),
        (lambda B, p: B * p, "How many pairs"),
        (lambda B, p: B * (B - 1), "with text or without"),
        (lambda B, p: 7.0, "7 for B = 16"),
        (lambda B, p: None, "not a number"),
        (lambda B, p: B / 0, "stopped with ZeroDivisionError"),
        (lambda B, p: ..., "no answer"),
    ],
)
def test_wrong_pairs_get_their_diagnosis(function, diagnosis):
    verdict = check.pairs(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def whole_norm(gradients):
    return torch.cat([one.flatten() for one in gradients]).norm()


def by_torch(gradients, limit):
    parameters = [torch.nn.Parameter(torch.zeros_like(one)) for one in gradients]
    for parameter, one in zip(parameters, gradients, strict=True):
        parameter.grad = one
    torch.nn.utils.clip_grad_norm_(parameters, limit)
    return [parameter.grad for parameter in parameters]


def in_place(gradients, limit):
    scale = min(1.0, limit / whole_norm(gradients).item())
    for one in gradients:
        one.mul_(scale)
    return gradients


@pytest.mark.parametrize("function", [by_torch, in_place])
def test_clipping_is_accepted_by_torch_and_by_hand(function):
    assert check.clip(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda g, limit: [one * min(1, limit / one.norm()) for one in g], "its own norm"),
        (lambda g, limit: [one * limit / whole_norm(g) for one in g], "never above 1"),
        (lambda g, limit: [one * min(1, limit / whole_norm(g) ** 2) for one in g], "sum of squares"),
        (lambda g, limit: [one * min(1, limit / sum(x.norm() for x in g)) for one in g], "norms are not added"),
        (lambda g, limit: [one.clamp(-limit, limit) for one in g], "by itself"),
        (lambda g, limit: g, "nothing has changed"),
        (lambda g, limit: [one * 0.5 for one in g], "the norm is now 6.5, not 1"),
        (lambda g, limit: g[0], "not a list of tensors"),
        (lambda g, limit: None, "not a list of tensors"),
        (lambda g, limit: limit.foo, "stopped with AttributeError"),
        (lambda g, limit: ..., "no answer"),
    ],
)
def test_wrong_clipping_gets_its_diagnosis(function, diagnosis):
    verdict = check.clip(function)
    assert not verdict.right
    assert diagnosis in verdict.text
