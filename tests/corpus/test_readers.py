"""The one reader of captioned audio: tables, class folders, AudioCaps, and everything that can be wrong with them."""

import csv
import importlib.util
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from minigen.audio import AudioError, load_audio
from minigen.corpus import Event, read_corpus
from minigen.engine.errors import MinigenError

HEADER = "audiocap_id,youtube_id,start_time,caption"


def write_sound(path, seconds=0.5, frequency=440.0, rate=16000, level=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate)
    return path


def write_table(path, *lines, header=HEADER):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def write_classes(folder, names, per_class):
    for name in names:
        for number in range(per_class):
            write_sound(folder / name / f"take {number}.wav")
    return folder


# tables


def test_rows_become_clips_in_the_order_of_the_table(tmp_path):
    write_table(tmp_path / "train.csv", "7,abc,30,A dog barks", "8,def,0,Rain falls")
    write_sound(tmp_path / "audio" / "def.wav")
    write_sound(tmp_path / "audio" / "abc.flac")
    corpus = read_corpus(tmp_path, seconds=0.25)
    assert len(corpus) == 2 and corpus.captions == ["A dog barks", "Rain falls"]
    clip = corpus.clips[0]
    assert (clip.audiocap_id, clip.youtube_id, clip.start_time, clip.events) == ("7", "abc", 30.0, ())
    assert corpus.load(0).shape == (1, 1, 4000) and corpus.load(0).dtype == torch.float32


@pytest.mark.parametrize(
    "place", ["abc.wav", "audio/abc.ogg", "audio/Yabc.mp3", "audio/abc_30.FLAC", "audio/part 1/Yabc_30.wav"]
)
def test_a_clip_is_found_under_the_names_audiocaps_clips_go_by(tmp_path, place):
    write_table(tmp_path / "train.csv", "7,abc,30,A dog barks")
    sound = write_sound(tmp_path / "x.wav")
    target = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    wave, rate = soundfile.read(sound)
    soundfile.write(target, wave, rate, format=target.suffix[1:].upper())
    assert read_corpus(tmp_path).clips[0].file == str(target)


def test_the_start_time_is_a_place_in_the_video_not_in_the_clip(tmp_path):
    write_table(tmp_path / "train.csv", "7,abc,30,A dog barks")
    sound = write_sound(tmp_path / "abc.wav", seconds=1.0)
    corpus = read_corpus(tmp_path, seconds=0.5)
    assert torch.equal(corpus.load(0), load_audio(sound)[..., :8000])


def test_a_clip_is_cut_or_padded_and_resampled_to_what_was_asked_for(tmp_path):
    write_table(tmp_path / "train.csv", "1,short,0,A beep", "2,long,0,A tone")
    write_sound(tmp_path / "short.wav", seconds=0.1)
    write_sound(tmp_path / "long.wav", seconds=3, rate=44100)
    corpus = read_corpus(tmp_path, seconds=1.0, sample_rate=24000)
    assert corpus.load(0).shape == corpus.load(1).shape == (1, 1, 24000)
    assert corpus.load(0)[..., 2500:].abs().max() == 0 and corpus.load(1)[..., -2000:].abs().max() > 0.4


def test_a_file_column_and_true_events_are_read(tmp_path):
    write_table(
        tmp_path / "val.csv",
        '1,a,0,"Rain, then barks",audio/a b.wav,rain;dog_bark,1;2,0.0;1.5,4.0;2.25,x',
        header=HEADER + ",file,kinds,counts,onsets,offsets,anything",
    )
    write_sound(tmp_path / "audio" / "a b.wav")
    clip = read_corpus(tmp_path, "validation").clips[0]
    assert clip.events == (Event("rain", 1, 0.0, 4.0), Event("dog_bark", 2, 1.5, 2.25))
    assert clip.caption == "Rain, then barks"


def test_a_table_may_have_a_mark_quoted_newlines_other_orders_and_extra_or_short_rows(tmp_path):
    write_sound(tmp_path / "son  été.wav")
    text = '\ufeffCaption ,FILE,extra\r\n"A dog\nbarks ""twice""",son  été.wav,1\r\n\r\nRain,son  été.wav\r\nalone\r\n'
    (tmp_path / "train.csv").write_bytes(text.encode())
    corpus = read_corpus(tmp_path / "train.csv")
    assert corpus.captions == ['A dog barks "twice"', "Rain"]
    assert corpus.report.by_reason == {"missing": 1}


@pytest.mark.parametrize(
    ("header", "named"),
    [("youtube_id,start_time", "'?caption"), ("caption,start_time", "youtube_id"), ("", "caption")],
)
def test_a_missing_column_is_named(tmp_path, header, named):
    write_table(tmp_path / "train.csv", "a,b", header=header)
    with pytest.raises(MinigenError, match=f"has no column {named}"):
        read_corpus(tmp_path)


def test_a_table_that_is_no_table_is_one_clear_error(tmp_path):
    (tmp_path / "train.csv").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(MinigenError):
        read_corpus(tmp_path)


def test_paths_that_leave_the_folder_are_skipped(tmp_path):
    write_sound(tmp_path / "secret.wav")
    write_sound(tmp_path / "corpus" / "fine.wav")
    names = ["../secret.wav", str(tmp_path / "secret.wav"), "audio/../../secret.wav", "./fine.wav"]
    write_table(tmp_path / "corpus" / "train.csv", *(f"{name},A tone" for name in names), header="file,caption")
    corpus = read_corpus(tmp_path / "corpus")
    assert len(corpus) == 1 and corpus.report.by_reason == {"outside the folder": 3}


def test_a_path_that_stays_in_one_folder_is_not_followed_out_of_the_other(tmp_path):
    write_sound(tmp_path / "elsewhere" / "tables" / "a.wav")
    (tmp_path / "elsewhere" / "clips").mkdir()
    (tmp_path / "tables").mkdir()
    table = write_table(tmp_path / "tables" / "train.csv", "../tables/a.wav,A tone", header="file,caption")
    with pytest.raises(MinigenError, match="1 missing"):
        read_corpus(table, audio=tmp_path / "elsewhere" / "clips")


def broken_corpus(folder):
    """A corpus with one good clip and one of each kind of trouble that the header shows, or that only loading shows."""
    good = write_sound(folder / "audio" / "good.wav").read_bytes()
    (folder / "audio" / "empty.wav").write_bytes(b"")
    (folder / "audio" / "half.wav").write_bytes(good[:5000])
    (folder / "audio" / "text.wav").write_text("not sound")
    (folder / "audio" / "folder.wav").mkdir()
    write_sound(folder / "audio" / "silent.wav", level=0)
    soundfile.write(folder / "audio" / "nan.wav", np.full(8000, np.nan), 16000, "FLOAT")
    names = ["good", "gone", "empty", "half", "text", "folder", "silent", "nan"]
    write_table(
        folder / "train.csv",
        *(f"audio/{name}.wav,A sound,dog_bark,1,0,1" for name in names),
        "audio/good.wav,,,,,",
        "audio/good.wav,A sound,dog_bark,many,0,1",
        header="file,caption,kinds,counts,onsets,offsets",
    )
    return folder


def test_trouble_is_skipped_counted_and_listed_and_never_stops_a_run(tmp_path):
    corpus = read_corpus(broken_corpus(tmp_path))
    assert corpus.report.looked_at == 10 and corpus.report.readable == len(corpus) == 3
    assert dict(corpus.report.skipped) == {
        "audio/gone.wav": "missing", "audio/empty.wav": "empty", "audio/half.wav": "truncated",
        "audio/text.wav": "not audio", "audio/folder.wav": "not a file", "audio/good.wav": "bad events",
    }  # fmt: skip
    assert corpus.report.by_reason["no caption"] == 1
    assert "10 rows looked at, 3 readable" in str(corpus.report)


def test_silence_and_nan_show_when_the_clip_is_loaded(tmp_path):
    corpus = read_corpus(broken_corpus(tmp_path))
    assert corpus.load(0).abs().max() > 0.4
    for index, reason in ((1, "silent"), (2, "not finite")):
        with pytest.raises(AudioError) as caught:
            corpus.load(index)
        assert caught.value.reason == reason


def test_the_list_of_the_skipped_is_a_table(tmp_path):
    corpus = read_corpus(broken_corpus(tmp_path), skipped_to=tmp_path / "out" / "skipped.csv")
    with open(tmp_path / "out" / "skipped.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"] and [tuple(row) for row in rows] == corpus.report.skipped


def test_nothing_readable_says_what_was_looked_at_and_where_the_list_is(tmp_path):
    write_table(tmp_path / "train.csv", "1,a,0,A dog barks", "2,b,0,Rain falls")
    (tmp_path / "a.wav").write_text("not sound")
    with pytest.raises(MinigenError) as caught:
        read_corpus(tmp_path, skipped_to=tmp_path / "skipped.csv")
    assert f"no audio in {tmp_path} (train): 2 rows looked at, 0 readable (1 not audio, 1 missing)" in str(caught.value)
    assert f"list in {tmp_path / 'skipped.csv'}" in str(caught.value)
    assert "b,missing" in (tmp_path / "skipped.csv").read_text()


def test_the_report_says_how_much_of_each_split_is_there(tmp_path):
    write_table(tmp_path / "train.csv", "1,a,0,A dog barks", "2,b,0,Rain falls", "3,c,0,Wind blows")
    write_table(tmp_path / "val.csv", "4,d,0,A bell rings")
    write_table(tmp_path / "test.csv", "nothing", header="not,a,table")
    write_sound(tmp_path / "a.wav")
    report = read_corpus(tmp_path).report
    assert report.splits == {"train": (1, 3), "validation": (0, 1), "test": (0, 0)}
    assert report.by_reason == {"missing": 2}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"path": "nowhere"}, "is not there"),
        ({"path": "train.csv/x"}, "is not there"),
        ({"path": "a.wav"}, "a.wav is neither a folder nor a table. Name a folder, or a table: csv, tsv, jsonl, json"),
        ({"path": "."}, "only train.csv"),
        ({"path": "empty"}, "no captions in"),
        ({"path": ".", "split": "tset"}, "no split 'tset'"),
        ({"path": ".", "split": "train", "seconds": 0}, "more than 0 s"),
        ({"path": ".", "split": "train", "audio": "nowhere"}, "no folder nowhere"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_clear_error(tmp_path, monkeypatch, arguments, match):
    write_table(tmp_path / "train.csv", "a.wav,A tone", header="file,caption")
    write_sound(tmp_path / "a.wav")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinigenError, match=match):
        read_corpus(**{"split": "test", **arguments})


# class subfolders


def test_class_folders_caption_and_label_their_recordings(tmp_path):
    write_classes(tmp_path, ["001 - Dog bark", "vuvuzela_horn"], 8)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "vuvuzela_horn" / "._take 1.wav").write_text("left by a Mac")
    corpus = read_corpus(tmp_path, seconds=0.25)
    captions = {clip.file.split(os.sep)[-2]: (clip.caption, clip.events) for clip in corpus.clips}
    assert captions["001 - Dog bark"] == ("A dog barks", (Event("dog_bark", 1, 0.0, 0.25),))
    caption, events = captions["vuvuzela_horn"]
    assert "vuvuzela horn" in caption and caption[0].isupper() and events == ()
    assert not corpus.report.skipped


def test_every_recording_falls_into_one_split_and_stays_there_when_others_come(tmp_path):
    def splits():
        corpora = {name: read_corpus(tmp_path, name) for name in ("train", "validation", "test")}
        return {clip.file: name for name, corpus in corpora.items() for clip in corpus.clips}

    before = splits() if write_classes(tmp_path, ["dog", "rain"], 40) else {}
    sizes = {name: list(before.values()).count(name) for name in ("train", "validation", "test")}
    assert len(before) == 80 and 50 <= sizes["train"] <= 74 and min(sizes.values()) >= 2
    write_classes(tmp_path, ["siren"], 20)
    after = splits()
    assert len(after) == 100 and {file: after[file] for file in before} == before


def test_a_handful_of_recordings_still_gives_three_splits(tmp_path):
    write_classes(tmp_path, ["dog"], 3)
    assert [len(read_corpus(tmp_path, split)) for split in ("train", "validation", "test")] == [1, 1, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
def test_a_file_whose_name_is_no_unicode_is_read_like_any_other(tmp_path):
    write_classes(tmp_path, ["dog"], 3)
    for path in sorted((tmp_path / "dog").iterdir()):
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32000), 16000)
        os.rename(path, os.fsencode(path.with_suffix("")) + b"\xe9.wav")
    for split in ("train", "validation", "test"):
        assert read_corpus(tmp_path, split, seconds=1.0).load(0).shape == (1, 1, 16000)


def test_a_row_of_a_table_without_a_sound_holds_nothing():
    from minigen.corpus.readers import _sound

    assert _sound(None) == _sound({"bytes": None, "path": None}) == b""
    assert _sound({"bytes": b"RIFF", "path": "a.wav"}) == b"RIFF"


def test_a_single_recording_is_told_to_be_too_few(tmp_path):
    write_classes(tmp_path, ["dog"], 1)
    shares = {}
    for split in ("train", "validation", "test"):
        try:
            shares[split] = len(read_corpus(tmp_path, split))
        except MinigenError as error:
            assert "All of its files belong to other splits. Add more, at least three" in str(error)
    assert list(shares.values()) == [1]


def test_takes_of_one_recording_share_a_split(tmp_path):
    for clip in range(30):
        for take in "ABC":
            write_sound(tmp_path / "rain" / f"1-{clip}-{take}.wav", seconds=0.01)
    seen = {}
    for split in ("train", "validation", "test"):
        for clip in read_corpus(tmp_path, split).clips:
            seen.setdefault(clip.audiocap_id[:-2], set()).add(split)
    assert len(seen) == 30 and all(len(splits) == 1 for splits in seen.values())


def test_a_long_recording_is_read_from_its_first_sound(tmp_path):
    wave = np.zeros(32000)
    wave[12800:] = np.sin(np.arange(19200))
    for number in range(3):
        (tmp_path / "bell").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "bell" / f"{number}.wav", wave, 16000)
    corpus = read_corpus(tmp_path, seconds=0.5)
    assert torch.equal(corpus.load(0), load_audio(corpus.clips[0].file)[..., 12800:20800])
    late = read_corpus(tmp_path, seconds=1.5)  # the last 1.5 s begin before the first sound
    assert torch.equal(late.load(0), load_audio(late.clips[0].file)[..., 8000:])


def test_broken_recordings_in_class_folders_are_skipped(tmp_path):
    write_classes(tmp_path, ["dog"], 30)
    for number in range(30):
        (tmp_path / "dog" / f"broken {number}.wav").write_bytes(b"RIFF")
        (tmp_path / "dog" / f"notes {number}.txt").write_text("about")
    corpora = [read_corpus(tmp_path, split) for split in ("train", "validation", "test")]
    assert sum(len(corpus) for corpus in corpora) == 30
    assert sum(corpus.report.by_reason.get("not audio", 0) for corpus in corpora) == 60


# parquet and the hub, through `datasets`


class FakeAudio:
    """As much of `datasets.Audio` as the reader uses."""

    def __init__(self, decode=True):
        self.decode = decode


class FakeTable:
    """As much of `datasets.Dataset` as the reader uses."""

    def __init__(self, rows):
        self.rows = rows
        self.column_names = list(rows[0])
        self.features = {name: FakeAudio() if name == "audio" else None for name in self.column_names}

    def __getitem__(self, index):
        return self.rows[index]

    def __iter__(self):
        return iter(self.rows)

    def remove_columns(self, name):
        return FakeTable([{key: value for key, value in row.items() if key != name} for row in self.rows])

    def cast_column(self, name, feature):
        assert (name, feature.decode) == ("audio", False)
        return self


def fake_datasets(monkeypatch, rows):
    calls = []

    def load_dataset(name, data_files=None, split=None):
        calls.append((name, data_files, split))
        if isinstance(rows, Exception):
            raise rows
        return FakeTable(rows)

    module = SimpleNamespace(load_dataset=load_dataset, Audio=FakeAudio)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def hub_rows(tmp_path):
    sound = write_sound(tmp_path / "sound.wav")
    row = {"audiocap_id": 1, "youtube_id": "abc", "start_time": 30, "caption": "A dog barks"}
    return [
        {**row, "caption": "", "audio": {"bytes": sound.read_bytes(), "path": "x.wav"}},
        {**row, "audio": {"bytes": sound.read_bytes(), "path": "x.wav"}},
        {**row, "audio": {"bytes": None, "path": str(sound)}},
        {**row, "audio": {"bytes": b"broken", "path": "x.wav"}},
    ]


def test_sound_inside_a_table_is_decoded_from_its_bytes(tmp_path, monkeypatch):
    calls = fake_datasets(monkeypatch, hub_rows(tmp_path))
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (tmp_path / "data" / name).write_bytes(b"PAR1")
    corpus = read_corpus(tmp_path, seconds=0.5)
    assert calls == [("parquet", {"train": [str(tmp_path / "data" / "train-00000-of-00001.parquet")]}, "train")]
    assert len(corpus) == 3 and corpus.report.by_reason == {"no caption": 1}
    assert corpus.clips[0].start_time == 30.0 and corpus.captions[0] == "A dog barks"
    assert torch.equal(corpus.load(0), load_audio(tmp_path / "sound.wav"))
    assert torch.equal(corpus.load(0), corpus.load(1))
    with pytest.raises(AudioError):
        corpus.load(2)


def test_a_name_on_the_hub_is_fetched_and_failure_is_one_clear_error(tmp_path, monkeypatch):
    calls = fake_datasets(monkeypatch, hub_rows(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len(read_corpus("someone/AudioCaps", "test")) == 3 and calls == [("someone/AudioCaps", None, "test")]
    fake_datasets(monkeypatch, ConnectionError("no network"))
    with pytest.raises(MinigenError, match="cannot read someone/AudioCaps: no network"):
        read_corpus("someone/AudioCaps")
    fake_datasets(monkeypatch, [{"audio": {}, "words": "a"}])
    with pytest.raises(MinigenError, match="has no column caption"):
        read_corpus("someone/AudioCaps")


def test_without_the_datasets_library_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "a.parquet", "someone/AudioCaps"):
        with pytest.raises(MinigenError, match="pip install datasets"):
            read_corpus(path)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the optional `datasets` is not installed")
def test_a_real_parquet_file_of_the_hubs_schema_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import pyarrow
    import pyarrow.parquet

    rows = [row for row in hub_rows(tmp_path) if row["caption"]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    corpus = read_corpus(tmp_path / "train.parquet", seconds=0.5)
    assert len(corpus) == 3 and torch.equal(corpus.load(0), load_audio(tmp_path / "sound.wav"))


# real data


def test_real_recordings_are_read_from_class_folders(esc10):
    corpora = {split: read_corpus(esc10, split) for split in ("train", "validation", "test")}
    clips = [clip for corpus in corpora.values() for clip in corpus.clips]
    assert len({clip.file for clip in clips}) == len(clips) >= 30
    assert len(corpora["train"]) > 0.6 * len(clips)
    assert all(clip.events and clip.caption for clip in clips)
    assert len({clip.caption for clip in clips}) == len({clip.events[0].kind for clip in clips}) == 10
    train = corpora["train"]
    for index in range(0, len(train), max(1, len(train) // 5)):
        wav = train.load(index)
        assert wav.shape == (1, 1, 64000) and 1e-3 < wav.abs().max() <= 1


def audiocaps_rows(audiocaps):
    with open(audiocaps / "val.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_audiocaps_without_a_clip_says_so(audiocaps):
    rows = len(audiocaps_rows(audiocaps))
    with pytest.raises(MinigenError) as caught:
        read_corpus(audiocaps, "validation")
    assert f"{rows} rows looked at, 0 readable ({rows} missing)" in str(caught.value)


def test_audiocaps_with_two_clips_gives_the_rows_of_these_two(audiocaps, tmp_path):
    rows = audiocaps_rows(audiocaps)
    first = rows[3]
    second = next(row for row in rows if row["youtube_id"] != first["youtube_id"])
    expected = [row["caption"] for row in rows if row["youtube_id"] in (first["youtube_id"], second["youtube_id"])]
    write_sound(tmp_path / f"Y{first['youtube_id']}.wav", seconds=10)
    write_sound(tmp_path / f"{second['youtube_id']}_{second['start_time']}.flac", seconds=10)
    for table in (audiocaps, audiocaps / "val.csv"):
        corpus = read_corpus(table, "validation", audio=tmp_path, seconds=10.0)
        assert corpus.captions == expected
        assert corpus.report.splits["validation"] == (len(expected), len(rows))
        assert corpus.report.by_reason == {"missing": len(rows) - len(expected)}
        assert corpus.load(1).shape == (1, 1, 160000)
