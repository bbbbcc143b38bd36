"""The checks of notebook 15 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid, softplus

from minigen.course.check import tuning as check
from minigen.tuning.preference import preference_loss


class Layer(torch.nn.Module):
    def __init__(self, weight, rank, alpha):
        super().__init__()
        self.weight, self.scale = weight, alpha / rank
        self.down = torch.nn.Parameter(torch.randn(rank, weight.shape[1]))
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x):
        return x @ self.weight.T + self.scale * (x @ self.down.T) @ self.up.T

    def merged(self):
        return self.weight + self.scale * self.up @ self.down


class ByMerging(Layer):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.merged())


class WithFrozenParameter(Layer):
    def __init__(self, weight, rank, alpha):
        super().__init__(weight, rank, alpha)
        del self.weight
        self.weight = torch.nn.Parameter(weight, requires_grad=False)


@pytest.mark.parametrize("layer", [Layer, ByMerging, WithFrozenParameter])
def test_a_layer_is_accepted_however_it_is_computed(layer):
    assert check.lora(layer).right


def changed(build=lambda self, weight, rank, alpha: None, **methods):
    """The layer with other matrices or methods."""

    class Changed(Layer):
        def __init__(self, weight, rank, alpha):
            super().__init__(weight, rank, alpha)
            build(self, weight, rank, alpha)

    for name, method in methods.items():
        setattr(Changed, name, method)
    return Changed


def random_up(self, weight, rank, alpha):
    self.up = torch.nn.Parameter(torch.ones(len(weight), rank))


def zero_down(self, weight, rank, alpha):
    self.down = torch.nn.Parameter(torch.zeros(rank, weight.shape[1]))


def turned(self, weight, rank, alpha):
    self.down = torch.nn.Parameter(torch.randn(weight.shape[1], rank))


def plain_tensor(self, weight, rank, alpha):
    del self.down
    self.down = torch.randn(rank, weight.shape[1])


def trained_weight(self, weight, rank, alpha):
    del self.weight
    self.weight = torch.nn.Parameter(weight)


def scaled(factor):
    def build(self, weight, rank, alpha):
        self.scale = factor(rank, alpha)

    return build


@pytest.mark.parametrize(
    ("layer", "diagnosis"),
    [
        (changed(random_up), "up is not zero"),
        (changed(zero_down), "down is zero"),
        (changed(turned), "down is [5, 3], not [3, 5]"),
        (changed(plain_tensor), "no torch.nn.Parameter"),
        (changed(trained_weight), "W is trained as well"),
        (changed(scaled(lambda rank, alpha: 1)), "α / r is missing"),
        (changed(scaled(lambda rank, alpha: alpha)), "multiplied by α"),
        (changed(scaled(lambda rank, alpha: rank / alpha)), "r / α"),
        (changed(forward=lambda self, x: x @ self.weight.T), "no effect"),
        (changed(forward=lambda self, x: x @ self.weight.T + 1), "as without the adapter"),
        (changed(merged=lambda self: self.weight), "merged(): the product is missing"),
        (changed(merged=lambda self: Layer.merged(self).T), "transpose"),
        (changed(merged=lambda self: self.nothing), "AttributeError"),
        (changed(merged=lambda self: ...), "no answer"),
    ],
)
def test_a_wrong_layer_gets_its_diagnosis(layer, diagnosis):
    verdict = check.lora(layer)
    assert not verdict.right
    assert diagnosis in verdict.text


def by_gather(logits, sequence):
    real = sequence < logits.shape[-1]
    each = logits.log_softmax(-1).gather(-1, sequence.where(real, 0)[..., None])[..., 0]
    return each.where(real, 0).sum((1, 2))


def by_cross_entropy(logits, sequence):
    flat = logits.flatten(1, 2).transpose(1, 2)
    return -cross_entropy(flat, sequence.flatten(1), ignore_index=logits.shape[-1], reduction="none").sum(1)


@pytest.mark.parametrize("function", [by_gather, by_cross_entropy])
def test_the_log_likelihood_is_accepted_however_it_is_computed(function):
    assert check.log_probability(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda x, c: -by_gather(x, c), "sign is wrong"),
        (lambda x, c: by_gather(x, c.clamp(max=5)), "gaps of the pattern"),
        (lambda x, c: by_gather(x, c) / (c < 6).sum((1, 2)), "mean over the codes"),
        (lambda x, c: (x.gather(-1, c.clamp(max=5)[..., None])[..., 0] * (c < 6)).sum((1, 2)), "sums of logits"),
        (lambda x, c: by_gather(x, c).sum(), "one number for the batch"),
        (lambda x, c: by_gather(x, c) / 0.6931472, "in bits"),
        (lambda x, c: torch.zeros(2), "not right for the values"),
        (lambda x, c: x.gather(-1, c[..., None]), "RuntimeError"),
        (lambda x, c: ..., "no answer"),
    ],
)
def test_a_wrong_log_likelihood_gets_its_diagnosis(function, diagnosis):
    verdict = check.log_probability(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def margin(c, r, rc, rr, beta):
    return beta * (c - rc - r + rr)


@pytest.mark.parametrize(
    "function",
    [
        preference_loss,
        lambda *given: softplus(-margin(*given)).mean(),
        lambda *given: (-logsigmoid(margin(*given)).mean()).item(),
    ],
)
def test_the_loss_is_accepted_however_it_is_computed(function):
    assert check.preference(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *given: -logsigmoid(margin(*given)).sum(), "sum over the pairs"),
        (lambda *given: -logsigmoid(margin(*given)), "one number for each pair"),
        (lambda *given: logsigmoid(margin(*given)).mean(), "sign is wrong"),
        (lambda c, r, rc, rr, beta: preference_loss(c, r, rc, rr, 1.0), "β is missing"),
        (lambda c, r, rc, rr, beta: preference_loss(c, r, 0 * rc, 0 * rr, beta), "the reference is missing"),
        (lambda c, r, rc, rr, beta: preference_loss(r, c, rr, rc, beta), "wrong sign"),
        (lambda c, r, rc, rr, beta: preference_loss(rc, rr, c, r, beta), "wrong sign"),
        (lambda *given: -margin(*given).mean(), "the margin itself"),
        (lambda *given: -logsigmoid(margin(*given).mean()), "before the logarithm"),
        (lambda *given: -margin(*given).sigmoid().log().mean(), "Use logsigmoid"),
        (lambda *given: 7.0, "not right for the values"),
        (lambda *given: ..., "no answer"),
    ],
)
def test_a_wrong_loss_gets_its_diagnosis(function, diagnosis):
    verdict = check.preference(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def pairs_by_loop(scores, least):
    found = []
    for row, line in enumerate(scores.tolist()):
        if max(line) - min(line) >= least:
            found.append((row, line.index(max(line)), line.index(min(line))))
    return found


def pairs_by_tensors(scores, least):
    rows = torch.arange(len(scores))
    every = torch.stack([rows, scores.argmax(1), scores.argmin(1)], 1)
    return every[scores.amax(1) - scores.amin(1) >= least]


@pytest.mark.parametrize("function", [pairs_by_loop, pairs_by_tensors])
def test_pairs_are_accepted_as_lists_and_as_tensors(function):
    assert check.ranked_pairs(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, least: pairs_by_loop(s, -1), "`least` is ignored"),
        (lambda s, least: [(row, b, a) for row, a, b in pairs_by_loop(s, least)], "exchanged"),
        (lambda s, least: pairs_by_loop(s, least + 0.01), "≥, not >"),
        (lambda s, least: [pair[1:] for pair in pairs_by_loop(s, least)], "row of the caption is missing"),
        (lambda s, least: [(i, *pair[1:]) for i, pair in enumerate(pairs_by_loop(s, least))], "Keep the row"),
        (lambda s, least: [], "Rank within each row"),
        (lambda s, least: 3, "TypeError"),
        (lambda s, least: ..., "no answer"),
    ],
)
def test_wrong_pairs_get_their_diagnosis(function, diagnosis):
    verdict = check.ranked_pairs(function)
    assert not verdict.right
    assert diagnosis in verdict.text
