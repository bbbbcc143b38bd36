"""Training: the objective, the schedule, text dropout, checkpoints, and that an interruption changes nothing."""

import csv
import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from minigen.corpus.tokens import TokenSet
from minigen.engine.checkpoint import save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import cross_entropy
from minigen.patterns import DelayPattern
from minigen.regularizer import similarity_loss
from minigen.train import (
    CHECKPOINT,
    CrossEntropyObjective,
    Ema,
    TrainConfig,
    Trainer,
    clips_of_step,
    learning_rate,
    seconds_per_step,
    train,
)

SIZES = AudioLMConfig(
    num_codebooks=2, codebook_size=16, width=32, layers=1, heads=2, ffn=64, memory_width=8, delays=(0, 1)
)
WORDS = ("dog", "rain", "bell", "wind")


class Words(nn.Module):
    """A stand-in encoder: each word of WORDS is a fixed vector."""

    width = 8

    def __init__(self):
        super().__init__()
        self.table = torch.randn(len(WORDS), 8, generator=torch.Generator().manual_seed(1))

    def forward(self, captions):
        return self.table[[WORDS.index(c) for c in captions]][:, None], torch.ones(len(captions), 1, dtype=torch.bool)


def tokens(clips: int = 48, frames: int = 12, seed: int = 0) -> TokenSet:
    """Clips whose codes follow from their one-word caption, with some noise: the text has something to tell."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(WORDS), size=clips)
    codes = kinds[:, None, None] * 4 + rng.integers(2, size=(clips, 2, frames))
    return TokenSet(codes.astype(np.int16), [WORDS[k] for k in kinds], [()] * clips, [[]] * clips, 50.0, 16)


def run(folder, lm=None, progress=False, **settings):
    torch.manual_seed(0)
    lm = lm or AudioLM(SIZES)
    config = TrainConfig(**{"steps": 40, "batch_size": 8, "warmup": 5, "valid_every": 20, **settings})
    return lm, train(lm, Words(), tokens(), tokens(16, seed=1), folder, config, progress=progress)


def new_trainer(lm: AudioLM | None = None, **settings) -> Trainer:
    torch.manual_seed(0)
    config, lm = TrainConfig(**{"batch_size": 8, **settings}), lm or AudioLM(SIZES)
    return Trainer(lm, CrossEntropyObjective(lm.config, Words(), config), config)


def loss_of(lm: AudioLM, codes, captions, drop=None, **settings) -> dict[str, float]:
    """The total and the parts of the usual objective."""
    objective = CrossEntropyObjective(lm.config, Words(), TrainConfig(**settings))
    total, parts = objective.loss(lm, **objective.batch(codes, captions, np.random.default_rng(0), drop))
    return {"total": total.item()} | {name: part.item() for name, part in parts.items()}


def same_weights(one: AudioLM, other: AudioLM) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_rises_then_falls_to_a_twentieth():
    config = TrainConfig(steps=1000, warmup=100, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(1001)]
    assert rates[0] == 0.01 and rates[99] == 1.0
    assert rates[:100] == sorted(rates[:100]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[1000] == pytest.approx(0.05)


def test_the_average_of_the_weights_follows_them():
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, decay=0.5)
    value = model.weight.item()
    for update in range(1, 30):
        model.weight.data.fill_(float(update))
        ema.update(model)
        decay = min(0.5, update / (9 + update))
        value = decay * value + (1 - decay) * update
    assert float(ema.weights["weight"]) == pytest.approx(value, rel=1e-5)


def test_training_learns_and_the_text_helps(tmp_path):
    _, history = run(tmp_path, steps=150, learning_rate=5e-3, text_dropout=0.2)
    assert history[0]["valid"] > 2.6  # log 16 = 2.77: nothing is known at the start
    assert history[-1]["valid"] < 0.4 * history[0]["valid"]
    assert history[-1]["valid"] < history[-1]["valid_no_text"] - 0.03  # the first frame is told by the text alone


def test_every_clip_is_visited_once_an_epoch():
    config = TrainConfig(batch_size=7, seed=3)
    visits = np.concatenate([clips_of_step(20, config, step) for step in range(20)])  # 140 = 7 epochs of 20
    for epoch in range(7):
        assert sorted(visits[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert not np.array_equal(visits[:20], visits[20:40])


@pytest.mark.parametrize("dropout, expected", [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_the_text_is_dropped_for_the_whole_batch_or_not_at_all(dropout, expected):
    trainer, seen = new_trainer(text_dropout=dropout), []
    hidden_states = trainer.lm.hidden_states

    def spy(sequence, memory=None, memory_mask=None):
        seen.append(memory is None)
        assert memory is None or len(memory) == len(sequence)
        return hidden_states(sequence, memory=memory, memory_mask=memory_mask)

    trainer.lm.hidden_states = spy
    data = tokens()
    entries = [trainer.train_step(*data.batch(range(8))) for _ in range(12)]
    assert set(seen) == expected
    assert [entry["dropped"] for entry in entries] == seen


def test_the_regulariser_compares_the_captions_with_what_is_heard_without_them():
    """In a step without text: loss = cross-entropy without text + similarity · similarity_loss."""
    lm, (codes, captions) = AudioLM(SIZES), tokens().batch(range(8))
    found = loss_of(lm, codes, captions, text_dropout=1.0, similarity=0.7)
    sequence = DelayPattern((0, 1)).apply(codes, 16)
    hidden = lm.hidden_states(shift_right(sequence, 16))
    states, mask = Words()(captions)
    expected = similarity_loss(states, hidden, mask).item()
    assert found["similarity"] == pytest.approx(expected, abs=1e-6) and expected > 0.01
    entropy = cross_entropy(lm(shift_right(sequence, 16)), sequence).item()
    assert found["loss"] == pytest.approx(entropy, abs=1e-5)
    assert found["total"] == pytest.approx(entropy + 0.7 * expected, abs=1e-5)


def test_the_regulariser_takes_no_part_in_steps_with_text():
    codes, captions = tokens().batch(range(8))
    plain, weighted = (new_trainer(similarity=weight, text_dropout=0.0) for weight in (0.0, 100.0))
    for trainer in (plain, weighted):
        entries = [trainer.train_step(codes, captions) for _ in range(3)]
        assert not any(entry["dropped"] for entry in entries)
        assert all(entry["similarity"] is None for entry in entries)
    assert same_weights(plain.lm, weighted.lm)


def test_the_regulariser_moves_the_weights_in_steps_without_text():
    codes, captions = tokens().batch(range(8))
    plain, weighted = (new_trainer(similarity=weight, text_dropout=1.0) for weight in (0.0, 100.0))
    for trainer in (plain, weighted):
        trainer.train_step(codes, captions)
    assert not same_weights(plain.lm, weighted.lm)


def test_validation_measures_the_cross_entropy_alone():
    values = [new_trainer(similarity=weight, text_dropout=1.0).validate(tokens(16)) for weight in (0.0, 100.0)]
    assert values[0] == values[1] and values[0]["valid"] != values[0]["valid_no_text"]


def test_the_regulariser_makes_the_similarities_agree(tmp_path):
    settings = {"steps": 120, "text_dropout": 0.5, "learning_rate": 3e-3}
    without, _ = run(tmp_path / "a", **settings)
    with_it, history = run(tmp_path / "b", similarity=3.0, **settings)
    codes, captions = tokens(32, seed=5).batch(range(32))
    before, after = (
        loss_of(lm, codes, captions, text_dropout=1.0, similarity=1.0)["similarity"] for lm in (without, with_it)
    )
    assert after < 0.7 * before
    assert not math.isnan(history[-1]["similarity"])


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    settings = {"similarity": 1.0, "text_dropout": 0.4, "save_minutes": 0}
    whole, history = run(tmp_path / "whole", **settings)
    step = Trainer.train_step

    def interrupt(self, *batch):
        if self.step == 17:
            raise KeyboardInterrupt
        return step(self, *batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupt)
        run(tmp_path / "broken", **settings)
    torch.manual_seed(99)  # another process starts in another random state
    resumed, again = run(tmp_path / "broken", lm=AudioLM(SIZES), **settings)
    assert same_weights(whole, resumed)
    for name in ("loss", "similarity", "valid"):
        assert [row[name] for row in history[1:]] == [row[name] for row in again[1:]], name


def test_from_train_to_backward_it_is_four_calls_at_the_most(tmp_path, monkeypatch):
    backward, depths = torch.Tensor.backward, []

    def spy(self, *arguments, **options):
        names = [frame.function for frame in inspect.stack()]
        depths.append(names.index("train"))
        return backward(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    run(tmp_path, steps=2)
    assert len(depths) == 2 and max(depths) <= 4


class Zero:
    """An objective that is not the usual one: the mean square of the last hidden states."""

    generator = "zero"
    same_shapes = True

    def batch(self, codes, captions, rng, drop=None):
        return {"codes": codes}

    def loss(self, model, codes):
        loss = model.hidden_states(DelayPattern((0, 1)).apply(codes, 16)).square().mean()
        return loss, {"loss": loss}


def test_the_objective_is_an_argument(tmp_path):
    torch.manual_seed(0)
    config = TrainConfig(steps=40, batch_size=8, warmup=5, valid_every=20)
    history = train(AudioLM(SIZES), Words(), tokens(), tokens(16), tmp_path, config, progress=False, objective=Zero())
    assert history[-1]["valid"] < 0.9 * history[0]["valid"]
    assert json.loads((tmp_path / "pipeline.json").read_text())["generator"] == "zero"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(MinigenError, match="other settings"):
        run(tmp_path, learning_rate=2e-3)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    save_checkpoint(tmp_path / CHECKPOINT, {"step": 3, "codec": {"weight": torch.zeros(2)}})
    with pytest.raises(MinigenError, match="other settings"):
        run(tmp_path)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, history = run(tmp_path)
    second, again = run(tmp_path)
    assert str(again) == str(history)  # as text, where nan equals nan
    assert same_weights(first, second)


@pytest.mark.parametrize("steps", [1, 5, 15])
def test_the_last_step_is_in_the_weights_that_are_kept(tmp_path, steps):
    lm, _ = run(tmp_path, steps=steps, ema=0.0)
    start = new_trainer(steps=steps, warmup=5, valid_every=20)
    rows = [clips_of_step(48, start.config, step) for step in range(steps)]
    for chosen in rows:
        start.train_step(*tokens().batch(chosen))
    assert all(torch.equal(lm.state_dict()[name], value) for name, value in start.lm.state_dict().items())


def test_the_folder_holds_a_model_a_log_and_what_goes_with_it(tmp_path):
    lm, history = run(tmp_path)
    loaded = AudioLM.from_pretrained(tmp_path)
    assert loaded.config == lm.config
    for name, value in lm.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-3), name
    assert (tmp_path / "pipeline.json").read_text() == (
        '{"codec": "mini", "text": "mini", "generator": "language_model"}\n'
    )
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [0, 20, 40]
    assert float(rows[-1]["valid"]) == history[-1]["valid"]


def test_a_loss_that_is_no_number_stops_the_run():
    trainer = new_trainer(text_dropout=0.0)
    next(trainer.lm.parameters()).data.fill_(torch.nan)
    with pytest.raises(MinigenError, match="loss of step 0 is nan"):
        trainer.train_step(*tokens().batch(range(8)))


def test_tokens_of_another_codec_are_refused(tmp_path):
    with pytest.raises(MinigenError, match="2 codebooks of 16, the model 2 of 8"):
        run(tmp_path, lm=AudioLM(dataclasses.replace(SIZES, codebook_size=8)))


def test_an_encoder_of_another_width_is_refused(tmp_path):
    with pytest.raises(MinigenError, match="8 wide, the model expects memory_width 12"):
        run(tmp_path, lm=AudioLM(dataclasses.replace(SIZES, memory_width=12)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"text_dropout": 1.5},
        {"similarity": -1.0},
        {"batch_size": 1, "similarity": 1.0},
        {"pooling": "min"},
        {"seed": -1},
        {"valid_every": 0},
        {"ema_every": 0},
        {"clip": -1.0},
        {"ema": math.nan},
        {"warmup": -5},
        {"weight_decay": math.nan},
        {"steps": 2.5},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(MinigenError):
        TrainConfig(**wrong)


def test_the_time_of_a_step_is_measured_without_touching_the_model():
    lm = AudioLM(SIZES)
    before = [p.clone() for p in lm.parameters()]
    assert 0 < seconds_per_step(lm, Words(), tokens(), TrainConfig(batch_size=4)) < 5
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))
