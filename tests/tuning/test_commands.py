"""`minigen finetune` and `prefer`, and the options of `train` and `generate` that belong to them, with small models."""

import csv
import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from answering import answer, make_test
from official_models import official_musicgen

from minigen.app import cli
from minigen.app.tuning.finetune import verdict
from minigen.app.tuning.start import usage
from minigen.audio import load_audio
from minigen.corpus.synthesis.builtin import build_corpus
from minigen.engine.checkpoint import CHECKPOINT
from minigen.evaluation.change import load_rows, measure_changes
from minigen.generate import TextToAudio
from minigen.interop.random_models import save_musicgen
from minigen.lm import AudioLM, AudioLMConfig
from minigen.text import load_text_encoder
from minigen.train import train

SHORT = ["--seconds", "0.5", "--batch-size", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with a small model `base` for the shipped codec and text encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIGEN_DEBUG", raising=False)
    torch.manual_seed(0)
    sizes = AudioLMConfig(width=32, layers=1, heads=2, ffn=64, memory_width=load_text_encoder("mini").width)
    AudioLM(sizes).save_pretrained("base", torch.float32)
    (tmp_path / "base/pipeline.json").write_text(json.dumps({"codec": "mini", "text": "mini"}))
    return tmp_path


def record(count: int, name: str = "recordings", seconds: float = 0.5) -> str:
    """A folder of tones with captions in metadata.csv."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        tone = np.sin(np.arange(round(16000 * seconds)) * rng.uniform(0.05, 0.3))
        Path(name).mkdir(exist_ok=True)
        soundfile.write(f"{name}/{number}.wav", 0.4 * tone, 16000)
        rows.append((f"{number}.wav", f"a theremin plays tone {number % 2}"))
    with open(f"{name}/metadata.csv", "w") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return name


def run(capsys, *argv) -> str:
    status = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def refused(capsys, *argv) -> str:
    """The one line of a refusal."""
    assert cli.main([str(word) for word in argv]) == 2
    err = capsys.readouterr().err.strip().split("\r")[-1]
    assert err.splitlines()[-1].startswith("minigen: ") and "Traceback" not in err
    return err.splitlines()[-1]


SAID = """
training \\([\\d.]+ k trained\\): .* parameters, about .* of memory .* free
recordings: 1[0-9] to learn from, [1-9] held out
size on disk: 
steps: 20 of 4 clips
memory: .*B at its peak
better: the held-out loss fell
hear it: minigen generate .* --model base --adapter tuned
"""


def test_recordings_become_an_adapter_and_a_page(capsys, folder):
    argv = ["finetune", record(20), "--from", "base", "--out", "tuned", "--steps", 20, "--lora", 4, *SHORT]
    out = run(capsys, *argv, "--learning-rate", 2e-2)
    for said in SAID.strip().splitlines():
        assert re.search(said, out), said
    page = (folder / "tuned/report.html").read_text()
    assert page.count("<audio") == 3 * page.count("<article>") > 0 and "better: the held-out" in page.lower()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    sounds = {path.name: load_audio(path) for path in (folder / "tuned/audio").iterdir()}
    plain, tuned = TextToAudio.from_pretrained("base"), TextToAudio.from_pretrained("base", adapter="tuned")
    captions = re.findall(r"<h3>“(.*?)”</h3>", page)
    for name, tta in (("before", plain), ("after", tuned)):
        again = tta.generate(captions, 0.5, seed=0)
        assert (again[0] - sounds[f"1-{name}.wav"][0]).abs().max() < 1e-3, name
    run(capsys, "generate", captions[0], "--model", "base", "--adapter", "tuned", "--seconds", 0.5)


def test_clips_that_the_model_knows_are_rehearsed_as_often_as_new_ones_are_learnt(capsys, folder, monkeypatch):
    seen = []

    def watched(lm, encoder, tokens, *rest, **others):
        seen.extend(Path(source[0]) for source in tokens.sources)
        return train(lm, encoder, tokens, *rest, **others)

    monkeypatch.setattr("minigen.train.train", watched)
    known = record(34, "known")
    run(capsys, "finetune", record(8), "--from", "base", "--steps", 1, "--out", "tuned", "--rehearse", known, *SHORT)
    new, old = ([file for file in seen if file.parent.name == name] for name in ("recordings", "known"))
    assert 0.7 < len(new) / len(old) < 1.5 and len(set(old)) == len(old) > len(set(new))


def test_all_weights_become_a_model_with_its_parts(capsys, folder):
    rate = ["--learning-rate", "5e-3"]
    argv = ["finetune", record(10), "--from", "base", "--all-weights", "--out", "tuned", "--steps", 6, *SHORT, *rate]
    run(capsys, *argv)
    assert not (folder / "tuned/adapter_config.json").exists()
    tta = TextToAudio.from_pretrained("tuned")
    assert (folder / "tuned/codec/config.json").exists() and tta.generate("a theremin", 0.5, seed=0).shape == (
        1,
        1,
        8000,
    )


def test_a_run_that_gets_worse_says_so_and_keeps_the_start(capsys):
    rate = ["--learning-rate", 50]
    argv = ["finetune", record(10), "--from", "base", "--out", "tuned", "--steps", 4, *SHORT, *rate]
    out = run(capsys, *argv)
    assert "worse: the held-out loss rose" in out and "the start is kept" in out
    plain, tuned = TextToAudio.from_pretrained("base").lm, TextToAudio.from_pretrained("base", adapter="tuned").lm
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), tuned.parameters(), strict=True))


def test_the_verdict_tells_what_the_log_holds():
    rows = [{"step": step, "valid": valid} for step, valid in ((0, 3.0), (10, 2.5), (20, 2.6))]
    assert "fell from 3.000 to 2.500; it rose again to 2.600" in verdict(rows) and "of step 10 are kept" in verdict(
        rows
    )
    assert verdict(rows[:2]) == "better: the held-out loss fell from 3.000 to 2.500."


@pytest.mark.parametrize(
    "given, says",
    [
        (["--lora", "0"], "argument --lora: '0' is not a whole number of at least 1"),
        (["--lora", "64"], "rank 64 for a model of width 32"),
        (["--from", "nowhere"], "nowhere"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_impossible_options_are_one_line(capsys, given, says):
    assert says in refused(capsys, "finetune", record(6), "--from", "base", "--steps", 1, *SHORT, *given)


def test_recordings_that_are_too_few_or_have_no_captions_are_one_line(capsys, folder):
    argv = ["--from", "base", "--steps", 1, *SHORT]
    said = refused(capsys, "finetune", record(2), *argv)
    assert "the recordings in recordings are too few to hold any out. Record at least three." in said
    table = record(1, "single")
    said = refused(capsys, "finetune", f"{table}/metadata.csv", *argv)
    assert "1 clips of single/metadata.csv are too few to hold any out. Record at least three." in said
    (folder / "bare").mkdir()
    soundfile.write("bare/1.wav", 0.1 * np.ones(8000), 16000)
    assert "no captions in bare" in refused(capsys, "finetune", "bare", *argv)


def test_clips_of_another_length_are_cut_or_filled_and_counted(capsys):
    out = run(capsys, "finetune", record(6, seconds=0.8), "--from", "base", "--steps", 1, *SHORT)
    assert re.search(r"\d longer than 0.5 s, cut", out)


def test_what_does_not_fit_into_memory_is_refused_before(capsys, monkeypatch):
    monkeypatch.setattr("minigen.train.training_memory", lambda *_: 10**15)
    said = refused(capsys, "finetune", record(6), "--from", "base", "--steps", 1, *SHORT)
    assert "trained) needs 1000 TB" in said and "of memory are free" in said


def tokens(capsys, codec: str = "mini") -> str:
    run(capsys, "tokenize", record(10), "--out", "codes", "--mix", 0, "--seconds", 0.5, "--codec", codec)
    return "codes"


def test_train_makes_an_adapter_too(capsys, folder):
    argv = ["train", tokens(capsys), "--valid", "codes", "--from", "base", "--lora", 2, "--steps", 2, "--out", "tuned"]
    out = run(capsys, *argv, "--batch-size", 4, "--accumulate", 2, "--checkpointing")
    assert "--model base --adapter tuned" in out
    assert json.loads((folder / "tuned/adapter_config.json").read_text())["r"] == 2
    assert not (folder / "tuned/pipeline.json").exists() and (folder / "tuned" / CHECKPOINT).exists()
    assert "made with other settings" in refused(
        capsys, *[4 if word == 2 else word for word in argv], "--batch-size", 4
    )
    assert "Name it with --from" in refused(capsys, "train", "codes", "--lora", 2)
    said = refused(capsys, "generate", "a dog", "--model", "mini", "--adapter", "tuned")
    assert "made for another model" in said and "Its base is base." in said
    assert "adapter_config.json is missing" in refused(
        capsys, "generate", "a dog", "--model", "base", "--adapter", "base"
    )


def test_an_official_musicgen_is_trained_with_its_own_text_encoder(capsys, folder):
    save_musicgen(official_musicgen(), "official")
    tta = TextToAudio.from_pretrained("official")
    tta.codec.save_pretrained("codec")
    tokens(capsys, "codec")
    argv = ["train", "codes", "--valid", "codes", "--from", "official", "--steps", 1, "--batch-size", 2]
    run(capsys, *argv, "--out", "whole")
    assert TextToAudio.from_pretrained("whole").generate("a b", 0.2, seed=0).isfinite().all()
    run(capsys, *argv, "--lora", 2, "--out", "adapter")
    assert TextToAudio.from_pretrained("official", adapter="adapter").generate("a b", 0.2, seed=0).isfinite().all()


# preferences


def test_own_samples_ranked_by_clap_tune_the_model(capsys, folder):
    corpus = build_corpus("clips", clips=30, seconds=1.0, workers=1, progress=False)
    argv = ["prefer", "--from", "base", "--by", "clap", "--data", corpus, "--captions", 12, "--samples", 2,
            "--steps", 4, "--clips", 4, "--out", "tuned", "--lora", 2, *SHORT]  # fmt: skip
    out = run(capsys, *argv)
    assert re.search(r"held-out pairs: loss 0\.693 before, \d\.\d+ after \(chance: 0\.693\)", out)
    for measure in ("CLAP", "recall", "FAD", "diversity"):  # before, after, after less before, each with an interval
        assert re.search(rf"\n\| {measure} +(\| +[-+\d.]+ \[[-+\d.]+, [-+\d.]+\] +){{3}}\|", out), measure
    rows = list(csv.DictReader((folder / "tuned/table.csv").open()))
    assert [row["name"] for row in rows] == ["before", "after"] and {"clap", "recall", "fad", "diversity"} <= rows[
        0
    ].keys()
    TextToAudio.from_pretrained("base", adapter="tuned")
    argv[argv.index("tuned")] = "again"
    again = run(capsys, *argv, "--seed", 1, "--pairs", "tuned/pairs.safetensors")
    assert "samples for each" not in again and not (folder / "again/pairs.safetensors").exists()
    seeds = [load_rows(folder / name / "measured.safetensors") for name in ("tuned", "again")]
    changes = measure_changes(*zip(*(rows for rows, _ in seeds), strict=True), seeds[0][1])
    assert len(changes["fad"].change.seeds) == 2
    assert "no pair differ by 2" in refused(capsys, *argv, "--pairs", "tuned/pairs.safetensors", "--least", 2)


def test_the_answers_of_a_listening_test_tune_the_model(capsys, folder, monkeypatch):
    learnt = []

    def watched(lm, encoder, pairs, *rest, **others):
        learnt.extend(pairs.captions)
        return train(lm, encoder, pairs, *rest, **others)

    monkeypatch.setattr("minigen.train.train", watched)
    corpus = build_corpus("clips", clips=30, seconds=1.0, workers=1, progress=False)
    plan = make_test(folder / "test", "rain falls", "a dog barks", "a siren wails")
    for listener, favourite in (("anna", "a"), ("ben", "b")):
        answer(folder / "test", plan, listener, favourite)
    answer(folder / "test", plan, "careless", "b", honest=False)  # left out
    argv = ["prefer", "--from", "base", "--answers", "test", "--data", corpus, "--steps", 4, "--clips", 4, "--out",
            "tuned", "--lora", 2, *SHORT]  # fmt: skip
    out = run(capsys, *argv)
    assert len(learnt) == 4 and len(set(learnt)) == 2  # two listeners, two of three captions: one is held out
    assert re.search(r"held-out pairs: loss 0\.693 before, \d\.\d+ after", out) and "after less before" in out
    assert [row["name"] for row in csv.DictReader((folder / "tuned/table.csv").open())] == ["before", "after"]
    TextToAudio.from_pretrained("base", adapter="tuned")


def test_preferences_need_one_source(capsys):
    assert "one source of preferences" in refused(capsys, "prefer", "--from", "base")
    assert "one source" in refused(capsys, "prefer", "--from", "base", "--by", "clap", "--answers", "there")
    assert "lies in no listening test" in refused(capsys, "prefer", "--from", "base", "--answers", "base")


@pytest.mark.parametrize("out, named", [("/tmp/tuned", "/tmp/tuned"), ("tuned", "tuned"), ("mini-own", "./mini-own")])
def test_the_printed_command_finds_the_model(out, named):
    whole = Namespace(out=Path(out), all_weights=True, start="base")
    assert usage(whole, "rain") == f'minigen generate "rain" --model {named}'
