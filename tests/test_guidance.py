"""Guidance: the formulas against transformers and by hand, and the branches that a list of conditions makes."""

import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.guidance import Branches, Condition, guide, guide_two, style_branches, text_branches


@pytest.fixture
def logits():
    """Three [B, K, V] logits: with both conditions, with one, with none."""
    return torch.randn(3, 2, 4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()


def test_guidance_of_zero_is_the_unconditional_model(logits):
    cond, _, uncond = logits
    assert torch.equal(guide(cond, uncond, 0), uncond)


def test_guidance_of_one_is_the_conditional_model(logits):
    cond, _, uncond = logits
    torch.testing.assert_close(guide(cond, uncond, 1), cond)


def test_guidance_moves_in_proportion_to_the_scale(logits):
    cond, _, uncond = logits
    torch.testing.assert_close(guide(cond, uncond, 5) - uncond, 5 * (guide(cond, uncond, 1) - uncond))


def test_guidance_agrees_with_transformers(logits):
    from transformers import ClassifierFreeGuidanceLogitsProcessor

    cond, _, uncond = (x.flatten(0, 1) for x in logits)
    official = ClassifierFreeGuidanceLogitsProcessor(3.0)(torch.zeros(8, 1), torch.cat([cond, uncond]))
    torch.testing.assert_close(guide(cond, uncond, 3.0), official, rtol=0, atol=1e-12)


def test_a_token_that_the_text_makes_likelier_gains_and_one_it_makes_rarer_loses():
    cond, uncond = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    assert guide(cond, uncond, 3.0).tolist() == [4.0, -2.0, 1.0]


def test_two_conditions_follow_the_formula_of_musicgen_style(logits):
    both, style, uncond = logits
    expected = uncond + 3 * (style + 6 * (both - style) - uncond)
    torch.testing.assert_close(guide_two(both, style, uncond, scale=3, style_scale=6), expected)


def test_two_conditions_without_a_style_push_are_plain_guidance(logits):
    both, style, uncond = logits
    torch.testing.assert_close(guide_two(both, style, uncond, 3, style_scale=1), guide(both, uncond, 3))
    torch.testing.assert_close(guide_two(both, style, uncond, 3, style_scale=0), guide(style, uncond, 3))
    assert torch.equal(guide_two(both, style, uncond, 0, style_scale=6), uncond)


# Branches


def condition(words: int, batch: int = 2, width: int = 3, masked: bool = False) -> Condition:
    mask = torch.arange(words).expand(batch, -1) < words - 1 if masked else None
    return Condition(torch.randn(batch, words, width), mask)


@pytest.mark.parametrize("scale, reads", [(0, [False]), (1, [True]), (3.0, [True, False]), (-1, [True, False])])
def test_a_text_has_as_few_branches_as_its_scale_needs(scale, reads):
    branches = text_branches(condition(4), scale)
    assert [text.memory is not None for text in branches.conditions] == reads
    assert (branches.combine is None) == (len(reads) == 1)
    assert text_branches(Condition(), scale).conditions[0].memory is None


def test_the_function_of_the_branches_is_the_formula_with_its_scales(logits):
    both, style, uncond = logits
    assert torch.equal(text_branches(condition(4), 2.5).combine(both, uncond), guide(both, uncond, 2.5))
    branches = style_branches(condition(4), condition(2), 3.0, 6.0)
    assert torch.equal(branches.combine(*logits), guide_two(both, style, uncond, 3.0, 6.0))
    assert [text.memory is not None for text in branches.conditions] == [True, True, False]


def test_conditions_of_other_lengths_are_joined_as_one_batch_whose_padding_is_hidden():
    both, style = condition(4, masked=True), condition(2)
    joined = style_branches(both, style).joined()
    assert joined.memory.shape == (4, 4, 3) and joined.memory_mask.shape == (4, 4)
    assert torch.equal(joined.memory[:2], both.memory) and torch.equal(joined.memory_mask[:2], both.memory_mask)
    assert torch.equal(joined.memory[2:, :2], style.memory) and not joined.memory[2:, 2:].any()
    assert joined.memory_mask[2:].tolist() == [[True, True, False, False]] * 2


def test_one_condition_is_joined_as_it_is():
    text = condition(4)
    assert text_branches(text).joined() is text and text_branches(text).batch == 2
    assert text_branches(text, 0).joined().memory is None and text_branches(text, 0).batch is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Condition(torch.zeros(2, 3)), r"memory has shape \[2, 3\]. Give \[B, N, M\]"),
        (lambda: Condition(torch.zeros(2, 3, 4), torch.ones(2, 3)), "memory_mask is torch.float32"),
        (lambda: Condition(torch.zeros(2, 3, 4), torch.ones(2, 4) > 0), r"memory_mask is torch.bool \[2, 4\]"),
        (lambda: Branches(()), "0 conditions"),
        (lambda: Branches((condition(2), Condition())), "2 conditions, combine=None"),
        (lambda: Branches((condition(2),), guide), "1 conditions"),
        (lambda: Branches((Condition(), condition(2)), guide), "Put it last"),
        (lambda: Branches((condition(2), condition(2, batch=3)), guide), r"shapes \[\[2, 2, 3\], \[3, 2, 3\]\]"),
        (lambda: Branches((condition(2), condition(2, width=4)), guide), "Give the same B and M"),
        (lambda: text_branches(condition(2), float("nan")), "guidance is nan"),
        (lambda: style_branches(condition(2), condition(2), 3.0, float("inf")), "style guidance is inf"),
    ],
)
def test_branches_that_cannot_be_run_are_refused(make, message):
    with pytest.raises(MinigenError, match=message):
        make()
