"""The checks of notebook 08 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch
from torch.nn.functional import normalize

from minigen.course.check import similarity as check
from minigen.lm import shift_right
from minigen.loss import cross_entropy, heads_cross_entropy
from minigen.regularizer import pool, similarity_loss, similarity_loss_pooled, similarity_matrix


def step(lm, sequence, memory, mask, drop, weight):
    hidden = lm.hidden_states(shift_right(sequence, 8), *((None, None) if drop else (memory, mask)))
    entropy = heads_cross_entropy(hidden, lm.heads, sequence)
    return entropy + weight * similarity_loss(memory, hidden, mask) if drop else entropy


def step_by_logits(lm, sequence, memory, mask, drop, weight):
    read = shift_right(sequence, 8)
    if not drop:
        return cross_entropy(lm(read, memory, mask), sequence)
    alike = similarity_loss_pooled(pool(memory, mask), pool(lm.hidden_states(read)))
    return (cross_entropy(lm(read), sequence) + weight * alike).item()


@pytest.mark.parametrize("function", [step, step_by_logits])
def test_the_loss_of_a_step_is_accepted_however_it_is_computed(function):
    assert check.step_loss(function).right


def wrong_step(
    regularise=lambda drop: drop, reads=lambda drop: not drop, mask_used=True, shift=True, entropy=1, w=None
):
    def function(lm, sequence, memory, mask, drop, weight):
        read = shift_right(sequence, 8) if shift else sequence
        hidden = lm.hidden_states(read, *((memory, mask) if reads(drop) else ()))
        total = heads_cross_entropy(hidden, lm.heads, sequence) * (entropy if drop else 1)
        if regularise(drop):
            total = total + (w or weight) * similarity_loss(memory, hidden, mask if mask_used else None)
        return total

    return function


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (wrong_step(regularise=lambda drop: True), "on in the step with text as well"),
        (wrong_step(regularise=lambda drop: not drop), "the other way round"),
        (wrong_step(regularise=lambda drop: False), "never added"),
        (wrong_step(reads=lambda drop: True), "still reads the text"),
        (wrong_step(reads=lambda drop: False), "never reads the text"),
        (wrong_step(mask_used=False), "padding of the captions"),
        (wrong_step(shift=False), "Shift the sequence"),
        (wrong_step(entropy=0), "cross-entropy is missing"),
        (wrong_step(w=1.0), "without its weight"),
        (lambda *a: torch.tensor(7.0), "the step with text is wrong"),
        (lambda *a: torch.zeros(2), "one number"),
        (lambda lm, *a: lm.nothing, "AttributeError"),
        (lambda *a: ..., "no answer"),
    ],
)
def test_a_wrong_loss_of_a_step_gets_its_diagnosis(function, diagnosis):
    verdict = check.step_loss(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def regulariser(padding=False, lengths=False, diagonal=False, text=False):
    """The notebook's function, with the named mistakes."""

    def function(words, mask, frames):
        one = words.amax(dim=1) if padding else pool(words, mask)
        one, other = one if text else one.detach(), frames.amax(dim=1)
        if not lengths:
            one, other = normalize(one, dim=-1), normalize(other, dim=-1)
        squared = (one @ one.T - other @ other.T).square()
        return squared.mean() if diagonal else squared[~torch.eye(len(squared)).bool()].mean()

    return function


@pytest.mark.parametrize(
    "function", [regulariser(), lambda words, mask, frames: similarity_loss(words, frames, mask)]
)  # fmt: skip
def test_the_repaired_regulariser_is_accepted(function):
    assert check.repaired(function).right


@pytest.mark.parametrize(
    ("function", "left", "diagnosis"),
    [
        (regulariser(True, True, True, True), 4, "no answer so far"),
        (regulariser(padding=True), 1, "takes part in pooling"),
        (regulariser(diagonal=True, text=True), 2, "detach it"),
        (regulariser(lengths=True), 1, "products"),
    ],
)
def test_the_mistakes_that_are_left_are_named(function, left, diagnosis):
    verdict = check.repaired(function)
    assert not verdict.right
    assert f"{left} of 4 left" in verdict.text and diagnosis in verdict.text


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda t, m, a: similarity_loss(t, a.detach(), m), "not a scalar with a gradient"),
        (lambda t, m, a: similarity_loss(t, a.detach(), m) + 0 * t.sum(), "audio gets no gradient"),
        (lambda t, m, a: a.sum(), "none of the four"),
        (lambda t, m, a: ..., "no answer"),
    ],
)
def test_what_is_no_regulariser_is_named(function, diagnosis):
    verdict = check.repaired(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def off(matrix):
    return matrix[~torch.eye(len(matrix)).bool()]


@pytest.mark.parametrize(
    "function",
    [
        lambda t, a: off(t - a).var(correction=0),
        lambda t, a: (off(t - a) - off(t - a).mean()).square().mean(),
        lambda t, a: off(t - a).square().mean() - off(t - a).mean() ** 2,
    ],
)
def test_the_pattern_is_accepted_however_it_is_computed(function):
    assert check.pattern(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda t, a: off(t - a).square().mean(), "level included"),
        (lambda t, a: off(t - a).mean() ** 2, "this is the level"),
        (lambda t, a: (t - a).var(correction=0), "the diagonal is in it"),
        (lambda t, a: off(t - a).var(), "correction=0"),
        (lambda t, a: off(t - a).std(correction=0), "No root"),
        (lambda t, a: off(t - a).abs().mean(), "Square"),
        (lambda t, a: off(t - a), "one number"),
        (lambda t, a: 7.0, "not the variance"),
        (lambda t, a: ..., "no answer"),
    ],
)
def test_a_wrong_pattern_gets_its_diagnosis(function, diagnosis):
    verdict = check.pattern(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [0.43, torch.tensor(0.9)])
def test_a_raised_correlation_is_accepted_as_any_number(answer):
    assert check.raised(answer).right


@pytest.mark.parametrize(("answer", "diagnosis"), [(0.02, "below 0.2"), (3.0, "no correlation"), (..., "no answer")])
def test_a_correlation_that_did_not_rise_is_named(answer, diagnosis):
    assert not check.raised(answer).right
    assert diagnosis in check.raised(answer).text


def test_the_step_of_the_check_is_that_of_training():
    """The reference of the check against the trainer's objective."""
    from minigen.optim import TrainConfig
    from minigen.train import CrossEntropyObjective

    lm, sequence, memory, mask = check._toy_step()
    objective = CrossEntropyObjective(lm.config, None, TrainConfig(similarity=check.WEIGHT))
    without, _ = objective.loss(lm, sequence, pooled=pool(memory, mask))
    with_text, _ = objective.loss(lm, sequence, memory, mask)
    assert check._step(lm, sequence, memory, mask, True).item() == pytest.approx(without.item(), rel=1e-5)
    assert check._step(lm, sequence, memory, mask, False).item() == pytest.approx(with_text.item(), rel=1e-5)
    assert similarity_matrix(pool(memory, mask)).shape == (4, 4)
