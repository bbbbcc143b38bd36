"""The checks of notebook 05 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest
import torch

from minigen.course.check import lm as check
from minigen.lm import AudioLM, AudioLMConfig


def back(steps):
    """[steps, steps]: how far column n lies behind column s."""
    return torch.arange(steps)[:, None] - torch.arange(steps)


@pytest.mark.parametrize(
    "function",
    [
        lambda steps, width: (back(steps) >= 0) & (back(steps) < width),
        lambda steps, width: torch.ones(steps, steps, dtype=torch.bool).tril().triu(1 - width),
        lambda steps, width: [[0 <= s - n < width for n in range(steps)] for s in range(steps)],
        lambda steps, width: np.tri(steps, dtype=bool) & ~np.tri(steps, k=-width, dtype=bool),
    ],
)
def test_a_window_is_accepted_however_it_is_made(function):
    assert check.window_mask(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, w: back(s) >= 0, "cut off what lies too far back"),
        (lambda s, w: back(s) < w, "sees all of the future"),
        (lambda s, w: back(s).abs() < w, "to both sides"),
        (lambda s, w: ((back(s) >= 0) & (back(s) < w)).T, "transposed"),
        (lambda s, w: ~((back(s) >= 0) & (back(s) < w)), "True = read"),
        (lambda s, w: (back(s) >= 0) & (back(s) <= w), "one too wide"),
        (lambda s, w: (back(s) > 0) & (back(s) < w), "without the diagonal"),
        (lambda s, w: (back(s) > 0) & (back(s) <= w), "without the diagonal"),
        (lambda s, w: ((back(s) >= 0) & (back(s) < w)).float(), "float32"),
        (lambda s, w: torch.ones(s, dtype=torch.bool), "shape [6]"),
        (lambda s, w: torch.zeros(s, s, dtype=torch.bool), "column 0 reads nothing"),
        (lambda s, w: None, "not a tensor"),
        (lambda s, w: s / 0, "stopped with ZeroDivisionError"),
        (lambda s, w: ..., "no answer"),
    ],
)
def test_a_wrong_window_gets_its_diagnosis(function, diagnosis):
    verdict = check.window_mask(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def counted(width):
    models = [AudioLM(AudioLMConfig(1, 2, width, layers, 1, 4 * width, 1, (0,))) for layers in (1, 2)]
    one, two = (sum(p.numel() for p in model.parameters()) for model in models)
    return two - one


@pytest.mark.parametrize("width", [4, 8, 64])
def test_the_formula_of_the_check_is_what_a_layer_of_the_library_has(width):
    assert counted(width) == 16 * width**2 + 6 * width


@pytest.mark.parametrize("function", [lambda D: 16 * D**2 + 6 * D, lambda D: torch.tensor(2 * D * (8 * D + 3))])
def test_the_parameters_of_a_layer_are_accepted_as_any_kind_of_number(function):
    assert check.layer_parameters(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda D: 16 * D * D, "Three norms"),
        (lambda D: 16 * D * D + 3 * D, "two vectors"),
        (lambda D: 16 * D * D + 2 * D, "one norm only"),
        (lambda D: 12 * D * D + 6 * D, "4 D² are missing"),
        (lambda D: 12 * D * D + 4 * D, "without cross-attention"),
        (lambda D: 14 * D * D + 6 * D, "four matrices"),
        (lambda D: 16 * D * D + 19 * D, "no biases"),  # 4 D + 4 D in the attentions, 4 D + D in the feed-forward
        (lambda D: D, "has 280"),
        (lambda D: "many", "not a number"),
        (lambda D: D.width, "stopped with AttributeError"),
        (lambda D: ..., "no answer"),
    ],
)
def test_a_wrong_count_of_a_layer_gets_its_diagnosis(function, diagnosis):
    verdict = check.layer_parameters(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def test_the_size_of_the_cache_is_that_of_the_library_s_cache():
    with torch.device("meta"):
        cache = AudioLM(AudioLMConfig(4, 2048, 1024, 24, 16, 4096, 768)).half().start(2, 1503)
    assert check.cache_size(cache.keys.nbytes + cache.values.nbytes).right
    assert check.cache_size(np.int64(295501824)).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        (295501824 / 2, "half of it"),
        (295501824 / 4, "a quarter"),
        (295501824 * 2, "twice too much"),
        (295501824 * 8, "bits"),
        (2 * 24 * 2 * 1500 * 1024 * 2, "counts the frames"),
        (295501824 / 24, "one layer"),
        (295.501824, "in MB"),
        (3e8, "too large"),
        (1e8, "too small"),
        ("296 MB", "not a number"),
        (..., "no answer"),
    ],
)
def test_a_wrong_size_of_the_cache_gets_its_diagnosis(answer, diagnosis):
    verdict = check.cache_size(answer)
    assert not verdict.right
    assert diagnosis in verdict.text
