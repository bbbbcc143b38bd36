"""Two hundred random command lines in one process: each ends with a status and at most one line, never a traceback.

The arguments are read and checked as always. Only the work behind them is replaced (training, generation, servers): it
answers at once. Files, folders, corpora and codes that the arguments name are real, damaged or missing ones.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path

import pytest
import standins
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from minigen import generate
from minigen.app import cli, commands, measuring, remaking
from minigen.audio import save_audio
from minigen.corpus import LatentSet, TokenSet
from minigen.corpus.synthesis.builtin import build_corpus
from minigen.corpus.tokens import tokenize
from minigen.lm import find_generator_folder

NUMBERS = ["-1", "0", "0.5", "1", "2", "3", "12", "31", "70000", "1e9", "1e400", "2147483648", str(10**30), "nan",
           "-inf", "four", "0x10", "１", "1_000"]  # fmt: skip
WORDS = ["", " ", "-", "--", "-x", "--seed", "rain", "a dog barks", "雨の音", "\udcff", "%s", "{0}", "mini",
         "mini-dropout", "facebook/none", "train", "validation", "test", "max", "judge", "rain " * 300]  # fmt: skip
PLACES = ["clips", "clips/train.csv", "codes", "sound.wav", "out.wav", "out.flac", "text.wav", "text.csv", "empty",
          "empty.parquet", "missing", "missing/deep", "/proc/none", "/dev/null", ".", "..", "a" * 300]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a corpus, codes and files that are not what they seem; the work is replaced."""
    place = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place):
        build_corpus("clips", 24, seconds=1.0, workers=1, progress=False)
        save_audio("sound.wav", torch.zeros(8000) + 0.1)
        for name in ("text.wav", "text.csv", "empty.parquet"):
            Path(name).write_text("no sound\n" * (name != "empty.parquet"))
        Path("empty").mkdir()
        codec = standins.tiny_codec()
        from minigen.corpus import read_corpus

        clips = read_corpus("clips", "train", None, 1.0, codec.sample_rate)
        tokenize(clips, codec, "codes", progress=False)
        tokenize(clips, codec, "codes-with-latents", progress=False, latents=True)
        for name, answer in replaced().items():
            patch.setattr(name, answer)
        for module in (commands, measuring, remaking):
            patch.setattr(module, "default_corpus", lambda: Path("clips"))
        yield place


def replaced() -> dict:
    """The work behind the commands, by the name that a command imports it from, and what it answers instead."""
    tta = generate.TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(1))

    def tokens(*_, latents=False, **__):
        return LatentSet.open("codes-with-latents") if latents else TokenSet.open("codes")

    def load(name, *_, **__):
        find_generator_folder(name)
        return tta

    def make(self, captions, *_, **__):
        return torch.zeros(1 if isinstance(captions, str) else len(captions), 1, 16000)

    def bench(folder, *_, **__):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.md").write_text("the table\n")

    def make_test(folder, recipe, load_clips, load_model):
        return load_clips()

    def nothing(*_, **__):
        return []

    return {
        "minigen.corpus.synthesis.builtin.build_corpus": nothing,
        "minigen.corpus.tokens.tokenize": tokens,
        "minigen.train.train": lambda *_, **__: [{"valid": 1.0, "valid_no_text": 1.0}],
        "minigen.train.seconds_per_step": lambda *_, **__: 0.5,
        "minigen.generate.TextToAudio.from_pretrained": load,
        "minigen.generate.TextToAudio.generate": make, "minigen.app.player.play_file": nothing,
        "minigen.evaluation.clap.load_judge": lambda name: standins.BandJudge(),
        "minigen.evaluation.clap.load_tagger": lambda name: standins.BandTagger(),
        "minigen.evaluation.measure.generate_for": lambda tta, captions, *_, **__: torch.zeros(len(captions), 1, 16000),
        "minigen.evaluation.listening.make.make_test": make_test, "minigen.evaluation.listening.server.serve": nothing,
        "minigen.evaluation.study.run.run_study": nothing, "minigen.app.demo.run.run_demo": nothing,
        "minigen.app.bench.run_bench": bench, "minigen.app.doctor.run_doctor": lambda mend: 1 if mend else 0,
        "minigen.recipes.codec.train.train_codec": nothing, "minigen.recipes.text.order.teach_order": nothing,
        "minigen.recipes.text.train.train_text": nothing, "minigen.recipes.judge.train.train_judge": nothing,
        "minigen.recipes.judge.train.train_tagger": nothing, "minigen.recipes.corpus.card.make_card": lambda *_: {},
        "minigen.app.tuning.finetune._tune": nothing, "minigen.app.tuning.prefer._tune": nothing,
        "minigen.interop.audiocraft.convert_audiocraft": nothing, "minigen.app.interop_report.print_report": nothing,
    }  # fmt: skip


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser by name."""
    return next(each.choices for each in cli._parser()._actions if isinstance(each, argparse._SubParsersAction))


def accepted(action: argparse.Action) -> list[str]:
    """The values among ours that an option accepts."""
    if action.choices:
        return list(action.choices)
    found = []
    for text in NUMBERS + WORDS + PLACES:
        with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
            (action.type or str)(text)
            found.append(text)
    return found


KNOWN = parsers()
ACTIONS = {name: [each for each in parser._actions if each.dest != "help"] for name, parser in KNOWN.items()}
FITTING = {(name, each.dest): accepted(each) for name, actions in ACTIONS.items() for each in actions}
any_value = st.sampled_from(NUMBERS + WORDS + PLACES) | st.text(max_size=5)


@st.composite
def command_lines(draw) -> list[str]:
    """Mostly a command with values that its options accept; now and then another value, option or command."""
    name = draw(st.sampled_from([*KNOWN]))
    line = [name]
    for action in ACTIONS[name]:
        if draw(st.integers(0, 3)) == 0 or (action.required and draw(st.integers(0, 9))):
            line += action.option_strings[-1:]
            if action.nargs != 0:
                line.append(draw(st.sampled_from(FITTING[name, action.dest])))
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(line)))
        stray = draw(any_value | st.sampled_from(["--loud", "-o", "--help", "--version", "sing"]))
        line[place : place + draw(st.integers(0, 1))] = [stray]
    return [word for word in line if word != "--mend"]


def run(line: list[str]) -> tuple[int, str, str]:
    """Status, output and errors of a command, on a terminal that knows ASCII alone, with captions on its input."""
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"rain\n\na dog barks\n\xff\xfe\n")))
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            status = cli.main(line)
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return status, *texts


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(line=command_lines())
def test_a_random_command_line_ends_with_a_status_and_no_traceback(folder, line):
    status, out, err = run(line)
    event(f"status {status}")
    assert status in (0, 1, 2, 130), (status, err)
    assert "Traceback" not in out + err and "unexpected" not in err, err
    if status == 2:
        assert err.splitlines()[-1].startswith("minigen: "), err


def test_a_fault_of_the_program_would_be_noticed(folder, monkeypatch):
    monkeypatch.setattr("minigen.app.doctor.run_doctor", lambda mend: 1 / 0)
    status, _, err = run(["doctor"])
    assert status == 1 and "unexpected ZeroDivisionError" in err
