"""The one reader of captioned audio: the built-in corpus, AudioCaps, or a folder of class subfolders.

    a folder with train.csv, val.csv, ...    rows name a `file`, or a `youtube_id` whose clip lies in audio/ or beside
    a CSV file or its folder, and audio=     AudioCaps as published (Kim et al., NAACL 2019), and the clips you have
    a .parquet file, its folder, owner/name  AudioCaps with its sound inside, through the `datasets` library
    dog bark/1.ogg, rain/7.ogg, ...          captions from the folders' names, as for ESC-10 (Piczak, ACM MM 2015)

First link of the chain: everything after it sees a `Corpus` and cannot tell which kind it was.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from minigen.audio import AUDIO_SUFFIXES, SAMPLE_RATE, AudioError, check_audio
from minigen.corpus.audiocaps import SPLITS, Files, clean_caption, from_csv, start_of, tables_of
from minigen.corpus.clip import Clip, Event
from minigen.corpus.corpus import Corpus, Report
from minigen.engine.distributed import is_first
from minigen.engine.errors import MinigenError


def read_corpus(
    path: str | Path,
    split: str = "train",
    audio: str | Path | None = None,
    seconds: float = 4.0,
    sample_rate: int = SAMPLE_RATE,
    skipped_to: str | Path | None = None,
) -> Corpus:
    """Open captioned audio of any of the kinds above.

    AudioCaps' `start_time` is a place in the YouTube video; the clips themselves are already cut, so a clip is the
    first `seconds` of its file. Class folders are split 80/10/10 by a hash of the file's name, the takes of one ESC-10
    recording together: the same files always fall into the same split.

    Args:
        path: a folder, a CSV or parquet file, or a dataset on the hub by name (owner/name).
        split: "train", "validation" or "test"; a single CSV or parquet file is read whole, whatever the split.
        audio: folder of the clips, where they do not lie with the CSV.
        seconds: length of every clip; AudioCaps' own is 10.
        sample_rate: Hz.
        skipped_to: where to list what was skipped (CSV), written also when nothing is readable.

    Raises:
        MinigenError: no such corpus, split or column, or not one readable recording.
    """
    split = next((name for name, spellings in SPLITS.items() if split in spellings), split)
    if split not in SPLITS:
        raise MinigenError(f"there is no split {split!r}. Ask for train, validation or test.")
    if not seconds > 0:
        raise MinigenError(f"clips of {seconds} s hold no sound. Ask for more than 0 s.")
    path = Path(path)
    clips, report, read = _open(path, split, seconds, None if audio is None else Path(audio))
    if skipped_to is not None and report.skipped and is_first():
        report.write(skipped_to)
    if not clips:
        listed = f"; list in {skipped_to}" if skipped_to is not None and report.skipped else ""
        advice = "Put the files into a subfolder for each class"
        if report.unit == "files" and not report.looked_at:
            advice = "All files there are fell to other splits: add some, three at least"
        if report.unit == "rows":
            advice = "Name the clips <youtube_id>.wav, or in a column `file`, and name the folder they lie in"
        raise MinigenError(f"no audio in {audio or path} ({split}): {report}{listed}. {advice}: wav, flac, ogg or mp3.")
    return Corpus(clips, report, sample_rate, seconds, read or (lambda i: clips[i].file), report.unit == "files")


def _open(path: Path, split: str, seconds: float, audio: Path | None) -> tuple[list[Clip], Report, Callable | None]:
    """Tell which kind of corpus this is, and read its clips."""
    tables = tables_of(path, split)
    if split in tables:
        return *from_csv(tables, split, Files(path.parent if path.is_file() else path, audio)), None
    if tables:
        present = ", ".join(table.name for table in tables.values())
        raise MinigenError(f"{path} has no {split}.csv, only {present}. Ask for another split.")
    on_hub = not path.exists() and re.fullmatch(r"[\w-]+/[\w.-]+", str(path)) and path.suffix != ".csv"
    if on_hub or (path.is_file() and path.suffix == ".parquet") or any(path.rglob("*.parquet")):
        return _from_datasets(path, split)
    if not path.is_dir():
        what = "is neither a folder nor a .csv or .parquet file" if path.exists() else "is not there"
        raise MinigenError(f"{path} {what}. Name a folder, a CSV or a parquet file.")
    return *_from_classes(path, split, seconds), None


# class subfolders


def _from_classes(folder: Path, split: str, seconds: float) -> tuple[list[Clip], Report]:
    """One clip a file of the split's share, captioned and labelled by the subfolder it lies in."""
    from minigen.corpus.synthesis.captions import kind_of_label, plain_caption

    files = [path for path in sorted(folder.glob("*/**/*")) if _is_candidate(path, folder)]
    if not files:
        raise MinigenError(
            f"no captions in {folder}: neither a train.csv, nor files in subfolders named after what sounds. "
            f"Put the recordings into such subfolders, or add a train.csv with the columns file,caption."
        )
    clips, report = [], Report("files")
    for path in _share(files, folder, split):
        report.looked_at += 1
        try:
            rate, frames = check_audio(path)
            label = path.relative_to(folder).parts[0]
            caption, kind = clean_caption(plain_caption(label)), kind_of_label(label)
        except AudioError as error:
            report.skip(str(path), error.reason)
            continue
        events = (Event(kind, 1, 0.0, min(frames / rate, seconds)),) if kind else ()
        clips.append(Clip(path.stem, "", 0.0, caption[:1].upper() + caption[1:], str(path), events))
    return clips, report


def _is_candidate(path: Path, folder: Path) -> bool:
    """Files that are not hidden (macOS leaves ._x.wav beside x.wav), and folders that call themselves a sound file."""
    parts = path.relative_to(folder).parts
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and (path.is_file() or path.suffix.lower() in AUDIO_SUFFIXES)


def source_of(path: Path, folder: Path) -> str:
    """Where a recording comes from: takes "1-30226-A" and "1-30226-B" of ESC-10 were cut from one and must not part."""
    esc = re.match(r"\d+-\d+(?=-[A-Z])", path.stem)
    return esc[0] if esc else path.relative_to(folder).with_suffix("").as_posix()


def _share(files: list[Path], folder: Path, split: str) -> list[Path]:
    """The files of one split, by where the hash of their source falls in [0, 1).

    Below 0.1 is test, below 0.2 validation, the rest train: adding files moves none of the others. In a small folder,
    where chance would leave test or validation empty, the next lowest source is taken.
    """
    place = {path: source_of(path, folder) for path in files}
    digest = {source: hashlib.sha256(source.encode("utf-8", "replace")).digest() for source in place.values()}
    order = sorted(digest, key=digest.get)
    below = [sum(int.from_bytes(digest[source][:4]) < edge * 2**32 for source in order) for edge in (0.1, 0.2)]
    test = max(1, below[0])
    validation = max(test + 1, below[1])
    chosen = set({"test": order[:test], "validation": order[test:validation], "train": order[validation:]}[split])
    return [path for path in files if place[path] in chosen]


# AudioCaps with its sound inside: parquet files or the hub, through `datasets`


def _from_datasets(path: Path, split: str) -> tuple[list[Clip], Report, Callable[[int], str | bytes]]:
    """Clips whose sound is a column of a table on disk; the sound itself is first looked at when it is loaded."""
    table = _load_table(path, split)
    missing = [name for name in ("caption", "audio") if name not in table.column_names]
    if missing:
        raise MinigenError(f"{path} has no column {missing[0]}; it has {', '.join(table.column_names)}.")
    clips, rows, report = [], [], Report("rows")
    for number, row in enumerate(table.remove_columns("audio")):
        report.looked_at += 1
        name = f"{path}[{number}]"
        try:
            caption = clean_caption(str(row["caption"] or ""))
        except AudioError as error:
            report.skip(name, error.reason)
            continue
        video, start = str(row.get("youtube_id") or ""), start_of(str(row.get("start_time") or ""))
        clips.append(Clip(str(row.get("audiocap_id", number)), video, start, caption, name))
        rows.append(number)
    return clips, report, lambda index: _sound(table[rows[index]]["audio"])


def _sound(cell: dict | None) -> str | bytes:
    """What a row holds as {"bytes", "path"}: undecoded bytes, else the path of a file, else nothing."""
    cell = cell or {}
    return cell.get("bytes") or cell.get("path") or b""


def _load_table(path: Path, split: str):
    """The split's rows as a `datasets` table, memory-mapped, with the sound left undecoded (decoding needs FFmpeg)."""
    local = path.exists()
    try:
        import datasets
    except ImportError as error:
        what = "reading parquet" if local else f"there is no {path} here; to fetch a dataset of that name from the hub"
        raise MinigenError(f"{what} needs the `datasets` library: pip install 'minigen[hub]' ({path}).") from error
    try:
        if local:
            files = _parquet_files(path, split)
            table = datasets.load_dataset("parquet", data_files={split: files}, split=split)
        else:
            table = datasets.load_dataset(str(path), split=split)
        return table.cast_column("audio", datasets.Audio(decode=False)) if "audio" in table.column_names else table
    except MinigenError:
        raise
    except Exception as error:  # whatever the library raises: no network, no such name, no such split, a broken file
        raise MinigenError(
            f"cannot read {path}: {error}. Name a folder, a CSV, a parquet file or a dataset."
        ) from error


def _parquet_files(path: Path, split: str) -> list[str]:
    """A parquet file itself, or those of a folder whose names begin with the split."""
    if path.is_file():
        return [str(path)]
    files = [str(file) for file in sorted(path.rglob("*.parquet")) if file.name.startswith(SPLITS[split])]
    if not files:
        raise MinigenError(f"{path} has no parquet file whose name begins with {split}. Ask for another split.")
    return files
