"""Training: the loss, the schedule, what happens to the text, and that an interruption changes nothing."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from minigen.corpus.tokens import TokenSet
from minigen.engine.checkpoint import save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.patterns import DelayPattern
from minigen.regularizer import similarity_loss
from minigen.train import (
    CHECKPOINT,
    Ema,
    TrainConfig,
    Trainer,
    _rows,
    fingerprint,
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
    visits = np.concatenate([_rows(20, config, step) for step in range(20)])  # 140 = 7 epochs of 20
    for epoch in range(7):
        assert sorted(visits[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert not np.array_equal(visits[:20], visits[20:40])


@pytest.mark.parametrize("dropout, expected", [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_the_text_is_dropped_for_the_whole_batch_or_not_at_all(dropout, expected):
    trainer, seen = Trainer(AudioLM(SIZES), Words(), TrainConfig(text_dropout=dropout, batch_size=8)), []
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
    trainer = Trainer(AudioLM(SIZES), Words(), TrainConfig(batch_size=8))
    codes, captions = tokens().batch(range(8))
    _, alike = trainer.losses(codes, captions, drop=True, similarity=1.0)
    sequence = DelayPattern((0, 1)).apply(codes, 16)
    with trainer.accelerator.autocast():
        hidden = trainer.lm.hidden_states(shift_right(sequence, 16))
    states, mask = Words()(captions)
    assert torch.allclose(alike, similarity_loss(states, hidden.float(), mask), atol=1e-6)


def test_the_regulariser_makes_the_similarities_agree(tmp_path):
    settings = {"steps": 120, "text_dropout": 0.5, "learning_rate": 3e-3}
    without, _ = run(tmp_path / "a", **settings)
    with_it, history = run(tmp_path / "b", similarity=3.0, **settings)
    codes, captions = tokens(32, seed=5).batch(range(32))
    distance = {
        name: Trainer(lm, Words(), TrainConfig()).losses(codes, captions, drop=True, similarity=1.0)[1].item()
        for name, lm in (("without", without), ("with", with_it))
    }
    assert distance["with"] < 0.7 * distance["without"]
    assert not math.isnan(history[-1]["similarity"])


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    whole, _ = run(tmp_path / "whole", similarity=1.0)
    torch.manual_seed(0)
    data, config = tokens(), TrainConfig(steps=40, batch_size=8, warmup=5, valid_every=20, similarity=1.0)
    trainer = Trainer(AudioLM(SIZES), Words(), config, fingerprint(data))
    for step in range(17):
        trainer.train_step(*data.batch(_rows(len(data), config, step)))
    (tmp_path / "broken").mkdir()
    trainer.save(tmp_path / "broken" / CHECKPOINT, [{"step": 0, "minutes": 0.0, "valid": 3.0, "valid_no_text": 3.0}])
    torch.manual_seed(99)  # another process starts in another random state
    resumed = AudioLM(SIZES)
    train(resumed, Words(), data, tokens(16, seed=1), tmp_path / "broken", config, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


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
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_folder_holds_a_model_a_log_and_what_goes_with_it(tmp_path):
    lm, history = run(tmp_path)
    loaded = AudioLM.from_pretrained(tmp_path)
    assert loaded.config == lm.config
    for name, value in lm.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-3), name
    assert (tmp_path / "pipeline.json").read_text() == '{"codec": "mini", "text": "mini"}\n'
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [0, 20, 40]
    assert float(rows[-1]["valid"]) == history[-1]["valid"]


def test_a_loss_that_is_no_number_stops_the_run():
    trainer = Trainer(AudioLM(SIZES), Words(), TrainConfig(batch_size=8, text_dropout=0.0))
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
