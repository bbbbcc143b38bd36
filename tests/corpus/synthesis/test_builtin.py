"""The built-in corpus: honest scenes, audible events, separate splits, the same bytes from the same seed."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis import builtin
from minigen.corpus.synthesis.builtin import COLUMNS, SPLITS, build_corpus, describe_clip, split_sizes
from minigen.corpus.synthesis.dsp import RATE
from minigen.corpus.synthesis.scenes import (
    COUNTED,
    SOUNDS,
    event_gain_db,
    has_held_out,
    held_out_pairs,
    loudness_rms,
    render_event,
    render_scene,
    sample_scene,
)
from minigen.engine.errors import MinigenError


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    with open(folder / f"{split}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return build_corpus(tmp_path_factory.mktemp("corpus"), clips=40, seconds=2.5, workers=1, progress=False)


@pytest.fixture(scope="module")
def described() -> dict[str, list]:
    sizes = {"train": 400, "validation": 120, "test": 120}
    return {split: [describe_clip(0, split, i, 4.0)[:2] for i in range(size)] for split, size in sizes.items()}


def test_every_kind_has_a_sound_and_occurs_in_a_few_hundred_scenes(described):
    assert set(SOUNDS) == set(KINDS)
    seen = Counter(event.kind for scene, _ in described["train"] for event in scene.events)
    assert set(seen) == set(KINDS) and max(seen.values()) < 5 * min(seen.values())


def test_held_back_pairs_are_an_eighth_and_cover_all_kinds_evenly():
    pairs = held_out_pairs()
    assert abs(len(pairs) / (len(KINDS) * (len(KINDS) - 1) / 2) - 0.12) < 0.01
    often = Counter(kind for pair in pairs for kind in pair)
    assert set(often) == set(KINDS) and max(often.values()) - min(often.values()) <= 2


def test_held_back_pairs_sound_only_in_the_test_split(described):
    for split in ("train", "validation"):
        assert not any(has_held_out([event.kind for event in scene.events]) for scene, _ in described[split])
    assert [scene.held_out for scene, _ in described["test"]] == [index % 2 == 1 for index in range(120)]


def test_no_scene_and_no_wording_is_shared_between_splits(described):
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not {scene for scene, _ in described[first]} & {scene for scene, _ in described[second]}
        assert not {text.lower() for _, text in described[first]} & {text.lower() for _, text in described[second]}


@pytest.mark.parametrize("seconds", [1.0, 2.0, 4.0, 30.0])
def test_events_lie_inside_the_clip_and_counts_have_room(seconds):
    for seed in range(300):
        scene = sample_scene(np.random.default_rng(seed), seconds)
        assert [e.onset for e in scene.events] == sorted(e.onset for e in scene.events)
        for event in scene.events:
            length = event.offset - event.onset
            assert 0 <= event.onset and event.offset <= seconds and length >= 0.15
            room_for = length / COUNTED[event.kind][0] if event.kind in COUNTED else 1
            assert 1 <= event.count <= max(1, room_for + 0.01)


def test_the_mix_of_scenes_is_two_fifths_single_and_a_seventh_triple():
    kinds = Counter()
    for seed in range(1500):
        scene = sample_scene(np.random.default_rng(seed))
        kinds[scene.relation, len(scene.events)] += 1
    share = {key: count / 1500 for key, count in kinds.items()}
    assert abs(share["single", 1] - 0.4) < 0.05 and abs(share["followed by", 3] - 0.15) < 0.04
    assert abs(share["while", 2] - share["followed by", 2]) < 0.06


def test_sounds_at_once_differ_by_no_more_than_eight_decibels():
    for seed in range(1500):
        scene = sample_scene(np.random.default_rng(seed))
        if scene.relation == "while" or scene.background:
            gains = [event_gain_db(event) for event in scene.events]
            assert max(gains) - min(gains) <= 8


def test_an_event_is_rendered_at_the_level_its_words_claim():
    for seed in range(12):
        for event in sample_scene(np.random.default_rng(seed)).events:
            sound = render_event(event, np.random.default_rng(seed))
            assert abs(20 * np.log10(loudness_rms(sound)) - event_gain_db(event)) < 0.1
            assert abs(sound[0]) < 1e-6 and abs(sound[-1]) < 0.02 * np.abs(sound).max()


def test_clips_neither_clip_nor_vanish_and_louder_words_mean_higher_peaks():
    peaks = {"loud": [], "ordinary": [], "soft": []}
    for seed in range(60):
        scene = sample_scene(np.random.default_rng(seed), 2.0)
        sound = render_scene(scene, np.random.default_rng(seed), 32000)
        assert sound.dtype == np.float32 and sound.shape == (32000,) and np.all(np.isfinite(sound))
        assert 0.19 < np.abs(sound).max() < 0.96
        if scene.relation == "single" and scene.events[0].distance == "ordinary":
            peaks[scene.events[0].loudness].append(np.abs(sound).max())
    assert min(peaks["loud"]) > max(peaks["ordinary"]) > min(peaks["ordinary"]) > max(peaks["soft"])


def test_a_scene_is_quiet_where_nothing_sounds():
    checked = 0
    for seed in range(200):
        scene = sample_scene(np.random.default_rng(seed))
        event = scene.events[0]
        if scene.relation == "single" and event.onset > 0.5:
            sound = render_scene(scene, np.random.default_rng(seed), 64000)
            during = sound[round(event.onset * RATE) : round(event.offset * RATE)]
            assert np.std(sound[: round(event.onset * RATE) - 160]) < 0.1 * loudness_rms(during)
            checked += 1
            if checked == 5:
                return
    raise AssertionError("too few scenes with a late event")


def test_the_tables_have_audiocaps_columns_and_describe_the_files(corpus):
    sizes = split_sizes(40)
    for split in SPLITS:
        table = rows(corpus, split)
        assert tuple(table[0]) == COLUMNS and len(table) == sizes[split]
        for row in table:
            info = soundfile.info(corpus / row["file"])
            assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 40000, "PCM_16")
            lists = [row[name].split(";") for name in ("kinds", "counts", "onsets", "offsets", "pitches")]
            assert len({len(values) for values in lists}) == 1 and set(lists[0]) <= set(KINDS)
            assert [float(x) for x in lists[2]] == sorted(float(x) for x in lists[2])
            assert row["relation"] in ("single", "while", "followed by") and row["start_time"] == "0"
            assert row["held_out"] == str(int(has_held_out(lists[0])))
    every = [row["audiocap_id"] for split in SPLITS for row in rows(corpus, split)]
    assert len(set(every)) == 40
    assert {row["held_out"] for row in rows(corpus, "test")} == {"0", "1"}


def test_two_workers_of_a_script_without_a_main_guard_write_the_same_bytes_as_one(corpus, tmp_path):
    folder, script = tmp_path / "corpus", tmp_path / "script.py"
    script.write_text(
        "from minigen.corpus.synthesis.builtin import build_corpus\n"
        f"build_corpus({str(folder)!r}, clips=40, seconds=2.5, workers=2, progress=False)\nprint('made')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("made\n", "", 0)
    assert contents(folder) == contents(corpus)


def test_a_smaller_corpus_is_the_start_of_a_larger_one_and_another_seed_is_another_corpus(corpus, tmp_path):
    small = build_corpus(tmp_path / "small", clips=8, seconds=2.5, workers=1, progress=False)
    for split in SPLITS:
        table = rows(small, split)
        assert table == rows(corpus, split)[: len(table)]
        assert all((small / row["file"]).read_bytes() == (corpus / row["file"]).read_bytes() for row in table)
    other = build_corpus(tmp_path / "other", clips=3, seed=1, seconds=2.5, workers=1, progress=False)
    assert rows(other, "train")[0] != rows(corpus, "train")[0]


def test_a_stopped_build_is_finished_without_rendering_again(tmp_path, monkeypatch):
    whole = contents(build_corpus(tmp_path, clips=6, seconds=1.0, workers=1, progress=False))
    (tmp_path / "train.csv").unlink()
    (tmp_path / "audio/train-000001.wav").unlink()
    (tmp_path / "audio/test-000000.wav").write_bytes(b"cut off")
    rendered = []
    monkeypatch.setattr(builtin, "render_scene", lambda *a: rendered.append(a) or render_scene(*a))
    build_corpus(tmp_path, clips=6, seconds=1.0, workers=1, progress=False)
    assert len(rendered) == 2 and contents(tmp_path) == whole


def test_a_folder_keeps_to_one_recipe(tmp_path):
    build_corpus(tmp_path, clips=3, seconds=1.0, workers=1, progress=False)
    with pytest.raises(MinigenError, match="another corpus"):
        build_corpus(tmp_path, clips=3, seed=1, seconds=1.0, workers=1, progress=False)


def test_split_sizes_are_sane_for_any_number_of_clips():
    for clips in (3, 4, 6, 10, 57, 1000):
        sizes = split_sizes(clips)
        assert sum(sizes.values()) == clips and min(sizes.values()) >= 1
    assert split_sizes(1000) == {"train": 800, "validation": 100, "test": 100}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"clips": 2}, "clips is 2"), ({"seconds": 0.5}, "0.5"), ({"seconds": 31}, "31"),
     ({"seconds": float("nan")}, "nan"), ({"workers": 0}, "workers 0"), ({"seed": -1}, "seed is -1")],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, wrong, said):
    with pytest.raises(MinigenError, match=said):
        build_corpus(tmp_path / "corpus", **{"clips": 3, "progress": False, **wrong})
    assert not (tmp_path / "corpus").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MinigenError, match="cannot write the corpus"):
        build_corpus(tmp_path / "file" / "corpus", clips=3, progress=False)


def test_a_worker_that_fails_is_reported_in_one_line(tmp_path):
    (tmp_path / "audio/train-000000.wav").mkdir(parents=True)
    with pytest.raises(MinigenError, match="cannot write") as error:
        build_corpus(tmp_path, clips=4, seconds=1.0, workers=2, progress=False)
    assert "\n" not in str(error.value) and not (tmp_path / "train.csv").exists()
