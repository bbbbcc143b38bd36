"""Parquet files of captioned sound in the forms and folders that are about: a row for each caption that is text."""

import io

import numpy as np
import pytest
import soundfile

from minigen.corpus import read_corpus
from minigen.engine.errors import MinigenError

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("datasets")
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)


def sound(form="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, TONE, 16000, format=form)
    return file.getvalue()


INSIDE = [{"bytes": sound(), "path": "a.wav"}] * 2
# Columns, the captions that are read, and how many rows are left out.
FORMS = {
    "bytes and a path": ({"caption": ["rain", "wind"], "audio": INSIDE}, ["rain", "wind"], 0),
    "five captions in a list": ({"caption": [["a", "b"], ["c"]], "audio": INSIDE}, ["a", "b", "c"], 0),
    "Clotho's columns": ({"caption_1": ["a", "b"], "caption_2": ["c", ""], "audio": INSIDE}, ["a", "c", "b"], 0),
    "captions": ({"captions": ["rain", "wind"], "audio": INSIDE}, ["rain", "wind"], 0),
    "some that are no text": ({"caption": [["rain"], [None]], "audio": INSIDE}, ["rain"], 1),
    "no caption": ({"caption": ["rain", None], "audio": INSIDE}, ["rain"], 1),
    "raw bytes": ({"caption": ["rain", "wind"], "audio": [sound()] * 2}, ["rain", "wind"], 0),
    "mp3": ({"caption": ["rain", "wind"], "audio": [{"bytes": sound("MP3"), "path": None}] * 2}, ["rain", "wind"], 0),
    "a path alone": ({"caption": ["rain", "wind"], "audio": ["beside.wav"] * 2}, ["rain", "wind"], 0),
    "samples": (
        {"caption": ["rain", "wind"], "audio": [{"array": TONE.tolist(), "sampling_rate": 16000}] * 2},
        ["rain", "wind"],
        0,
    ),
    "another name of the sound": ({"caption": ["rain", "wind"], "wav": INSIDE}, ["rain", "wind"], 0),
}
PLACES = ["train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "default/train/0000.parquet",
          "0.parquet", "data/audiocaps-train-00000.parquet", "partial-train/0000.parquet"]  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes columns to a parquet file in a data set, beside a sound."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import pyarrow.parquet

    def made(columns: dict, place: str = PLACES[0]):
        path = tmp_path / "data set" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        (tmp_path / "data set/beside.wav").write_bytes(sound())
        return tmp_path / "data set"

    return made


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_captions_and_sound_is_read(name, write):
    columns, captions, left_out = FORMS[name]
    corpus = read_corpus(write(columns), seconds=0.1)
    assert corpus.captions == captions and len(corpus.report.skipped) == left_out
    assert all(corpus.load(index).shape == (1, 1, 1600) for index in range(len(corpus)))
    assert len({clip.recording for clip in corpus.clips}) <= 2


@pytest.mark.parametrize("place", PLACES)
def test_the_split_is_in_the_name_or_in_the_folder(place, write):
    folder = write(FORMS["bytes and a path"][0], place)
    assert read_corpus(folder, seconds=0.1).captions == ["rain", "wind"]
    with pytest.raises(MinigenError, match="no parquet file whose name begins with test"):
        read_corpus(folder, "test")


@pytest.mark.parametrize("captions", [[1, 2], [{"text": "rain"}, {"text": "wind"}]])
def test_captions_that_are_no_text_are_refused(captions, write):
    with pytest.raises(MinigenError, match=r"2 caption is no text\).*Name a table whose captions are text"):
        read_corpus(write({"caption": captions, "audio": INSIDE}))
