"""Shipping of the generators: a finished training becomes a model with a card whose figures come from its files."""

import json
import shutil

import pytest
import standins
import torch

from minigen.engine.errors import MinigenError
from minigen.generators.denoiser import Denoiser
from minigen.recipes.generators.ship import FIGURES, bring, card

TABLE = """name,clips,recall,recall_low,recall_high,of_codec,clap,kl,fad,fad_infinity,kernel,order,diversity
codec reconstruction,4,0.8,0.7,0.9,1.0,0.75,0.3,50,40,5,1,0.9
silence,4,0,0,0,0,0,5,90,90,9,,0
"mini-masked, guidance 3",4,0.5,0.4,0.6,0.625,0.61,1.2,70,60,6,,0.95
"""


@pytest.fixture
def training(tmp_path):
    """The files of a finished training of a small masked model."""
    torch.manual_seed(0)
    folder = tmp_path / "training"
    Denoiser.from_language_model(standins.tiny_lm(1)).save_pretrained(folder)
    (folder / "pipeline.json").write_text('{"codec": "mini", "text": "mini", "generator": "masked"}')
    settings = {"steps": 300, "batch_size": 16, "learning_rate": 0.005, "text_dropout": 0.1}
    (folder / "training.json").write_text(json.dumps(settings))
    (folder / "log.csv").write_text("step,minutes,valid,valid_no_text\n0,0.0,6.1904,6.2\n300,20.04,4.4,4.5\n")
    return folder


def shipped(training, top, *starts):
    for start in starts:
        bring("mini-masked", training, start, top)
    (top / "data/generators/mini-masked" / FIGURES).write_text(TABLE)
    return card("mini-masked", top)


def test_a_card_states_what_was_trained_and_what_was_measured(training, tmp_path):
    text = shipped(training, tmp_path, "mini")
    assert "--generator masked --from mini --batch-size 16 --steps 300 --learning-rate 0.005" in text
    assert "in 20 minutes" in text and "4800 clips\nseen, 0.4 epochs" in text
    assert "[[0, 6.19, 6.2], [300, 4.4, 4.5]]" in text
    assert (
        "| mini-masked, guidance 3 | 4 | 50 [40, 60] | 62 | 0.610 | 1.200 | 70.0 | 60.0 | 6.00 | n/a | 0.950 |" in text
    )
    assert "codec reconstruction" in text and "silence" not in text
    count = sum(p.numel() for p in Denoiser.from_pretrained(training).parameters())
    assert f"{count / 1e6:.1f} M parameters" in text


def test_a_cascade_is_two_trainings_with_a_curve_each(training, tmp_path):
    second = training / "cascader"
    shutil.copytree(training, second)
    (training / "pipeline.json").write_text('{"codec": "mini", "text": "mini", "generator": "cascade"}')
    (second / "pipeline.json").write_text('{"codec": "mini", "text": "mini", "generator": "cascader"}')
    (second / "log.csv").write_text("step,minutes,valid,valid_no_text\n0,0.0,1.0,1.0\n300,9.6,0.7,0.8\n")
    (second / "checkpoint.safetensors").touch()
    text = shipped(training, tmp_path, "mini")
    assert "--generator coarse --from mini " in text and "--generator cascader --from stage-1 " in text
    assert "--out stage-1/cascader\n" in text
    assert "in 30 minutes" in text and "9600 clips" in text
    assert "[[0, 6.19, 6.2], [300, 4.4, 4.5]]\n\n[[0, 1.0, 1.0], [300, 0.7, 0.8]]" in text
    assert not (tmp_path / "data/generators/mini-masked/cascader/checkpoint.safetensors").exists()


def test_the_parts_of_a_model_in_folders_of_their_own_come_along_and_count(training, tmp_path):
    Denoiser.from_pretrained(training).save_pretrained(training / "style")
    text = shipped(training, tmp_path, "mini")
    count = sum(
        p.numel() for p in Denoiser.from_pretrained(tmp_path / "data/generators/mini-masked/style").parameters()
    )
    assert f"{2 * count / 1e6:.1f} M parameters" in text


def test_a_training_that_goes_on_from_the_shipped_weights_is_a_second_stage(training, tmp_path):
    text = shipped(training, tmp_path, "mini", "mini-masked")
    assert "--from mini " in text and "--from mini-masked " in text and "9600 clips" in text and "in 40 minutes" in text


def test_a_stage_that_trained_a_part_is_named(training, tmp_path):
    bring("mini-masked", training, "mini", tmp_path, trained="conditioner")
    text = shipped(training, tmp_path, "mini-masked")
    assert "--generator conditioner --from mini " in text and "--generator masked --from mini-masked " in text


def test_a_training_from_another_model_begins_the_list_anew(training, tmp_path):
    assert "4800 clips" in shipped(training, tmp_path, "mini", "mini-masked", "mini")


def test_what_is_not_a_finished_training_is_not_shipped(training, tmp_path):
    (training / "log.csv").unlink()
    with pytest.raises(MinigenError, match="lacks log.csv"):
        bring("mini-masked", training, "mini", tmp_path)
    assert not (tmp_path / "data").exists()
