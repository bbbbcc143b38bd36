"""Public layouts of captioned sound, as their authors leave them on disk: right captions, or one line that refuses."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.app import cli
from minigen.corpus import read_corpus
from minigen.corpus.folders import keeps_files, label_of, split_named
from minigen.engine.errors import MinigenError

SPLITS = ("train", "validation", "test")
HEADER = ("audiocap_id", "youtube_id", "start_time", "caption")
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)


def sounds(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".m4a", ".webm")):
            (root / name).write_bytes(b"\0\0\0\x20ftypM4A ")
        else:
            soundfile.write(root / name, TONE, 16000, format={"opus": "OGG"}.get(name[-4:]))


def table(root: Path, name: str, *rows: tuple) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, delimiter="\t" if name.endswith(".tsv") else ",", lineterminator="\n").writerows(rows)
    (root / name).write_text(text.getvalue())


def lines(root: Path, name: str, *rows: dict) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def audiocaps(root):
    for split, video in (("train", "aB3dEfGh1Jk"), ("val", "--0dEfG4hIj"), ("test", "LMnoPqRs2Tu")):
        sounds(root, f"audio/Y{video}.wav")
        table(
            root, f"{split}.csv", ("audiocap_id", "youtube_id", "start_time", "caption"), (1, video, 30, "rain falls")
        )


def audiocaps_as_aac_datasets(root):
    for split, video in (("train", "aB3dEfGh1Jk"), ("val", "--0dEfG4hIj"), ("test", "LMnoPqRs2Tu")):
        sounds(root, f"audio_32000Hz/{split}/{video}_30.flac")
        table(root, f"csv_files/{split}.csv", HEADER, (1, video, 30, "rain falls"))


def clotho(root):
    for split in ("development", "validation", "evaluation"):
        sounds(root, f"{split}/Rain on a roof.wav")
        table(root, f"clotho_captions_{split}.csv", ("file_name", *(f"caption_{i}" for i in range(1, 6))),
              ("Rain on a roof.wav", *["rain falls"] * 5))  # fmt: skip
        table(root, f"clotho_metadata_{split}.csv", ("file_name", "keywords", "sound_id"), ("x.wav", "rain", 1))


def audiofolder_csv(root):
    for split in ("train", "validation", "test"):
        sounds(root, f"{split}/0001.wav")
        table(root, f"{split}/metadata.csv", ("file_name", "text"), ("0001.wav", "rain falls"))


def audiofolder_jsonl(root):
    sounds(root, *(f"data/{n}.mp3" for n in range(30)))
    lines(root, "metadata.jsonl", *({"file_name": f"data/{n}.mp3", "caption": "rain falls"} for n in range(30)))


def split_folders(root):
    sounds(root, *(f"{split}/rain/{n}.wav" for split in ("train", "dev", "test") for n in range(2)))


def esc50(root):
    sounds(root, *(f"audio/{fold}-1001-A-10.wav" for fold in range(1, 6)))
    table(root, "meta/esc50.csv", ("filename", "fold", "target", "category", "esc10", "src_file", "take"),
          *((f"{fold}-1001-A-10.wav", fold, 10, "rain", True, 1001, "A") for fold in range(1, 6)))  # fmt: skip
    (root / "README.md").write_text("ESC-50")


def urbansound8k(root):
    sounds(root, *(f"audio/fold{fold}/{fold}-3-0-0.wav" for fold in range(1, 11)))
    head = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    rows = ((f"{fold}-3-0-0.wav", fold, 0.5, 4.5, 1, fold, 3, "rain") for fold in range(1, 11))
    table(root, "metadata/UrbanSound8K.csv", head, *rows)


def fsd50k(root):
    sounds(root, "FSD50K.dev_audio/1.wav", "FSD50K.dev_audio/2.wav", "FSD50K.eval_audio/3.wav")
    place, head = "FSD50K.ground_truth", ("fname", "labels", "mids")
    table(root, f"{place}/dev.csv", (*head, "split"), (1, "Rain,Water", "/m/1", "train"), (2, "Rain", "/m/1", "val"))
    table(root, f"{place}/eval.csv", head, (3, "Rain,Water", "/m/1"))
    table(root, f"{place}/vocabulary.csv", (0, "Rain", "/m/1"))


def wavcaps(root):
    sounds(root, *(f"audio/{n}.flac" for n in range(30)))
    rows = [{"id": str(n), "caption": "rain falls", "duration": 1.0} for n in range(30)]
    (root / "json_files").mkdir()
    (root / "json_files/fsd_final.json").write_text(json.dumps({"num_captions_per_audio": 1, "data": rows}))


def musiccaps(root):
    sounds(root, *(f"wav/ab-{n:08d}.wav" for n in range(30)))
    head = ("ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "is_audioset_eval")
    rows = ((f"ab-{n:08d}", 30, 40, "/m/1", "['a', 'b']", "rain falls", False) for n in range(30))
    table(root, "musiccaps-public.csv", head, *rows)


def manifest(root):
    sounds(root, *(f"wavs/{n}.wav" for n in range(30)))
    rows = ({"audio_filepath": f"/srv/maker/wavs/{n}.wav", "duration": 0.1, "text": "rain falls"} for n in range(30))
    lines(root, "manifest.jsonl", *rows)


def several_captions_in_a_list(root):
    sounds(root, *(f"{n}.wav" for n in range(30)))
    rows = ({"path": f"{n}.wav", "captions": ["rain falls", 7, "rain falls"]} for n in range(30))
    lines(root, "captions.jsonl", *rows)


# How each is laid out, its captions, and how many rows of a split are usable: {split: rows}; None where chance decides.
READ = {
    "AudioCaps": (audiocaps, "rain falls", (1, 1, 1)),
    "AudioCaps, as aac-datasets lays it out": (audiocaps_as_aac_datasets, "rain falls", (1, 1, 1)),
    "Clotho": (clotho, "rain falls", (5, 5, 5)),
    "AudioFolder, a metadata.csv in each split": (audiofolder_csv, "rain falls", (1, 1, 1)),
    "AudioFolder, one metadata.jsonl": (audiofolder_jsonl, "rain falls", None),
    "split folders around class folders": (split_folders, "Rain falls", (2, 2, 2)),
    "ESC-50": (esc50, "Rain falls", (3, 1, 1)),
    "UrbanSound8K": (urbansound8k, "Rain falls", (8, 1, 1)),
    "FSD50K": (fsd50k, "Rain falls", (1, 1, 1)),
    "WavCaps": (wavcaps, "rain falls", None),
    "MusicCaps": (musiccaps, "rain falls", None),
    "a speech manifest with another machine's paths": (manifest, "rain falls", None),
    "lists of captions": (several_captions_in_a_list, "rain falls", None),
}


@pytest.mark.parametrize("name", READ)
def test_a_public_layout_gives_its_captions_in_three_splits(name, tmp_path):
    lay_out, caption, sizes = READ[name]
    lay_out(tmp_path)
    corpora = {split: read_corpus(tmp_path, split, seconds=0.1) for split in SPLITS}
    for corpus in corpora.values():
        assert set(corpus.captions) == {caption} and corpus.load(0).shape == (1, 1, 1600)
        assert set(corpus.report.by_reason) <= {"caption is no text"}
    if sizes:
        assert tuple(map(len, corpora.values())) == sizes
    recordings = {split: {clip.file for clip in corpus.clips} for split, corpus in corpora.items()}
    assert not recordings["train"] & recordings["test"] and not recordings["train"] & recordings["validation"]


def audiocraft(root):
    sounds(root, "audio/a.wav")
    lines(root, "egs/train/data.jsonl", {"path": "audio/a.wav", "duration": 10.0, "sample_rate": 32000})


def audioset(root):
    sounds(root, "audio/aB3dEfGh1Jk.wav")
    table(root, "balanced_train_segments.csv", ("# YTID", "start_seconds", "end_seconds", "positive_labels"),
          ("aB3dEfGh1Jk", 30.0, 40.0, "/m/1,/m/2"))  # fmt: skip


def vggsound(root):
    sounds(root, "video/aB3dEfGh1Jk_000030.wav", "data/b.wav")
    (root / "video").rename(root / "audio")
    table(root, "vggsound.csv", ("aB3dEfGh1Jk", 30, "people marching", "test"))


def two_tables(root):
    sounds(root, "audio/a.wav")
    for name in ("captions_a.csv", "captions_b.csv"):
        table(root, name, ("file_name", "caption"), ("a.wav", "rain falls"))


def no_table(root):
    sounds(root, "audio/fold1/a.wav", "data/train/b.wav")


def needs_ffmpeg(root):
    sounds(root, "audio/aB3dEfGh1Jk.m4a")
    table(root, "train.csv", ("youtube_id", "caption"), ("aB3dEfGh1Jk", "rain falls"))


REFUSED = {
    "audiocraft's manifest, without captions": (audiocraft, "data.jsonl has no column caption"),
    "AudioSet, labels as codes": (audioset, "balanced_train_segments.csv has no column caption"),
    "VGGSound, a table without a header": (vggsound, "vggsound.csv has no column caption"),
    "two tables, neither of a split": (two_tables, "several tables for one split: captions_a.csv, captions_b.csv"),
    "folders that only keep files": (no_table, r"no captions in .*\(only audio, data\)"),
    "sound that needs FFmpeg": (needs_ffmpeg, r"1 .m4a needs FFmpeg\).*Convert the files"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_captions_is_refused_in_one_line_that_names_the_table(name, tmp_path):
    lay_out, match = REFUSED[name]
    lay_out(tmp_path)
    with pytest.raises(MinigenError, match=match) as caught:
        read_corpus(tmp_path)
    assert "\n" not in str(caught.value)


# names of folders


@pytest.mark.parametrize("name", [
    "audio", "data", "train", "test", "dev", "fold1", "wavs_16k", "audio_32000Hz", "Fold 3", "train_v2", "dev-clean",
    "FSD50K.dev_audio", "001", "validation", "part-00002",
])  # fmt: skip
def test_a_folder_that_keeps_files_names_no_sound(name):
    assert keeps_files(name)


@pytest.mark.parametrize(
    "name", ["001 - Dog bark", "rain", "vuvuzela_horn", "Sea waves", "clock_alarm", "dog", "speech"]
)
def test_a_folder_that_names_a_sound_does(name):
    assert not keeps_files(name) and label_of(("audio", "fold1", name), {"audio"}) == name


def test_train_beside_other_sounds_is_the_vehicle(tmp_path):
    sounds(tmp_path, *(f"{name}/{n}.wav" for name in ("train", "dog") for n in range(20)))
    assert set(read_corpus(tmp_path).captions) == {"The sound of train", "A dog barks"}


@pytest.mark.parametrize(("name", "split"), [
    ("train", "train"), ("Train_v2", "train"), ("clotho_captions_development", "train"), ("val", "validation"),
    ("dev", "validation"), ("evaluation_setup", "test"), ("test-other", "test"), ("train_and_test", None), ("x", None),
])  # fmt: skip
def test_the_split_that_a_name_speaks_of(name, split):
    assert split_named(name) == split


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    sounds(tmp_path, "elsewhere/rain/a.wav", "elsewhere/rain/b.wav", "elsewhere/rain/c.wav")
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "rain").symlink_to(tmp_path / "elsewhere/rain")
    (tmp_path / "elsewhere/rain/back").symlink_to(root)
    assert sum(len(read_corpus(root, split).clips) for split in SPLITS) == 3


# names of AudioCaps' clips


START = st.integers(0, 999)


@settings(max_examples=60, deadline=None)
@given(start=START, form=st.sampled_from(("{0}", "{0}.0", "{0}.000", "{0:06d}", "{1}", "{0}_{2}", "{0}.000_{2}.000",
                                          "{1}_{3}", "")), written=st.sampled_from(("{}", "{}.0")),
       before=st.sampled_from(("", "Y")), folder=st.sampled_from(("audio", "train", "a/b", ".")),
       suffix=st.sampled_from((".wav", ".flac", ".ogg")))  # fmt: skip
def test_a_clip_is_found_under_any_name_that_downloaders_give(
    tmp_path_factory, start, form, written, before, folder, suffix
):
    root = tmp_path_factory.mktemp("audiocaps")
    time = form.format(start, 1000 * start, start + 10, 1000 * start + 10_000)
    name = f"{before}-0vWxYz3aBc{'_' if time else ''}{time}"
    sounds(root, f"{folder}/{name}{suffix}", "audio/another.wav")
    table(root, "train.csv", ("youtube_id", "start_time", "caption"), ("-0vWxYz3aBc", written.format(start), "rain"))
    (clip,) = read_corpus(root).clips
    assert Path(clip.file).name == name + suffix and clip.start_time == start


def test_one_name_in_two_folders_is_the_one_in_the_split_or_none(tmp_path):
    sounds(tmp_path, "train/a.wav", "test/a.wav", "x/b.wav", "y/b.wav")
    table(tmp_path, "train.csv", ("file", "caption"), ("a.wav", "rain"), ("b.wav", "wind"))
    table(tmp_path, "test.csv", ("file", "caption"), ("a.wav", "rain"))
    train, test = read_corpus(tmp_path), read_corpus(tmp_path, "test")
    assert [Path(corpus.clips[0].file).parent.name for corpus in (train, test)] == ["train", "test"]
    assert train.report.by_reason == {"ambiguous": 1}


# what is said


def test_nothing_that_happens_to_a_clip_is_silent(tmp_path):
    sounds(tmp_path, *(f"rain/{n}.wav" for n in range(3)))
    soundfile.write(tmp_path / "rain/3.wav", np.resize(TONE, 80_000), 16000)
    soundfile.write(tmp_path / "rain/4.wav", TONE, 8000)
    changed = sum((read_corpus(tmp_path, split, seconds=1.0).report.changed for split in SPLITS), Counter())
    assert changed == {"captioned from a name": 5, "shorter than 1 s, filled with zeros": 4, "longer than 1 s, cut": 1,
                       "resampled from 8000 Hz": 1}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_look_tells_how_a_folder_is_understood_and_makes_nothing(name, tmp_path, monkeypatch, capsys):
    lay_out, caption, _ = READ[name]
    (tmp_path / "data set").mkdir()
    lay_out(tmp_path / "data set")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["corpus", "--look", "data set", "--split", "test"]) == 0
    said = capsys.readouterr().out
    assert "test: " in said and "readable" in said and "captions" in said and f'"{caption}"' in said
    assert "changed when read: " in said and os.listdir(tmp_path) == ["data set"]
