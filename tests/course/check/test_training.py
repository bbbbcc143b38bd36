"""The checks of notebook 06 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch
import torch.nn.functional as F

from minigen.course.check import training as check
from minigen.lm import shift_right


def mean_of_all(model, parts):
    count = sum(len(target) for _, target in parts)
    for x, target in parts:
        (F.cross_entropy(model(x), target, reduction="sum") / count).backward()


def one_batch(model, parts):
    x, target = (torch.cat(side) for side in zip(*parts, strict=True))
    F.cross_entropy(model(x), target).backward()


@pytest.mark.parametrize("function", [mean_of_all, one_batch])
def test_accumulating_is_accepted_part_by_part_and_all_at_once(function):
    assert check.accumulate(function).right


def each_part(model, parts, weight, between=lambda model: None):
    for x, target in parts:
        between(model)
        (weight * F.cross_entropy(model(x), target)).backward()


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda m, parts: each_part(m, parts, 1 / 3), "as much as a part of 5"),
        (lambda m, parts: each_part(m, parts, 1), "never divided"),
        (lambda m, parts: each_part(m, parts, 1, lambda m: m.zero_grad()), "only the last part"),
        (lambda m, parts: each_part(m, parts[:1], 1), "only the first part"),
        (lambda m, parts: [F.cross_entropy(m(x), y, reduction="sum").backward() for x, y in parts], "of the sum"),
        (lambda m, parts: each_part(m, parts, 0.25), "times the right norm"),
        (lambda m, parts: None, "no gradient"),
        (lambda m, parts: m.layers, "stopped with AttributeError"),
        (lambda m, parts: ..., "no answer"),
    ],
)
def test_wrong_accumulation_gets_its_diagnosis(function, diagnosis):
    verdict = check.accumulate(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


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
        (lambda g, limit: [one * min(1, limit / sum(x.norm() for x in g)) for one in g], "norms are added"),
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


def right_step(model, optimizer, codes, pattern, shift=shift_right, first_clip=True, zero=True, gaps=False):
    V = model.config.codebook_size
    sequence = pattern.apply(codes, V)
    real = torch.ones_like(sequence, dtype=torch.bool) if gaps else sequence != V
    logits = model(shift(sequence, V))
    loss = F.cross_entropy(logits[real], (sequence % V)[real])  # V % V is code 0
    if zero:
        optimizer.zero_grad()
    loss.backward()
    if first_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def step_without_backward(model, optimizer, codes, pattern):
    V = model.config.codebook_size
    sequence = pattern.apply(codes, V)
    loss = F.cross_entropy(model(shift_right(sequence, V)).flatten(0, 2), sequence.flatten(), ignore_index=V)
    parameters = list(model.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss


@pytest.mark.parametrize("function", [right_step, step_without_backward])
def test_a_step_is_accepted_however_it_is_written(function):
    assert check.step(function).right


@pytest.mark.parametrize(
    ("mistakes", "diagnosis"),
    [
        ({"shift": lambda sequence, V: sequence}, "1 of the 4 mistakes is left. the model reads"),
        ({"gaps": True}, "the gaps count as code 0"),
        ({"zero": False}, "gradients of earlier steps"),
        ({"first_clip": False}, "before the gradients are clipped"),
        ({"first_clip": False, "zero": False, "gaps": True}, "3 of the 4 mistakes are left"),
    ],
)
def test_a_mistake_that_is_left_in_the_step_is_named(mistakes, diagnosis):
    verdict = check.step(lambda *arguments: right_step(*arguments, **mistakes))
    assert not verdict.right and diagnosis in verdict.text, verdict


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda model, optimizer, codes, pattern: None, "Return the loss as a number"),
        (lambda model, optimizer, codes, pattern: 2.0, "as no known step"),
        (lambda model, optimizer, codes, pattern: codes.missing, "stopped with AttributeError"),
        (lambda model, optimizer, codes, pattern: ..., "no answer"),
    ],
)
def test_what_is_no_step_gets_its_diagnosis(function, diagnosis):
    verdict = check.step(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


@pytest.mark.parametrize("better", [{"learning_rate": 2e-2, "warmup": 5}, {"learning_rate": 2e-2, "weight_decay": 0.0}])
def test_settings_that_reach_the_goal_are_accepted(better):
    assert check.settings({**check.START, **better}).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        ({**check.START, "warmup": 5}, "The goal is below 1.0"),
        ({**check.START, "learning_rate": 1e-5}, "too high, or too low"),
        ({**check.START, "learning_rate": -1.0}, "stopped with MinigenError"),
        ({"learning_rate": 1e-2}, "with the keys"),
        (0.02, "with the keys"),
        (..., "no answer"),
    ],
)
def test_settings_that_fall_short_get_their_diagnosis(answer, diagnosis):
    verdict = check.settings(answer)
    assert not verdict.right and diagnosis in verdict.text, verdict
