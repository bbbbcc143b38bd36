"""`minigen play`, and `minigen generate --stdin`: a player of the system, one file a line, lines that fail."""

import io
import os
import sys
from pathlib import Path

import pytest
import torch

from minigen import generate
from minigen.app import cli
from minigen.audio import load_audio, save_audio
from minigen.engine.errors import MinigenError


class Tones:
    """Stands in for TextToAudio: a ramp as high as the caption is long; some captions are refused."""

    class codec:
        sample_rate = 16000

    class encoder:
        @staticmethod
        def tokens(caption):
            return [*caption, "</s>"]

    class generator:
        name = "language_model"

    def __init__(self):
        self.batches = []

    def generate(self, captions, seconds, *sampling, **_):
        captions = [captions] if isinstance(captions, str) else captions
        self.batches.append((len(captions), *sampling))
        for i, caption in enumerate(captions):
            if "bad" in caption or "\udcff" in caption:
                raise MinigenError(f"caption {i} is bad ({caption!r})")
        ramp = torch.linspace(-1, 1, round(16000 * seconds))
        return torch.stack([len(caption) / 100 * ramp for caption in captions]).unsqueeze(1)


@pytest.fixture(autouse=True)
def tones(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with no player on the path and no sounddevice."""
    model = Tones()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: model)
    return model


def player(name, status=0):
    """A program of that name on the path: writes what it was asked to play into NAME.log."""
    place = Path("bin") / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f'#!/bin/sh\necho "$@" >> {Path.cwd()}/{name}.log\nexit {status}\n')
    place.chmod(0o755)


def typed(monkeypatch, content: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def height(file):
    """The length of the caption that a file of `Tones` was made from."""
    return round(100 * float(load_audio(file).max()))


# play


@pytest.mark.parametrize("name", ["aplay", "afplay", "ffplay"])
def test_play_writes_the_file_and_gives_it_to_the_player_of_the_system(name, capsys):
    player(name)
    assert cli.main(["play", "a dog barks", "--seconds", "0.5", "-o", "dog.wav"]) == 0
    assert load_audio("dog.wav").shape[-1] == 8000
    assert Path(f"{name}.log").read_text().split()[-1] == str(Path("dog.wav").absolute())
    assert "cannot play" not in capsys.readouterr().out


def test_without_a_player_the_file_is_named(capsys):
    assert cli.main(["play", "a dog barks", "--seconds", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "cannot play sound.wav here" in shown and "sounddevice" in shown and Path("sound.wav").is_file()


def test_a_player_that_fails_is_followed_by_the_next(capsys):
    player("aplay", status=1)
    player("ffplay")
    assert cli.main(["play", "rain", "--seconds", "0.5"]) == 0
    assert Path("aplay.log").is_file() and Path("ffplay.log").is_file()
    assert "cannot play" not in capsys.readouterr().out


def test_aplay_is_given_no_flac_which_it_plays_as_noise():
    player("aplay")
    player("ffplay")
    assert cli.main(["play", "rain", "--seconds", "0.5", "-o", "rain.flac"]) == 0
    assert not Path("aplay.log").exists() and Path("ffplay.log").is_file()


def test_sounddevice_comes_first_where_it_is_installed(monkeypatch):
    played = []

    class Loudspeaker:
        @staticmethod
        def play(samples, rate, blocking):
            played.append((len(samples), rate, blocking))

    player("aplay")
    monkeypatch.setitem(sys.modules, "sounddevice", Loudspeaker)
    assert cli.main(["play", "rain", "--seconds", "0.5"]) == 0
    assert played == [(8000, 16000, True)] and not Path("aplay.log").exists()


def test_without_a_loudspeaker_sounddevice_gives_way(monkeypatch):
    class NoLoudspeaker:
        @staticmethod
        def play(*_, **__):
            raise RuntimeError("Error querying device -1")  # PortAudioError is one

    player("aplay")
    monkeypatch.setitem(sys.modules, "sounddevice", NoLoudspeaker)
    assert cli.main(["play", "rain", "--seconds", "0.5"]) == 0
    assert Path("aplay.log").is_file()


# generate --stdin


def test_each_line_becomes_a_file_of_its_number_in_batches(tones, monkeypatch, capsys):
    captions = ["rain", "a dog barks", "", "a siren wails far away", "wind"]
    typed(monkeypatch, "\n".join(captions).encode())
    assert cli.main("generate --stdin --batch-size 3 --seconds 0.5 --seed 7 -o out/clip.flac".split()) == 0
    assert [batch[0] for batch in tones.batches] == [3, 1]
    assert [batch[-1] for batch in tones.batches] == [7, 11]  # noise of its own for each batch
    files = {f"clip-{i}.flac": len(caption) for i, caption in enumerate(captions, 1) if caption}
    assert {file.name: height(file) for file in Path("out").iterdir()} == files
    shown = capsys.readouterr()
    assert "4 files in out" in shown.out and "4/4" in shown.err and "failed" not in shown.err


def test_a_line_that_fails_is_named_and_the_others_are_made(monkeypatch, capsys):
    typed(monkeypatch, b"rain\na bad one\nwind\n\xff\nsea\n")
    assert cli.main("generate --stdin --seconds 0.5".split()) == 1
    assert sorted(file.name for file in Path().glob("*.wav")) == ["sound-1.wav", "sound-3.wav", "sound-5.wav"]
    shown = capsys.readouterr()
    assert "3 files" in shown.out and "minigen: line 2: caption 0 is bad ('a bad one')" in shown.err
    assert shown.err.rstrip().endswith("minigen: 2 of 5 captions failed: line 2, 4.")


def test_a_file_that_cannot_be_written_fails_alone(monkeypatch, capsys):
    Path("sound-2.wav").mkdir()
    typed(monkeypatch, b"rain\nwind\nsea\n")
    assert cli.main("generate --stdin --seconds 0.5".split()) == 1
    assert Path("sound-1.wav").is_file() and Path("sound-3.wav").is_file()
    assert "1 of 3 captions failed: line 2." in capsys.readouterr().err


def test_names_sort_as_the_lines_do(monkeypatch):
    typed(monkeypatch, b"rain\n" * 12)
    assert cli.main("generate --stdin --seconds 0.1".split()) == 0
    names = sorted(file.name for file in Path().glob("*.wav"))
    assert names[0] == "sound-01.wav" and names[-1] == "sound-12.wav" and len(names) == 12


def test_a_prompt_serves_every_line(tones, monkeypatch):
    save_audio("start.wav", 0.1 * torch.ones(1, 1600))
    typed(monkeypatch, b"rain\nwind\n")
    assert cli.main("generate --stdin --seconds 0.5 --prompt start.wav".split()) == 0
    assert tones.batches[0][-2].shape == (1, 1, 1600)


@pytest.mark.parametrize(
    "argv, content, word",
    [
        (["generate", "rain", "--stdin"], b"wind", "either"),
        (["generate"], b"", "either"),
        (["generate", "--stdin"], b" \n\n", "no captions"),
        (["generate", "--stdin", "--batch-size", "0"], b"wind", "0"),
        (["generate", "--stdin", "-o", "wind.mp3"], b"wind", "wind.mp3"),
        (["play"], b"", "caption"),
        (["play", ""], b"", "empty"),
        (["play", "rain", "falls"], b"", 'minigen play "a dog barks"'),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(argv, content, word, monkeypatch, capsys):
    typed(monkeypatch, content)
    assert cli.main(argv) == 2
    shown = capsys.readouterr()
    assert word in shown.err and shown.err.count("\n") == 1 and shown.out == "" and os.listdir() == []
