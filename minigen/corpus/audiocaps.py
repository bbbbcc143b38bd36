"""Tables in AudioCaps' columns, and where the clips of their rows lie.

    audiocap_id,youtube_id,start_time,caption[,file[,kinds,counts,onsets,offsets]]

The last five are the built-in corpus': a path, and the true events as lists joined by ";". Without `file` a clip goes
by one of the names that AudioCaps' clips have been given: <youtube_id>_<start_time>, <youtube_id>, or these after a Y.

Tables come from anywhere: with a byte order mark, in Latin-1, with quoted newlines, a quote that never ends, a novel
for a caption. A row that cannot be used is skipped with its reason; only a table without the columns is refused.
"""

import csv
import io
import math
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from minigen.audio import AUDIO_SUFFIXES, AudioError, check_audio
from minigen.corpus.clip import Clip, Event
from minigen.corpus.corpus import Report
from minigen.engine.errors import MinigenError

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
EVENT_COLUMNS = ("kinds", "counts", "onsets", "offsets")
LONGEST = 1000  # characters of a caption: AudioCaps' longest has 300, and the text encoder reads 256 tokens


def tables_of(path: Path, split: str) -> dict[str, Path]:
    """The CSV of each split; a CSV that is named itself stands for the split asked for."""
    if path.suffix.lower() == ".csv" and path.is_file():
        return {split: path}
    places = ((name, path / f"{spelling}.csv") for name, spellings in SPLITS.items() for spelling in spellings)
    return {name: place for name, place in places if place.is_file()}


class Files:
    """Where the recording of a CSV's row lies: at `file`, else under one of the names that AudioCaps' clips go by."""

    def __init__(self, root: Path, audio: Path | None):
        if audio is not None and not audio.is_dir():
            raise MinigenError(f"there is no folder {audio} of clips. Name the folder they lie in.")
        self.root, self.audio = root, audio

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """Name without suffix -> path, of every sound file in the audio folder, its subfolders, and beside the CSV."""
        found = {}
        beside = [(self.root, [], os.listdir(self.root))] if self.audio is None else []
        for folder, _, names in [*beside, *os.walk(self.audio or self.root / "audio")]:
            named = (name for name in sorted(names) if name.lower().endswith(AUDIO_SUFFIXES))
            found.update({os.path.splitext(name)[0]: os.path.join(folder, name) for name in named if name[0] != "."})
        return found

    def find(self, row: dict[str, str]) -> str:
        """Path of the row's recording.

        Raises:
            AudioError: missing, or a name that leads out of the corpus' folder.
        """
        if row.get("file"):
            return self._at(row["file"])
        video, start = row.get("youtube_id", ""), row.get("start_time", "")
        for stem in (f"{video}_{start}", f"Y{video}_{start}", video, f"Y{video}"):
            if video and stem in self.by_stem:
                return self.by_stem[stem]
        raise AudioError("missing", f"there is no clip of {video}.")

    def _at(self, name: str) -> str:
        places = [Path(os.path.abspath(folder)) for folder in (self.audio, self.root, self.root / "audio") if folder]
        paths = [Path(os.path.normpath(place / name)) for place in places]
        if not any(path.is_relative_to(place) for path, place in zip(paths, places, strict=True)):
            raise AudioError("outside the folder", f"{name} leads out of {self.root}.")
        for folder, path in zip(places, paths, strict=True):
            if path.is_relative_to(folder) and os.path.exists(path):
                return str(path)
        raise AudioError("missing", f"there is no file {name} in {self.root}.")


def from_csv(tables: dict[str, Path], split: str, files: Files) -> tuple[list[Clip], Report]:
    """The clips of one split, and how much there is of all."""
    clips, report = [], Report("rows")
    for number, row in enumerate(_rows(tables[split])):
        report.looked_at += 1
        try:
            clips.append(_clip(row, number, files))
        except AudioError as error:
            report.skip(row.get("file") or row.get("youtube_id") or f"row {number + 1}", error.reason)
    report.splits = {name: _presence(table, files) for name, table in tables.items()}
    return clips, report


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV as {column: text}: in any column order, with quoted newlines and extra columns.

    A row that the CSV reader cannot read is an empty one.
    """
    reader = csv.reader(io.StringIO(_text(table), newline=""))
    columns = [name.strip().lower() for name in _next(reader) or []]
    _check_columns(columns, table)
    while (row := _next(reader)) is not None:
        if row:
            yield {name: cell.strip() for name, cell in zip(columns, row, strict=False)}


def _text(table: Path) -> str:
    """A table's text: UTF-8, with or without a byte order mark, else Latin-1, in which every byte is a letter."""
    try:
        content = table.read_bytes()
    except OSError as error:
        raise MinigenError(f"cannot read {table} ({error.strerror}). Name a comma-separated table in UTF-8.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _next(reader) -> list[str] | None:
    """The reader's next row, None after the last; [""] for one with a cell of more than 128 kB, csv's limit."""
    try:
        return next(reader, None)
    except csv.Error:
        return [""]


def _check_columns(columns: list[str], table: Path) -> None:
    missing = [] if "caption" in columns else ["caption"]
    missing += [] if {"youtube_id", "file"} & {*columns} else ["youtube_id (or file)"]
    if missing:
        raise MinigenError(
            f"{table} has no column {' and no column '.join(missing)}; it has {', '.join(columns)[:200] or 'none'}. "
            f"AudioCaps' columns are audiocap_id,youtube_id,start_time,caption."
        )


def clean_caption(text: str) -> str:
    """A caption as one line of text that every later link can read.

    Raises:
        AudioError: nothing in it, or more than 1000 characters.
    """
    caption = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    if not caption:
        raise AudioError("no caption", "there is no caption.")
    if len(caption) > LONGEST:
        raise AudioError("caption too long", f"a caption has more than {LONGEST} characters.")
    return caption


def start_of(text: str) -> float:
    """AudioCaps' `start_time` in seconds; 0 for what is no number of them."""
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else 0.0


def _clip(row: dict[str, str], number: int, files: Files) -> Clip:
    caption = clean_caption(row.get("caption", ""))
    file = files.find(row)
    check_audio(file)
    name, start = row.get("audiocap_id") or str(number), start_of(row.get("start_time", ""))
    return Clip(name, row.get("youtube_id", ""), start, caption, file, _events(row, number))


def _events(row: dict[str, str], number: int) -> tuple[Event, ...]:
    """The events of the built-in corpus' columns kinds, counts, onsets, offsets: lists joined by ";"."""
    kinds, counts, onsets, offsets = ([c for c in row.get(name, "").split(";") if c] for name in EVENT_COLUMNS)
    try:
        values = zip(kinds, map(int, counts), map(float, onsets), map(float, offsets), strict=True)
        events = [Event(*value) for value in values]
        if not all(0 <= event.onset <= event.offset < math.inf and 0 < event.count < 10**6 for event in events):
            raise ValueError("an event that has no place in time")
        return tuple(sorted(events, key=lambda event: event.onset))
    except ValueError as error:
        raise AudioError("bad events", f"row {number + 1}: {error}") from error


def _presence(table: Path, files: Files) -> tuple[int, int]:
    """(clips found by name, rows) of a split; a table that cannot be read counts as empty."""
    found = rows = 0
    try:
        for row in _rows(table):
            rows += 1
            try:
                found += bool(files.find(row))
            except AudioError:
                continue
    except MinigenError:
        return 0, 0
    return found, rows
