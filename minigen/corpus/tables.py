"""Reader of caption tables in the formats and with the column names of public data sets.

    AudioCaps     train.csv                       audiocap_id,youtube_id,start_time,caption
    Clotho        clotho_captions_development.csv file_name,caption_1,…,caption_5
    AudioFolder   metadata.csv, metadata.jsonl    file_name,text
    ESC-50        meta/esc50.csv                  filename,fold,category          the caption is made from the category
    UrbanSound8K  metadata/UrbanSound8K.csv       slice_file_name,fold,class

Formats: csv with commas, tabs, semicolons or bars; jsonl; json. Encodings: UTF-8 with or without a byte order mark,
UTF-16, Latin-1. A row that cannot be used is skipped with its reason; a table without the needed columns is refused.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minigen.audio import AudioError
from minigen.corpus.folders import split_named, split_of_path, walk
from minigen.engine.errors import MinigenError

FORMS = (".csv", ".tsv", ".jsonl", ".json")
DEPTH, MOST = 3, 200  # the search for tables: depth of the folders, and number of files
LONGEST = 1000  # characters of a caption: AudioCaps' longest has 300, and the text encoder reads 256 tokens
# Meaning of a column -> names of such columns, the best one first.
NAMES = {
    "caption": ("caption", "captions", "text", "description"),
    "label": ("category", "class", "class_name", "classname", "label", "labels", "scene_label", "event_label"),
    "file": ("file", "file_name", "filename", "file_path", "filepath", "path", "audio_path", "audio_filepath",
             "audio_file", "audio_filename", "audio", "wav", "wav_path", "slice_file_name", "fname", "sound"),
    "youtube_id": ("youtube_id", "ytid", "yt_id", "youtubeid", "video_id"),
    "audiocap_id": ("audiocap_id", "audiocaps_id", "id"),
    "start_time": ("start_time", "start", "start_s", "start_seconds"),
    "end_time": ("end_time", "end", "end_s", "end_seconds"),
    "split": ("split", "set", "subset", "partition"),
    "fold": ("fold",),
}  # fmt: skip
NUMBERED = re.compile(r"captions?_?\d+")  # Clotho's caption_1 to caption_5
QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")  # "text" or 'text' in a list
EVENT_COLUMNS = ("kinds", "counts", "onsets", "offsets")
Row = dict[str, str | None]


@dataclass(frozen=True)
class Table:
    """A caption table and the meaning of its columns.

    Attributes:
        path: the file.
        columns: meaning of a column (a key of NAMES) -> its name in the table.
        captions: columns that hold captions; each caption becomes a row. Empty: captions are made from the label.
        split: the split in the name of the table or its folder, or None.
    """

    path: Path
    columns: dict[str, str]
    captions: tuple[str, ...]
    split: str | None

    def __str__(self) -> str:
        """The table and its columns, for the report."""
        captions = ", ".join(self.captions) or f"from the name in {self.columns['label']}"
        others = [f"{meaning}: {name}" for meaning, name in self.columns.items() if meaning not in ("caption", "label")]
        return f"{self.path} (captions: {'; '.join([captions, *others])})"


def read_table(path: Path, split: str | None = None) -> Table:
    """Read the columns of a table.

    Raises:
        MinigenError: it cannot be read, or has no column of captions or labels, or none that identifies a file.
    """
    names = _columns(path)
    columns = {meaning: next((name for name in known if name in names), "") for meaning, known in NAMES.items()}
    columns = {meaning: name for meaning, name in columns.items() if name}
    captions = tuple(name for name in names if NUMBERED.fullmatch(name))
    captions = (columns["caption"],) if "caption" in columns else captions
    missing = [] if captions or "label" in columns else ["caption"]
    missing += [] if {"youtube_id", "file", "audiocap_id"} & {*columns} else ["youtube_id (or file)"]
    if missing:
        raise MinigenError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(names)[:200] or 'none'}. "
            f"AudioCaps' columns are audiocap_id,youtube_id,start_time,caption."
        )
    return Table(path, columns, captions, split)


def find_tables(folder: Path) -> tuple[list[Table], list[str]]:
    """The caption tables of a data set, and the reasons for leaving out others ("notes.csv has no column caption ...").

    Only tables at the smallest depth are taken; of metadata.csv and metadata.jsonl, only the first. The split of a
    table is the one in its name, or in the name of a folder around it.
    """
    tables, left_out = [], []
    for path in _candidates(folder):
        inside = path.relative_to(folder).parts[:-1]
        try:
            tables.append(read_table(path, split_named(path.stem) or split_of_path(inside)))
        except MinigenError as error:
            left_out.append(str(error))
    depth = min((len(table.path.parts) for table in tables), default=0)
    nearest = {}
    for table in tables:
        if len(table.path.parts) == depth:
            nearest.setdefault(table.path.with_suffix(""), table)
    return list(nearest.values()), left_out


def _candidates(folder: Path) -> list[Path]:
    found = []
    for where, names in walk(folder):
        if len(where.relative_to(folder).parts) <= DEPTH:
            stems = {Path(name).stem for name in names if not name.lower().endswith(FORMS)}
            paths = [where / name for name in names if name.lower().endswith(FORMS)]
            found += [path for path in paths if path.is_file() and path.stem not in stems]  # x.json beside x.wav
        if len(found) >= MOST:
            break
    return sorted(found[:MOST], key=lambda path: (path.with_suffix(""), FORMS.index(path.suffix.lower())))


def rows(table: Table) -> Iterator[Row]:
    """The rows of a table with the keys of `NAMES` and EVENT_COLUMNS, one for each caption.

    "caption" is None if the cell is not text. A row that cannot be read is empty.
    """
    for cells in _cells(table.path):
        row = {meaning: _text(cells.get(name)) for meaning, name in table.columns.items()}
        row |= {name: _text(cells.get(name)) for name in EVENT_COLUMNS if name in cells}
        for caption in captions_in([cells.get(name) for name in table.captions]) if table.captions else [""]:
            yield row | {"caption": caption}


def captions_in(cells: list) -> list[str | None]:
    """Captions in the cells of a row, text or lists of text. None: an entry that is not text; [""]: all are empty.

    A list may have been written as text, as pandas does: "['rain falls', 'it rains']".
    """
    found = []
    for cell in cells:
        if isinstance(cell, str) and re.fullmatch(r"\s*\[\s*(['\"]).*\1\s*\]\s*", cell[:10_000], re.DOTALL):
            cell = [double or single for double, single in QUOTED.findall(cell)]
        found += cell if isinstance(cell, (list, tuple)) else [cell]
    texts = [caption if isinstance(caption, str) else None for caption in found if caption not in (None, "")]
    return texts or [""]


def clean_caption(text: str | None) -> str:
    """The caption as one line of printable text.

    Raises:
        AudioError: not text, empty, or more than 1000 characters.
    """
    if text is None:
        raise AudioError("caption is no text", "a caption is no text.")
    caption = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    if not caption:
        raise AudioError("no caption", "there is no caption.")
    if len(caption) > LONGEST:
        raise AudioError("caption too long", f"a caption has more than {LONGEST} characters.")
    return caption


def _text(cell) -> str:
    """A cell as text: a list gives its first entry (labels), a number its digits, any other type ""."""
    if isinstance(cell, (list, tuple)):
        cell = cell[0] if cell else ""
    return str(cell).strip() if isinstance(cell, (str, int, float)) and not isinstance(cell, bool) else ""


# reading the cells of a file in any format


def _columns(path: Path) -> list[str]:
    """Names of a table's columns in lower case; for jsonl and json, the keys of the first row."""
    if path.suffix.lower() in (".jsonl", ".json"):
        return list(next(_cells(path), {}))
    return _header(_csv(path))


def _header(reader) -> list[str]:
    return [name.strip().strip("#").strip().lower() for name in _next(reader) or []]


def _cells(path: Path) -> Iterator[dict]:
    """Each row as {column in lower case: cell}. In csv files, missing cells are left out and extra cells dropped."""
    if path.suffix.lower() in (".jsonl", ".json"):
        for row in _json_rows(path):
            yield {str(name).strip().lower(): cell for name, cell in row.items()} if isinstance(row, dict) else {}
        return
    reader = _csv(path)
    columns = _header(reader)
    while (row := _next(reader)) is not None:
        if row:
            yield {name: cell.strip() for name, cell in zip(columns, row, strict=False)}


def _json_rows(path: Path) -> Iterator:
    """Objects of a jsonl file, one per line; of a json file, those of its list or of a list in it (WavCaps' "data")."""
    text = _content(path)
    if path.suffix.lower() == ".jsonl":
        for line in text.split("\n"):
            if line.strip():
                yield _loads(line)
        return
    whole = _loads(text)
    lists = [whole] if isinstance(whole, list) else [*whole.values()] if isinstance(whole, dict) else []
    yield from next((found for found in lists if isinstance(found, list)), [])


def _loads(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _csv(path: Path):
    """A csv reader with the separator that gives the first line the most known column names."""
    text = _content(path)
    known = {name for names in NAMES.values() for name in names}

    def understood(separator: str) -> int:
        names = _header(csv.reader(io.StringIO(text[:20_000], newline=""), delimiter=separator))
        return sum(name in known or bool(NUMBERED.fullmatch(name)) for name in names)

    return csv.reader(io.StringIO(text, newline=""), delimiter=max(",\t;|", key=understood))


def _content(path: Path) -> str:
    """Text of a table: UTF-16 with a byte order mark, else UTF-8, else Latin-1, which decodes any bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MinigenError(f"cannot read {path} ({error.strerror}). Name a comma-separated table in UTF-8.") from error
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _next(reader) -> list[str] | None:
    """The reader's next row, None after the last; [""] for one with a cell of more than 128 kB, csv's limit."""
    try:
        return next(reader, None)
    except csv.Error:
        return [""]
