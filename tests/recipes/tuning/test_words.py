"""Figures of learnt words: one recording of each kind, likeness beside plain captions, rain beside the word."""

import csv

import pytest
import torch
from standins import BandJudge, BandTagger

from minigen.audio import save_audio
from minigen.conditioning.inversion import invert
from minigen.generate import TextToAudio
from minigen.recipes.tuning import card, words


def recordings(folder):
    """Two recordings of dogs and one of rain, in class folders."""
    for name, seed in (("001 - Dog bark/1-1-A", 0), ("001 - Dog bark/1-2-A", 1), ("002 - Rain/1-3-A", 2)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(seed))
        save_audio(folder / f"{name}.wav", noise, 16000)
    return folder


def test_one_recording_of_each_kind_is_taken(tmp_path):
    found = words.one_of_each_kind(recordings(tmp_path))
    assert [(each.kind, each.path.name) for each in found] == [("dog_bark", "1-1-A.wav"), ("rain", "1-3-A.wav")]


def test_the_summary_is_the_paired_difference_and_leaves_the_rain_out():
    values = (("dog_bark", 0.5, 0.6, 0.6, 1.0), ("rooster", 0.3, 0.6, 0.5, 0.5), ("rain", 0.4, 0.4, 0.4, 0.0))
    rows = [dict(zip(("kind", "plain", "began", "word", "rain"), each, strict=True)) for each in values]
    text = words.summary(rows)
    assert "3 recordings: less that of the plain caption of the kind +0.100 [+0.000, +0.200]" in text
    assert "the caption that it began as -0.033 [-0.100, +0.000]" in text and "Rain is heard in 75% of" in text


def test_a_recording_becomes_a_row_and_the_rows_a_part_of_the_card(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "FIGURES", tmp_path / "data/words.csv")
    monkeypatch.setattr(card, "CARD", tmp_path / "data/card.md")
    for module, name in ((card.preference, "FIGURES"), (card.preference, "GUIDED"), (card.new_kind, "FIGURES"),
                         (card.memory, "FIGURES")):  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path / "none.csv")
    monkeypatch.setattr(words, "SOUNDS", 2)
    monkeypatch.setattr(words, "SECONDS", 1.0)
    monkeypatch.setattr(words, "closest_caption", lambda *sound: "a dog barks")
    monkeypatch.setattr(words, "invert", lambda *parts, **how: invert(*parts, steps=1, **how))
    monkeypatch.setattr(words, "load_judge", BandJudge)
    monkeypatch.setattr(words, "load_tagger", BandTagger)
    tta = TextToAudio.from_pretrained("mini")
    monkeypatch.setattr(words.TextToAudio, "from_pretrained", lambda name: tta)
    words.main(str(recordings(tmp_path / "esc10")))
    with words.FIGURES.open() as file:
        dog, rain = csv.DictReader(file)
    assert (dog["kind"], rain["kind"], dog["like"]) == ("dog_bark", "rain", "a dog barks")
    assert -1 <= float(dog["word"]) <= 1 and 0 <= float(dog["rain"]) <= 1
    card.main()
    assert f"| dog_bark | a dog barks | {float(dog['loss_before']):.3f} →" in card.CARD.read_text()
    words.FIGURES.unlink()
    with pytest.raises(Exception, match="no class folder"):
        words.main(str(tmp_path / "data"))
