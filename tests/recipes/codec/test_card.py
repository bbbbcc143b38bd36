"""The card of the codec: what judges recognise before the codec, after it, and after it without quantisation."""

from types import SimpleNamespace

import torch

from minigen.codec import load_codec
from minigen.recipes.codec import card


class Deaf:
    """A codec whose codes lose everything, while its latents lose nothing."""

    sample_rate = 16000

    def encode(self, wav):
        return torch.zeros(1, 4, wav.shape[-1] // 320, dtype=torch.int64)

    def decode(self, codes):
        return torch.zeros(1, 1, 320 * codes.shape[-1])

    def latents(self, wav):
        return wav

    def synthesize(self, latents):
        return latents


def loud_or_silent(pictures):
    """Scores [n, 2] of a listener that knows two kinds: silence and sound."""
    loud = pictures.flatten(1).amax(1) - pictures.flatten(1).amin(1) > 1e-3
    return torch.stack([~loud, loud], 1).float()


def test_the_shares_belong_to_the_original_the_codec_and_the_latents():
    listener = SimpleNamespace(kinds=("silence", "chainsaw"), scores=loud_or_silent)
    assert card.named_alone(Deaf(), listener, "chainsaw", 3) == card.Heard(1.0, 0.0, 1.0)


def test_the_tagger_detects_events_of_the_originals_and_none_in_silence():
    before, after, not_quantised = card.detected(Deaf(), 8)
    assert before == not_quantised > 0.7 and after == 0.0


def test_the_table_has_a_row_for_each_judge_and_three_columns(monkeypatch):
    monkeypatch.setattr(card, "listener_of", lambda folder: (None, None))
    monkeypatch.setattr(card, "named", lambda *given: card.Heard(0.95, 0.875, 0.9375))
    monkeypatch.setattr(card, "named_alone", lambda *given: card.Heard(0.5, 0.25, 0.5))
    monkeypatch.setattr(card, "detected", lambda *given: card.Heard(0.9, 0.8, 0.85))
    lines = card.losses_table(Deaf(), "recordings").splitlines()
    assert lines[0] == "| recognised | before the codec | after it | after it, not quantised |"
    assert lines[2].endswith("classifier of the other folds | 0.950 | 0.875 | 0.938 |") and len(lines) == 6


def test_the_shipped_codec_loses_less_without_quantisation():
    before, after, not_quantised = card.detected(load_codec(), 32)
    assert before >= not_quantised > after > 0.7
