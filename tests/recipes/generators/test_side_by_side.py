"""The shipped generators on the same captions: controls once, each model once, a new one is added."""

import pytest
import standins
import torch

from minigen.corpus.clip import Clip
from minigen.engine.files import read_rows
from minigen.evaluation.measure import CONTROLS
from minigen.evaluation.per_caption import CaptionScores, make_evaluator
from minigen.generate import TextToAudio
from minigen.generators.denoiser import Denoiser
from minigen.generators.masked import MaskedGenerator
from minigen.recipes.generators import side_by_side
from minigen.recipes.generators.side_by_side import CAPTIONS, FOLDER, ROWS, digest, measure_all, models, outdated


@pytest.fixture
def evaluator():
    wavs = 0.1 * torch.randn(6, 1, 8000, generator=torch.Generator().manual_seed(0))
    clips = [Clip(str(row), "", 0.0, caption, f"{row}.wav") for row, caption in enumerate(["a dog", "rain", "a bell"])]
    reference = clips, list(wavs[3:].split(1))
    return make_evaluator(standins.BandJudge(), standins.BandTagger(), clips, wavs[:3], reference)


def load(name: str) -> TextToAudio:
    lm = standins.tiny_lm(1)
    generator = lm if name == "mini" else MaskedGenerator(Denoiser.from_language_model(lm))
    return TextToAudio(standins.tiny_codec(), standins.WordEncoder(), generator)


def test_rows_are_added_once_and_a_new_model_or_number_of_steps_later(evaluator, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "SECONDS", 0.5)
    old, new = {"mini": "a", "mini-masked": "b"}, {"mini": "a", "mini-masked": "c"}
    measure_all(tmp_path, evaluator, ["mini"], [], load, old)
    first = read_rows(tmp_path / ROWS)
    assert [row["model"] for row in first] == [*CONTROLS, "mini"]
    measure_all(tmp_path, evaluator, ["mini", "mini-masked"], [2], load, old)
    rows = read_rows(tmp_path / ROWS)
    assert rows[:6] == first
    assert [(row["model"], row["steps"], row["evaluations"]) for row in rows[6:]] == [
        ("mini-masked", "16", "32"), ("mini-masked", "2", "4")]  # fmt: skip
    assert all(float(row["seconds_one"]) > 0 for row in rows[5:])
    kept = read_rows(tmp_path / CAPTIONS)
    assert [(row["model"], row["steps"]) for row in kept] == [(row["model"], row["steps"]) for row in rows]
    assert all(len(CaptionScores.read(row).values["clap"]) == 3 for row in kept)
    assert outdated(rows, old) == [] and outdated(rows, new) == ["mini-masked"]
    measure_all(tmp_path, evaluator, ["mini", "mini-masked"], [], load, new)
    again = read_rows(tmp_path / ROWS)
    assert again[:6] == first and [(row["steps"], row["weights"]) for row in again[6:]] == [("16", "c")]
    assert len(read_rows(tmp_path / CAPTIONS)) == len(again)


def test_the_digest_is_that_of_the_weights():
    assert len({digest(name) for name in models()}) == len(models()) and len(digest("mini")) == 12


def test_the_rows_of_the_repository_belong_to_shipped_models_and_have_their_scores():
    rows, scores = read_rows(FOLDER / ROWS), read_rows(FOLDER / CAPTIONS)
    assert [row["model"] for row in rows[:5]] == list(CONTROLS)
    assert {row["model"] for row in rows[5:]} <= set(models())
    assert [(row["model"], row["steps"]) for row in rows] == [(row["model"], row["steps"]) for row in scores]
