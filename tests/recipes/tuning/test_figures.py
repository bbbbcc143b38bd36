"""Recipes of the tuning figures: runs are pooled, recordings made, a new kind counted; the card has the tables."""

import csv
from pathlib import Path

import pytest
import torch
from standins import BandJudge, BandTagger, WordEncoder, tiny_codec, tiny_lm

from minigen.app.tuning.prefer import MEASURED
from minigen.corpus import read_corpus
from minigen.corpus.synthesis.builtin import build_corpus
from minigen.engine.errors import MinigenError
from minigen.evaluation.change import measure_changes, save_rows
from minigen.evaluation.measure import Yardstick
from minigen.generate import TextToAudio
from minigen.recipes.tuning import card, memory, new_kind, preference


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The places of the tables and the card, in a folder of the test."""
    monkeypatch.setattr(preference, "FIGURES", tmp_path / "data/preference.csv")
    monkeypatch.setattr(preference, "GUIDED", tmp_path / "data/preference_guided.csv")
    monkeypatch.setattr(new_kind, "FIGURES", tmp_path / "data/new_kind.csv")
    monkeypatch.setattr(memory, "FIGURES", tmp_path / "data/memory.csv")
    monkeypatch.setattr(card, "CARD", tmp_path / "data/card.md")
    return tmp_path


def finished(folder, seed: int) -> list:
    """A run of `minigen prefer` whose sounds are random: its two rows."""
    clips = read_corpus(corpus(folder.parent), "test", seconds=1.0)
    generator = torch.Generator().manual_seed(seed)
    real = torch.cat([clips.load(row) for row in range(len(clips))])
    yardstick = Yardstick(BandJudge(), BandTagger(), list(real.split(1)))
    sounds = [torch.rand(real.shape, generator=generator) for _ in range(2)]
    rows = [
        yardstick.measure(name, wav, clips.clips, real) for name, wav in zip(("before", "after"), sounds, strict=True)
    ]
    save_rows(folder / MEASURED, rows, yardstick.reference)
    return rows


def corpus(folder):
    return build_corpus(folder / "corpus", clips=40, seconds=1.0, workers=1, progress=False)


def test_the_runs_of_several_seeds_become_one_table_and_the_card_has_its_figures(tables, monkeypatch, capsys):
    folders = [tables / f"preferred-{seed}" for seed in range(2)]
    rows = [finished(folder, seed) for seed, folder in enumerate(folders)]
    monkeypatch.setattr("sys.argv", ["preference", *map(str, folders)])
    preference.main()
    changes = preference.pool(folders)
    before, after = zip(*rows, strict=True)
    assert (
        changes["clap"]
        == measure_changes(list(before), list(after), torch.zeros(3, before[0].features.shape[1]))["clap"]
    )
    card.main()
    text = card.CARD.read_text()
    for name, digits in (("clap", 3), ("recall", 3), ("fad", 1), ("diversity", 3)):
        change = changes[name].change
        assert f"{change.mean:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}]" in text
        assert f"{change.seeds[0]:+.{digits}f}, {change.seeds[1]:+.{digits}f}" in text
    assert "A kind that" not in text and "measured with guidance 3" not in text
    monkeypatch.setattr("sys.argv", ["preference", "guided", *map(str, folders)])
    preference.main()
    card.main()
    assert "measured with guidance 3" in card.CARD.read_text()
    assert preference.GUIDED.read_text() == preference.FIGURES.read_text()
    with pytest.raises(MinigenError, match="no finished run of minigen prefer in elsewhere"):
        preference.pool([folders[0], Path("elsewhere")])


def test_recordings_have_captions_and_unlike_ones_measure_them(tables, monkeypatch):
    new_kind.record(tables / "whistles")
    recordings = read_corpus(tables / "whistles", "train")
    assert len(recordings) + len(read_corpus(tables / "whistles", "test")) <= new_kind.RECORDINGS
    assert set(recordings.captions) <= set(new_kind.CAPTIONS) and recordings.seconds == 4.0
    assert len(set(new_kind.SEEDS.values())) == 3


def test_a_model_that_has_not_changed_is_measured_as_unchanged(tables, monkeypatch):
    pipeline = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))
    for name, value in (("load_judge", BandJudge), ("load_tagger", BandTagger)):
        monkeypatch.setattr(new_kind, name, value)
    monkeypatch.setattr(new_kind.TextToAudio, "from_pretrained", lambda *names, adapter=None: pipeline)
    short = new_kind.generate_for
    monkeypatch.setattr(new_kind, "generate_for", lambda tta, captions, **how: short(tta, captions, 0.3, **how))
    (tables / "tuned").mkdir()
    (tables / "tuned/log.csv").write_text("step,minutes\n0,0\n30,1.5\n")
    monkeypatch.setattr(new_kind, "CLIPS", 4)
    new_kind.measure(tables / "tuned", str(corpus(tables)))
    (row,) = csv.DictReader(new_kind.FIGURES.open())
    assert (row["clips"], row["steps"], row["minutes"]) == ("4", "30", "1.5")
    assert row["before"] == row["after"] and row["unasked_before"] == row["unasked_after"]
    assert float(row["recall_change"]) == 0 and 0 <= float(row["detector_hits"]) <= 1
    card.main()
    assert "30 steps in 1.5 minutes" in card.CARD.read_text()
    with pytest.raises(MinigenError, match=r"holds no log\.csv"):
        new_kind.measure(tables / "nowhere", "")


def test_a_training_of_another_size_adds_a_row_and_one_of_the_same_size_replaces_its_row(tables, monkeypatch):
    monkeypatch.setattr(memory, "FRAMES", 12)
    big = memory.model
    monkeypatch.setattr(memory, "model", lambda layers, width: big(1, 64))
    for layers in (3, 1, 3):
        monkeypatch.setattr("sys.argv", ["memory", str(layers)])
        memory.main()
    rows = list(csv.DictReader(memory.FIGURES.open()))
    assert [row["layers"] for row in rows] == ["1", "3"]
    assert all(0 < int(row["weights"]) < int(row["said"]) for row in rows) and all(int(row["peak"]) for row in rows)
    card.main()
    assert f"{int(rows[0]['said']) / 1e9:.2f} GB" in card.CARD.read_text()
