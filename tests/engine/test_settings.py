"""Settings: a range holds its numbers and no others; a refusal names the setting, its value and the range."""

import math

import numpy as np
import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.engine.settings import COUNT, GUIDANCE, NATURAL, POSITIVE, SHARE, Range, TrainConfig, check_number


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (COUNT, [1, 10**30, np.int64(3), True], [0, -1, 1.0, "1", None, np.array([1])]),
        (POSITIVE, [1e-9, 3, np.float32(2), torch.tensor(0.5)], [0, -1, math.nan, math.inf, "4", None, 10**400, [1.0]]),
        (SHARE, [0, 0.5, 1], [-0.1, 1.1, math.nan]),
        (GUIDANCE, [-3, 0, 3.5], [2e6, -math.inf, np.ones(3)]),
        (Range(float, 0, 1, below=True), [0, 0.99], [1]),
        (Range(float, 0, math.inf), [0, math.inf], [-1, math.nan]),
    ],
)
def test_a_range_holds_its_numbers_and_no_others(allowed, inside, outside):
    assert [value for value in inside if not allowed.holds(value)] == []
    assert [value for value in outside if allowed.holds(value)] == []


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (COUNT, "a whole number of at least 1"),
        (NATURAL, "a whole number of at least 0"),
        (POSITIVE, "a finite number above 0"),
        (Range(float, 0, 30, above=True), "a number above 0 and at most 30"),
        (Range(float, 0, 1, below=True), "a number of at least 0 and below 1"),
    ],
)
def test_a_range_is_a_phrase(allowed, text):
    assert str(allowed) == text


def test_a_refusal_names_the_setting_its_value_and_the_range():
    with pytest.raises(MinigenError, match=r"seconds is '4'\. Give a finite number above 0\."):
        check_number("seconds", "4", POSITIVE)
    with pytest.raises(MinigenError, match=r"steps is 2\.5\. Give a whole number of at least 1\."):
        TrainConfig(steps=2.5)
    with pytest.raises(MinigenError, match=r"pooling is 'min'\. Choose 'max' or 'mean'\."):
        TrainConfig(pooling="min")
