"""Masked generation: the schedule, the masks, and the sampler beside loops and beside diffusers' MaskGIT."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from standins import WordEncoder, tiny_codec

from minigen.app import cli, doctor
from minigen.audio import load_audio
from minigen.corpus import TokenSet
from minigen.engine import hub
from minigen.engine.errors import MinigenError
from minigen.engine.resources import training_memory
from minigen.generate import TextToAudio
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.filling import missing_cells, windows
from minigen.generators.iterate import iterate
from minigen.generators.masked import (
    MaskedGenerator,
    MaskedObjective,
    MaskSampler,
    cosine_counts,
    crop,
    gumbel,
    hide,
    mask_jointly,
    mask_stage,
    stage_steps,
    window,
)
from minigen.guidance import Condition
from minigen.train import TrainConfig, seconds_per_step, training_requirements

V, K, T = 30, 4, 12
LISTED = [796, 784, 765, 739, 705, 665, 618, 565, 507, 444, 377, 306, 232, 156, 78, 0]


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def hidden_clip(rows: int = 2, frames: int = T) -> torch.Tensor:
    return torch.full((rows, K, frames), V)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=2, heads=2, ffn=24, memory_width=8)
    return Denoiser(config)


# the schedule


def test_the_counts_of_sixteen_steps_over_four_seconds():
    assert cosine_counts(16, 800) == LISTED


@pytest.mark.parametrize("steps, cells", [(1, 1), (1, 9), (7, 7), (16, 20), (5, 800), (64, 800)])
def test_every_step_decides_a_cell_and_the_last_one_the_rest(steps, cells):
    counts = [cells, *cosine_counts(steps, cells)]
    assert len(counts) == steps + 1 and counts[-1] == 0
    assert all(before > after for before, after in pairwise(counts))


@pytest.mark.parametrize("steps, cells", [(0, 5), (6, 5), (-1, 5)])
def test_a_schedule_without_steps_or_with_more_steps_than_cells_is_refused(steps, cells):
    with pytest.raises(MinigenError, match=f"{steps} steps for {cells} cells"):
        cosine_counts(steps, cells)


def test_the_first_stage_takes_two_fifths_of_the_steps():
    assert stage_steps(20, 4) == [8, 4, 4, 4] and stage_steps(50, 4) == [20, 10, 10, 10]
    assert stage_steps(4, 4) == [1, 1, 1, 1] and stage_steps(9, 1) == [9] and sum(stage_steps(17, 4)) == 17
    with pytest.raises(MinigenError, match="3 steps for 4 stages"):
        stage_steps(3, 4)


# the masks of training


def test_joint_masks_hide_the_cosine_of_a_uniform_share():
    masks = mask_jointly(torch.zeros(4000, K, T, dtype=torch.long), np.random.default_rng(0))
    shares = masks.flatten(1).float().mean(1)
    assert masks.dtype == torch.bool and (shares > 0).all()
    assert abs(shares.mean() - 2 / math.pi) < 0.02
    below_half = (shares <= 0.5).float().mean()  # cos(pi u / 2) <= 1/2 where u >= 2/3
    assert abs(below_half - 1 / 3) < 0.03
    assert (masks.float().mean(0) - masks.float().mean()).abs().max() < 0.05, "some cells are hidden more often"


@pytest.mark.parametrize("stage", range(K))
def test_a_stage_gives_the_coarser_codebooks_and_hides_the_finer_ones(stage):
    masks = mask_stage(torch.zeros(500, K, T, dtype=torch.long), stage, np.random.default_rng(0))
    assert not masks[:, :stage].any() and masks[:, stage + 1 :].all()
    assert 0.6 < masks[:, stage].float().mean() < 0.75 and masks[:, stage].any(1).all()


def test_a_stage_hides_spans():
    masks = mask_stage(torch.zeros(300, 1, 60, dtype=torch.long), 0, np.random.default_rng(0), span=3)[:, 0]
    for row in masks[:, :-3].tolist():
        runs = "".join("x" if cell else " " for cell in row).split()
        assert all(len(run) >= 3 for run in runs[:-1])  # the last run may be cut by the end of the row


def test_the_same_rng_hides_the_same_cells():
    codes = torch.zeros(3, K, T, dtype=torch.long)
    for draw in (mask_jointly, lambda codes, rng: mask_stage(codes, 1, rng)):
        first, again, other = (draw(codes, np.random.default_rng(number)) for number in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)


# the sampler


def by_loops(state, known, t, s, logits, draw, noise):
    """A joint step for one clip, cell by cell; `draw` gives the drawn codes and the Gumbel noise."""
    codes, gumbels = draw
    cells = [(k, f) for k in range(K) for f in range(T)]
    hidden = [cell for cell in cells if state[cell] == V]
    total = sum(known[cell].item() == V for cell in cells)
    new, sure = state.clone(), {}
    for number, (k, f) in enumerate(cells):
        if (k, f) in hidden:
            new[k, f] = codes[number]
            probability = logits[k, f].softmax(-1)[codes[number]].item()
            sure[k, f] = math.log(probability) + noise * gumbels[number].item()
    if s < 1:
        share = torch.cos(torch.tensor(s) * math.pi / 2).item()
        count = max(1, min(len(hidden) - 1, math.floor(total * share)))
        for cell in sorted(sure, key=sure.get)[:count]:
            new[cell] = V
    return new


def test_a_step_is_that_of_plain_loops():
    sampler, known = MaskSampler(mask=V, noise=2.0), hidden_clip(1)
    known[0, 1, 3:6] = 7
    state, steps = known.clone(), 5
    for number, (t, s) in enumerate(pairwise(sampler.times(steps, known))):
        logits = 2 * torch.randn(1, K, T, V, generator=seed(number))
        chance = seed(100 + number)
        codes = torch.multinomial(logits.softmax(-1).view(-1, V), 1, generator=chance).flatten()
        gumbels = gumbel(torch.empty(1, K * T), chance).flatten()
        wanted = by_loops(state[0], known[0], t, s, logits[0], (codes, gumbels), 2.0 * (1 - number / (steps - 1)))
        state = sampler.step(state, known, t, s, logits, seed(100 + number))
        assert torch.equal(state[0], wanted)


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 16])
@pytest.mark.parametrize("noise", [0.0, 4.5])
def test_every_step_is_that_of_diffusers(steps, noise):
    schedulers = pytest.importorskip("diffusers")
    theirs = schedulers.AmusedScheduler(mask_token_id=V)
    theirs.set_timesteps(steps, (noise, 0.0))
    sampler, known, ours, other = MaskSampler(mask=V, noise=noise), hidden_clip(), seed(3), seed(3)
    state, flat = known.clone(), known.flatten(1)
    for number, (t, s) in enumerate(pairwise(sampler.times(steps, known))):
        logits = 2 * torch.randn(2, K, T, V, generator=seed(number))
        state = sampler.step(state, known, t, s, logits, ours)
        flat = theirs.step(logits.flatten(1, 2), theirs.timesteps[number], flat, generator=other).prev_sample
        assert torch.equal(state.flatten(1), flat)


@pytest.mark.parametrize("order, steps", [("joint", 6), ("stages", 8)])
def test_known_cells_never_change_and_each_cell_is_decided_once(model, order, steps):
    sampler, known = MaskSampler(mask=V, order=order), hidden_clip()
    known[:, :, :5] = torch.randint(0, V, (2, K, 5), generator=seed())
    seen = [known]
    made = iterate(model, sampler, known, steps=steps, generator=seed(), each=lambda state: seen.append(state.clone()))
    assert len(seen) == steps + 1 and not (made.state == V).any()
    for before, after in pairwise(seen):
        decided = before != V
        assert torch.equal(after[decided], before[decided])


def test_a_joint_run_hides_as_many_cells_as_the_schedule_says(model):
    counts = []
    known = hidden_clip()
    iterate(model, MaskSampler(mask=V), known, steps=7, generator=seed(),
            each=lambda state: counts.append((state == V).flatten(1).sum(1).tolist()))  # fmt: skip
    assert counts == [[count] * 2 for count in cosine_counts(7, K * T)]


def test_stages_finish_a_codebook_before_the_next_one(model):
    hidden = []
    iterate(model, MaskSampler(mask=V, order="stages", span=2), hidden_clip(), steps=12, generator=seed(),
            each=lambda state: hidden.append((state == V).any(2).all(0).tolist()))  # fmt: skip
    assert all(not any(row[:k]) for row in hidden for k in range(K) if row[k] and k and not row[k - 1])
    finished = [next(i for i, row in enumerate(hidden) if not row[k]) for k in range(K)]
    assert finished == sorted(finished) and len(set(finished)) == K and finished[-1] == 11


def test_one_step_is_a_parallel_draw(model):
    state = iterate(model, MaskSampler(mask=V), hidden_clip(), steps=1, generator=seed(5)).state
    with torch.no_grad():
        logits = model.eval()(hidden_clip())
    drawn = torch.multinomial(logits.softmax(-1).view(-1, V), 1, generator=seed(5)).view(2, K, T)
    assert torch.equal(state, drawn)


def test_temperature_zero_takes_the_most_likely_codes(model):
    sampler = MaskSampler(mask=V, temperature=0.0, noise=0.0)
    first, second = (iterate(model, sampler, hidden_clip(), steps=4, generator=seed(n)).state for n in (0, 1))
    assert torch.equal(first, second)


def test_the_finer_stages_see_five_frames_to_either_side():
    sampler, state = MaskSampler(mask=V, order="stages"), hidden_clip(frames=20)
    assert sampler.attend(state, 0.5) is None
    for number, row in enumerate(sampler.attend(state, 1.0).tolist()):
        assert [i for i, seen in enumerate(row) if seen] == list(range(max(0, number - 5), min(20, number + 6)))
    assert MaskSampler(mask=V).attend(state, 0.9) is None and window(3).all()


@pytest.mark.parametrize("wrong, says", [({"order": "random"}, "order"), ({"temperature": -1.0}, "temperature"),
                                         ({"noise": math.inf}, "noise"), ({"span": 0}, "span")])  # fmt: skip
def test_impossible_samplers_are_refused(wrong, says):
    with pytest.raises(MinigenError, match=says):
        MaskSampler(mask=V, **wrong)


# the objective


class Words:
    """A stand-in text encoder: one state for each letter."""

    width = 8

    def __call__(self, captions):
        longest = max(map(len, captions))
        states = torch.zeros(len(captions), longest, 8)
        for row, caption in enumerate(captions):
            for place, letter in enumerate(caption):
                states[row, place, ord(letter) % 8] = 1
        return states, torch.arange(longest) < torch.tensor([[len(caption)] for caption in captions])


def objective(model: Denoiser) -> MaskedObjective:
    return MaskedObjective(model.config, Words(), TrainConfig(text_dropout=0.5))


CODES = torch.randint(0, V, (6, K, 80), generator=seed(9))
CAPTIONS = ["a dog", "rain", "a bell", "wind", "a cat", "fire"]


def test_half_of_a_batch_is_hidden_jointly_and_half_by_stages():
    hidden, stages = hide(CODES, np.random.default_rng(0))
    assert stages[:3].tolist() == [-1] * 3 and (stages[3:] >= 0).all()
    for row, stage in enumerate(stages[3:].tolist(), 3):
        assert not hidden[row, :stage].any() and hidden[row, stage].any() and hidden[row, stage + 1 :].all()


def test_the_loss_is_the_mean_cross_entropy_of_the_hidden_cells_that_count(model):
    goal = objective(model)
    batch = goal.batch(CODES, CAPTIONS, np.random.default_rng(1), drop=False)
    with torch.no_grad():
        loss, parts = goal.loss(model.eval(), **batch)
        far = (torch.arange(80)[:, None] - torch.arange(80)).abs() > 5
        terms = []
        for row in range(6):
            stage = batch["stages"][row].item()
            attend = ~far if stage > 0 else None
            one = {name: batch[name][row : row + 1] for name in ("state", "memory", "memory_mask")}
            logits = model(**one, attend=attend)[0].log_softmax(-1)
            for k in range(K):
                for f in range(80):
                    if batch["state"][row, k, f] == V and stage in (-1, k):
                        terms.append(-logits[k, f, CODES[row, k, f]])
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    assert parts["loss"] is loss


def test_visible_cells_and_finer_stages_are_no_targets(model):
    batch = objective(model).batch(CODES, CAPTIONS, np.random.default_rng(2), drop=True)
    counted_cells = batch["target"] != V
    assert torch.equal(batch["target"][counted_cells], CODES[counted_cells])
    assert (batch["state"][counted_cells] == V).all() and "memory" not in batch
    for row, stage in enumerate(batch["stages"].tolist()):
        if stage >= 0:
            assert not counted_cells[row, stage + 1 :].any()


def test_training_crops_half_of_the_batches_and_drops_text_by_a_coin(model):
    goal = objective(model)
    batches = [goal.batch(CODES, CAPTIONS, np.random.default_rng(n)) for n in range(200)]
    lengths = [batch["state"].shape[-1] for batch in batches]
    assert 50 <= min(lengths) < 60 and max(lengths) == 80 and 80 < sum(length == 80 for length in lengths) < 125
    assert 75 < sum("memory" in batch for batch in batches) < 125


def test_a_crop_is_the_same_stretch_of_every_codebook_and_clip():
    line = torch.arange(200).expand(2, K, 200)
    for n in range(20):
        cut = crop(line, np.random.default_rng(n))
        assert torch.equal(cut, line[..., cut[0, 0, 0] : cut[0, 0, 0] + cut.shape[-1]])


def test_the_trainer_measures_time_and_memory_of_a_masked_model(model, tmp_path):
    tokens = TokenSet(CODES.numpy().astype(np.int16), CAPTIONS, [()] * 6, [[]] * 6, 50.0, V)
    config = TrainConfig(batch_size=2)
    assert 0 < seconds_per_step(model, Words(), tokens, config, 3, objective(model)) < 60
    need = training_requirements(model, tokens, config, tmp_path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert need.memory - need.held == training_memory(parameters, 2, 16, 24, rows=2, steps=80) - 4 * parameters


# the generator


@pytest.fixture(scope="module")
def masked(model) -> MaskedGenerator:
    return MaskedGenerator(model)


TEXT = Condition(torch.randn(2, 3, 8, generator=seed(4)))


def test_a_clip_is_the_sampler_run_on_masks_alone(masked, model):
    made = masked.generate(TEXT, frames=T, guidance=2.0, generator=seed(1), steps=5, temperature=0.8)
    known = torch.full((2, K, T), V)
    expected = iterate(
        model, MaskSampler(V, temperature=0.8, noise=10.0), known, TEXT.memory, None, 5, 2.0, seed(1)
    ).state
    assert torch.equal(made, expected) and made.min() >= 0 and made.max() < V
    assert torch.equal(masked.generate(TEXT, T, 2.0, seed(1), steps=5, temperature=0.8), made)
    assert not torch.equal(masked.generate(TEXT, T, 2.0, seed(2), steps=5, temperature=0.8), made)


def test_guidance_may_change_with_the_progress(masked):
    asked = []
    masked.generate(TEXT, T, lambda progress: asked.append(progress) or 1.0, steps=5)
    assert asked == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_prompt_is_kept_and_given_cells_of_any_place_are_kept(masked):
    prompt = torch.randint(0, V, (1, K, 7), generator=seed(5))
    made = masked.generate(TEXT, frames=T, generator=seed(1), steps=3, prompt=prompt)
    assert torch.equal(made[..., :7], prompt.expand(2, K, 7)) and made.shape == (2, K, T)
    codes = torch.randint(0, V, (2, K, T), generator=seed(6))
    missing = torch.rand(2, K, T, generator=seed(7)) < 0.5
    filled = masked.fill(TEXT, torch.where(missing, V, codes), generator=seed(1), steps=3)
    assert torch.equal(filled[~missing], codes[~missing]) and filled.max() < V
    assert torch.equal(masked.fill(TEXT, codes), codes)


def test_a_long_clip_is_made_window_by_window_each_beside_what_is_there(masked, monkeypatch):
    seen = []

    def watched(model, sampler, part, *rest):
        seen.append((part != V).all(1)[0])
        return iterate(model, sampler, part, *rest)

    monkeypatch.setattr("minigen.generators.masked.iterate", watched)
    made = masked.generate(Condition(), 451, generator=seed(0), steps=2)
    assert made.shape == (1, K, 451) and made.max() < V
    given = [int(frames.sum()) for frames in seen]
    assert [len(frames) for frames in seen] == [200, 200, 200] and given == [0, 50, 99]
    assert all(frames[:count].all() for frames, count in zip(seen, given, strict=True))


@pytest.mark.parametrize(
    ("missing", "places"),
    [
        ([(0, 30)], [(0, 100)]),
        ([(0, 200)], [(0, 200)]),
        ([(200, 500)], [(150, 350), (300, 500)]),
        ([(0, 500)], [(0, 200), (150, 350), (300, 500)]),
        ([(0, 300)], [(150, 350), (0, 200)]),  # only the end is given: from right to left
        ([(250, 275)], [(200, 400)]),
        ([(10, 20), (480, 490)], [(0, 200), (300, 500)]),
        ([], []),
    ],
)
def test_windows_cover_what_is_missing_from_the_given_part_outwards(missing, places):
    frames = torch.zeros(100 if missing == [(0, 30)] else 200 if missing == [(0, 200)] else 500, dtype=torch.bool)
    for start, stop in missing:
        frames[start:stop] = True
    assert [(place.start, place.stop) for place in windows(frames)] == places


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": K * T + 1}, "49 steps for 48 cells"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"order": "random"}, "order is 'random'"),
        ({"frames": 0}, "frames is 0"),
        ({"prompt": torch.zeros(2, K, T, dtype=torch.int64)}, "prompt has shape"),
    ],
)
def test_impossible_requests_are_refused(masked, wrong, says):
    with pytest.raises(MinigenError, match=says):
        masked.generate(TEXT, **{"frames": T, **wrong})


def test_a_model_of_latents_or_with_time_is_no_masked_generator():
    for other in (DenoiserConfig(kind="latents"), DenoiserConfig(timed=True)):
        with torch.device("meta"), pytest.raises(MinigenError, match="A masked generator needs"):
            MaskedGenerator(Denoiser(other))


# the pipeline


@pytest.fixture
def tta(tmp_path, monkeypatch) -> TextToAudio:
    """The pipeline of a shipped masked generator, `mini-tiny`, without knowledge."""
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path)
    monkeypatch.setattr("minigen.generate.load_text_encoder", lambda name, *how: WordEncoder())
    folder = tmp_path / "generators" / "mini-tiny"
    torch.manual_seed(0)
    sizes = DenoiserConfig(num_codebooks=2, codebook_size=16, width=16, layers=1, heads=2, ffn=16, memory_width=8)
    Denoiser(sizes).save_pretrained(folder)
    tiny_codec().save_pretrained(folder / "codec")
    (folder / "pipeline.json").write_text('{"codec": "codec", "text": "words", "generator": "masked"}')
    return TextToAudio.from_pretrained("mini-tiny")


def test_a_shipped_masked_generator_is_found_by_its_name_and_speaks(tta):
    assert tta.generator.name == "masked"
    one, other = tta.generate(["rain", "a dog barks"], seconds=0.5, seed=1, steps=4), tta.generate("rain", 0.5, seed=1)
    assert one.shape == (2, 1, 8000) and other.shape == (1, 1, 8000)
    assert torch.equal(one, tta.generate(["rain", "a dog barks"], seconds=0.5, seed=1, steps=4))
    assert tta.generate("rain", seconds=9.0, seed=1, steps=1, guidance=1).shape == (1, 1, 144000)
    with pytest.raises(MinigenError, match="seconds is 31"):
        tta.generate("rain", seconds=31)
    with pytest.raises(MinigenError, match="masked generator has no option 'top_k'.*steps, temperature, noise"):
        tta.generate("rain", top_k=5)
    with pytest.raises(MinigenError, match=r"named 'mini-else' .*\(mini-tiny\)"):
        TextToAudio.from_pretrained("mini-else")


def test_a_prompt_goes_on_at_its_end(tta):
    wav = 0.1 * torch.randn(1, 1, 3200, generator=seed(1))
    made = tta.generate("rain", seconds=0.5, seed=1, steps=4, prompt=wav)
    assert made.shape == (1, 1, 8000)


def test_the_doctor_loads_shipped_generators(tta, monkeypatch):
    monkeypatch.setattr("minigen.app.doctor.DATA", hub.DATA)
    assert doctor._weights("generators", "mini-tiny").state == "ok"
    (hub.DATA / "generators" / "mini-tiny" / "model.safetensors").write_bytes(b"damaged")
    assert doctor._weights("generators", "mini-tiny").state == "broken"


def test_a_file_is_written_by_the_command(tta, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main("generate rain --model mini-tiny --steps 3 --seconds 0.5 --seed 2".split()) == 0
    expected = tta.generate("rain", 0.5, seed=2, steps=3)
    torch.testing.assert_close(load_audio("sound.wav"), expected, atol=1e-4, rtol=0)
    assert cli.main("generate rain --model mini-tiny --steps 300 --seconds 0.5 -o no.wav".split()) == 2
    assert "300 steps for 50 cells" in capsys.readouterr().err and not Path("no.wav").exists()


def test_a_complete_clip_of_a_batch_takes_no_step_from_the_others(masked):
    known = hidden_clip()
    known[0] = torch.randint(0, V, (K, T), generator=seed())
    assert missing_cells(known, V) == K * T
    made = masked.fill(TEXT, known, generator=seed(1), steps=K * T)
    assert torch.equal(made[0], known[0]) and made.max() < V


def test_it_speaks_in_bfloat16(masked, tmp_path):
    masked.save_pretrained(tmp_path)
    made = MaskedGenerator.from_pretrained(tmp_path, torch.bfloat16).generate(TEXT, T, 2.0, seed(1), steps=5)
    assert made.shape == (2, K, T) and made.max() < V
