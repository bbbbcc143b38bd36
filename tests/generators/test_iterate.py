"""The loop of all iterative generators: guidance, evaluations, seeds, and what it refuses."""

import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.iterate import guided, iterate
from minigen.generators.masked import MaskSampler
from minigen.guidance import guide

V, K, T = 20, 2, 8
SAMPLER = MaskSampler(mask=V)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=1, heads=2, ffn=24, memory_width=8)
    return Denoiser(config)


@pytest.fixture(scope="module")
def text() -> tuple[torch.Tensor, torch.Tensor]:
    memory = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    return memory, torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])


def run(model, text=(None, None), seed=0, rows=3, **options):
    known = torch.full((rows, K, T), V)
    return iterate(model, SAMPLER, known, *text, generator=torch.Generator().manual_seed(seed), **options)


@torch.no_grad()
@pytest.mark.parametrize("w", [-1.0, 0.5, 3.0])
def test_guided_states_are_guided_logits(model, text, w):
    state = torch.randint(0, V + 1, (3, K, T), generator=torch.Generator().manual_seed(2))
    predicted, evaluations = guided(model.eval(), SAMPLER, state, 0.0, *text, w)
    torch.testing.assert_close(predicted, guide(model(state, *text), model(state), w), atol=1e-5, rtol=0)
    assert evaluations == 2


@torch.no_grad()
def test_guidance_of_zero_is_the_model_without_text_and_of_one_the_model_with_it(model, text):
    state = torch.full((3, K, T), V)
    nothing, once = guided(model.eval(), SAMPLER, state, 0.0, *text, 0.0)
    plain, single = guided(model, SAMPLER, state, 0.0, *text, 1.0)
    assert torch.equal(nothing, model(state)) and torch.equal(plain, model(state, *text))
    assert once == single == 1


def test_evaluations_count_both_passes_of_a_guided_step(model, text):
    assert run(model, text, steps=5).evaluations == 10
    assert run(model, text, steps=5, guidance=1.0).evaluations == run(model, steps=5).evaluations == 5
    assert run(model, text, steps=5, guidance=lambda progress: 3.0 if progress < 0.5 else 1.0).evaluations == 7


def test_guidance_may_change_with_the_progress(model, text):
    asked = []
    run(model, text, steps=5, guidance=lambda progress: asked.append(progress) or 2.0)
    assert asked == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert torch.equal(run(model, text, steps=4, guidance=lambda _: 3.0).state, run(model, text, steps=4).state)


def test_a_seed_decides_the_clip(model, text):
    first, again, other = (run(model, text, seed=seed, steps=4).state for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_mode_of_the_model_is_left_as_it_was(model):
    for mode in (True, False):
        run(model.train(mode), steps=2)
        assert model.training is mode


@pytest.mark.parametrize("steps", [0, -3, 2.5])
def test_steps_below_one_are_refused(model, steps):
    with pytest.raises(MinigenError, match="steps is"):
        run(model, steps=steps)


def test_a_guidance_that_leaves_the_numbers_is_refused(model, text):
    with pytest.raises(MinigenError, match="guidance 1e"):
        run(model, text, steps=2, guidance=1e39)
