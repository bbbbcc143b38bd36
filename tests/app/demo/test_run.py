"""The demo end to end, with models so small that it takes seconds; and its parts: live training, reuse, examples."""

import csv
import random
import re
import shutil
from html import unescape

import pytest
import torch
from standins import TINY, tiny_codec, tiny_parts

from minigen.app.demo.live import steps_in, tokens_for
from minigen.app.demo.run import run_demo
from minigen.app.demo.sentences import GUIDED, LIVE, LIVE_MISMATCHED, MISMATCHED, PLAIN, REGULARIZED
from minigen.audio import load_audio
from minigen.corpus.subsets import load_some, open_splits
from minigen.engine.errors import MinigenError
from minigen.evaluation.measure import CONTROLS
from minigen.generate import TextToAudio
from minigen.lm import AudioLM

ROWS = [*CONTROLS, LIVE, PLAIN, GUIDED, REGULARIZED, MISMATCHED, LIVE_MISMATCHED]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo: its folder."""
    out = tmp_path_factory.mktemp("demo")
    report = run_demo(out, minutes=0.01, clips=40, progress=False, config=TINY, parts=tiny_parts())
    assert report == out / "report.html"
    return out


def read(path):
    return list(csv.DictReader(path.open()))


def test_the_table_has_the_controls_first_and_then_the_models(demo):
    rows = read(demo / "table.csv")
    assert [row["name"] for row in rows] == ROWS and {row["clips"] for row in rows} == {"4"}
    by_name = {row["name"]: row for row in rows}
    assert float(by_name["silence"]["recall"]) == 0 and float(by_name["real clips"]["kl"]) == 0


def test_the_page_shows_the_table_the_losses_and_a_row_of_players(demo):
    page = (demo / "report.html").read_text("utf-8")
    assert re.findall('<th scope="row">(.*?)</th>', page) == ROWS
    assert (
        page.count("<audio") == 2 * 6 and page.count("data:image/svg+xml") == 5
    )  # the chain, and two figures for light and dark
    assert "nats per code" in page


def test_the_sweep_covers_both_shipped_models_at_every_scale(demo):
    points = [(row["name"], float(row["guidance"])) for row in read(demo / "sweep.csv")]
    assert points == [(name, scale) for name in ("mini-dropout", "mini-regularized") for scale in (1.0, 3.0)]
    table = {row["name"]: row for row in read(demo / "table.csv")}
    assert {row["clips"] for row in read(demo / "sweep.csv")} == {"3"} and len(table) == len(ROWS)


def test_the_sounds_lie_beside_the_page(demo):
    names = sorted(file.name for file in (demo / "audio").iterdir())
    assert len(names) == 12 and names[:2] == ["1-codec-reconstruction.wav", "1-guidance-regulariser.wav"]
    assert load_audio(demo / "audio" / "2-live-model.wav").shape == (1, 1, 16000)


def test_all_of_the_minutes_train_one_model(demo):
    assert sorted(path.name for path in demo.iterdir() if (path / "log.csv").is_file()) == ["live"]
    assert int(read(demo / "live" / "log.csv")[-1]["step"]) >= 2


def test_the_use_of_the_captions_is_printed_and_on_the_page(demo):
    page = unescape((demo / "report.html").read_text("utf-8"))
    effect = re.search(r"clips cost ([\d.]+) nats per code with their own captions, ([\d.]+) with captions of", page)
    low, high = map(float, re.search(r"95% interval ([+-][\d.]+) to ([+-][\d.]+)", page).groups())
    own, other = map(float, effect.groups())
    assert low <= own - other + 0.001 and own - other - 0.001 <= high
    assert "After a few minutes the loss says little about the sound" in page


def test_the_live_model_is_a_model_like_any_other(demo):
    parts = tiny_parts()
    tta = TextToAudio(parts.codec, parts.encoder, AudioLM.from_pretrained(demo / "live"))
    assert tta.generate(["a dog barks"], seconds=0.2, seed=0).shape == (1, 1, 3200)


def test_a_second_run_reuses_corpus_and_tokens_and_tells_the_same(demo, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.glob("*/**/*.wav") if "audio" not in path.parts[:-2]}
    corpus = {path: time for path, time in before.items() if "corpus" in str(path)}
    tokens = {path: path.stat().st_mtime_ns for path in demo.glob("tokens/**/codes.npy")}
    table = read(demo / "table.csv")
    run_demo(demo, minutes=0.01, clips=40, progress=False, config=TINY, parts=tiny_parts())
    assert len(corpus) == 40 and all(path.stat().st_mtime_ns == time for path, time in corpus.items())
    assert len(tokens) == 2 and all(path.stat().st_mtime_ns == time for path, time in tokens.items())
    for old, new in zip(table, read(demo / "table.csv"), strict=True):
        assert new == old or new["name"] in (LIVE, LIVE_MISMATCHED)  # its number of steps is a matter of the clock
    printed = capsys.readouterr().out
    assert "1/6 corpus" in printed and "6/6 report" in printed and "live training took" in printed
    assert "| real clips" in printed and "validation loss" in printed
    assert re.search(r"loss [\d.]+ with own captions, [\d.]+ with other clips', difference", printed)


def test_another_codec_gets_tokens_of_its_own(demo, tmp_path):
    corpus = open_splits(demo, None, 40, seconds=1.0, progress=False)["test"]
    one, same, other = (tokens_for(corpus, tiny_codec(seed), tmp_path, progress=False) for seed in (0, 0, 1))
    assert (one.codes == same.codes).all() and not (one.codes == other.codes).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_large_folder_is_cut_down_by_chance_and_clips_keep_their_sound(demo):
    whole = open_splits(demo, None, 40, seconds=1.0, progress=False)["train"]
    folder = next(demo.glob("corpus-*"))
    some = open_splits(demo, folder, 5, seconds=1.0)["train"]
    assert len(some) == 5 and set(some.captions) <= set(whole.captions)
    row = [clip.file for clip in whole.clips].index(some.clips[3].file)
    assert torch.equal(some.load(3), whole.load(row))


def test_a_single_table_is_refused_because_it_would_test_on_what_it_trained_on(demo, tmp_path):
    with pytest.raises(MinigenError, match="without splits"):
        open_splits(tmp_path, next(demo.glob("corpus-*")) / "train.csv", 40)


def test_damaged_clips_are_passed_over(demo, tmp_path):
    shutil.copytree(next(demo.glob("corpus-*")), tmp_path / "c")
    corpus = open_splits(tmp_path, tmp_path / "c", 40, seconds=1.0)["test"]
    file = corpus.clips[1].file
    content = bytearray(open(file, "rb").read())
    content[44:] = bytes(len(content) - 44)  # silence
    open(file, "wb").write(content)
    clips, wavs = load_some(corpus, 10)
    assert len(clips) == len(wavs) == len(corpus) - 1 and corpus.report.skipped == [(file, "silent")]


def test_the_steps_fill_the_time_that_the_validations_leave():
    assert steps_in(90, 0.5, 3.0) == 180 - 24 and steps_in(10, 0.5, 3.0) == 10 and steps_in(0.1, 1.0, 3.0) == 2


def test_minutes_that_are_no_time_are_refused(tmp_path):
    with pytest.raises(MinigenError, match="minutes is 0"):
        run_demo(tmp_path, minutes=0, parts=tiny_parts())


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MinigenError, match="cannot write to"):
        run_demo(tmp_path / "file", parts=tiny_parts())


def test_the_demo_runs_on_a_few_real_recordings(esc10, tmp_path, capsys):
    choose = random.Random(0)
    folders = sorted(folder for folder in esc10.iterdir() if folder.is_dir())
    for folder in folders:
        (tmp_path / "data" / folder.name).mkdir(parents=True)
        files = sorted(file for file in folder.iterdir() if file.suffix in (".ogg", ".wav"))
        for file in choose.sample(files, 4):
            shutil.copy(file, tmp_path / "data" / folder.name)
    report = run_demo(tmp_path / "out", 0.01, data=tmp_path / "data", progress=False, config=TINY, parts=tiny_parts())
    rows = read(tmp_path / "out" / "table.csv")
    assert [row["name"] for row in rows] == ROWS and rows[0]["order"] == ""  # one event a clip: no order to tell
    page = report.read_text("utf-8")
    assert "1/6 corpus" in capsys.readouterr().out and "clips of “data”" in page and str(tmp_path) not in page
    assert all(float(row["clap"]) <= 1 for row in rows)
