"""Continuous diffusion: process, samplers beside diffusers' and on Gaussian data, objective, generator."""

import math

import numpy as np
import pytest
import torch
from latents import SMALL, B, C, D, Same, T, denoiser, latents, noise, seed
from standins import WordEncoder, tiny_codec

from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.generators.denoiser import Denoiser
from minigen.generators.iterate import iterate
from minigen.generators.latent_diffusion import (
    LatentConfig,
    LatentDenoiser,
    LatentDiffusionGenerator,
    LatentObjective,
    LatentSampler,
    Process,
    check_range,
    dynamic_threshold,
    pool_frames,
    spread,
    static_threshold,
)
from minigen.guidance import Condition, guide, rescale_guidance
from minigen.lm import AudioLM
from minigen.train import TrainConfig

BOTH = pytest.mark.parametrize("process", [Process("cosine"), Process("flow")], ids=lambda process: process.name)


def unknown(rows: int = B) -> torch.Tensor:
    return torch.full((rows, T, C), math.nan)


# the process


@BOTH
def test_a_state_is_the_clip_at_0_and_noise_at_1(process):
    x0, eps = noise(0), noise(1)
    assert torch.equal(process.noised(x0, eps, 0.0), x0) and torch.equal(process.noised(x0, eps, 1.0), eps)


@BOTH
def test_one_clip_in_plain_numbers(process):
    x0, eps, t = 0.7, -1.3, 0.3
    alpha, sigma = (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)) if process.name == "cosine" else (0.7, 0.3)
    v = alpha * eps - sigma * x0 if process.name == "cosine" else eps - x0
    found = process.noised(torch.tensor([x0]), torch.tensor([eps]), t)
    assert found.item() == pytest.approx(alpha * x0 + sigma * eps, abs=1e-6)
    assert process.target(torch.tensor([x0]), torch.tensor([eps]), t).item() == pytest.approx(v, abs=1e-6)


@BOTH
def test_v_noise_and_x0_give_the_same_x0(process):
    x0, eps, t = noise(0).double(), noise(1).double(), torch.tensor([0.05, 0.5, 0.9]).double()
    x, v = process.noised(x0, eps, t), process.target(x0, eps, t)
    for prediction, kind in ((v, "v"), (eps, "noise"), (x0, "x0")):
        torch.testing.assert_close(process.to_x0(prediction, x, t, kind), x0, atol=1e-12, rtol=0)
    torch.testing.assert_close(process.to_noise(v, x, t), eps, atol=1e-12, rtol=0)


@BOTH
def test_v_tells_x0_at_both_ends(process):
    x0, eps = noise(0), noise(1)
    for t in (0.0, 1.0):
        x, v = process.noised(x0, eps, t), process.target(x0, eps, t)
        torch.testing.assert_close(process.to_x0(v, x, t), x0, atol=1e-6, rtol=0)


@BOTH
def test_v_is_the_direction_of_the_path(process):
    x0, eps, t, step = noise(0).double(), noise(1).double(), torch.tensor(0.4).double(), 1e-5
    slope = (process.noised(x0, eps, t + step) - process.noised(x0, eps, t - step)) / (2 * step)
    torch.testing.assert_close(process.speed * process.target(x0, eps, t), slope, atol=1e-8, rtol=0)


# the samplers


def exact(process: Process, mean: torch.Tensor, deviation: torch.Tensor):
    """A model that predicts the best v for clips from N(mean, deviation²): E[v | x_t], which is linear in x_t."""

    class Exact(torch.nn.Module):
        def hidden_states(self, x, memory, mask, time, attend):
            alpha, sigma = process.alpha_sigma(time[0].item())
            gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
            x0 = mean + gain * (x - alpha * mean)
            return process.target(x0, (x - alpha * x0) / sigma, time[0].item())

        def head(self, hidden):
            return hidden

    return Exact()


@BOTH
@pytest.mark.parametrize("method", ["ddim", "ancestral", "euler"])
def test_gaussian_clips_keep_their_mean_and_deviation(process, method):
    mean, deviation = torch.tensor([2.0, -3.0]), torch.tensor([0.8, 1.5])
    sampler = LatentSampler(process, method, threshold="none")
    known, steps = torch.full((200, 150, 2), math.nan), 600 if method == "ancestral" else 250
    made = iterate(exact(process, mean, deviation), sampler, known, steps=steps, generator=seed()).state.flatten(0, 1)
    assert ((made.mean(0) - mean).abs() < 0.01 * deviation + 0.01 * mean.abs()).all()
    assert ((made.std(0) / deviation - 1).abs() < 0.01).all()


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("threshold", ["none", "dynamic"])
def test_ddim_is_that_of_diffusers(steps, threshold):
    schedulers = pytest.importorskip("diffusers")
    process, total = Process("cosine"), 1000
    shares = process.alpha_sigma(torch.arange(total + 1).double() / total)[0].square()
    betas = (1 - shares[1:] / shares[:-1]).numpy()
    theirs = schedulers.DDIMScheduler(
        total, trained_betas=betas, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=True,
        timestep_spacing="trailing", thresholding=threshold == "dynamic", sample_max_value=1e6,
    )  # fmt: skip
    theirs.set_timesteps(steps)
    theirs.alphas_cumprod = shares[1:]  # their product of 1000 float32 factors differs by 1e-5
    sampler, x = LatentSampler(process, "ddim", threshold), noise(0).double()
    times, y = sampler.times(steps, unknown()), x.clone()
    for number, t in enumerate(theirs.timesteps):
        v = 1.5 * noise(2 + number).double()
        y = theirs.step(v, t, y, eta=0.0, use_clipped_model_output=True).prev_sample
        x = sampler.step(x, unknown(), times[number], times[number + 1], v, None)
        torch.testing.assert_close(x, y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [4, 25])
@pytest.mark.parametrize("method", ["euler", "ddim"])
def test_euler_on_the_flow_is_that_of_diffusers(steps, method):
    schedulers = pytest.importorskip("diffusers")
    theirs = schedulers.FlowMatchEulerDiscreteScheduler(shift=1)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    sampler, x = LatentSampler(Process("flow"), method, "none"), noise(0)
    times, y = sampler.times(steps, unknown()), x.clone()
    for number, t in enumerate(theirs.timesteps):
        v = noise(2 + number)
        y = theirs.step(v, t, y).prev_sample
        x = sampler.step(x, unknown(), times[number], times[number + 1], v, None)
        torch.testing.assert_close(x, y, atol=1e-5, rtol=0)


def test_the_ancestral_step_is_that_of_diffusers_in_mean_and_deviation():
    schedulers = pytest.importorskip("diffusers")
    process, total = Process("cosine"), 50
    shares = process.alpha_sigma(torch.arange(total + 1).double() / total)[0].square()
    theirs = schedulers.DDPMScheduler(
        total, trained_betas=(1 - shares[1:] / shares[:-1]).numpy(), prediction_type="v_prediction", clip_sample=False
    )
    theirs.alphas_cumprod = shares[1:]
    theirs.set_timesteps(total)
    x, v = noise(0, 1, 1, 50_000).double(), noise(1, 1, 1, 50_000).double()
    x, v = x * 0 + 0.3, v * 0 - 0.8
    for t in (9, 30, 48):
        y = theirs.step(v, t, x, generator=seed()).prev_sample
        ours = LatentSampler(process, "ancestral", "none")
        z = ours.step(x, x * math.nan, (t + 1) / total, t / total, v, seed())
        torch.testing.assert_close(z, y, atol=1e-5, rtol=0)


def test_dynamic_threshold_is_that_of_diffusers():
    schedulers = pytest.importorskip("diffusers")
    theirs = schedulers.DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.995, sample_max_value=1e6)
    for size in (0.1, 1.0, 5.0):
        x0 = size * noise(0, 4, 50, 16)
        torch.testing.assert_close(dynamic_threshold(x0), theirs._threshold_sample(x0), atol=1e-5, rtol=0)


def test_the_dynamic_threshold_leaves_quiet_clips_alone_and_keeps_the_order_of_loud_ones():
    clips = torch.stack([0.5 * noise(0, 100, C), 4 * noise(1, 100, C)])
    limited = dynamic_threshold(clips, limit=3.0)
    assert torch.equal(limited[0], clips[0]) and limited[1].abs().max() <= 3.0 + 1e-6
    inside = clips[1].abs() < 6
    ratio = (limited[1] / clips[1])[inside]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-5, rtol=0)
    assert torch.equal(static_threshold(clips, 3.0), clips.clamp(-3, 3))


def test_known_frames_stay_and_a_constraint_holds_at_the_end():
    known = unknown()
    known[:, :2] = 5.0
    model = exact(Process("cosine"), torch.zeros(C), torch.ones(C))
    made = iterate(model, LatentSampler(threshold="none"), known, steps=8, generator=seed()).state
    torch.testing.assert_close(made[:, :2], known[:, :2])
    free = iterate(model, LatentSampler(threshold="none"), unknown(), steps=8, generator=seed()).state
    assert torch.equal(made[:, 2:], free[:, 2:])  # these frames are independent of each other

    def even(x0):  # the mean over time of every component is 1
        return x0 - x0.mean(1, keepdim=True) + 1

    sampler = LatentSampler(threshold="none", constraint=even)
    made = iterate(model, sampler, unknown(), steps=8, generator=seed()).state
    torch.testing.assert_close(made.mean(1), torch.ones(B, C))


@pytest.mark.parametrize("make, message", [
    (lambda: Process("linear"), "process is 'linear'. Choose cosine or flow."),
    (lambda: LatentSampler(method="heun"), "method is 'heun'. Choose ddim, ancestral or euler."),
    (lambda: LatentSampler(threshold="hard"), "threshold is 'hard'"),
    (lambda: LatentSampler().times(1, unknown()), "steps is 1. Give 2 or more"),
    (lambda: LatentConfig(**{**SMALL, "process": "linear"}), "process is 'linear'"),
    (lambda: LatentConfig(**{**SMALL, "components": 6}), "6 components of 5"),
    (lambda: LatentConfig(**{**SMALL, "kind": "codes"}), "kind 'codes'"),
])  # fmt: skip
def test_what_does_not_exist_is_one_clear_line(make, message):
    with pytest.raises(MinigenError, match=message):
        make()


# guidance


def test_rescaling_clip_by_clip():
    cond, uncond = noise(0), noise(1)
    guided = guide(cond, uncond, 5.0)
    assert torch.equal(rescale_guidance(guided, cond, 0.0), guided)
    assert not rescale_guidance(torch.zeros(2, 3, 4), cond[:2, :3], 0.7).any()  # a model that has learnt nothing yet
    full = rescale_guidance(guided, cond, 1.0)
    torch.testing.assert_close(full.flatten(1).std(1), cond.flatten(1).std(1))
    for number in range(B):  # diffusers.pipelines: rescale_noise_cfg
        rescaled = guided[number] * (cond[number].std() / guided[number].std())
        expected = 0.7 * rescaled + 0.3 * guided[number]
        torch.testing.assert_close(rescale_guidance(guided, cond, 0.7)[number], expected)


# the model and the generator


@pytest.fixture(scope="module")
def generator() -> LatentDiffusionGenerator:
    model = denoiser()
    model.measure(3 * np.random.default_rng(0).standard_normal((20, T, D)) + 1)
    return LatentDiffusionGenerator(model)


@pytest.fixture(scope="module")
def text() -> Condition:
    return Condition(noise(5, B, 4, 8), torch.tensor([[True] * 4, [True, True, False, False], [True] * 4]))


def make(generator, text, number=0, **options):
    return generator.generate(text, T, generator=seed(number), **{"steps": 6, **options})


def test_the_scale_is_mean_and_deviation_of_the_clips():
    model, latents = denoiser(), 3 * np.random.default_rng(0).standard_normal((300, T, D)) + 1
    model.measure(latents)
    state = model.to_state(torch.from_numpy(latents).float())
    assert state.shape == (300, T, C) and state.mean((0, 1)).abs().max() < 1e-4
    torch.testing.assert_close(state.flatten(0, 1).std(0), torch.ones(C), atol=1e-4, rtol=0)
    assert model.limit.item() == pytest.approx(state.abs().flatten().quantile(0.995).item(), abs=0.01)
    back = model.to_latents(state)
    torch.testing.assert_close(back[..., :C], torch.from_numpy(latents).float()[..., :C], atol=1e-5, rtol=0)
    assert back.shape == (300, T, D) and not back[..., C:].any()


def test_a_clip_has_the_shape_of_latents_and_depends_on_the_seed(generator, text):
    first, again, other = (make(generator, text, number) for number in (0, 0, 1))
    assert first.shape == (B, T, D) and torch.equal(first, again) and not torch.equal(first, other)


def test_guidance_of_one_is_the_model_with_the_text_and_of_zero_without(generator, text):
    assert torch.equal(make(generator, text, guidance=1.0), make(generator, text, guidance=1.0, rescale=0.0))
    nothing = generator.generate(Condition(), T, generator=seed(), steps=6)
    assert torch.equal(make(generator, Condition(text.memory[:1]), guidance=0.0), nothing)
    almost = make(generator, text, guidance=1.0 + 1e-6, rescale=0.0)
    torch.testing.assert_close(make(generator, text, guidance=1.0), almost, atol=1e-3, rtol=0)


def test_the_text_changes_the_clip_and_padding_does_not(generator, text):
    changed = Condition(text.memory.clone(), text.memory_mask)
    changed.memory[1, 2:] = 9.0  # hidden by the mask
    assert torch.equal(make(generator, text), make(generator, changed))
    changed.memory[1, 0] = 9.0
    assert not torch.equal(make(generator, text), make(generator, changed))


def test_known_latents_are_kept(generator, text):
    known = torch.full((B, T, D), math.nan)
    known[:, :3] = noise(3, B, 3, D)
    made = make(generator, text, known=known)
    torch.testing.assert_close(made[:, :3, :C], known[:, :3, :C], atol=1e-4, rtol=0)


def test_guidance_that_is_too_large_is_one_clear_line(generator, text):
    with pytest.raises(MinigenError, match="out of range at guidance 1e.06: .* Give a smaller guidance"):
        make(generator, text, guidance=1e6, threshold="none", rescale=0.0)
    for value in (math.nan, math.inf):
        with pytest.raises(MinigenError, match=f"largest component is {value}"):
            check_range(torch.tensor([0.0, value]), 3.0)
    with pytest.raises(MinigenError, match="guidance is inf"):
        make(generator, text, guidance=math.inf)


def test_guidance_may_be_a_function_of_the_progress_and_rescale_is_a_share(generator, text):
    assert torch.equal(make(generator, text, guidance=lambda progress: 2.0), make(generator, text, guidance=2.0))
    with pytest.raises(MinigenError, match="out of range: "):
        make(generator, text, guidance=lambda progress: 1e6, threshold="none", rescale=0.0)
    with pytest.raises(MinigenError, match="rescale is 5"):
        make(generator, text, rescale=5.0)


def test_latents_are_float32_whatever_the_type_of_the_weights(generator, text, tmp_path):
    generator.save_pretrained(tmp_path)
    made = make(LatentDiffusionGenerator.from_pretrained(tmp_path, torch.bfloat16), text)
    assert made.dtype == torch.float32 and made.isfinite().all()


def test_a_saved_model_makes_the_same_clips(generator, text, tmp_path):
    generator.save_pretrained(tmp_path, torch.float32)
    loaded = LatentDiffusionGenerator.from_pretrained(tmp_path)
    assert loaded.config == generator.config and torch.equal(make(loaded, text), make(generator, text))


def test_the_pipeline_makes_sound_of_latents():
    codec, encoder = tiny_codec(), WordEncoder()
    config = LatentConfig(**{**SMALL, "latent": codec.config.latent, "memory_width": encoder.width,
                             "num_codebooks": codec.num_codebooks, "codebook_size": codec.codebook_size})  # fmt: skip
    tta = TextToAudio(codec, encoder, LatentDiffusionGenerator(LatentDenoiser(config)))
    wav = tta.generate(["rain", "a dog barks"], seconds=0.2, seed=3, steps=4)
    states, mask = encoder(["rain", "a dog barks"])
    latents = tta.generator.generate(Condition(states, mask), 10, generator=seed(3), steps=4)
    assert torch.equal(wav, codec.synthesize(latents).detach().clamp(-1, 1))
    with pytest.raises(MinigenError, match="the latent generator has no option 'top_k'"):
        tta.generate("rain", seconds=0.2, top_k=5)
    wider = LatentDenoiser(LatentConfig(**{**vars(config), "latent": 9}))
    with pytest.raises(MinigenError, match="makes latents 9 wide, and this codec has no such ones"):
        TextToAudio(codec, encoder, LatentDiffusionGenerator(wider))


def test_layers_that_fit_come_from_another_model():
    from minigen.lm import AudioLMConfig

    lm = AudioLM(AudioLMConfig(num_codebooks=2, codebook_size=9, width=16, layers=1, heads=2, ffn=24, memory_width=8,
                               delays=(0, 1)))  # fmt: skip
    model = denoiser()
    output = model.output.weight.clone()
    assert model.copy_fitting(lm) == len(
        [name for name in lm.state_dict() if name.startswith(("layers", "memory", "norm"))]
    )
    assert torch.equal(model.layers[0].ffn_in.weight, lm.layers[0].ffn_in.weight)
    assert torch.equal(model.output.weight, output)


# training


def objective(model=None, **settings) -> LatentObjective:
    return LatentObjective(model or denoiser(), Same(), TrainConfig(**settings))


def test_the_loss_is_the_weighted_error_of_v_in_plain_loops():
    model = denoiser()
    model.scale.copy_(torch.tensor([4.0, 1.0, 1.0, 0.25]))
    goal = objective(model)
    batch = goal.batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=False)
    loss, parts = goal.loss(model, **batch)
    predicted, total, weights = (
        model(batch["state"], batch["memory"], batch["memory_mask"], batch["time"]),
        0.0,
        [2, 1, 1, 0.5],
    )
    for c in range(C):
        total += weights[c] * (predicted[..., c] - batch["target"][..., c]).square().mean().item()
    assert loss.item() == pytest.approx(total / sum(weights), rel=1e-5) and parts["loss"] is loss


def test_a_batch_is_noised_at_levels_spread_over_0_to_1():
    goal = objective(text_dropout=0.0)
    batch = goal.batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=True)
    assert sorted((batch["time"] * 8).long().tolist()) == list(range(8)) and "memory" not in batch
    x0 = goal.process.to_x0(batch["target"], batch["state"], batch["time"])
    torch.testing.assert_close(x0, latents()[..., :C], atol=1e-5, rtol=0)
    levels = torch.cat([spread(4, np.random.default_rng(number)) for number in range(500)])
    assert 0 <= levels.min() and levels.max() < 1 and abs(levels.mean() - 0.5) < 0.02


def test_the_same_rng_gives_the_same_batch_and_text_is_left_out_for_the_whole_batch():
    goal, found = objective(text_dropout=0.3), []
    for number in range(40):
        first, again = (goal.batch(latents(), ["x"] * 8, np.random.default_rng(number)) for _ in range(2))
        assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
        found.append(("memory" in first, first["state"].shape[1]))
    assert 5 < sum(not text for text, _ in found) < 20 and {frames for _, frames in found} > {60}
    assert all(50 <= frames <= 60 for _, frames in found)


def test_a_perfect_prediction_has_no_loss():
    goal, model = objective(), denoiser()
    batch = goal.batch(latents(), ["x"] * 8, np.random.default_rng(0), drop=True)
    model.forward = lambda *_: batch["target"]
    assert goal.loss(model, **batch)[0].item() == 0


def test_the_generator_is_a_denoiser():
    assert isinstance(denoiser(), Denoiser) and LatentConfig().layers == 8
    assert sum(p.numel() for p in LatentDenoiser(LatentConfig()).parameters()) < 5.2e6


# a coarse model


def test_a_coarse_model_learns_means_of_frames_and_repeats_them():
    clips = latents()
    assert torch.equal(pool_frames(clips, 4)[3, 5], clips[3, 20:24].mean(0)) and pool_frames(clips, 7).shape == (
        8,
        8,
        D,
    )
    model = denoiser(stride=4)
    batch = objective(model).batch(clips, ["x"] * 8, np.random.default_rng(0), drop=True)
    x0 = model.process.to_x0(batch["target"], batch["state"], batch["time"])
    torch.testing.assert_close(x0, pool_frames(clips, 4)[..., :C], atol=1e-5, rtol=0)
    made = LatentDiffusionGenerator(model).generate(Condition(), 10, generator=seed(), steps=3)
    assert made.shape == (1, 10, D) and torch.equal(made[:, 0], made[:, 3]) and not torch.equal(made[:, 3], made[:, 4])
