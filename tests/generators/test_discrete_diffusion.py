"""Discrete diffusion: the noise and its posterior beside matrices, Bayes and diffusers; the sampler; the losses."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.discrete_diffusion import (
    KINDS,
    DiscreteDiffusionGenerator,
    DiscreteObjective,
    DiscreteSampler,
    Transitions,
)
from minigen.generators.iterate import iterate
from minigen.guidance import Condition, guide
from minigen.train import TrainConfig

V, K, T = 30, 4, 12


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=2, heads=2, ffn=24, memory_width=8)
    return Denoiser(config).for_diffusion("mask_uniform")


def unknown_clip(rows: int = 2, frames: int = T) -> torch.Tensor:
    return torch.full((rows, K, frames), V)


# the noise, from the matrices of single steps


def step_matrix(noise: Transitions, t: int) -> np.ndarray:
    """Matrix [V + 1, V + 1] of the step from t - 1 to t, from the cumulative values alone."""
    size = noise.codebook_size
    (stay_before, _, mask_before), (stay_after, _, mask_after) = noise.cumulative(t - 1), noise.cumulative(t)
    stay, mask = stay_after / stay_before, 1 - (1 - mask_after) / (1 - mask_before)
    matrix = np.full((size + 1, size + 1), (1 - stay - mask) / size)
    matrix[range(size), range(size)] += stay
    matrix[:, size] = mask
    matrix[size] = np.eye(size + 1)[size]
    return matrix


def product(noise: Transitions, s: int, t: int) -> np.ndarray:
    """Matrix from time s to time t, one step after another."""
    matrix = np.eye(noise.codebook_size + 1)
    for time in range(s + 1, t + 1):
        matrix = matrix @ step_matrix(noise, time)
    return matrix


def by_bayes(p: np.ndarray, seen: int, to_s: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Posterior of one cell, one clean code after another; a code that cannot have become `seen` is left out.

    to_s, on: matrices from time 0 to s, and from s to t.
    """
    total, possible = np.zeros(len(p) + 1), 0.0
    for code in range(len(p)):
        joint = to_s[code] * on[:, seen]  # q(x_s | x_0) q(x_t | x_s)
        if joint.sum() > 1e-15:
            total += p[code] * joint / joint.sum()
            possible += p[code]
    return total / possible


@pytest.mark.parametrize("kind", KINDS)
def test_the_cumulative_values_are_a_product_of_steps(kind):
    noise = Transitions(5, 100, kind)
    assert noise.cumulative(0) == (1.0, 0.0, 0.0)
    matrix = np.eye(6)
    for t in range(1, 101):
        stay, uniform, mask = noise.cumulative(t)
        matrix = matrix @ step_matrix(noise, t)
        row = matrix[2]
        assert abs(stay + 5 * uniform + mask - 1) < 1e-12 and min(stay, uniform, mask) >= 0
        assert np.allclose(row, [uniform, uniform, stay + uniform, uniform, uniform, mask], atol=1e-12)
        assert (step_matrix(noise, t) > -1e-15).all()


@pytest.mark.parametrize("kind, last", [("mask", 0.999991), ("mask_uniform", 0.9), ("uniform", 0.0)])
def test_the_values_are_linear_between_those_of_the_released_models(kind, last):
    values = np.array([Transitions(1024, 100, kind).cumulative(t) for t in range(1, 101)])
    assert np.allclose(values[:, 0], np.linspace(0.99999, 0.000009, 100), atol=1e-12)
    assert np.allclose(np.diff(values[:, 2], n=2), 0, atol=1e-12) and abs(values[-1, 2] - last) < 1e-12
    assert (values[:, 1] == 0).all() == (kind == "mask") and (values[:, 2] == 0).all() == (kind == "uniform")


@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_is_that_of_matrices_and_bayes(kind):
    noise, rng = Transitions(5, 100, kind), np.random.default_rng(0)
    seen = torch.arange(5 if kind == "uniform" else 6)
    worst = 0.0
    for t in range(1, 101):
        s = int(rng.integers(t))
        p = rng.dirichlet(np.ones(5), size=len(seen))
        ours = noise.posterior(torch.from_numpy(p), seen, t, s)
        assert ours.dtype == torch.float64 and ours.shape == (len(seen), 6)
        to_s, on = product(noise, 0, s), product(noise, s, t)
        theirs = np.stack([by_bayes(p[row], row, to_s, on) for row in range(len(seen))])
        worst = max(worst, np.abs(ours.numpy() - theirs).max(), (ours.sum(-1) - 1).abs().max().item())
    assert worst <= 1e-9


def test_the_posterior_is_that_of_diffusers_at_every_step():
    schedulers = pytest.importorskip("diffusers")
    theirs = schedulers.VQDiffusionScheduler(V + 1, 100, gamma_cum_end=0.9)
    noise = Transitions(V, 100, "mask_uniform")
    p = torch.randn(1, 40, V, generator=seed(), dtype=torch.float64).softmax(-1)
    noised = torch.arange(40)[None] % (V + 1)
    for t in range(1, 100):  # diffusers counts from 0
        other = theirs.q_posterior(p.log().transpose(1, 2), noised, torch.tensor(t)).transpose(1, 2)
        ours = noise.posterior(p, noised, t + 1, t)
        possible = ours > 0
        assert (ours[possible].log() - other[possible]).abs().max() <= 1e-5
        assert (other[~possible] < -50).all()


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_true_codes_the_share_of_masks_after_any_stride_is_that_of_the_noise(kind):
    noise, clean = Transitions(5, 100, kind), torch.eye(5, dtype=torch.float64)[:1]
    for t, s in ((100, 90), (100, 0), (60, 59), (37, 5), (2, 1), (1, 0)):
        stay, uniform, mask = noise.cumulative(t)
        seen = torch.arange(5 if kind == "uniform" else 6)
        share = torch.tensor([stay + uniform] + [uniform] * 4 + [mask] * (kind != "uniform"), dtype=torch.float64)
        posterior = noise.posterior(clean.expand(len(seen), 5), seen, t, s)
        stay, uniform, mask = noise.cumulative(s)
        expected = torch.tensor([stay + uniform] + [uniform] * 4 + [mask], dtype=torch.float64)
        possible = share > 0
        torch.testing.assert_close(share[possible] @ posterior[possible], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_and_times_of_rows_give_the_same(kind):
    noise, times, earlier = Transitions(V, 100, kind), torch.tensor([1, 40, 100]), torch.tensor([0, 7, 99])
    p = torch.rand(3, K, T, V, generator=seed(), dtype=torch.float64).softmax(-1)
    noised = torch.randint(V + (kind != "uniform"), (3, K, T), generator=seed())
    together = noise.posterior(p, noised, times, earlier)
    for row in range(3):
        alone = noise.posterior(p[row], noised[row], int(times[row]), int(earlier[row]))
        assert torch.equal(alone, together[row])
    single = noise.posterior(p.float(), noised, times, earlier)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0, 1, 50, 100])
def test_drawn_codes_have_the_frequencies_of_the_cumulative_values(kind, t):
    noise, cells = Transitions(5, 100, kind), 200_000
    drawn = noise.corrupt(torch.full((cells,), 3), t, seed(t))
    stay, uniform, mask = noise.cumulative(t)
    expected = np.array([uniform] * 3 + [stay + uniform, uniform, mask])
    found = np.bincount(drawn.numpy(), minlength=6) / cells
    assert np.abs(found - expected).max() < 5 * math.sqrt(0.25 / cells) and (found[expected == 0] == 0).all()


def test_each_row_has_the_noise_of_its_own_time():
    codes = torch.randint(V, (4, K, 500), generator=seed())
    noise, times = Transitions(V, 100, "mask_uniform"), torch.tensor([0, 10, 60, 100])
    changed = (noise.corrupt(codes, times, seed()) != codes).flatten(1).double().mean(1)
    assert changed[0] == 0 and torch.allclose(changed, 1 - noise.table[times, 0], atol=0.03)
    assert torch.equal(noise.corrupt(codes, times, seed(1)), noise.corrupt(codes, times, seed(1)))


P = torch.full((2, 5), 0.2)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: Transitions(5, kind="gaussian"), "'gaussian'. Choose one of mask, mask_uniform, uniform"),
        (lambda: Transitions(5, steps=1), "steps of the noise is 1"),
        (lambda: Transitions(5, steps=2.5), "steps of the noise is 2.5"),
        (lambda: Transitions(0), "codebook_size is 0"),
        (lambda: Transitions(5).cumulative(101), "t is 101. Give whole times from 0 to 100"),
        (lambda: Transitions(5).cumulative(-1), "t is -1"),
        (lambda: Transitions(5).cumulative(0.5), "t is 0.5"),
        (lambda: Transitions(5).corrupt(torch.tensor([5]), 3), "codes are from 5 to 5. Give whole numbers from 0 to 4"),
        (lambda: Transitions(5).corrupt(torch.tensor([0.5]), 3), "codes are torch.float32"),
        (lambda: Transitions(5).corrupt(torch.tensor([1]), 101), "t is 101"),
        (lambda: Transitions(5).posterior(P, torch.tensor([1, 5]), 7, 7), "s is 7 and t is 7. Give a time s before t"),
        (lambda: Transitions(5).posterior(P, torch.tensor([1, 5]), 0, 0), "t is 0. Give whole times from 1"),
        (lambda: Transitions(5).posterior(P, torch.tensor([1, 5]), 7, -1), "s is -1"),
        (lambda: Transitions(5).posterior(P, torch.tensor([1, 6]), 7, 6), "codes are from 1 to 6"),
        (lambda: Transitions(5, kind="uniform").posterior(P, torch.tensor([1, 5]), 7, 6), 'from 0 to 4 for "uniform"'),
        (lambda: Transitions(5).posterior(P, torch.tensor([1]), 7, 6), r"\[2, 5\] for noised codes \[1\]"),
    ],
)
def test_impossible_noise_is_refused(wrong, says):
    with pytest.raises(MinigenError, match=says):
        wrong()


# the sampler


def test_times_are_even_and_rounded_where_the_steps_do_not_divide():
    sampler = DiscreteSampler(Transitions(V, 100, "mask_uniform"))
    assert sampler.times(4, unknown_clip()) == [100, 75, 50, 25, 0]
    assert sampler.times(3, unknown_clip()) == [100, 67, 33, 0] and sampler.times(1, unknown_clip()) == [100, 0]
    for steps in range(1, 101):
        times = sampler.times(steps, unknown_clip())
        assert len(times) == steps + 1 and times[0] == 100 and times[-1] == 0
        assert all(t > s and t == int(t) for t, s in pairwise(times))
    with pytest.raises(MinigenError, match="steps is 101, but the noise has 100 steps. Give at most 100"):
        sampler.times(101, unknown_clip())


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_noise_without_the_clip(kind):
    noise, known = Transitions(V, 100, kind), unknown_clip(50, 100)
    known[:, 1, :40] = 7
    state = DiscreteSampler(noise).start(known, seed())
    assert (state[:, 1, :40] == 7).all()
    _, uniform, mask = noise.cumulative(100)
    share = (state == V)[known == V].double().mean().item()
    assert abs(share - mask / (mask + V * uniform)) < 0.01 and (share == 1 if kind == "mask" else share < 1)


def test_a_step_draws_from_the_posterior_of_the_truncated_prediction():
    noise, known = Transitions(V, 100, "mask_uniform"), unknown_clip(1, 1)
    state, logits = torch.tensor([3, V, 5, V]).view(1, K, 1), 2 * torch.randn(1, K, 1, V, generator=seed(2))
    p = logits.softmax(-1)
    for k in range(K):  # the most likely codes whose predecessors sum to less than 0.7
        order, before = p[0, k, 0].argsort(descending=True).tolist(), 0.0
        for code in order:
            value = p[0, k, 0, code].item()
            if before >= 0.7:
                p[0, k, 0, code] = 0
            before += value
    posterior = noise.posterior(p / p.sum(-1, keepdim=True), state, 60, 35)[0, :, 0]
    many = 20_000
    drawn = DiscreteSampler(noise, 0.7).step(
        state.expand(many, K, 1), known.expand(many, K, 1), 60.0, 35.0, logits.expand(many, K, 1, V), seed()
    )
    for k in range(K):
        found = torch.bincount(drawn[:, k, 0], minlength=V + 1) / many
        assert (found - posterior[k]).abs().max() < 0.02 and (found[posterior[k] == 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 7, 25])
def test_a_run_ends_with_codes_and_known_cells_never_change(model, kind, steps):
    known, seen = unknown_clip(), []
    known[:, :, :5] = torch.randint(0, V, (2, K, 5), generator=seed())
    sampler = DiscreteSampler(Transitions(V, 100, kind))
    made = iterate(model, sampler, known, steps=steps, generator=seed(), each=seen.append).state
    assert len(seen) == steps and 0 <= made.min() and made.max() < V
    assert all(torch.equal(state[..., :5], known[..., :5]) for state in seen)


@pytest.mark.parametrize("kind, revises", [("mask", False), ("mask_uniform", True), ("uniform", True)])
def test_only_noise_that_replaces_codes_lets_the_sampler_revise(model, kind, revises):
    seen = []
    iterate(model, DiscreteSampler(Transitions(V, 100, kind)), unknown_clip(), steps=20, generator=seed(),
            each=seen.append)  # fmt: skip
    revised = sum(((before != V) & (after != before)).sum().item() for before, after in pairwise(seen))
    assert (revised > 0) == revises


SHARE, CLIPS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), 10_000


def sampled_shares(noise: Transitions, steps: int, learnt=1.0) -> torch.Tensor:
    """Shares of the codes in clips of one cell, sampled with the best prediction for data with the shares SHARE.

    learnt: factor of the probability of each pair of x_t and x_0 in the training data, [V + 1, V].
    """
    sampler, known = DiscreteSampler(noise, truncation=1.0), torch.full((CLIPS, 1, 1), 3)
    state, chance = sampler.start(known, seed()), seed(1)
    for t, s in pairwise(sampler.times(steps, known)):
        stay, uniform, mask = noise.cumulative(int(t))
        likely = torch.cat([stay * torch.eye(3, dtype=torch.float64) + uniform, torch.full((1, 3), mask)])  # [x_t, x_0]
        logits = (learnt * SHARE * likely)[state].clamp(min=1e-300).log()  # [clips, 1, 1, 3]
        state = sampler.step(state, known, t, s, logits, chance)
    return torch.bincount(state.flatten(), minlength=3) / CLIPS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [100, 25, 7])
def test_with_the_exact_prediction_any_number_of_steps_samples_the_data(kind, steps):
    found = sampled_shares(Transitions(3, 100, kind), steps)
    assert (found - SHARE).abs().max() < 5 * math.sqrt(0.25 / CLIPS)


def test_a_prediction_learnt_from_changed_cells_alone_samples_other_data():
    """The reason why the loss counts the cells that did not change, where codes may have been replaced."""
    found = sampled_shares(Transitions(3, 100, "mask_uniform"), 25, learnt=1 - torch.eye(4, 3, dtype=torch.float64))
    assert found[0] < 0.5 and found[2] > 0.15


@torch.no_grad()
def test_guidance_is_that_of_log_probabilities_normalised_again():
    cond, uncond = torch.randn(2, 6, V, generator=seed())
    of_logits = guide(cond, uncond, 4.0).softmax(-1)
    of_logs = guide(cond.log_softmax(-1), uncond.log_softmax(-1), 4.0)
    torch.testing.assert_close(of_logits, (of_logs - of_logs.logsumexp(-1, keepdim=True)).exp())


@pytest.mark.parametrize("truncation", [0.0, -0.1, 1.5, math.nan, "most"])
def test_an_impossible_truncation_is_refused(truncation):
    with pytest.raises(MinigenError, match="truncation is"):
        DiscreteSampler(Transitions(V), truncation)


# the generator


@pytest.fixture
def pipeline() -> TextToAudio:
    torch.manual_seed(0)
    model = Denoiser.from_language_model(tiny_lm(1)).for_diffusion("mask_uniform")
    return TextToAudio(tiny_codec(), WordEncoder(), DiscreteDiffusionGenerator(model))


def test_a_pipeline_makes_sound_and_a_seed_decides_it(pipeline):
    first, again, other = (pipeline.generate(["rain", "a dog"], 0.2, seed=n, steps=4) for n in (0, 0, 1))
    assert first.shape == (2, 1, 3200) and torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, pipeline.generate(["rain", "a dog"], 0.2, seed=0, steps=4, truncation=0.5))


def test_a_prompt_and_the_ends_of_a_hole_stay(pipeline):
    codes, text = torch.randint(16, (1, 2, 12), generator=seed()), Condition(*WordEncoder()(["rain"]))
    made = pipeline.generator.generate(text, 20, generator=seed(), prompt=codes, steps=6)
    assert torch.equal(made[..., :12], codes) and made.shape == (1, 2, 20) and made.max() < 16
    known = codes.clone()
    known[..., 4:7] = 16
    made = pipeline.generator.fill(text, known, generator=seed(), steps=6)
    assert torch.equal(made[known < 16], codes[known < 16]) and made.max() < 16


def test_a_clip_longer_than_those_of_training_is_made_in_windows(pipeline, monkeypatch):
    text, lengths = Condition(*WordEncoder()(["rain"])), []
    hidden_states = pipeline.generator.model.hidden_states
    monkeypatch.setattr(
        pipeline.generator.model, "hidden_states",
        lambda state, *rest: lengths.append(state.shape[-1]) or hidden_states(state, *rest),
    )  # fmt: skip
    assert pipeline.generator.generate(text, 300, steps=2).shape == (1, 2, 300) and max(lengths) == 200


def test_saved_and_loaded_a_pipeline_gives_the_same(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.generate.load_text_encoder", lambda name, *how: WordEncoder())
    monkeypatch.setattr(WordEncoder, "save_pretrained", lambda self, folder: None, raising=False)
    pipeline.save_pretrained(tmp_path, torch.float32)
    loaded = TextToAudio.from_pretrained(tmp_path)
    assert loaded.generator.name == "discrete" and loaded.generator.transitions.kind == "mask_uniform"
    text = Condition(*WordEncoder()(["rain", "a dog"]))
    assert torch.equal(*(tta.generator.generate(text, 10, generator=seed(), steps=5) for tta in (pipeline, loaded)))
    half = TextToAudio.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.generate(["rain", "a dog"], 0.2, seed=0, steps=5).isfinite().all()


@pytest.mark.parametrize(
    "options, says",
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 101}, "steps is 101"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"truncation": 0}, "truncation is 0"),
        ({"guidance": 1e9}, "guidance is"),
        ({"guidance": math.nan}, "guidance is"),
        (
            {"temperature": 0.5},
            "discrete generator has no option 'temperature'. Its options: prompt, steps, truncation",
        ),
    ],
)
def test_options_out_of_range_are_one_clear_error(pipeline, options, says):
    with pytest.raises(MinigenError, match=says) as caught:
        pipeline.generate("rain", 0.2, **options)
    assert "\n" not in str(caught.value)


def test_a_denoiser_of_another_process_is_refused(model):
    plain = Denoiser(DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=1, heads=2, ffn=24))
    for wrong in (plain, plain.for_diffusion("cosine")):
        with pytest.raises(MinigenError, match="Discrete diffusion needs one of codes with one of mask, mask_uniform"):
            DiscreteDiffusionGenerator(wrong)


# the objective


CODES = torch.randint(0, V, (6, K, 80), generator=seed(9))
CAPTIONS = ["a dog", "rain", "a bell", "wind", "a cat", "fire"]


def objective(kind: str = "mask_uniform", loss: str = "cross_entropy", **settings) -> DiscreteObjective:
    sizes = DenoiserConfig(num_codebooks=K, codebook_size=V, timed=True, process=kind)
    return DiscreteObjective(sizes, WordEncoder(), TrainConfig(**{"text_dropout": 0.5, **settings}), loss)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_cross_entropy_is_the_mean_over_the_cells_that_may_have_changed(model, kind):
    goal = objective(kind)
    batch = goal.batch(CODES, CAPTIONS, np.random.default_rng(1), drop=False)
    loss, parts = goal.loss(model.eval(), **batch)
    terms = []
    for row in range(6):
        one = {name: batch[name][row : row + 1] for name in ("state", "memory", "memory_mask")}
        log_p = model(**one, time=batch["times"][row : row + 1] / 100)[0].log_softmax(-1)
        for k in range(K):
            for f in range(80):
                if kind != "mask" or batch["state"][row, k, f] == V:
                    terms.append(-log_p[k, f, CODES[row, k, f]])
    torch.testing.assert_close(loss, torch.stack(terms).mean(), atol=1e-5, rtol=0)
    assert parts["loss"] is loss


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_is_that_of_the_posteriors_cell_by_cell(kind):
    goal, logits = objective(kind, "kl"), torch.randn(6, K, 80, V, generator=seed(), dtype=torch.float64)
    batch = goal.batch(CODES, CAPTIONS, np.random.default_rng(1), drop=True)
    batch["times"][0] = 1
    found = goal.divergence(logits, **{name: batch[name] for name in ("state", "codes", "times")})
    for row, k, f in ((0, 0, 0), (0, 1, 5), (1, 2, 7), (3, 3, 70), (5, 0, 33)):
        t, code, seen = batch["times"][row].item(), CODES[row, k, f].item(), batch["state"][row, k, f]
        p = logits[row, k, f].softmax(-1)
        true = goal.transitions.posterior(torch.eye(V, dtype=torch.float64)[code], seen, t, t - 1)
        guess = goal.transitions.posterior(p, seen, t, t - 1)
        kl = sum(q * math.log(q / r) for q, r in zip(true.tolist(), guess.tolist(), strict=True) if q > 0)
        expected = 100 * (kl + 5e-4 * (2 - (t - 1) / 100) * -math.log(p[code]))
        assert found[row, k, f].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_both_losses_have_finite_gradients_that_lower_them(kind, loss):
    torch.manual_seed(0)
    goal = objective(kind, loss)
    model = Denoiser(DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=1, heads=2, ffn=24,
                                    memory_width=8, timed=True, process=kind))  # fmt: skip
    batch = goal.batch(CODES, CAPTIONS, np.random.default_rng(1), drop=False)
    before, _ = goal.loss(model, **batch)
    before.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    with torch.no_grad():
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad / norm
        assert goal.loss(model, **batch)[0] < before


def test_the_times_are_uniform_and_the_text_is_dropped_by_a_coin():
    goal = objective()
    batches = [goal.batch(CODES, CAPTIONS, np.random.default_rng(n)) for n in range(300)]
    times = torch.cat([batch["times"] for batch in batches])
    assert times.min() == 1 and times.max() == 100 and abs(times.double().mean() - 50.5) < 2
    assert 120 < sum("memory" in batch for batch in batches) < 180
    assert len({batch["state"].shape[-1] for batch in batches}) > 10  # crops


def test_the_same_rng_gives_the_same_batch():
    first, again, other = (objective().batch(CODES, CAPTIONS, np.random.default_rng(n), drop=True) for n in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["state"], other["state"])


def test_an_unknown_loss_or_process_is_refused():
    with pytest.raises(MinigenError, match="the loss is 'mse'. Choose one of cross_entropy, kl"):
        objective(loss="mse")
    with pytest.raises(MinigenError, match="the kind of transitions is ''"):
        objective(kind="")
