"""The checks of notebook 11 accept what is right in every form, and say what is wrong with typical wrong answers."""

import math

import numpy as np
import pytest
import torch

from minigen.course.check import masked as check
from minigen.generators.iterate import iterate
from minigen.generators.masked import MaskSampler, cosine_counts, gumbel

# hiding a share


def places(scores):
    return scores.argsort(1).argsort(1)


def least(scores, u):
    return (scores.shape[1] * (math.pi / 2 * u).cos()).floor().clamp(min=1)[:, None]


def hide_by_loop(scores, u):
    hidden = torch.zeros_like(scores, dtype=torch.bool)
    for row, draw in enumerate(u.tolist()):
        count = max(1, math.floor(scores.shape[1] * math.cos(math.pi * draw / 2)))
        for cell in sorted(range(scores.shape[1]), key=lambda cell: scores[row, cell].item())[:count]:
            hidden[row, cell] = True
    return hidden


def hide_by_threshold(scores, u):
    return scores <= scores.sort(1).values.gather(1, least(scores, u).long() - 1)


@pytest.mark.parametrize("function", [lambda s, u: places(s) < least(s, u), hide_by_loop, hide_by_threshold])
def test_a_hidden_share_is_accepted_however_it_is_made(function):
    assert check.hide(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, u: places(s) >= least(s, u), "True marks the cells that are kept"),
        (lambda s, u: places(-s) < least(s, u), "with the highest scores"),
        (lambda s, u: places(s) < (10 * (math.pi / 2 * u).cos()).floor()[:, None], "hides no cell"),
        (lambda s, u: places(s) < (10 * u).floor().clamp(min=1)[:, None], "is u itself"),
        (lambda s, u: places(s) < least(s, 1 - u), "the sine"),
        (lambda s, u: places(s) < least(s, 2 * u), "cos(π u)"),
        (lambda s, u: places(s) < least(s, u)[0], "as many cells as the first"),
        (lambda s, u: s < (math.pi / 2 * u).cos()[:, None], "Compare their ranks"),
        (lambda s, u: s.argsort(1) < least(s, u), "the cells are not"),
        (lambda s, u: places(s) < 5, "hides [5, 5, 5, 5] of 10 cells, not [9, 7, 1, 1]"),
        (lambda s, u: (places(s) < least(s, u)).float(), "torch.float32 [4, 10] comes back"),
        (lambda s, u: None, "NoneType comes back"),
        (lambda s, u: s[u], "stopped with IndexError"),
        (lambda s, u: ..., "no answer"),
    ],
)
def test_a_wrong_share_gets_its_diagnosis(function, diagnosis):
    verdict = check.hide(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# the schedule


def counts_by_loop(steps, cells):
    found, hidden = [], cells
    for i in range(1, steps):
        hidden = max(1, min(hidden - 1, math.floor(cells * math.cos(math.pi / 2 * i / steps))))
        found.append(hidden)
    return [*found, 0]


@pytest.mark.parametrize("function", [
    cosine_counts, counts_by_loop, lambda s, c: np.array(cosine_counts(s, c)),
    lambda s, c: torch.tensor(cosine_counts(s, c)),
])  # fmt: skip
def test_the_schedule_is_accepted_in_every_kind_of_list(function):
    assert check.counts(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, c: [c, *cosine_counts(s, c)], "start is in the list"),
        (lambda s, c: [-n for n in np.diff([c, *cosine_counts(s, c)])], "that are decided"),
        (lambda s, c: [c - n for n in cosine_counts(s, c)], "known by then"),
        (lambda s, c: [max(1, math.floor(c * math.cos(math.pi / 2 * i / s))) for i in range(1, s + 1)], "hides 1 cell"),
        (
            lambda s, c: [max(1, math.floor(c * math.cos(math.pi / 2 * i / s))) for i in range(1, s)] + [0],
            "may decide no cell",
        ),
        (lambda s, c: [1] * s, "counts(16, 800) gives 1, 1"),
        (lambda s, c: 3, "gives int"),
        (lambda s, c: [1 / 0], "stopped with ZeroDivisionError"),
        (lambda s, c: ..., "no answer"),
    ],
)
def test_a_wrong_schedule_gets_its_diagnosis(function, diagnosis):
    verdict = check.counts(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# a step


def step(state, logits, count, tau, generator, noise=gumbel, sure_of=torch.log, pick=None, order=1, mask_known=True):
    """A step in which one part may be wrong."""
    mask = logits.shape[-1]
    probs = logits.softmax(-1)
    drawn = probs.argmax(-1) if pick else torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view_as(state)
    sure = sure_of(probs.gather(-1, drawn[..., None])[..., 0]) + tau * noise(probs[..., 0], generator)
    hidden = state == mask
    if mask_known:
        sure = sure.masked_fill(~hidden, order * math.inf)
    new = torch.where(hidden, drawn, state)
    return new.scatter(1, (order * sure).argsort(1)[:, :count], mask)


def step_by_loop(state, logits, count, tau, generator):
    """Row by row, with uniform numbers for the draw and for the noise."""
    new, mask = state.clone(), logits.shape[-1]
    cumulative = logits.softmax(-1).cumsum(-1)
    u = torch.rand(state.shape, generator=generator)
    drawn = (u[..., None] > cumulative).sum(-1).clamp(max=mask - 1)
    p = logits.softmax(-1).gather(-1, drawn[..., None])[..., 0]
    sure = (p.log() - tau * (-torch.rand(state.shape, generator=generator).log()).log()).tolist()
    for row, cells in enumerate((state == mask).tolist()):
        hidden = [cell for cell, missing in enumerate(cells) if missing]
        for place, cell in enumerate(sorted(hidden, key=lambda cell: sure[row][cell])):
            new[row, cell] = mask if place < count else drawn[row, cell]
    return new


@pytest.mark.parametrize("function", [step, step_by_loop])
def test_a_step_is_accepted_with_any_way_to_draw(function):
    assert check.step(function).right, check.step(function)


def changed(**part):
    return lambda *given: step(*given, **part)


def gauss(like, generator):
    return torch.randn(like.shape, generator=generator)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (changed(mask_known=False), "that was known has changed"),
        (changed(order=-1), "the surest cells are hidden"),
        (changed(pick="likeliest"), "always taken"),
        (lambda s, x, c, tau, g: step(s, x, (s == x.shape[-1]).sum(1)[0] - c, tau, g), "not of those to decide"),
        (lambda s, x, c, tau, g: step(s, 0 * x, c, tau, g), "codes of probability 0"),
        (changed(sure_of=lambda p: (p - 1 / 3).abs()), "the wrong cells are hidden"),
        (lambda s, x, c, tau, g: step(s, 3 * x, c, tau, g), "are drawn with the shares"),
        (lambda s, x, c, tau, g: step(s, x, c, 0, g), "the noise has no effect"),
        (lambda s, x, c, tau, g: step(s, x, c, min(tau, 1), g), "τ has no effect"),
        (lambda s, x, c, tau, g: step(s, x, c, 1 / tau if tau else 0, g), "divided by τ"),
        (changed(sure_of=lambda p: p), "Add it to its logarithm"),
        (lambda s, x, c, tau, g: step(s, x, c, 1e6 * tau, g), "by the noise alone"),
        (changed(noise=gauss), "Is the noise −log(−log u)?"),
        (lambda s, x, c, tau, g: s[:, :1], "comes back. Give codes"),
        (lambda s, x, c, tau, g: x, "comes back. Give codes"),
        (lambda s, x, c, tau, g: s @ x, "stopped with"),
        (lambda s, x, c, tau, g: ..., "no answer"),
    ],
)
def test_a_wrong_step_gets_its_diagnosis(function, diagnosis):
    verdict = check.step(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# a step to repair


def with_bugs(*bugs):
    """The notebook's step with the named mistakes."""

    def function(state, logits, count, tau, generator):
        special, probs = logits.shape[-1], logits.softmax(-1)
        drawn = probs.argmax(-1)
        if "likeliest" not in bugs:
            drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view(state.shape)
        hidden = state == special
        state = torch.where(hidden, drawn, state)
        if "mask" in bugs:
            hidden = state == special
        sure = probs.gather(-1, drawn[..., None])[..., 0].log() + tau * gumbel(probs[..., 0], generator)
        sure = sure.masked_fill(~hidden, math.inf)
        least = sure.argsort(1)[:, : max(1, count)] if "last" in bugs else sure.argsort(1)[:, :count]
        return state.scatter(1, least, special)

    return function


@pytest.mark.parametrize("function", [with_bugs(), step, step_by_loop])
def test_the_repaired_step_is_accepted(function):
    assert check.repair(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (with_bugs("mask", "likeliest", "last"), "no answer so far: 3 of 3 left: hidden cells"),
        (with_bugs("mask"), "1 of 3 left: hidden cells are looked for after"),
        (with_bugs("mask", "last"), "2 of 3 left: hidden cells"),
        (with_bugs("likeliest", "last"), "2 of 3 left: the likeliest"),
        (with_bugs("likeliest"), "1 of 3 left: the likeliest"),
        (with_bugs("last"), "1 of 3 left: the last step"),
        (changed(order=-1), "the surest cells are hidden"),
        (lambda s, x, c, tau, g: s @ x, "stopped with"),
        (lambda s, x, c, tau, g: ..., "no answer"),
    ],
)
def test_the_mistakes_that_are_left_in_the_step_are_named(function, diagnosis):
    verdict = check.repair(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# filling


def fill(predict, known, steps, noise, generator, counts=cosine_counts, level=lambda u: 1 - u, each=step):
    state, mask = known, check.SIZE
    schedule = counts(steps, int((known[0] == mask).sum()))
    for i, count in enumerate(schedule):
        state = each(state, predict(state), count, noise * level(i / (steps - 1)), generator)
    return state


class Predictor(torch.nn.Module):
    """`predict` in the place of a denoiser, for the library's own loop: one codebook of L frames."""

    def __init__(self, predict):
        super().__init__()
        self.predict = predict

    def hidden_states(self, state, *_):
        return self.predict(state[:, 0])[:, None]  # [B, 1, L, V]

    def head(self, hidden):
        return hidden


def fill_with_the_library(predict, known, steps, noise, generator):
    sampler = MaskSampler(mask=check.SIZE, noise=noise)
    return iterate(Predictor(predict), sampler, known[:, None], steps=steps, generator=generator).state[:, 0]


@pytest.mark.parametrize("function", [
    fill, fill_with_the_library, lambda *given: fill(*given, each=step_by_loop, counts=counts_by_loop),
])  # fmt: skip
def test_filling_is_accepted_however_it_is_written(function):
    assert check.fill(function).right, check.fill(function)


def counts_of_all(steps):
    """Schedule of all 12 cells of the check, of which 6 are missing."""
    return [min(6, count) for count in cosine_counts(steps, 12)]


def fill_from_nothing(predict, known, steps, noise, generator):
    return fill(predict, torch.full_like(known, check.SIZE), steps, noise, generator)


def fill_and_put_back(predict, known, steps, noise, generator):
    """The given cells are made, too, and put back at the end."""
    made = fill_from_nothing(predict, known, steps, noise, generator)
    return torch.where(known == check.SIZE, made, known)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (fill_from_nothing, "is not `known`"),
        (fill_and_put_back, "is not `known`"),
        (lambda *given: fill(*given, counts=lambda s, c: cosine_counts(s, c)[:-1]), "called 3 times for 4 steps"),
        (lambda *given: fill(*given, counts=lambda s, c: [*cosine_counts(s, c)[:-1], 1]), "1 cells are still hidden"),
        (
            lambda *given: fill(*given, counts=lambda s, c: [min(c, n) for n in cosine_counts(s, 12)]),
            "for all 12 cells",
        ),
        (lambda *given: fill(*given, counts=lambda s, c: [4, 3, 2, 0]), "hidden cells: [6, 4, 3, 2, 0]"),
        (lambda *given: fill(*given, each=changed(mask_known=False)), "given cells have changed"),
        (lambda *given: fill(*given, each=changed(order=-1)), "order of their confidence"),
        (lambda *given: fill(*given, level=lambda u: 0.0), "the noise has no effect"),
        (lambda *given: fill(*given, level=lambda u: 1.0), "the noise stays the same"),
        (lambda *given: fill(*given, level=lambda u: u), "the noise grows"),
        (lambda predict, known, *rest: predict(known), "comes back. Give codes"),
        (lambda predict, known, *rest: known + "a", "stopped with TypeError"),
        (lambda *given: ..., "no answer"),
    ],
)
def test_a_wrong_filling_gets_its_diagnosis(function, diagnosis):
    verdict = check.fill(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
