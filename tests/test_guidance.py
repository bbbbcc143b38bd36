import pytest
import torch

from minigen.guidance import guide, guide_two


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
