"""The checks of the exercises accept what is right in every form, and say what is wrong with typical wrong answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minigen.course.check import first_sound as check
from minigen.patterns import DelayPattern

MINI = SimpleNamespace(sample_rate=16000, frame_rate=50.0, num_codebooks=4, codebook_size=1024)
ENCODEC = SimpleNamespace(sample_rate=24000, frame_rate=75.0, num_codebooks=8, codebook_size=1024)


@pytest.mark.parametrize("answer", [2000, 2000.0, 50 * 4 * 10, np.float32(2000), torch.tensor([2000.0])])
def test_the_bit_rate_is_accepted_as_any_kind_of_number(answer):
    verdict = check.bit_rate(answer, MINI)
    assert verdict.right
    assert repr(verdict) == "Right: 50 frames/s × 4 codebooks × 10 bits = 2000 bit/s."


def test_the_bit_rate_is_that_of_the_codec_at_hand():
    assert check.bit_rate(6000, ENCODEC).right
    assert not check.bit_rate(2000, ENCODEC).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (500, "one codebook"),
        (200, "number of codes"),
        (40, "one frame"),
        (204800, "log2"),
        (50 * 4 * np.log(1024), "natural logarithm"),
        (50 * 4 * np.log10(1024), "log10"),
        (16000 * 4 * 10, "samples"),
        (2, "kb/s"),
        (250, "bytes"),
        (1999, "too small"),
        (3000, "too large"),
        (float("nan"), "not a number"),
        ("2 kb/s", "not a number"),
        (True, "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_bit_rate_gets_its_diagnosis(answer, diagnosis):
    verdict = check.bit_rate(answer, MINI)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize(
    "function",
    [
        lambda frames, delays: frames + max(delays),
        lambda frames, delays: DelayPattern(delays).apply(torch.zeros(1, len(delays), frames).long(), 9).shape[-1],
        lambda frames, delays: torch.tensor(frames + sorted(delays)[-1]),
    ],
)
def test_columns_are_accepted_however_they_are_computed(function):
    assert check.columns(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda t, d: t, "only without delays"),
        (lambda t, d: t + 3, "Take it from delays"),
        (lambda t, d: t + len(d), "counts the streams"),
        (lambda t, d: t + len(d) - 1, "only for 0, 1, 2"),
        (lambda t, d: t + d[-1], "need not be the latest"),
        (lambda t, d: t + sum(d), "not the sum"),
        (lambda t, d: t * len(d), "flatten"),
        (lambda t, d: t + max(d) + 1, "one too many"),
        (lambda t, d: t - max(d), "the columns are wanted"),
        (lambda t, d: 2 * t, "columns(200, (0, 1, 2, 3)) gives 400, but 203 are needed"),
        (lambda t, d: None, "not a number"),
        (lambda t, d: t + d, "stopped with TypeError"),
        (lambda t, d: ..., "no answer"),
    ],
)
def test_a_wrong_count_of_columns_gets_its_diagnosis(function, diagnosis):
    verdict = check.columns(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("answer", [{"caption"}, ["caption"], "caption", "Captions", ("text",)])
def test_what_guidance_zero_ignores_is_accepted_as_a_set_a_list_or_a_word(answer):
    assert check.ignored_at_zero(answer).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (set(), "put 0 for w"),
        ({"caption", "seed"}, "random draws"),
        ({"temperature"}, "after guidance"),
        (["top_k", "caption"], "after guidance"),
        ({"loudness"}, "loudness is not on the list"),
        (0, "0 is not on the list"),
        (..., "no answer"),
    ],
)
def test_a_wrong_set_of_ignored_settings_gets_its_diagnosis(answer, diagnosis):
    verdict = check.ignored_at_zero(answer)
    assert not verdict.right
    assert diagnosis in verdict.text


DELAYS, V = (0, 1, 2, 3), 1024


def extend(prompt, frames, draw_next, late=DELAYS, gaps=True, keep=True):
    """A right continuation, cell by cell, and the wrong ones that differ in a word."""
    sequence = torch.full((1, 4, 1), V)
    for s in range(frames + max(DELAYS)):
        column = draw_next(sequence)
        for k in range(4):
            t = s - DELAYS[k]
            if gaps and not 0 <= t < frames:
                column[0, k] = V
            elif keep and 0 <= s - late[k] < prompt.shape[-1]:
                column[0, k] = prompt[0, k, s - late[k]]
        sequence = torch.cat([sequence, column[..., None]], dim=-1)
    return DelayPattern(DELAYS).revert(sequence[..., 1:])


def extend_by_layout(prompt, frames, draw_next):
    """The prompt's layout first: -1 where a code has to be drawn."""
    given = torch.cat([prompt, torch.full((1, 4, frames - prompt.shape[-1]), -1)], dim=-1)
    layout = DelayPattern(DELAYS).apply(given, fill=V)
    sequence = torch.full((1, 4, 1), V)
    for wanted in layout.unbind(-1):
        column = torch.where(wanted == -1, draw_next(sequence), wanted)
        sequence = torch.cat([sequence, column[..., None]], dim=-1)
    return DelayPattern(DELAYS).revert(sequence[..., 1:])


@pytest.mark.parametrize("function", [extend, extend_by_layout])
def test_a_continuation_is_accepted_cell_by_cell_and_from_a_layout(function):
    assert check.continuation(function, DELAYS, V).right, check.continuation(function, DELAYS, V)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda p, n, d: extend(p, n, d, keep=False), "not at the beginning"),
        (lambda p, n, d: extend(p, n, d, late=(0, 0, 0, 0)), "codebooks [0] only"),
        (lambda p, n, d: extend(p, n, d, gaps=False), "not drawn after these columns"),
        (lambda p, n, d: torch.cat([p, extend(p, n, d, keep=False)[..., p.shape[-1] :]], -1), "not drawn after"),
        (lambda p, n, d: torch.cat([torch.full((1, 4, 1), V), extend(p, n, d)[..., 1:]], -1), "special token"),
        (lambda p, n, d: extend(p, n, d)[..., p.shape[-1] :], "got [1, 4, 7]"),
        (lambda p, n, d: None, "got NoneType"),
        (lambda p, n, d: p.missing, "stopped with AttributeError"),
        (lambda p, n, d: ..., "no answer"),
    ],
)
def test_a_wrong_continuation_gets_its_diagnosis(function, diagnosis):
    verdict = check.continuation(function, DELAYS, V)
    assert not verdict.right and diagnosis in verdict.text, verdict


def test_a_verdict_that_is_not_right_says_not_yet():
    assert repr(check.UNANSWERED).startswith("Not yet: no answer")
