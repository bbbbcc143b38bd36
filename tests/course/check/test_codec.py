"""The checks of notebook 02 accept what is right however it is computed, and say what typical wrong answers mistake."""

import math

import pytest
import torch

from minigen.course.check import codec as check


@pytest.mark.parametrize(
    "function",
    [
        lambda bits, frames, entries: math.floor(bits / (frames * math.log2(entries))),
        lambda bits, frames, entries: bits // (frames * ((entries - 1).bit_length())),
        lambda bits, frames, entries: max(k for k in range(99) if k * frames * math.log2(entries) <= bits),
        lambda bits, frames, entries: torch.tensor(bits / frames / math.log2(entries)).floor(),
    ],
)
def test_the_number_of_codebooks_is_accepted_however_it_is_computed(function):
    assert check.codebooks(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda b, f, v: b / (f * math.log2(v)), "round down"),
        (lambda b, f, v: math.ceil(b / (f * math.log2(v))), "more bits than there are"),
        (lambda b, f, v: b // (f * v), "log2 V bits, not V"),
        (lambda b, f, v: b // f, "bits of a frame"),
        (lambda b, f, v: b // math.log2(v), "codes a second"),
        (lambda b, f, v: b // (f * math.log(v)), "use log2"),
        (lambda b, f, v: math.floor(1000 * b / (f * math.log2(v))), "not in kb/s"),
        (lambda b, f, v: 4, "codebooks(6000, 75, 1024) gives 4, but 8 fit"),
        (lambda b, f, v: None, "not a number"),
        (lambda b, f, v: b / 0, "stopped with ZeroDivisionError"),
        (lambda b, f, v: ..., "no answer"),
    ],
)
def test_a_wrong_number_of_codebooks_gets_its_diagnosis(function, diagnosis):
    verdict = check.codebooks(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def nats(counts):
    p = counts / counts.sum()
    return -(p[p > 0] * p[p > 0].log()).sum()


def loop(counts):
    total, bits = sum(counts.tolist()), 0.0
    for count in counts.tolist():
        if count:
            bits -= count / total * math.log2(count / total)
    return 2**bits


@pytest.mark.parametrize(
    "function",
    [
        lambda counts: nats(counts).exp(),
        loop,
        lambda counts: torch.distributions.Categorical(probs=counts / counts.sum()).perplexity(),
    ],
)
def test_perplexity_is_accepted_in_nats_in_bits_and_from_a_library(function):
    assert check.perplexity(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (nats, "entropy in nats"),
        (lambda c: nats(c) / math.log(2), "entropy in bits"),
        (lambda c: math.exp(nats(c) / math.log(2)), "log2 needs 2"),
        (lambda c: 2 ** nats(c), "2 to the power needs log2"),
        (lambda c: math.exp(-nats(c)), "sign"),
        (lambda c: (c > 0).sum(), "used once"),
        (lambda c: c.sum() / c.max(), "commonest"),
        (lambda c: 1 / (c / c.sum()).square().sum(), "Simpson"),
        (lambda c: torch.exp(-(c / c.sum() * (c / c.sum()).log()).sum()), "nan"),
        (lambda c: c, "not one number"),
        (lambda c: float(len(c) + 1), "you give 5"),
        (lambda c: c.missing, "stopped with AttributeError"),
        (lambda c: ..., "no answer"),
    ],
)
def test_a_wrong_perplexity_gets_its_diagnosis(function, diagnosis):
    verdict = check.perplexity(function)
    assert not verdict.right
    assert diagnosis in verdict.text


class ByRule(torch.autograd.Function):
    """The same as an operation with a gradient of its own."""

    @staticmethod
    def forward(ctx, x, entry):
        return entry.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize(
    "function",
    [
        lambda x, entry: x + (entry - x).detach(),
        lambda x, entry: x - x.detach() + entry.detach(),
        ByRule.apply,
    ],
)
def test_the_straight_through_gradient_is_accepted_in_three_forms(function):
    assert check.straight_through(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda x, entry: entry, "all of the gradient goes to the entry"),
        (lambda x, entry: x + (entry - x), "all of the gradient goes to the entry"),
        (lambda x, entry: entry.detach(), "no gradient reaches x"),
        (lambda x, entry: (x + entry - x).detach(), "no gradient reaches x"),
        (lambda x, entry: x, "its value is x"),
        (lambda x, entry: entry + (x - entry).detach(), "its value is x"),
        (lambda x, entry: entry + x - x.detach(), "learns by averages"),
        (lambda x, entry: 2 * x + (entry - 2 * x).detach(), "multiplied by 2"),
        (lambda x, entry: x * 0.5, "not the entry"),
        (lambda x, entry: 1.0, "not a tensor"),
        (lambda x, entry: x @ entry.T @ torch.zeros(3), "stopped with RuntimeError"),
        (lambda x, entry: ..., "no answer"),
    ],
)
def test_a_wrong_gradient_gets_its_diagnosis(function, diagnosis):
    verdict = check.straight_through(function)
    assert not verdict.right
    assert diagnosis in verdict.text
