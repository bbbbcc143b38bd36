"""The checks of notebook 03 accept what is right in every form, and say what is wrong with typical wrong answers."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from minigen.course.check import patterns as check
from minigen.patterns import DelayPattern


def by_loop(joint):
    rows, columns = [sum(row) for row in joint], [sum(column) for column in zip(*joint, strict=True)]
    return sum(rows[a] * columns[b] for a in range(len(rows)) for b in range(len(columns)) if joint[a][b] == 0)


def by_numpy(joint):
    table = np.array(joint, dtype=float)
    return np.outer(table.sum(1), table.sum(0))[table == 0].sum()


@pytest.mark.parametrize("function", [by_loop, by_numpy, lambda joint: torch.tensor(float(by_loop(joint)))])
def test_the_share_of_impossible_pairs_is_accepted_however_it_is_computed(function):
    assert check.impossible(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda joint: 1 - by_loop(joint), "do occur"),
        (lambda joint: np.mean(np.array(joint) == 0), "counts pairs"),
        (lambda joint: np.sum(np.array(joint) == 0), "how many pairs"),
        (lambda joint: Fraction(0), "by definition"),
        (lambda joint: Fraction(2, 5), "but 0.5 are drawn"),
        (lambda joint: None, "not a number"),
        (lambda joint: joint[7], "stopped with IndexError"),
        (lambda joint: ..., "no answer"),
    ],
)
def test_a_wrong_share_gets_its_diagnosis(function, diagnosis):
    verdict = check.impossible(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def by_columns(k, t, j, u, delays):
    return t + delays[k] > u + delays[j]


def by_positions(k, t, j, u, delays):
    positions = DelayPattern(delays).positions(4)
    return positions[j, u] < positions[k, t]  # a tensor of one bool


@pytest.mark.parametrize("function", [by_columns, by_positions, lambda *case: int(by_columns(*case))])
def test_what_is_known_is_accepted_as_any_kind_of_truth(function):
    assert check.known(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda k, t, j, u, d: u + d[j] <= t + d[k], "same column"),
        (lambda k, t, j, u, d: u < t or (u == t and j < k), "flatten"),
        (lambda k, t, j, u, d: u < t, "frames are not columns"),
        (lambda k, t, j, u, d: u - d[j] < t - d[k], "not minus"),
        (lambda k, t, j, u, d: u + d[j] > t + d[k], "other way round"),
        (lambda k, t, j, u, d: d[j] < d[k], "take part"),
        (lambda k, t, j, u, d: True, "delays (0, 1, 2, 3): code (0, 0) stands in column 0 and (0, 0) in column 0"),
        (lambda k, t, j, u, d: "yes", "True or False"),
        (lambda k, t, j, u: True, "stopped with TypeError"),
        (lambda k, t, j, u, d: ..., "no answer"),
    ],
)
def test_a_wrong_notion_of_known_gets_its_diagnosis(function, diagnosis):
    verdict = check.known(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def by_slices(sequence, delays):
    frames = sequence.shape[-1] - max(delays)
    return torch.stack([sequence[:, k, late : late + frames] for k, late in enumerate(delays)], dim=1)


def from_columns(shift, frames=None):
    """A wrong `revert`: stream k from column shift(delays[k]) on, clamped at the ends."""

    def function(sequence, delays):
        last = sequence.shape[-1] - 1
        wanted = torch.arange(last + 1 - max(delays)) + torch.tensor([[shift(late)] for late in delays])
        return sequence.gather(2, wanted.clamp(0, last).expand(len(sequence), -1, -1))

    return function


@pytest.mark.parametrize("function", [by_slices, from_columns(lambda d: d), lambda s, d: DelayPattern(d).revert(s)])
def test_any_way_of_undoing_a_delay_is_accepted(function):
    assert check.revert(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (from_columns(lambda d: 0), "still in it"),
        (lambda s, d: s[..., : s.shape[-1] - max(d)], "still in it"),
        (from_columns(lambda d: -d), "wrong way"),
        (from_columns(lambda d: d + 1), "one column too late"),
        (from_columns(lambda d: d - 1), "one column too early"),
        (lambda s, d: s[..., max(d) :], "cut alike"),
        (lambda s, d: torch.stack([s[:, k].roll(-d[k], -1) for k in range(len(d))], 1), "T = S − max(delays)"),
        (lambda s, d: by_slices(s, d)[:1], "[1, 4, 9] come back"),
        (lambda s, d: by_slices(s, d).flip(1), "the codes are not"),
        (lambda s, d: by_slices(s, d).where(torch.tensor(False), torch.tensor(999)), "special token"),
        (lambda s, d: s.tolist(), "not a tensor"),
        (lambda s, d: s[d], "stopped with"),
        (lambda s, d: ..., "no answer"),
    ],
)
def test_a_wrong_way_back_gets_its_diagnosis(function, diagnosis):
    verdict = check.revert(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


@pytest.mark.parametrize("answer", [140, 140.0, 7 * 1000 / 50, Fraction(140), torch.tensor(140)])
def test_the_latency_is_accepted_as_any_kind_of_number(answer):
    assert repr(check.latency(answer)) == "Right: frame 0 is whole after columns 0 … 6: 7 × 20 ms = 140 ms."


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (120, "Column 0 counts"),
        (160, "too many"),
        (20, "without delays"),
        (80, "counts codebooks"),
        (240, "same time"),
        (0.14, "in seconds"),
        (7, "number of columns"),
        (1000, "too large"),
        ("140 ms", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_latency_gets_its_diagnosis(answer, diagnosis):
    verdict = check.latency(answer)
    assert not verdict.right and diagnosis in verdict.text, verdict
