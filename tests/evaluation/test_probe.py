"""The linear probe: its loss beside plain gradient descent, its detections, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.evaluation.probe import train_probe


@pytest.fixture
def examples():
    rng = np.random.default_rng(3)
    return rng.normal(size=(30, 4)) + [1, 0, 0, 0], rng.normal(size=(90, 4))


def loss(weights, bias, positive, negative, penalty):
    """The formula of the module in plain loops."""
    total = 0.0
    for rows, y in ((positive, 1), (negative, -1)):
        for row in rows:
            total += math.log(1 + math.exp(-y * (sum(w * e for w, e in zip(weights, row, strict=True)) + bias))) / (
                2 * len(rows)
            )
    return total + penalty / 2 * sum(w * w for w in weights)


def test_the_fit_is_that_of_plain_gradient_descent(examples):
    probe = train_probe(*examples, penalty=0.1)
    weights, bias = torch.zeros(4, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64)
    bias.requires_grad_(True)
    positive, negative = map(torch.from_numpy, examples)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        margins = [positive @ weights + bias, -(negative @ weights + bias)]
        value = sum(torch.nn.functional.softplus(-m).mean() for m in margins) / 2 + 0.05 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    assert probe.weights == pytest.approx(weights.detach().numpy(), abs=1e-5)
    assert probe.bias == pytest.approx(bias.item(), abs=1e-5)


def test_no_other_weights_have_a_smaller_loss(examples):
    probe = train_probe(*examples, penalty=0.02)
    best = loss(probe.weights, probe.bias, *examples, 0.02)
    for seed in range(10):
        moved = np.random.default_rng(seed).normal(scale=0.1, size=5)
        assert loss(probe.weights + moved[:4], probe.bias + moved[4], *examples, 0.02) > best


def test_it_tells_kinds_apart_that_a_plane_tells_apart(examples):
    positive, negative = examples[0] + [5, 0, 0, 0], examples[1]
    probe = train_probe(positive, negative)
    assert (probe.probabilities(positive) > 0.5).all() and (probe.probabilities(negative) < 0.5).all()
    assert probe.probabilities(torch.from_numpy(positive)).shape == (30,)


def test_the_number_of_examples_of_a_class_does_not_matter(examples):
    once, thrice = train_probe(*examples), train_probe(examples[0], np.tile(examples[1], (3, 1)))
    assert thrice.weights == pytest.approx(once.weights, abs=1e-8)


TWO, WIDE, NAN = np.ones((2, 3)), np.ones((2, 4)), np.full((2, 3), np.nan)


@pytest.mark.parametrize(
    "positive, negative, penalty",
    [(TWO[:0], TWO, 1.0), (TWO, WIDE, 1.0), (TWO[0], TWO, 1.0), (NAN, TWO, 1.0), (TWO, TWO, 0.0)],
)
def test_what_cannot_be_fitted_is_refused(positive, negative, penalty):
    with pytest.raises(MinigenError, match="examples"):
        train_probe(positive, negative, penalty)
