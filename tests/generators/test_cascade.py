"""The cascade: blur and corruption by loops, the objective, the generator, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from latents import B, C, D, Same, denoiser, latents, noise, seed

from minigen.engine.errors import MinigenError
from minigen.generators.cascade import (
    CascadeGenerator,
    CascadeObjective,
    Refiner,
    blur,
    corrupt,
    repeat_frames,
)
from minigen.generators.latent_diffusion import LatentDiffusionGenerator, LatentObjective, pool_frames
from minigen.guidance import Condition
from minigen.train import TrainConfig


def cascade() -> CascadeGenerator:
    return CascadeGenerator(denoiser(stride=4), denoiser(conditioned=True))


def test_the_blur_is_a_mean_with_gaussian_weights_by_loops():
    x, width = noise(0, 2, 9, 3), torch.tensor([1.0, 2.0])
    found = blur(x, width)
    for b in range(2):
        weights = [math.exp(-0.5 * (place / width[b].item()) ** 2) for place in range(-6, 7)]
        for t in range(9):
            near = [
                x[b, min(max(t + place, 0), 8)] * weight for place, weight in zip(range(-6, 7), weights, strict=True)
            ]
            torch.testing.assert_close(found[b, t], sum(near) / sum(weights))
    torch.testing.assert_close(blur(x, torch.zeros(2)), x)


def test_corruption_is_none_at_level_0_and_keeps_the_variance():
    x, eps, still = noise(0, 2, 500, 8), noise(1, 2, 500, 8), torch.zeros(2)
    torch.testing.assert_close(corrupt(x, eps, torch.zeros(2), still), x)
    mixed = corrupt(x, eps, torch.tensor([0.5, 1.0]), still)
    torch.testing.assert_close(mixed[0], math.sqrt(0.5) * (x[0] + eps[0]))
    torch.testing.assert_close(mixed[1], eps[1], atol=1e-6, rtol=0)
    assert abs(mixed.std() - 1) < 0.02


def test_repeated_means_are_the_coarse_clip():
    clip = noise(0, 1, 8, C)
    coarse = repeat_frames(pool_frames(clip, 4), 8)
    assert torch.equal(coarse[0, 5], clip[0, 4:8].mean(0)) and repeat_frames(coarse[:, ::4], 7).shape == (1, 7, C)


def objective(corruption: float | None = None) -> CascadeObjective:
    model, config = denoiser(conditioned=True), TrainConfig(text_dropout=0.2)
    return CascadeObjective(model, Same(), config, **({} if corruption is None else {"corruption": corruption}))


def test_a_batch_has_the_coarse_clip_beside_the_noised_one():
    batch = objective(0.0).batch(latents(frames=62), ["x"] * 8, np.random.default_rng(0), drop=False)
    state, clips = batch["state"], latents(frames=62)[:, :60, :C]
    x0 = objective().process.to_x0(batch["target"], state[..., :C], batch["time"])
    torch.testing.assert_close(x0, clips, atol=1e-5, rtol=0)
    torch.testing.assert_close(state[..., C : 2 * C], repeat_frames(pool_frames(clips, 4), 60))
    assert not state[..., -1].any() and state.shape == (8, 60, 2 * C + 1)


def test_the_cascader_learns_from_corrupted_clips_and_is_told_how_corrupted():
    batch = objective().batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=False)
    coarse, levels = batch["state"][..., C : 2 * C], batch["state"][:, 0, -1]
    assert sorted((levels / 0.5 * 8).long().tolist()) == list(range(8))
    assert torch.equal(batch["state"][..., -1], levels[:, None].expand(-1, 60))
    clean = repeat_frames(pool_frames(latents()[..., :C], 4), 60)
    apart = (coarse - clean).square().mean((1, 2))
    assert torch.corrcoef(torch.stack([apart, levels]))[0, 1] > 0.9


def test_the_loss_reaches_the_condition():
    model = denoiser(conditioned=True)
    goal = CascadeObjective(model, Same(), TrainConfig())
    loss, parts = goal.loss(model, **goal.batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=False))
    loss.backward()
    assert model.input.weight.grad[:, C:].abs().sum() > 0 and loss is parts["loss"]
    plain = LatentObjective(denoiser(), Same(), TrainConfig())
    assert plain.batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=True)["state"].shape[2] == C


def test_a_refiner_gives_the_cascader_its_condition_at_every_step():
    model, state, coarse = denoiser(conditioned=True), noise(0, B, 8, C), noise(1, B, 8, C)
    time, level = torch.full((B,), 0.4), torch.full((B, 8, 1), 0.3)
    refiner = Refiner(model, coarse, 0.3)
    found = refiner.head(refiner.hidden_states(state, None, None, time))
    assert torch.equal(found, model(torch.cat([state, coarse, level], -1), time=time))


def test_a_clip_is_made_coarse_first_and_depends_on_the_seed(tmp_path):
    generator, text = cascade(), Condition(noise(5, B, 4, 8))
    options = {"steps": 3, "refine_steps": 3}
    first, again = (generator.generate(text, 10, generator=seed(), **options) for _ in range(2))
    assert first.shape == (B, 10, D) and torch.equal(first, again)
    draw = seed()
    coarse = generator.coarse.generate(text, 10, generator=draw, steps=3)
    assert torch.equal(generator.refine(coarse, text, generator=draw, steps=3), first)
    generator.save_pretrained(tmp_path, torch.float32)
    loaded = CascadeGenerator.from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(text, 10, generator=seed(), **options), first)
    half = CascadeGenerator.from_pretrained(tmp_path, torch.bfloat16).generate(text, 10, generator=seed(), **options)
    assert half.dtype == torch.float32 and half.isfinite().all()
    assert not loaded.cascader.training


def test_a_coarse_clip_that_is_trusted_less_matters_less():
    generator, text = cascade(), Condition()
    one, other = noise(0, 1, 8, D), noise(1, 1, 8, D)

    def apart(level):
        made = [generator.refine(clip, text, generator=seed(), steps=4, level=level) for clip in (one, other)]
        return (made[0] - made[1]).abs().mean().item()

    assert apart(0.0) > apart(0.5) > 0


@pytest.mark.parametrize("level", [-0.1, 0.6, math.nan])
def test_a_level_that_training_has_not_seen_is_refused(level):
    with pytest.raises(MinigenError, match="level is"):
        cascade().refine(noise(0, 1, 8, D), Condition(), level=level)


def test_models_that_are_no_cascade_are_refused():
    with pytest.raises(MinigenError, match="These have stride 1 and conditioned=False"):
        CascadeGenerator(denoiser(), denoiser())
    with pytest.raises(MinigenError, match=r"state has shape \[3, 8, 4\]. Give \[B, T, 9\]"):
        denoiser(conditioned=True)(noise(0, B, 8, C), time=torch.ones(B))
    with pytest.raises(MinigenError, match="steps is 1"):
        LatentDiffusionGenerator(denoiser(stride=4)).generate(Condition(), 8, steps=1)
