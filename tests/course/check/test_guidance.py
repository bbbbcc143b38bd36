"""The checks of notebook 07 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest
import torch

from minigen.course.check import guidance as check
from minigen.generate import generate_codes, keep_top_k, keep_top_p, sample
from minigen.guidance import guide
from minigen.patterns import DelayPattern

UNCOND, COND = (0.5, 0.3, 0.2), (0.7, 0.2, 0.1)


def test_the_guided_probability_is_that_of_the_library():
    logits = guide(torch.tensor(COND).log(), torch.tensor(UNCOND).log(), 3.0)
    assert check.guided(logits.softmax(-1)[0], COND, UNCOND, 3.0).right


@pytest.mark.parametrize("answer", [0.923, 0.9234, np.float64(1.372 / 1.4858888888)])
def test_the_guided_probability_is_accepted_rounded(answer):
    assert check.guided(answer, COND, UNCOND, 3.0).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (0.7, "scale 1"),
        (0.5, "scale 0"),
        (1.1, "guides the probabilities"),
        (1.0, "guides the probabilities"),
        (0.343 / 0.352, "leaves out p(audio)"),
        (1.372, "Divide by the sum"),
        (0.9, "too small"),
        ("much", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_guided_probability_gets_its_diagnosis(answer, diagnosis):
    verdict = check.guided(answer, COND, UNCOND, 3.0)
    assert not verdict.right
    assert diagnosis in verdict.text


def by_loop(probs, p):
    kept = torch.zeros_like(probs)
    for row, out in zip(probs, kept, strict=True):
        total = 0.0
        for code in row.argsort(descending=True, stable=True).tolist():
            if total < p:
                out[code] = row[code]
            total += row[code].item()
    return kept / kept.sum(-1, keepdim=True)


def ranked(keep, probs, p):
    """What `keep` wants of the sorted rows, given their probabilities and sums; back at its place, with the sum 1."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(probs).scatter(-1, order, ordered * keep(ordered, ordered.cumsum(-1), p))
    return kept / kept.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "function",
    [by_loop, keep_top_p, lambda probs, p: ranked(lambda one, sums, p: sums - one < p, probs, p).numpy()],
)
def test_top_p_is_accepted_however_it_is_computed(function):
    assert check.top_p(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda probs, p: ranked(lambda one, sums, p: sums <= p, probs, p), "reaches p is missing"),
        (lambda probs, p: ranked(lambda one, sums, p: sums - one <= p, probs, p), "one code too many"),
        (lambda probs, p: probs * (keep_top_p(probs, p) > 0), "do not sum to 1"),
        (lambda probs, p: keep_top_p(probs, p).sort(-1, descending=True).values, "sorted order"),
        (lambda probs, p: probs * ((probs.cumsum(-1) - probs) < p), "Sort each row"),
        (lambda probs, p: probs * (probs >= p), "single probabilities"),
        (lambda probs, p: probs * (keep_top_p(probs, p) == 0), "struck out"),
        (lambda probs, p: probs, "top-p keeps"),
        (lambda probs, p: probs[0], "the shape is [4]"),
        (lambda probs, p: probs.nothing, "stopped with AttributeError"),
        (lambda probs, p: ..., "no answer"),
    ],
)
def test_a_wrong_top_p_gets_its_diagnosis(function, diagnosis):
    verdict = check.top_p(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def with_bugs(guidance=False, temperature=False, rows=False):
    """The notebook's sampler with the named mistakes."""

    def function(cond, uncond, w, heat, k, generator):
        if guidance:
            probs = guide(cond.softmax(-1), uncond.softmax(-1), w).clamp(min=0)
            probs = probs / heat if temperature else probs ** (1 / heat)
        else:
            probs = (guide(cond, uncond, w) / (1 if temperature else heat)).softmax(-1)
        kept = probs >= probs.topk(k).values.min() if rows else probs >= probs.topk(k).values[:, -1:]
        return torch.multinomial(probs * kept, 1, generator=generator)[:, 0]

    return function


@pytest.mark.parametrize(
    "function",
    [
        with_bugs(),
        lambda cond, uncond, w, heat, k, generator: sample(guide(cond, uncond, w), heat, k, generator=generator),
        lambda cond, uncond, w, heat, k, generator: torch.multinomial(
            keep_top_k((guide(cond.log_softmax(-1), uncond.log_softmax(-1), w) / heat).softmax(-1), k), 1,
            generator=generator).flatten(),
    ],
)  # fmt: skip
def test_the_repaired_sampler_is_accepted(function):
    assert check.sampler(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (with_bugs(True, True, True), "no answer so far: 3 of 3 left"),
        (with_bugs(guidance=True), "1 of 3 left: guidance acts on probabilities"),
        (with_bugs(temperature=True, rows=True), "2 of 3 left: the temperature divides"),
        (with_bugs(rows=True), "1 of 3 left: one threshold"),
        (lambda cond, *others: cond.argmax(-1), "other codes"),
        (lambda cond, *others: cond, "the shape is [600, 8]"),
        (lambda cond, *others: cond.nothing, "AttributeError"),
        (lambda *others: ..., "no answer"),
    ],
)
def test_the_mistakes_that_are_left_in_the_sampler_are_named(function, diagnosis):
    verdict = check.sampler(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def loop(scale_of=lambda scale_at, s: scale_at(s), revert=True):
    """A loop that guides column s by scale_of(scale_at, s)."""

    @torch.no_grad()
    def function(lm, memory, mask, frames, scale_at, seed):
        pattern, generator = DelayPattern(lm.config.delays), torch.Generator().manual_seed(seed)
        known = pattern.apply(torch.full((len(memory), 2, frames), -1), fill=12)
        sequence = torch.full((len(memory), 2, 1), 12)
        for s in range(known.shape[-1]):
            cond, uncond = lm(sequence, memory, mask)[:, :, -1], lm(sequence)[:, :, -1]
            column = sample(uncond + scale_of(scale_at, s) * (cond - uncond), generator=generator)
            column = torch.where(known[..., s] < 0, column, known[..., s])
            sequence = torch.cat([sequence, column[..., None]], -1)
        return pattern.revert(sequence[..., 1:]) if revert else sequence

    return function


def two_rows(lm, memory, mask, frames, scale_at, seed):
    """Both branches as one batch; rows whose words are all masked read nothing."""
    masks = torch.cat([mask, torch.zeros_like(mask)])
    both = lambda sequence: lm(sequence.repeat(2, 1, 1), memory.repeat(2, 1, 1), masks)[:, :, -1].chunk(2)  # noqa: E731
    pattern, generator = DelayPattern(lm.config.delays), torch.Generator().manual_seed(seed)
    known = pattern.apply(torch.full((2, 2, frames), -1), fill=12)
    sequence = torch.full((2, 2, 1), 12)
    for s, column in enumerate(known.unbind(-1)):
        drawn = sample(guide(*both(sequence), scale_at(s)), generator=generator)
        sequence = torch.cat([sequence, torch.where(column < 0, drawn, column)[..., None]], -1)
    return pattern.revert(sequence[..., 1:])


@pytest.mark.parametrize("function", [loop(), two_rows])
def test_a_schedule_is_accepted_however_it_is_computed(function):
    assert check.scheduled(function).right


def test_a_constant_schedule_is_the_library():
    lm, memory, mask = check._toy()
    library = generate_codes(lm, memory, mask, frames=10, guidance=3.0, generator=torch.Generator().manual_seed(3))
    assert torch.equal(loop()(lm, memory, mask, 10, lambda s: 3.0, 3), library)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (loop(lambda scale_at, s: scale_at(0)), "asked once"),
        (loop(lambda scale_at, s: scale_at(s + 1)), "next column"),
        (loop(lambda scale_at, s: 1.0), "no guidance"),
        (loop(lambda scale_at, s: 0.0), "the text is not used"),
        (loop(lambda scale_at, s: 1 + scale_at(s)), "Start from uncond"),
        (loop(lambda scale_at, s: 1 - scale_at(s)), "exchanged"),
        (loop(lambda scale_at, s: 2.5), "other codes"),
        (loop(revert=False), "the shape is [2, 2, 12]"),
        (lambda lm, *others: lm.nothing, "AttributeError"),
        (lambda *others: ..., "no answer"),
    ],
)
def test_a_wrong_schedule_gets_its_diagnosis(function, diagnosis):
    verdict = check.scheduled(function)
    assert not verdict.right
    assert diagnosis in verdict.text
