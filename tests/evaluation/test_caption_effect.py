"""The paired control of the demo: own captions against other clips', on the same clips through the same model."""

import numpy as np
import pytest
import torch
from standins import WordEncoder

from minigen.corpus.tokens import TokenSet
from minigen.engine.errors import MinigenError
from minigen.evaluation.caption_effect import caption_effect, clip_losses
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import cross_entropy
from minigen.patterns import DelayPattern
from minigen.train import TrainConfig, train

WORDS = ("rain", "siren", "dog", "engine")


def clips(count, seed=0, noise=0.5):
    """Clips whose codes depend on the caption: a word's own code in every frame, or, with probability `noise`, any."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(WORDS), size=count)
    codes = np.broadcast_to(kinds[:, None, None] * 3, (count, 2, 10))
    codes = np.where(rng.random((count, 2, 10)) < noise, rng.integers(16, size=(count, 2, 10)), codes)
    captions = [WORDS[kind] for kind in kinds]
    return TokenSet(codes.astype(np.int16), captions, [()] * count, [[f"{i}.wav"] for i in range(count)], 50.0, 16)


def new_model(seed=0):
    torch.manual_seed(seed)
    return AudioLM(AudioLMConfig(2, 16, width=16, layers=1, heads=2, ffn=32, memory_width=8, delays=(0, 1)))


@torch.no_grad()
def test_the_loss_of_a_clip_is_the_cross_entropy_of_training():
    lm, tokens = new_model().eval(), clips(20)
    captions = np.random.default_rng(1).permutation(20)
    found = clip_losses(lm, WordEncoder(), tokens, captions, batch=6)
    for i in range(20):
        sequence = DelayPattern((0, 1)).apply(torch.from_numpy(tokens.codes[i : i + 1].astype(np.int64)), 16)
        logits = lm(shift_right(sequence, 16), *WordEncoder()([tokens.captions[captions[i]]]))
        assert float(found[i]) == pytest.approx(float(cross_entropy(logits, sequence)), abs=1e-5)


def test_no_clip_is_given_its_own_caption_and_all_captions_are_given(monkeypatch):
    given = []

    def losses(lm, encoder, tokens, captions):
        given.append(captions.tolist())
        return torch.zeros(len(captions), dtype=torch.float64)

    monkeypatch.setattr("minigen.evaluation.caption_effect.clip_losses", losses)
    caption_effect(None, None, clips(9), rounds=4)
    own, *others = given
    assert own == list(range(9)) and len(others) == 4
    assert all(sorted(other) == own and not any(a == b for a, b in zip(own, other, strict=True)) for other in others)
    assert all(len({other[i] for other in others}) == 4 for i in range(9))


def test_a_model_that_learned_from_captions_shows_it_and_an_untrained_one_does_not(tmp_path):
    lm, encoder, held_out = new_model(), WordEncoder(), clips(48, seed=1)
    before = caption_effect(lm, encoder, held_out)
    train(lm, encoder, clips(128), held_out, tmp_path, TrainConfig(steps=150, batch_size=16, warmup=5,
          learning_rate=1e-2, valid_every=150, ema_every=1), progress=False)  # fmt: skip
    after = caption_effect(lm, encoder, held_out)
    assert not before.helps and before.low < 0 < before.high
    assert after.helps and after.mean == pytest.approx(after.own - after.other) and after.high < -0.02
    assert after.low < after.mean < after.high and after.clips == 48


def test_a_difference_of_two_hundredths_of_a_nat_is_visible(tmp_path):
    """With captions that tell little, between clips whose losses differ by far more."""
    lm, encoder, held_out = new_model(), WordEncoder(), clips(120, seed=1, noise=0.93)
    train(lm, encoder, clips(400, noise=0.93), held_out, tmp_path, TrainConfig(steps=250, batch_size=16, warmup=5,
          learning_rate=5e-3, valid_every=250, ema_every=1), progress=False)  # fmt: skip
    effect = caption_effect(lm, encoder, held_out)
    assert -0.06 < effect.mean < -0.005 and effect.helps


def test_a_single_clip_has_nobody_to_exchange_captions_with():
    with pytest.raises(MinigenError, match="two or more"):
        caption_effect(new_model(), WordEncoder(), clips(1))


def test_the_model_is_left_in_the_mode_it_was_in():
    lm = new_model().train()
    caption_effect(lm, WordEncoder(), clips(4))
    assert lm.training
