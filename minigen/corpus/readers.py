"""Reader of captioned audio: the built-in corpus, AudioCaps, other data sets with a table, or class folders.

    a folder with train.csv, val.csv, ...    rows name a `file`, or a `youtube_id` whose clip lies in audio/ or beside
    a folder with metadata.csv, meta/x.csv   any table of captions or labels that `minigen.corpus.tables` understands
    a table or its folder, and audio=        AudioCaps as published (Kim et al., NAACL 2019), and the clips you have
    a .parquet file, its folder, owner/name  AudioCaps with its sound inside, through the `datasets` library
    dog bark/1.ogg, rain/7.ogg, ...          captions from the folders' names, as for ESC-10 (Piczak, ACM MM 2015)

The result is a `Corpus` for every kind of data set. `Corpus.report` says how the data set was understood;
`minigen corpus --look FOLDER` prints it.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path

from minigen.audio import AUDIO_SUFFIXES, SAMPLE_RATE, AudioError, check_audio
from minigen.corpus.audiocaps import Files, clips_of, start_of
from minigen.corpus.clip import Clip, Event
from minigen.corpus.corpus import FROM_NAME, Corpus, CorpusReport
from minigen.corpus.folders import SPLITS, label_of, share_out, source_of, split_named, split_of_path, walk
from minigen.corpus.tables import (
    FORMS,
    NAMES,
    NUMBERED,
    Row,
    Table,
    captions_in,
    clean_caption,
    find_tables,
    read_table,
    rows,
)
from minigen.engine.distributed import is_first
from minigen.engine.errors import MinigenError

TABLE_FOLDERS = ("meta", "metadata", "csv", "captions", "annotations", "tables")  # subfolders of a data set
# Names of the tables of splits: train.csv, val.csv, ...
NAMED = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
Read = Callable[[int], str | bytes]


def read_corpus(
    path: str | Path,
    split: str = "train",
    audio: str | Path | None = None,
    seconds: float = 4.0,
    sample_rate: int = SAMPLE_RATE,
    skipped_to: str | Path | None = None,
) -> Corpus:
    """Open captioned audio of any of the kinds above.

    A clip is the first `seconds` of its file: AudioCaps' `start_time` is a time in the YouTube video, and the files are
    already cut there. Class folders, and a table without splits, are split 80/10/10 by a hash of the file's name, so
    the split of a file never changes; the takes of one ESC-10 recording stay together. Of a table with folds, the last
    fold is test and the one before it validation.

    Args:
        path: a folder, a table (csv, tsv, jsonl, json, parquet), or a dataset on the hub by name (owner/name).
        split: "train", "validation" or "test"; a single table is read whole, for any split.
        audio: folder of the clips; None: they are in the folder of the table.
        seconds: length of every clip; AudioCaps' own is 10.
        sample_rate: Hz.
        skipped_to: CSV file that lists the skipped rows or files; written also if none is readable.

    Raises:
        MinigenError: no such corpus, split or column, or no readable recording.
    """
    split = next((name for name, spellings in SPLITS.items() if split in spellings), split)
    if split not in SPLITS:
        raise MinigenError(f"there is no split {split!r}. Ask for train, validation or test.")
    if not seconds > 0:
        raise MinigenError(f"clips of {seconds} s hold no sound. Ask for more than 0 s.")
    path, report = Path(path), CorpusReport()
    clips, read = _open(path, split, None if audio is None else Path(audio), report, (seconds, sample_rate))
    if skipped_to is not None and report.skipped and is_first():
        report.write(skipped_to)
    if not clips:
        listed = f"; list in {skipped_to}" if skipped_to is not None and report.skipped else ""
        raise MinigenError(f"no audio in {audio or path} ({split}): {report}{listed}. {_advice(report)}.")
    return Corpus(clips, report, sample_rate, seconds, read or (lambda i: clips[i].file), report.unit == "files")


def _advice(report: CorpusReport) -> str:
    """Advice for a data set without a readable recording."""
    if any(reason.endswith("needs FFmpeg") for reason in report.by_reason):
        return "Convert the files to flac, each with `ffmpeg -i FILE.m4a FILE.flac`"
    if report.by_reason and set(report.by_reason) <= {"no caption", "caption is no text", "caption too long"}:
        return "Name a table whose captions are text of up to 1000 characters"
    if report.unit == "rows":
        what = "Name the clips <youtube_id>.wav, or in a column `file`, and name the folder they lie in"
    elif not report.looked_at:
        what = "All of its files belong to other splits. Add more, at least three"
    else:
        what = "Put the files into a subfolder for each class"
    return f"{what}: wav, flac, ogg or mp3"


def _open(
    path: Path, split: str, audio: Path | None, report: CorpusReport, form: tuple[float, int]
) -> tuple[list[Clip], Read | None]:
    """Find out the kind of a data set and read its clips. form: seconds and Hz of the clips."""
    if path.is_file() and path.suffix.lower() in FORMS:
        table = read_table(path)
        root = path.parent.parent if path.parent.name.lower() in TABLE_FOLDERS else path.parent
        report.unit, report.understood = "rows", [f"one table, read whole: {table}"]
        return clips_of(table, None, lambda row: split, Files(root, audio), report, *form), None
    if path.is_dir() and (named := _named_tables(path)):
        return _from_named(path, named, split, Files(path, audio), report, form), None
    on_hub = not path.exists() and re.fullmatch(r"[\w-]+/[\w.-]+", str(path)) and path.suffix not in FORMS
    parquet = _parquet_files(path)
    if on_hub or parquet:
        return _from_datasets(path, parquet, split, report, form)
    if not path.is_dir():
        what = "is neither a folder nor a table" if path.exists() else "is not there"
        raise MinigenError(f"{path} {what}. Name a folder, or a table: csv, tsv, jsonl, json or parquet.")
    tables, left_out = find_tables(path)
    if tables:
        report.understood = [f"not read: {reason}" for reason in left_out]
        return _from_tables(path, tables, split, Files(path, audio), report, form), None
    return _from_classes(path, left_out, split, report, form), None


# tables


def _named_tables(folder: Path) -> dict[str, Path]:
    """Tables named after their split, as AudioCaps' are: train.csv, val.csv (or valid, validation), test.csv."""
    places = ((split, folder / f"{name}.csv") for split, names in NAMED.items() for name in names)
    return {split: place for split, place in places if place.is_file()}


def _from_named(
    folder: Path, named: dict[str, Path], split: str, files: Files, report: CorpusReport, form: tuple[float, int]
) -> list[Clip]:
    """Clips of a split that has its own table; the rows of the other splits are only counted."""
    if split not in named:
        present = ", ".join(table.name for table in named.values())
        raise MinigenError(f"{folder} has no {split}.csv, only {present}. Ask for another split.")
    report.unit, clips = "rows", []
    for name, path in named.items():
        report.splits[name] = (0, 0)
        if name == split:
            table = read_table(path, name)
            report.understood.append(f"the table of the split: {table}")
            clips = clips_of(table, split, lambda row: split, files, report, *form)
        else:
            _count_rows(path, name, files, report)
    return clips


def _count_rows(path: Path, split: str, files: Files, report: CorpusReport) -> None:
    """Count the rows and the files of another split; a table that cannot be read counts as empty."""
    try:
        clips_of(read_table(path, split), "", lambda row: split, files, report, 0.0, 0)
    except MinigenError:
        report.splits[split] = (0, 0)


def _from_tables(
    folder: Path, tables: list[Table], split: str, files: Files, report: CorpusReport, form: tuple[float, int]
) -> list[Clip]:
    """Clips of a split, from tables whose name, folder, or column `split` or `fold` gives the split of each row."""
    report.unit = "rows"
    if any(table.split for table in tables):  # metadata.csv beside train.csv is no table of clips
        tables = [table for table in tables if table.split or "split" in table.columns]
    plain = [table.split for table in tables if "split" not in table.columns]
    if len(set(plain)) < len(plain):
        names = ", ".join(str(table.path.relative_to(folder)) for table in tables)
        raise MinigenError(f"{folder} has several tables for one split: {names}. Name the one to be read.")
    clips = []
    for table in tables:
        rule, told = _split_rule(table)
        report.understood.append(f"{told}: {table}")
        clips += clips_of(table, split, rule, files, report, *form)
    if not report.looked_at:
        present = ", ".join(sorted(report.splits)) or "no rows at all"
        names = ", ".join(table.path.name for table in tables)
        raise MinigenError(f"{folder} has no {split} split, only {present} ({names}). Ask for another split.")
    return clips


def _split_rule(table: Table) -> tuple[Callable[[Row], str | None], str]:
    """Function from a row of a table to its split, and a description of it for the report."""
    if "split" in table.columns:
        return lambda row: split_named(row["split"] or "") or table.split, "splits by its column"
    if table.split:
        return lambda row: table.split, f"the {table.split} split"
    if "fold" in table.columns:
        folds = sorted({row["fold"] for row in rows(table)}, key=lambda fold: (len(fold), fold))
        if len(folds) >= 3:
            names = {fold: "train" for fold in folds} | {folds[-2]: "validation", folds[-1]: "test"}
            return lambda row: names[row["fold"]], f"fold {folds[-1]} is test, {folds[-2]} validation, the rest train"
    splits = share_out(_source(row) for row in rows(table))
    return lambda row: splits[_source(row)], "split 80/10/10 by name"


def _source(row: Row) -> str:
    """Source of a row's recording; rows with the same source are in the same split."""
    name = row.get("file") or row.get("youtube_id") or row.get("audiocap_id") or ""
    return source_of(Path(name), Path(name).anchor or ".")


# class subfolders


def _from_classes(
    folder: Path, left_out: list[str], split: str, report: CorpusReport, form: tuple[float, int]
) -> list[Clip]:
    """One clip for each file of the split; caption and event come from the first subfolder that is named for a sound.

    left_out: reasons for which tables in the folder are not read.
    """
    files = {path: path.relative_to(folder).parts[:-1] for path in _candidates(folder)}
    beside = {parts[0] for parts in files.values()}
    labels = {path: label_of(parts, beside) for path, parts in files.items()}
    if not any(labels.values()):
        raise MinigenError(_no_captions(folder, sorted(beside), left_out))
    report.understood = ["captions from the names of folders: " + ", ".join(sorted(set(filter(None, labels.values()))))]
    report.understood += [f"not read: {reason}" for reason in left_out]
    splits = _splits_of_folders(folder, labels, report)
    if split not in splits.values() and set(splits.values()) != {None} and report.splits:
        present = ", ".join(sorted(report.splits))
        raise MinigenError(f"{folder} has no folder of the {split} split, only {present}. Ask for another split.")
    clips = [_class_clip(path, labels[path], report, form) for path in files if splits[path] == split]
    return [clip for clip in clips if clip is not None]


def _no_captions(folder: Path, inside: list[str], left_out: list[str]) -> str:
    seen = f"A table was seen: {left_out[0]} " if left_out else ""
    named = f" (only {', '.join(inside[:5])})" if inside else ""
    return (
        f"no captions in {folder}: neither a train.csv, nor files in subfolders named after what sounds{named}. {seen}"
        f"Put the recordings into such subfolders, or add a train.csv with the columns file,caption."
    )


def _splits_of_folders(folder: Path, labels: dict[Path, str | None], report: CorpusReport) -> dict[Path, str | None]:
    """Split of each file: named by a folder around it (train/dog/1.wav), or 80/10/10 by its source."""
    around = {path: [part for part in path.relative_to(folder).parts[:-1] if part != labels[path]] for path in labels}
    named = {path: split_of_path(tuple(parts)) for path, parts in around.items()}
    if any(named.values()):
        for split in filter(None, named.values()):
            report.count(split, True)
        report.understood.append("splits from the names of folders: " + ", ".join(sorted(report.splits)))
        return named
    report.understood.append("split 80/10/10 by name")
    splits = share_out(source_of(path, folder) for path in labels)
    return {path: splits[source_of(path, folder)] for path in labels}


def _class_clip(path: Path, label: str | None, report: CorpusReport, form: tuple[float, int]) -> Clip | None:
    """A file of a class folder as a clip; None if it cannot be used, after listing it in the report."""
    from minigen.corpus.synthesis.captions import kind_of_label, plain_caption

    report.looked_at += 1
    try:
        rate, frames = check_audio(path)
        if label is None:
            raise AudioError("no caption", f"no folder around {path} names a sound.")
        caption, kind = clean_caption(plain_caption(label)), kind_of_label(label)
    except AudioError as error:
        report.skip(str(path), error.reason)
        return None
    report.note(FROM_NAME)
    report.note_clip(rate, frames, *form)
    events = (Event(kind, 1, 0.0, min(frames / rate, form[0])),) if kind else ()
    return Clip(path.stem, "", 0.0, caption[:1].upper() + caption[1:], str(path), events)


def _candidates(folder: Path) -> list[Path]:
    """Files in subfolders except tables and hidden files, and folders with the suffix of a sound file."""
    paths = [where / name for where, names in walk(folder) if where != folder for name in names]
    paths = [path for path in paths if path.suffix.lower() not in FORMS]
    return sorted(path for path in paths if path.is_file() or path.suffix.lower() in AUDIO_SUFFIXES)


# AudioCaps with its sound inside: parquet files or the hub, through `datasets`


def _from_datasets(
    path: Path, parquet: list[Path], split: str, report: CorpusReport, form: tuple[float, int]
) -> tuple[list[Clip], Read]:
    """Clips whose sound is a column of a table on disk; a sound is first examined when it is loaded."""
    table = _load_table(path, parquet, split)
    sound = next((name for name in ("audio", "wav", "sound", "file") if name in table.column_names), None)
    columns = [name for name in table.column_names if name in NAMES["caption"] or NUMBERED.fullmatch(name)]
    missing = ["caption"] * (not columns) + ["audio"] * (sound is None)
    if missing:
        raise MinigenError(f"{path} has no column {missing[0]}; it has {', '.join(table.column_names)}.")
    report.unit = "rows"
    report.understood = [f"a table with its sound inside: {path} (captions: {', '.join(columns)}; sound: {sound})"]
    clips, numbers = [], []
    for number, row in enumerate(table.remove_columns(sound)):
        name = f"{path}[{number}]"
        video, start = str(row.get("youtube_id") or ""), start_of(str(row.get("start_time") or ""))
        for text in captions_in([row[column] for column in columns]):
            report.looked_at += 1
            try:
                caption = clean_caption(text)
            except AudioError as error:
                report.skip(name, error.reason)
                continue
            clips.append(Clip(str(row.get("audiocap_id", number)), video, start, caption, name))
            numbers.append(number)
    return clips, _reader(table, sound, numbers, path if path.is_dir() else path.parent, report, form)


def _reader(
    table, column: str, numbers: list[int], folder: Path, report: CorpusReport, form: tuple[float, int]
) -> Read:
    """Function that reads the sound of clip i, row numbers[i] of the table; the first call counts its changes."""
    noted = set()

    def read(index: int) -> str | bytes:
        source = _sound(table[numbers[index]][column], folder)
        if index not in noted:
            noted.add(index)
            try:
                report.note_clip(*check_audio(source), *form)
            except AudioError:
                pass  # `Corpus.load` raises the error
        return source

    return read


def _sound(cell, folder: Path = Path()) -> str | bytes:
    """Bytes or path of a sound from a cell: {"bytes", "path"}, {"array", "sampling_rate"}, bytes or a path."""
    if isinstance(cell, (bytes, str)):
        found = cell
    elif not cell:
        found = b""
    elif cell.get("array") is not None and not cell.get("bytes"):
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, cell["array"], int(cell["sampling_rate"]), "FLOAT", format="WAV")
        found = file.getvalue()
    else:
        found = cell.get("bytes") or cell.get("path") or b""
    return str(folder / found) if isinstance(found, str) else found


def _load_table(path: Path, parquet: list[Path], split: str):
    """The split's rows as a `datasets` table, memory-mapped, with the sound left undecoded (decoding needs FFmpeg)."""
    try:
        import datasets
    except ImportError as error:
        what = f"there is no {path} here; to fetch a dataset of that name from the hub"
        what = "reading parquet" if parquet else what
        raise MinigenError(f"{what} needs the `datasets` library: pip install datasets ({path}).") from error
    try:
        if parquet:
            files = [str(file) for file in _files_of_split(path, parquet, split)]
            table = datasets.load_dataset("parquet", data_files={split: files}, split=split)
        else:
            table = datasets.load_dataset(str(path), split=split)
        for name in table.column_names:
            if isinstance(table.features[name], datasets.Audio):
                table = table.cast_column(name, datasets.Audio(decode=False))
        return table
    except MinigenError:
        raise
    except Exception as error:  # the library raises many types: no network, no such name, no such split, a broken file
        raise MinigenError(
            f"cannot read {path}: {error}. Name a folder, a CSV, a parquet file or a dataset."
        ) from error


def _parquet_files(path: Path) -> list[Path]:
    """A parquet file itself, or all of a folder."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    return [where / name for where, names in walk(path) for name in names if name.lower().endswith(".parquet")]


def _files_of_split(path: Path, files: list[Path], split: str) -> list[Path]:
    """Parquet files whose name or folder contains the split; if no file names a split, all are of train.

    Examples: train-00000-of-00001.parquet, audiocaps-train-0.parquet, default/train/0000.parquet
    """
    if path.is_file():
        return files
    named = {file: split_of_path((*file.relative_to(path).parts[:-1], file.stem)) for file in files}
    chosen = [file for file in files if named[file] == split]
    if not any(named.values()) and split == "train":
        return files
    if not chosen:
        present = ", ".join(sorted({str(name) for name in named.values()}))
        raise MinigenError(f"{path} has no parquet file whose name begins with {split}, only {present}. "
                           "Ask for another split.")  # fmt: skip
    return chosen
