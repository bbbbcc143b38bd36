"""The checks of notebook 03 accept what is right in every form, and say what is wrong with typical wrong answers."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from minigen.course.check import patterns as check
from minigen.patterns import CoarseFirstPattern, DelayPattern, FlattenPattern, ParallelPattern


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


def pair_loop(K, T):
    table = torch.zeros(K, T, dtype=torch.int64)
    for t in range(T):
        table[0, t], table[1:, t] = 2 * t, 2 * t + 1
    return table


@pytest.mark.parametrize(
    "function", [pair_loop, lambda K, T: 2 * torch.arange(T) + (torch.arange(K) > 0).int()[:, None]]
)
def test_a_pattern_of_two_columns_a_frame_is_accepted(function):
    assert check.pair_positions(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda K, T: FlattenPattern(K).positions(T), "S = 2 T is enough"),
        (lambda K, T: DelayPattern(tuple(range(K))).positions(T), "does not see all codes of the frame before"),
        (lambda K, T: ParallelPattern(K).positions(T), "does not see codebook 0"),
        (lambda K, T: CoarseFirstPattern(K).positions(T), "does not see all codes of the frame before"),
        (lambda K, T: pair_loop(K, T).flip(0), "does not see codebook 0"),
        (lambda K, T: pair_loop(K, T).T, "got [5, 4]"),
        (lambda K, T: pair_loop(K, T).float(), "whole numbers"),
        (lambda K, T: pair_loop(K, T).tolist(), "got list"),
        (lambda K, T: K / 0, "stopped with ZeroDivisionError"),
        (lambda K, T: ..., "no answer"),
    ],
)
def test_a_wrong_pattern_gets_its_diagnosis(function, diagnosis):
    verdict = check.pair_positions(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def push(column, delays, memory, start=0, late_of=lambda late: late):
    """A right streamer, and the wrong ones that read other columns."""
    memory.append(column)
    t = len(memory) - 1 - max(delays) + start
    if t < 0:
        return None
    return torch.stack([memory[max(0, min(t + late_of(late), len(memory) - 1))][k] for k, late in enumerate(delays)])


def push_with_short_memory(column, delays, memory):
    memory.append(column)
    if len(memory) <= max(delays):
        return None
    frame = [int(memory[late][k]) for k, late in enumerate(delays)]
    memory.pop(0)
    return frame


@pytest.mark.parametrize("function", [push, push_with_short_memory])
def test_a_streamer_is_accepted_with_long_and_with_short_memory(function):
    assert check.streamer(function).right, check.streamer(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda c, d, m: push(c, d, m, start=1), "return None"),
        (lambda c, d, m: push(c, d, m, start=-1), "nothing comes out"),
        (lambda c, d, m: push(c, d, m, late_of=lambda late: 0), "special token"),
        (lambda c, d, m: push(c, d, m, late_of=lambda late: max(d)), "come from frames [3, 2, 1, 0]"),
        (lambda c, d, m: c, "return None"),
        (lambda c, d, m: None, "nothing comes out"),
        (lambda c, d, m: push(c, d, m) and push(c, d, m)[:2], "stopped with"),
        (lambda c, d, m: None if push(c, d, m) is None else torch.zeros(2), "a frame has 4 codes"),
        (lambda c, d, m: m[5], "stopped with IndexError"),
        (lambda c, d, m: ..., "no answer"),
    ],
)
def test_a_wrong_streamer_gets_its_diagnosis(function, diagnosis):
    verdict = check.streamer(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
