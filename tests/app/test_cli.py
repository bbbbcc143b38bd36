"""The command line: every command explains itself, every mistake is one line, nothing is half-written."""

import json
import os
import resource
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standins
import torch

from minigen import generate, lm
from minigen.app import cli, commands, preflight
from minigen.audio import load_audio, save_audio
from minigen.corpus import TokenSet
from minigen.engine.errors import MinigenError
from minigen.engine.weights import read_tensors
from minigen.evaluation import clap, measure
from minigen.generators.denoiser import Denoiser
from minigen.generators.latent_diffusion import LatentConfig
from minigen.generators.masked import MaskedGenerator
from minigen.lm import AudioLM, AudioLMConfig

COMMANDS = ["corpus", "tokenize", "train", "finetune", "prefer", "generate", "play", "learn-word", "inpaint",
            "extend", "vary", "refine", "evaluate", "compare", "study", "listen", "demo", "bench", "doctor",
            "interop", "train-codec",
            "train-text", "train-judge", "corpus-card"]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, where the defaults (build/...) lead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIGEN_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test: the mistake has to be found before."""

    def refuse(*_):
        raise AssertionError("a model was loaded before the arguments were looked at")

    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", refuse)


class HalfSilence:
    """Stands in for TextToAudio: remembers what it was asked for and answers with a ramp."""

    class codec:
        sample_rate = 16000

    class generator:
        name = "language_model"

    class encoder:
        @staticmethod
        def tokens(caption):
            return [f"<0x{byte:02X}>" if byte > 127 else chr(byte) for byte in caption.encode()] + ["</s>"]

    def generate(self, *asked, **options):
        self.asked = asked
        return torch.linspace(-0.5, 0.5, round(16000 * asked[1])).view(1, 1, -1)


@pytest.fixture
def stand_in(monkeypatch):
    model = HalfSilence()
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: model)
    return model


def refused(capsys, *argv) -> str:
    """Run a command that must be refused: status 2 and one line on stderr, nothing on stdout; returns the line."""
    before = everything()
    status = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    assert status == 2, (status, err)
    assert err.startswith("minigen: ") and err.count("\n") == 1 and "Traceback" not in err
    assert out == ""
    assert everything() == before, "something was written"
    return err


def everything() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*") if path.is_file()}


# help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example_that_parses(command, capsys):
    assert cli.main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    example = shown.split("Example: minigen ")[1]
    options = cli._parser().parse_args(shlex.split(example))
    assert options.run.__name__.replace("_", "-") == command and options.run.__doc__
    assert "None" not in shown


def test_the_list_of_commands_follows_the_chain(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n    {command}") for command in COMMANDS]
    assert places == sorted(places)


def test_the_version_is_the_packages(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("minigen 0.")


def test_every_command_needs_no_argument_but_those_that_work_on_a_sound_or_a_caption():
    for command in COMMANDS:
        if command not in ("play", "finetune", "learn-word", "inpaint", "extend", "vary", "refine"):
            assert cli._parser().parse_args([command]).run


# mistakes


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "command"),
        (["sing"], "sing"),
        (["generate"], "caption"),
        (["generate", ""], "empty"),
        (["generate", "  \n "], "empty"),
        (["generate", "rain " * 10_000], "10,000 words"),
        (["generate", "rain", "--seconds", "0"], "0"),
        (["generate", "rain", "--seconds", "-1"], "-1"),
        (["generate", "rain", "--seconds", "31"], "31"),
        (["generate", "rain", "--seconds", "nan"], "nan"),
        (["generate", "rain", "--seconds", "four"], "four"),
        (["generate", "rain", "--guidance", "inf"], "inf"),
        (["generate", "rain", "--temperature", "-1"], "-1"),
        (["generate", "rain", "--top-k", "2.5"], "2.5"),
        (["generate", "rain", "--top-p", "1.5"], "1.5"),
        (["generate", "rain", "--seed", "-1"], "-1"),
        (["generate", "rain", "--loud"], "--loud"),
        (["generate", "rain", "-o", "rain.mp3"], "rain.mp3"),
        (["generate", "rain", "-o", "/proc/rain.wav"], "/proc/rain.wav"),
        (["generate", "rain", "--prompt", "nowhere.wav"], "nowhere.wav"),
        (["corpus", "--clips", "2"], "2"),
        (["corpus", "--seconds", "0"], "0"),
        (["corpus", "--out", "/proc/corpus"], "/proc/corpus"),
        (["tokenize", "nowhere"], "nowhere"),
        (["tokenize", "nowhere", "--codec", "nocodec"], "nocodec"),
        (["tokenize", "nowhere", "--mix", "-1"], "-1"),
        (["train", "nowhere"], "nowhere"),
        (["train", "--steps", "0"], "0"),
        (["train", "--pooling", "min"], "min"),
        (["evaluate", "--clips", "1"], "1"),
        (["evaluate", "--data", "nowhere"], "nowhere"),
        (["compare", "nomodel", "--data", "nowhere"], "no"),
        (["compare", "mini", "mini"], "the same twice"),
        (["compare", "mini", "--guidance", "1", "1.0"], "the same twice"),
        (["compare", "mini", "--steps", "4"], "Leave out --steps"),
        (["compare", "mini", "--steps", "4", "4", "--guidance", "3"], "the same twice"),
        (["evaluate", "--steps", "4"], "Leave out --steps"),
        (["train-codec", "--from", "nocodec"], "nocodec"),
        (["train-judge", "--real", "nowhere"], "nowhere"),
        (["listen", "--models", "nomodel", "mini"], "nomodel"),
        (["listen", "--models", "mini-dropout"], "two or more"),
        (["listen", "--guidance", "1", "2", "3"], "3 guidance scales"),
        (["listen", "--port", "70000"], "70000"),
        (["listen", "/proc/test"], "/proc/test"),
        (["listen", "nowhere", "--report"], "nowhere"),
        (["demo", "--minutes", "0"], "0"),
        (["demo", "--out", "/proc/demo"], "/proc/demo"),
        (["demo", "--data", "nowhere"], "nowhere"),
        (["train-judge", "--part", "jury"], "jury"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_value_and_nothing_is_written(argv, says, capsys, no_model):
    assert says in refused(capsys, *argv)


def test_an_output_below_a_file_or_on_a_folder_is_refused_before_the_model_loads(capsys, no_model, empty_folder):
    (empty_folder / "notes").write_text("mine")
    (empty_folder / "folder.wav").mkdir()
    assert "notes" in refused(capsys, "generate", "rain", "-o", "notes/rain.wav")
    assert "folder.wav" in refused(capsys, "generate", "rain", "-o", "folder.wav")
    assert "notes" in refused(capsys, "corpus", "--out", "notes")
    assert (empty_folder / "notes").read_text() == "mine"


def test_a_prompt_as_long_as_the_clip_or_not_audio_is_refused_before_the_model_loads(capsys, no_model, empty_folder):
    save_audio("long.wav", torch.zeros(16000) + 0.1)
    (empty_folder / "text.wav").write_text("no sound")
    assert "1.00 s" in refused(capsys, "generate", "rain", "--seconds", "1", "--prompt", "long.wav")
    assert "text.wav" in refused(capsys, "generate", "rain", "--prompt", "text.wav")


def test_a_corpus_without_audio_is_refused(capsys, empty_folder):
    (empty_folder / "recordings/dog").mkdir(parents=True)
    assert "recordings" in refused(capsys, "tokenize", "recordings", "--out", "tokens")
    (empty_folder / "recordings/dog/notes.txt").write_text("no sound")
    assert "recordings" in refused(capsys, "tokenize", "recordings", "--out", "tokens")


def test_recordings_that_cannot_be_read_are_listed_beside_the_tokens_that_were_not_made(capsys, empty_folder):
    (empty_folder / "recordings/dog").mkdir(parents=True)
    for number in range(20):
        (empty_folder / f"recordings/dog/{number}.wav").write_text("no sound")
    assert cli.main(["tokenize", "recordings", "--out", "tokens"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "tokens-skipped.csv" in err and "not audio" in err
    assert (empty_folder / "tokens-skipped.csv").read_text().count("not audio") > 10
    assert not (empty_folder / "tokens").exists()


def save_lm(folder: Path, width: int) -> None:
    torch.manual_seed(0)
    AudioLM(AudioLMConfig(width=width, layers=1, heads=2, ffn=64)).save_pretrained(folder)
    (folder / "pipeline.json").write_text('{"codec": "mini", "text": "mini"}')


def test_a_checkpoint_whose_shapes_do_not_fit_is_refused(capsys, empty_folder):
    save_lm(empty_folder / "model", width=32)
    config = json.loads((empty_folder / "model/config.json").read_text())
    (empty_folder / "model/config.json").write_text(json.dumps(config | {"width": 64}))
    assert "config.json" in refused(capsys, "generate", "rain", "-o", "rain.wav", "--model", "model")


def test_a_model_that_is_not_there_is_refused(capsys):
    assert "nomodel" in refused(capsys, "generate", "rain", "-o", "rain.wav", "--model", "nomodel")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (MinigenError("the cat\n  is out"), 2, "the cat is out"),
        (OSError(28, "No space left on device", "big.wav"), 2, "No space left on device (big.wav)"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied"),
        (KeyboardInterrupt(), 130, "stopped"),
        (RuntimeError("a fault\nof the program"), 1, "RuntimeError: a fault of the program"),
        (MemoryError(), 1, "MemoryError"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error, status, says, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(commands, "doctor", fail)
    fail.__name__ = "doctor"
    assert cli.main(["doctor"]) == status
    err = capsys.readouterr().err
    assert says in err and err.startswith("minigen: ") and err.count("\n") == 1


def test_the_traceback_is_shown_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("MINIGEN_DEBUG", "1")
    with pytest.raises(MinigenError, match="empty"):
        cli.main(["generate", ""])


def test_a_mistake_is_found_before_pytorch_is_loaded():
    code = "import sys; from minigen.app.cli import main; print(main(['generate', '']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout == "2 False\n"


def test_the_help_of_every_command_loads_no_pytorch():
    code = f"from minigen.app.cli import main; [main([name, '--help']) for name in {COMMANDS}]; import sys; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.endswith("False\n")


def test_a_terminal_that_lacks_a_character_gets_an_escape(empty_folder):
    """A folder named 雨 in the output of a command, on a terminal that knows ASCII alone."""
    code = "from minigen.app.cli import main; raise SystemExit(main(['corpus', '--out', '雨', '--clips', '3']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and b"in \\u96e8" in done.stdout and Path("雨/test.csv").is_file()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["rain", "falls"], 'Put the caption in quotes: minigen generate "a dog barks".'),
        (["rain", "falls", "--seconds", "2"], "Put the caption in quotes"),
        (["-rain"], 'minigen generate -- "-rain ..."'),
        (["-ocean", "waves"], 'minigen generate -- "-ocean ..."'),
    ],
)
def test_a_caption_that_reads_as_options_or_as_several_gets_a_hint(argv, says, capsys, no_model):
    assert says in refused(capsys, "generate", *argv)


def test_a_caption_after_two_dashes_may_begin_with_one(stand_in):
    assert cli.main(["generate", "-o", "out.wav", "--seconds", "1", "--", "-rain falls"]) == 0
    assert stand_in.asked[0] == "-rain falls"


def test_sizes_beside_a_model_to_start_from_are_refused(capsys):
    for size in (["--width", "64"], ["--layers", "2"]):
        assert "brings its own sizes" in refused(capsys, "train", "--from", "mini", *size)


# what the commands do


def test_generate_hands_every_option_on_and_writes_the_file(stand_in, capsys):
    save_audio("start.wav", torch.full((8000,), 0.25))
    argv = "generate rain -o out/rain.wav --seconds 1 --guidance 2 --temperature 0.5 --top-k 9 --top-p 0.3 --seed 7"
    assert cli.main([*argv.split(), "--prompt", "start.wav"]) == 0
    *asked, prompt, seed = stand_in.asked
    assert asked == ["rain", 1, 2, 0.5, 9, 0.3] and seed == 7
    assert prompt.shape == (1, 1, 8000) and torch.allclose(prompt, torch.tensor(0.25), atol=1e-4)
    assert torch.allclose(load_audio("out/rain.wav"), torch.linspace(-0.5, 0.5, 16000), atol=1e-4)
    assert capsys.readouterr().out.startswith("out/rain.wav: 1 s of sound")
    assert [path.name for path in Path("out").iterdir()] == ["rain.wav"]


def test_a_style_is_handed_on_at_the_codecs_rate_with_what_is_given_for_it(stand_in, capsys, monkeypatch):
    seen = {}
    monkeypatch.setattr(HalfSilence, "generate", lambda self, *asked, **options: seen.update(options, asked=asked)
                        or torch.zeros(1, 1, 48000))  # fmt: skip
    save_audio("bark.wav", torch.full((8000 * 5 // 2,), 0.25), 8000)
    argv = "generate --style bark.wav --seconds 3 --codebooks 6 --style-guidance 2"
    assert cli.main(argv.split()) == 0
    said = capsys.readouterr().out
    assert "the first 2 s of bark.wav are read" in said and "resampled from 8000 to 16000 Hz" in said
    assert seen["style"].shape == (1, 1, 40000) and seen["codebooks"] == 6 and seen["style_guidance"] == 2
    assert seen["asked"][0] is None
    seen.clear()
    assert cli.main("generate rain --style bark.wav --seconds 3".split()) == 0
    assert seen["asked"][0] == "rain" and not {"codebooks", "style_guidance"} & seen.keys()
    seen.clear()
    assert cli.main(["generate", "rain"]) == 0 and "style" not in seen


def test_a_style_that_cannot_be_used_is_refused_before_a_model_is_loaded(no_model, capsys):
    save_audio("short.wav", torch.full((4000,), 0.25))
    save_audio("long.wav", torch.full((80000,), 0.25))
    assert "lasts 0.25 s. Give at least 0.5 s" in refused(capsys, "generate", "rain", "--style", "short.wav")
    assert "lasts 5.00 s" in refused(capsys, "generate", "rain", "--style", "long.wav")
    assert "nowhere.wav" in refused(capsys, "generate", "--style", "nowhere.wav")
    assert "'9' is not" in refused(capsys, "generate", "rain", "--style", "long.wav", "--codebooks", "9")
    assert "--codebooks belongs to a style" in refused(capsys, "generate", "rain", "--codebooks", "2")
    assert "--style-guidance belongs to a style" in refused(capsys, "generate", "rain", "--style-guidance", "2")
    assert "give a caption" in refused(capsys, "play")


@pytest.mark.parametrize(
    ("caption", "noted"), [("雨の音", True), ("a dog barks", False), ("a café in 東京, busy", False)]
)
def test_a_caption_that_is_not_english_gets_a_note(caption, noted, stand_in, capsys):
    assert cli.main(["generate", caption, "--seconds", "1"]) == 0
    assert ("Describe it in English" in capsys.readouterr().out) == noted


def test_a_sound_follows_a_symbolic_link_and_leaves_a_write_protected_file(stand_in, capsys, monkeypatch):
    Path("music").mkdir()
    Path("link.wav").symlink_to("music/rain.wav")
    assert cli.main(["generate", "rain", "-o", "link.wav", "--seconds", "1"]) == 0
    assert Path("link.wav").is_symlink() and load_audio("music/rain.wav").shape[-1] == 16000
    capsys.readouterr()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user without the permission
    assert "write-protected" in refused(capsys, "generate", "rain", "-o", "link.wav")


def test_weights_that_git_lfs_left_out_are_named_as_such(capsys):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    Path("model/model.safetensors").write_text(pointer)
    assert "Git LFS pointer" in refused(capsys, "generate", "rain", "--model", "model")
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        (Path("model") / name).write_text(pointer)
    assert "Git LFS pointer" in refused(capsys, "convert", "model", "--out", "out")


def test_generate_replaces_a_file_only_when_it_is_done(stand_in, monkeypatch, capsys):
    Path("rain.wav").write_text("what was there")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stand_in, "generate", stop)
    assert cli.main(["generate", "rain", "-o", "rain.wav"]) == 130
    assert Path("rain.wav").read_text() == "what was there" and len(list(Path.cwd().iterdir())) == 1


def test_the_chain_runs_by_the_commands_alone(capsys, empty_folder):
    """corpus, tokenize twice, train with the regulariser, train on, generate a second of sound from it."""
    assert cli.main("corpus --out clips --clips 12 --seconds 1".split()) == 0
    assert cli.main("tokenize clips --out tokens --seconds 1".split()) == 0
    assert cli.main("tokenize clips --out valid --seconds 1 --split val --mix 0".split()) == 0
    train = "train tokens --out model --steps 2 --batch-size 2 --width 32 --layers 1 --text-dropout 1"
    assert cli.main([*train.split(), "--valid", "valid", "--similarity", "1"]) == 0
    assert cli.main("train tokens --valid valid --out again --steps 1 --batch-size 2 --from model".split()) == 0
    assert Path("again/config.json").read_text() == Path("model/config.json").read_text()  # 32 wide, not the default
    assert cli.main("generate rain -o rain.wav --seconds 1 --model again --guidance 2".split()) == 0
    assert load_audio("rain.wav").shape == (1, 1, 16000)
    assert "hear it: minigen generate" in capsys.readouterr().out


def test_tokens_may_be_written_to_the_folder_of_the_command(capsys, empty_folder, monkeypatch):
    assert cli.main("corpus --out clips --clips 12 --seconds 1".split()) == 0
    Path("here").mkdir()
    monkeypatch.chdir("here")
    assert cli.main("tokenize ../clips --out . --seconds 1".split()) == 0
    assert {path.name for path in Path(".").iterdir()} >= {"codes.npy"}


def test_looking_at_an_empty_name_makes_no_corpus(tmp_path, monkeypatch, capsys):
    """`minigen corpus --look "$FOLDER"` with an unset variable."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["corpus", "--look", ""]) == 2
    assert "no captions in ." in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_sound_or_a_table_is_replaced_whatever_its_suffix_looks_like(tmp_path):
    for name in ("a.WAV", "table.txt"):
        (tmp_path / name).write_text("old")
        preflight.check_writable(tmp_path / name, is_file=True)
    with pytest.raises(MinigenError, match="is a folder"):
        preflight.check_writable(tmp_path, is_file=True)
    with pytest.raises(MinigenError, match="is a file"):
        preflight.check_writable(tmp_path / "a.WAV")


def test_a_model_that_is_called_as_a_shipped_one_is_named_by_its_folder():
    assert [commands.as_name(Path(name)) for name in ("mini", "mini-own", "own", "x/mini")] == [
        "./mini", "./mini-own", "own", "x/mini",
    ]  # fmt: skip


def test_models_are_measured_between_their_controls_and_against_the_first(capsys, monkeypatch):
    """With stand-ins for the models and the judges: the table on screen and as CSV, then the differences."""
    tta = generate.TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(1))
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: tta)
    monkeypatch.setattr(lm, "find_generator_folder", lambda name: None)
    monkeypatch.setattr(clap, "load_judge", lambda name: standins.BandJudge())
    monkeypatch.setattr(clap, "load_tagger", lambda name: standins.BandTagger())
    assert cli.main("corpus --out clips --clips 40 --seconds 1".split()) == 0
    capsys.readouterr()
    measuring = "--data clips --seconds 1 --clips 4 --csv table.csv"
    assert cli.main(f"compare one two --guidance 1 3 {measuring}".split()) == 0
    out = capsys.readouterr().out
    first, second = out.split("The study's measures")
    names = [*measure.CONTROLS, "one, guidance 1", "one, guidance 3", "two, guidance 1", "two, guidance 3"]
    for part in (first, second):
        rows = [line.split(" | ")[0].strip("| ") for line in part.splitlines() if line.startswith("|")][2:]
        assert rows == names
    assert "| recall, held out | order | count |" in second
    assert len(Path("table.csv").read_text().splitlines()) == 1 + len(rows)
    Path("clips/audio").rename("sounds")
    assert cli.main(f"compare one two --guidance 1 3 {measuring}".split()) == 2
    assert cli.main(f"compare one two --guidance 1 3 {measuring} --audio sounds".split()) == 0
    assert capsys.readouterr().out == out
    assert "two, guidance 1 less one, guidance 1: CLAP +0.000, 95 % interval [+0.000, +0.000]" in out
    assert cli.main(f"evaluate --model one {measuring} --audio sounds".split()) == 0
    assert "one, guidance 3" in capsys.readouterr().out


def test_a_model_with_steps_is_measured_at_each_number_of_steps(capsys, monkeypatch, tmp_path):
    """A masked generator with random weights: the rows are named after the steps, and the steps reach the sampler."""
    torch.manual_seed(0)
    denoiser = Denoiser.from_language_model(standins.tiny_lm(1))
    tta = generate.TextToAudio(standins.tiny_codec(), standins.WordEncoder(), MaskedGenerator(denoiser))
    taken, make = [], measure.generate_for
    monkeypatch.setattr(measure, "generate_for", lambda *args, **how: taken.append(how["steps"]) or make(*args, **how))
    denoiser.save_pretrained(tmp_path / "masked")
    (tmp_path / "masked/pipeline.json").write_text('{"codec": "mini", "text": "mini", "generator": "masked"}')
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: tta)
    monkeypatch.setattr(clap, "load_judge", lambda name: standins.BandJudge())
    monkeypatch.setattr(clap, "load_tagger", lambda name: standins.BandTagger())
    assert cli.main(f"corpus --out {tmp_path}/clips --clips 40 --seconds 1".split()) == 0
    measuring = f"--data {tmp_path}/clips --seconds 1 --clips 4 --guidance 3"
    assert cli.main(f"compare {tmp_path}/masked --steps 1 3 {measuring}".split()) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/masked, guidance 3, 3 steps less {tmp_path}/masked, guidance 3, 1 step: CLAP" in out
    assert taken == [1, 3]


def test_training_for_minutes_says_how_many_steps_that_is(capsys, monkeypatch):
    from minigen import train

    monkeypatch.setattr(train, "seconds_per_step", lambda *_, **__: 0.5)
    config = commands._fit_minutes(None, None, None, train.TrainConfig(), 2)
    assert config.steps == 240
    assert "--steps 240" in capsys.readouterr().out


def test_training_for_minutes_goes_on_with_the_steps_that_it_named(capsys, empty_folder, monkeypatch):
    monkeypatch.setattr("minigen.train.seconds_per_step", lambda *_, **__: 1.0)
    assert cli.main("corpus --out clips --clips 12 --seconds 1".split()) == 0
    assert cli.main("tokenize clips --out tokens --seconds 1 --mix 0".split()) == 0
    train = "train tokens --valid tokens --batch-size 2 --width 32 --layers 1 --out model"
    assert cli.main([*train.split(), "--minutes", "0.05"]) == 0
    assert "--steps 3)" in capsys.readouterr().out
    assert cli.main([*train.split(), "--steps", "3"]) == 0


def test_the_takes_of_a_recording_are_held_back_together():
    sources = [[f"x/1-{30000 + i}-{take}.wav"] for i in range(20) for take in "AB"]
    tokens = TokenSet(np.arange(40)[:, None, None], ["sound"] * 40, [()] * 40, sources, 50.0, 1024)
    learn, valid = ({row[0][:9] for row in part.sources} for part in commands.hold_back(tokens))
    assert len(valid) == 2 and len(learn) == 18 and not learn & valid


def test_recordings_held_back_are_not_learnt_from_even_in_mixtures():
    sources = [[f"{i}.wav"] for i in range(20)] + [["3.wav", "4.wav"], ["0.wav", "5.wav"]]
    captions = [" and ".join(row) for row in sources]
    tokens = TokenSet(np.arange(22)[:, None, None], captions, [()] * 22, sources, 50.0, 1024)
    learn, valid = commands.hold_back(tokens)
    heard = {source for row in learn.sources for source in row}
    measured = {source for row in valid.sources for source in row}
    assert len(valid) == 2 and not heard & measured and heard | measured == {f"{i}.wav" for i in range(20)}
    assert [captions[i] for i in learn.codes.flatten()] == learn.captions
    with pytest.raises(MinigenError, match="--valid"):
        commands.hold_back(commands.subset(tokens, [0]))


def test_a_command_without_a_corpus_makes_the_built_in_one_once(monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "corpus", lambda options: asked.append(options.clips))
    assert commands.default_corpus() == Path("build/corpus") and asked == [1000]
    Path("build/corpus").mkdir(parents=True)
    Path("build/corpus/test.csv").touch()
    assert commands.default_corpus() == Path("build/corpus") and asked == [1000]


def processor_seconds(argv: list[str]) -> tuple[float, subprocess.CompletedProcess]:
    """What a process takes of the processor: unlike the clock, no other process adds to it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done


def test_a_caption_is_a_file_in_a_few_times_what_importing_pytorch_takes():
    """Compared within one run, since machines differ by more than most changes do."""
    pytorch, _ = processor_seconds([sys.executable, "-c", "import torch"])
    argv = [sys.executable, "-m", "minigen", "generate", "a dog barks while rain falls", "-o", "dog.wav"]
    taken, done = processor_seconds(argv)
    assert done.returncode == 0, done.stderr
    assert load_audio("dog.wav").shape == (1, 1, 64000)
    assert taken < 8 * pytorch
    assert "Warning" not in done.stderr


def test_listen_makes_a_test_once_serves_it_and_reports_on_it(capsys, monkeypatch):
    """With stand-ins for the models; the page itself is tested in test_listening."""
    from minigen.evaluation.listening import server
    from minigen.evaluation.listening.answers import store
    from minigen.evaluation.listening.plan import missing_rows

    tta = generate.TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(1))
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: tta)
    monkeypatch.setattr(lm, "find_generator_folder", lambda name: None)
    served = []
    monkeypatch.setattr(server, "serve", lambda *asked: served.append(asked))
    assert cli.main("corpus --out clips --clips 20 --seconds 1".split()) == 0
    listening_to = "listen ears --models one two --guidance 1 3 --clips 2 --checks 1 --data clips --seconds 1"
    assert cli.main([*listening_to.split(), "--port", "9000"]) == 0
    assert cli.main(["listen", "ears"]) == 0
    (folder, plan, port, host), again = served
    assert (folder, port, host) == (Path("ears"), 9000, "127.0.0.1") and again[:2] == (folder, plan)
    assert plan.models == ("one, guidance 1", "two, guidance 3") and not missing_rows(folder, plan)
    trial = plan.shown_to("anna")[0]
    store("ears", plan, "anna", trial.trial, "left")
    capsys.readouterr()
    assert cli.main(["listen", "ears", "--report"]) == 0
    assert "one, guidance 1 preferred to two, guidance 3" in capsys.readouterr().out
    assert "clips" in refused(capsys, "listen", "ears", "--clips", "3")
    assert "nowhere.csv" in refused(capsys, "listen", "ears", "--report", "nowhere.csv")


def test_listen_finds_its_port_taken_before_any_sound_is_made(capsys, no_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in refused(capsys, "listen", "ears", "--port", port)


@pytest.mark.parametrize("host", ["192.0.2.7", "no such place", ".", "a" * 300])
def test_listen_refuses_an_address_of_another_machine_before_any_sound_is_made(capsys, no_model, host):
    assert "Give an IPv4 address of this machine" in refused(capsys, "listen", "ears", "--host", host)


def test_convert_hands_the_checkpoint_on_and_says_how_to_hear_it(capsys, monkeypatch):
    """What it makes of a checkpoint is tested in test_interop."""
    asked = []
    monkeypatch.setattr("minigen.interop.audiocraft.convert_audiocraft", lambda *names: asked.append(names))
    assert cli.main("convert owner/audiogen --out here".split()) == 0
    assert asked == [("owner/audiogen", Path("here"))]
    assert 'minigen generate "a dog barks" --model here' in capsys.readouterr().out


def test_convert_refuses_a_place_it_cannot_write_and_a_folder_without_a_checkpoint(capsys):
    Path("empty").mkdir()
    assert "/proc/here" in refused(capsys, "convert", "empty", "--out", "/proc/here")
    assert "state_dict.bin" in refused(capsys, "convert", "empty", "--out", "here")


def test_bench_measures_shortly_or_at_length_and_shows_its_table(capsys, monkeypatch):
    from minigen.app import bench

    asked = []

    def stand_in(folder, sizes, threads, say):
        asked.append((sizes, threads))
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "bench.md").write_text("the table\n")

    monkeypatch.setattr(bench, "run_bench", stand_in)
    assert cli.main(["bench", "--quick", "--threads", "2", "--out", "speed"]) == 0
    assert "the table" in capsys.readouterr().out
    assert cli.main(["bench"]) == 0 and Path("build/bench/bench.md").exists()
    assert asked == [(bench.QUICK, 2), (bench.Sizes(), 1)]
    capsys.readouterr()
    assert "0" in refused(capsys, "bench", "--threads", "0")


@pytest.fixture
def small_models(empty_folder) -> str:
    """Tokens and a small language model; the command line of a training of one step on them."""
    assert cli.main("corpus --out clips --clips 12 --seconds 1".split()) == 0
    assert cli.main("tokenize clips --out tokens --seconds 1 --mix 0".split()) == 0
    train = "train tokens --valid tokens --steps 1 --batch-size 2 --learning-rate 1e-9"
    assert cli.main(f"{train} --out lm --width 32 --layers 1".split()) == 0
    return train


def check_trained(generator: str, folders: tuple[str, ...]) -> None:
    for name in folders:
        assert json.loads(Path(name, "pipeline.json").read_text())["generator"] == generator
        assert json.loads(Path(name, "config.json").read_text())["width"] == 32


def test_a_masked_model_begins_from_a_language_model_and_goes_on_from_itself(capsys, small_models):
    train = small_models
    assert cli.main(f"{train} --out masked --generator masked --from lm".split()) == 0
    assert cli.main(f"{train} --out more --generator masked --from masked".split()) == 0
    assert cli.main(f"{train} --out random --generator masked --width 32 --layers 1".split()) == 0
    check_trained("masked", ("masked", "more", "random"))
    assert cli.main(f"{train} --out shipped --generator masked --from mini-masked".split()) == 0
    before, *begun = (read_tensors(Path(name)) for name in ("lm", "masked", "more"))
    for after in begun:  # a step of 1e-9 is lost in float16, so the weights are those that the training began with
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    capsys.readouterr()
    assert "masked generator. Begin from a language_model" in refused(
        capsys, *train.split(), "--out", "no", "--from", "masked"
    )


def test_a_style_model_begins_with_a_conditioner_that_was_trained_alone(small_models):
    assert cli.main(f"{small_models} --out alone --generator conditioner --from lm".split()) == 0
    assert cli.main(f"{small_models} --out both --generator style --from alone".split()) == 0
    check_trained("style", ("alone", "both"))
    before, alone = read_tensors(Path("lm")), read_tensors(Path("alone"))
    assert all(torch.equal(before[name], alone[name]) for name in before)


def test_a_style_model_begins_from_a_language_model_and_goes_on_from_itself(small_models):
    assert cli.main(f"{small_models} --out styled --generator style --from lm".split()) == 0
    assert cli.main(f"{small_models} --out again --generator style --from styled".split()) == 0
    check_trained("style", ("styled", "again"))
    before, after = (read_tensors(Path(name)) for name in ("lm", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert read_tensors(Path("again/style")).keys() == read_tensors(Path("styled/style")).keys()


def test_discrete_diffusion_begins_from_a_masked_or_language_model_and_is_sampled_in_steps(capsys, small_models):
    train = small_models
    assert cli.main(f"{train} --out masked --generator masked --from lm".split()) == 0
    for start, out in (("lm", "first"), ("masked", "second"), ("second", "third")):
        assert cli.main(f"{train} --out {out} --generator discrete --from {start}".split()) == 0
    check_trained("discrete", ("first", "second", "third"))
    before, *begun = (read_tensors(Path(name)) for name in ("lm", "first", "second", "third"))
    for after in begun:
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"time"}
    hear = ["generate", "rain", "--seconds", "0.5", "--model", "third"]
    for out, steps in (("a", "3"), ("b", "3"), ("c", "4")):
        assert cli.main([*hear, "-o", f"{out}.wav", "--steps", steps]) == 0
    first, again, other = (Path(f"{name}.wav").read_bytes() for name in "abc")
    assert first == again and first != other
    capsys.readouterr()
    assert "steps is 101, but the noise has 100 steps" in refused(capsys, *hear, "--steps", "101")
    assert "no option 'steps'" in refused(capsys, *hear[:-1], "lm", "--steps", "3")
    assert "discrete generator. Begin from a language_model or masked" in refused(
        capsys, *train.split(), "--out", "no", "--generator", "masked", "--from", "third"
    )


def test_a_word_is_learnt_from_a_sound_and_used_in_captions(capsys, small_models, monkeypatch):
    monkeypatch.setattr("minigen.conditioning.inversion.EVERY", 2)
    sound = next(Path("clips/audio").iterdir())
    assert cli.main(["learn-word", str(sound), "--word", "<my-dog>", "--model", "lm", "--like", "a dog barks"]) == 0
    said = capsys.readouterr().out
    assert 'my-dog.safetensors: <my-dog> began as "a dog barks"' in said and "--words my-dog.safetensors" in said
    hear = ["generate", "--words", "my-dog.safetensors", "--seconds", "0.5", "--model"]
    assert cli.main([*hear, "lm", "<my-dog> while rain falls"]) == 0
    Path("lines.txt").write_text("rain falls\n<my-dog>\n")
    monkeypatch.setattr("sys.stdin", open("lines.txt"))
    assert cli.main([*hear, "lm", "--stdin"]) == 0 and Path("sound-2.wav").is_file()
    capsys.readouterr()
    assert "no caption uses <my-dog>, the word of my-dog.safetensors" in refused(capsys, *hear, "lm", "a dog barks")
    says = refused(capsys, *hear, "mini", "<my-dog>")
    assert "was learnt with other models" in says
    learn = ["learn-word", str(sound), "--model", "lm"]
    assert "angle brackets" in refused(capsys, *learn, "--word", "dog")
    assert "in the vocabulary" in refused(capsys, *learn, "--word", "<extra_id_0>")
    assert not [path for path in Path().glob("*.safetensors") if path.stem != "my-dog"]


def test_a_sound_that_no_word_can_be_learnt_from_is_refused(no_model, capsys):
    save_audio("short.wav", torch.full((4000,), 0.25))
    assert "lasts 0.25 s" in refused(capsys, "learn-word", "short.wav")
    assert "nowhere.wav" in refused(capsys, "learn-word", "nowhere.wav")
    Path("text.wav").write_text("no sound")
    assert "text.wav" in refused(capsys, "learn-word", "text.wav")
    Path("no.safetensors").write_bytes(b"nothing")
    assert "no.safetensors" in refused(capsys, "generate", "<x>", "--words", "no.safetensors")


def test_latent_diffusion_begins_with_the_layers_of_a_language_model_or_goes_on_from_itself(capsys, small_models):
    train = small_models
    capsys.readouterr()
    says = refused(capsys, *train.split(), "--out", "no", "--generator", "latent")
    assert "the tokens in tokens have no latents. Make them with `minigen tokenize --latents`" in says
    assert cli.main("tokenize clips --out both --seconds 1 --mix 0 --latents".split()) == 0
    assert "codes [4, 50] and latents [50, 64]" in capsys.readouterr().out
    train = train.replace("tokens", "both") + " --generator latent"
    assert cli.main(f"{train} --out first --from lm".split()) == 0
    assert cli.main(f"{train} --out second --from first".split()) == 0
    assert cli.main(f"{train} --out random --width 32 --layers 1".split()) == 0
    assert cli.main(f"{train} --out usual --width 32".split()) == 0
    layers = [json.loads(Path(name, "config.json").read_text())["layers"] for name in ("first", "random", "usual")]
    assert layers == [LatentConfig.layers, 1, LatentConfig.layers]
    check_trained("latent", ("first", "second", "random"))
    before, first, second = (read_tensors(Path(name)) for name in ("lm", "first", "second"))
    shared = [name for name in before if name.startswith(("layers.", "memory_projection."))]
    assert shared and all(torch.equal(before[name], first[name]) for name in shared)
    assert all(torch.equal(value, second[name]) for name, value in first.items() if not name.startswith("limit"))
    hear = ["generate", "rain", "--seconds", "0.5", "--model", "second", "-o", "a.wav"]
    assert cli.main([*hear, "--steps", "2"]) == 0
    capsys.readouterr()
    assert "steps is 1. Give 2 or more" in refused(capsys, *hear, "--steps", "1")


def test_a_cascade_is_trained_in_two_commands(capsys, small_models):
    assert cli.main("tokenize clips --out both --seconds 1 --mix 0 --latents".split()) == 0
    train = small_models.replace("tokens", "both")
    capsys.readouterr()
    assert cli.main(f"{train} --generator coarse --from lm --out made".split()) == 0
    said = capsys.readouterr().out
    assert "next: minigen train both --generator cascader --from made --out made/cascader" in said
    hear = ["generate", "rain", "--seconds", "0.5", "--model", "made", "-o", "a.wav"]
    assert "--generator cascader --from made --out made/cascader" in refused(capsys, *hear)
    assert cli.main(f"{train} --generator cascader --from made --out made/cascader".split()) == 0
    assert "--model made" in capsys.readouterr().out
    coarse, cascader = (read_tensors(Path(name)) for name in ("made", "made/cascader"))
    assert torch.equal(coarse["input.weight"], cascader["input.weight"][:, :64])
    assert torch.equal(coarse["layers.0.ffn_in.weight"], cascader["layers.0.ffn_in.weight"])
    settings = [json.loads(Path(name, "config.json").read_text()) for name in ("made", "made/cascader")]
    assert [(each["stride"], each["conditioned"]) for each in settings] == [(4, False), (1, True)]
    assert cli.main([*hear, "--steps", "2"]) == 0
    capsys.readouterr()
    says = refused(capsys, *train.split(), "--out", "no", "--generator", "masked", "--from", "made")
    assert "is a cascade generator. Begin from" in says


def test_the_regulariser_is_refused_with_a_generator_that_has_none(capsys):
    says = refused(capsys, "train", "--generator", "masked", "--similarity", "0.1")
    assert "--similarity is for language models" in says
