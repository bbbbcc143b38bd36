"""Limits: a config that asks for too much is refused before any memory is taken, and a job says what it will take."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from minigen.app import cli
from minigen.codec import Codec, CodecConfig
from minigen.engine import resources
from minigen.engine.errors import MinigenError
from minigen.engine.resources import (
    Requirements,
    amount,
    announce,
    check_model,
    disk_free,
    duration,
    memory_free,
    recipe_requirements,
    training_memory,
)
from minigen.lm import AudioLM, AudioLMConfig
from minigen.loss import PIECE


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_memory(monkeypatch):
    """A tensor of more than a gigabyte fails the test; on the meta device it takes none."""
    with torch.device("meta"):
        empty = torch.empty if torch.empty(1).is_meta else None  # PyTorch notes its own functions at the first use

    def watched(*size, **options):
        made = empty(*size, **options)
        assert made.device.type == "meta" or made.numel() < 2**28, made.shape
        return made

    monkeypatch.setattr(torch, "empty", watched)


HUGE = {"width": 2**20, "layers": 50, "ffn": 2**20, "codebook_size": 2**20}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 10**9}, "width is 1000000000"),
        ({"layers": 10**12}, "layers is 1000000000000"),
        ({"layers": 2000}, "layers is 2000"),
        ({"codebook_size": -1}, "codebook_size is -1"),
        ({"width": 256.0}, "width is 256.0"),
        ({"width": "256"}, "width is '256'"),
        ({"width": None}, "width is None"),
        ({"layers": True}, "layers is True"),
        ({"layers": [6]}, "layers is"),
        ({"dropout": math.nan}, "dropout is nan"),
        ({"width": "__import__('os').system('touch pwned')"}, "width is"),
        (HUGE, "."),
    ],
)
def test_a_config_that_asks_for_too_much_is_refused_on_one_line_before_memory_is_taken(
    change, says, folder, capsys, no_memory
):
    AudioLM(AudioLMConfig(width=32, layers=1, heads=2, ffn=64)).save_pretrained(folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(MinigenError, match=says) as caught:
        AudioLM.from_pretrained("model")
    assert "\n" not in str(caught.value) and not list(folder.glob("pwned"))


@pytest.mark.parametrize(
    "change",
    [{"width": 10**9}, {"blocks": 10**9}, {"n_fft": 2**20, "width": 2**20}, {"parts": 0}, {"hop": "320"},
     {"codebook_size": 2**20, "latent": 2**20}],
)  # fmt: skip
def test_a_codec_that_asks_for_too_much_is_refused_too(change, folder, no_memory):
    small = CodecConfig(parts=1, width=16, blocks=1, latent=8, num_codebooks=2, codebook_size=16)
    Codec(small).save_pretrained(folder / "codec")
    config = json.loads((folder / "codec" / "config.json").read_text())
    (folder / "codec" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(MinigenError) as caught:
        Codec.from_pretrained("codec")
    assert "\n" not in str(caught.value)


def test_a_model_is_weighed_without_being_made(no_memory):
    config = AudioLMConfig(width=64, layers=2, heads=2, ffn=128)
    assert check_model(lambda: AudioLM(config), "it") == sum(p.numel() for p in AudioLM(config).parameters())
    with pytest.raises(MinigenError, match=r"a terabyte needs 1\.1 TB, and .* of memory are free"):
        check_model(lambda: nn.Linear(2**19, 2**19, bias=False), "a terabyte")


def test_training_a_model_that_cannot_fit_is_refused_before_it_begins(folder, capsys, monkeypatch):
    import numpy as np
    from test_broken import write_tokens

    write_tokens(folder / "tokens")
    argv = "train tokens --valid tokens --out model --steps 1 --layers 100 --width".split()
    assert cli.main([*argv, "32768"]) == 2
    said = capsys.readouterr()
    assert "the training needs" in said.err and "of memory are free" in said.err and said.err.count("minigen: ") == 1
    monkeypatch.setattr(resources, "disk_free", lambda folder: 1000)
    assert cli.main("train tokens --valid tokens --out model --steps 1 --layers 1 --width 32".split()) == 2
    assert "of disk, model has 1.0 kB. Make room." in capsys.readouterr().err
    assert not (folder / "model").exists() and np.load(folder / "tokens" / "codes.npy").shape == (2, 4, 8)


def test_the_corpus_says_what_it_will_take_and_is_refused_where_it_cannot_fit(folder, capsys, monkeypatch):
    assert cli.main("corpus --out clips --clips 3 --seconds 1".split()) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("the corpus: 102 kB of disk (") and " free), about " in said
    monkeypatch.setattr(resources, "disk_free", lambda folder: 1000)
    assert cli.main("corpus --out other --clips 3".split()) == 2
    assert "Make room." in capsys.readouterr().err and not (folder / "other").exists()


def test_a_need_is_said_in_words_and_refused_where_there_is_less(monkeypatch):
    monkeypatch.setattr(resources, "memory_free", lambda: 8e9)
    monkeypatch.setattr(resources, "disk_free", lambda folder: 20e9)
    need = Requirements("training", 5_300_000, memory=4e9, disk=90e6, seconds=5000)
    assert str(need) == (
        "training: 5.3 M parameters, about 4.0 GB of memory (8.0 GB free), 90 MB of disk (20 GB free), about 83 min"
    )
    need.check()
    replace(need, memory=9e9, held=2e9).check()  # what is held need not be free
    assert "9.0 GB of memory (2.0 GB of it in use already, 8.0 GB free)" in str(replace(need, memory=9e9, held=2e9))
    with pytest.raises(MinigenError, match="needs 9.0 GB more, and 8.0 GB of memory are free"):
        replace(need, memory=11e9, held=2e9).check()
    for more in (replace(need, memory=9e9), replace(need, disk=30e9)):
        with pytest.raises(MinigenError):
            more.check()


def test_amounts_and_times_read_as_a_person_would_say_them():
    assert [amount(value) for value in (12, 1500, 12_345, 5_300_000, 2e12)] == [
        "12 ",
        "1.5 k",
        "12 k",
        "5.3 M",
        "2.0 T",
    ]
    assert [duration(value) for value in (4, 600, 7200)] == ["4 s", "10 min", "2.0 h"]


def test_what_is_free_is_measured(tmp_path):
    assert 1e6 < memory_free() < 1e14 and 1e6 < disk_free(tmp_path / "not" / "there") < 1e17


@pytest.mark.parametrize(("available", "free"), [(2**40, 4 * 2**30), (2**30, 2**30)])
def test_the_limit_of_a_container_counts_and_files_that_were_read_are_not_used_memory(monkeypatch, available, free):
    found = {("memory.max", ""): 8 * 2**30, ("memory.current", ""): 7 * 2**30}
    found |= {("memory.stat", "inactive_file "): 3 * 2**30}
    monkeypatch.setattr(resources, "_number", lambda file, key="": found[file.rpartition("/")[2], key])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    assert memory_free() == free


def test_numbers_of_the_kernel_are_read_from_their_line(tmp_path):
    (tmp_path / "stat").write_text("anon 12\ninactive_file 34\ninactive_file_x 5\n")
    (tmp_path / "max").write_text("max\n")
    assert resources._number(tmp_path / "stat", "inactive_file ") == 34
    assert resources._number(tmp_path / "max") == resources._number(tmp_path / "none") == 0


def test_memory_of_training_grows_with_everything_it_is_said_to_grow_with():
    base = dict(parameters=10**6, layers=2, width=64, ffn=256, rows=8, steps=50)
    least = training_memory(**base)
    assert all(training_memory(**{**base, name: 2 * value}) > least for name, value in base.items())
    assert training_memory(**{**base, "rows": 0}) == 28 * 10**6 + 3 * 4 * PIECE


def test_a_recipe_counts_its_weights_four_times_and_its_checkpoint_twice(tmp_path):
    need = recipe_requirements("training the judge", 1_000_000, 5e6, 9, tmp_path)
    assert (need.parameters, need.memory, need.disk, need.seconds) == (1_000_000, 21e6, 24e6, 540)


def test_a_need_is_said_before_the_job_and_one_that_cannot_fit_stops_it(capsys):
    announce(Requirements("a job", 5_300_000, seconds=90))
    assert capsys.readouterr().out == "a job: 5.3 M parameters, about 90 s\n"
    announce(Requirements("a job", seconds=90), progress=False)
    assert capsys.readouterr().out == ""
    with pytest.raises(MinigenError, match="a job needs 1000 TB"):
        announce(Requirements("a job", memory=1e15), progress=False)
