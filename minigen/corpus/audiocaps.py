"""Finds the recording of each row of a table: by its path, or by the usual names of AudioCaps' clips.

    audiocap_id,youtube_id,start_time,caption[,file[,kinds,counts,onsets,offsets]]

The last five columns are those of the built-in corpus: a path, and the true events as lists joined by ";". A row
without `file` names a video and a start time. The clip of video `rqfQRErjfk8` from 30 s on may have these names, which
public downloaders use:

    rqfQRErjfk8_30   rqfQRErjfk8_30.000   rqfQRErjfk8_000030   rqfQRErjfk8_30000 (ms)   each also with _ and the end
    rqfQRErjfk8      with Y before any of these                <audiocap_id>
"""

import math
import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from minigen.audio import AUDIO_SUFFIXES, FOREIGN_SUFFIXES, AudioError, check_audio
from minigen.corpus.clip import Clip, Event
from minigen.corpus.corpus import FROM_NAME, CorpusReport
from minigen.corpus.folders import split_of_path, walk
from minigen.corpus.tables import EVENT_COLUMNS, Row, Table, clean_caption, rows
from minigen.engine.errors import MinigenError

SECONDS = 10  # of AudioCaps' clips
Stems = dict[str, list[Path]]  # name without suffix -> files


class Files:
    """The sound files of a data set, by path and by name.

    Args:
        root: folder of the data set.
        audio: folder of the clips; None: they are in the data set's folder.
    """

    def __init__(self, root: Path, audio: Path | None):
        if audio is not None and not audio.is_dir():
            raise MinigenError(f"there is no folder {audio} of clips. Name the folder they lie in.")
        self.root, self.audio = root, audio

    def find(self, row: Row, table: Path, split: str | None) -> str:
        """Path of the row's recording.

        table: the table's folder. split: of the row; it decides between files of the same name in several folders.

        Raises:
            AudioError: missing, in a format that is not read, ambiguous, or a path outside the data set.
        """
        if name := row.get("file"):
            try:
                return self._at(name, table)
            except AudioError:
                path = Path(name.replace("\\", "/"))
                found = self._named([path.name, path.stem] if path.suffix else [path.name], row, split)
                if found is None:
                    raise
                return found
        stems = possible_names(row)
        if not stems:
            raise AudioError("missing", "the row names no file.")
        found = self._named(stems, row, split)
        if found is None:
            raise AudioError("missing", f"there is no clip of {row.get('youtube_id') or stems[0]}.")
        return found

    def _at(self, name: str, table: Path) -> str:
        """The file at a path that a table holds, relative to one of the data set's folders."""
        top, beside = Path(os.path.abspath(self.root)), Path(os.path.abspath(table))
        places = [beside, top, top / "audio"]
        if self.audio:
            places.insert(0, Path(os.path.abspath(self.audio)))
        outside = True
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):  # a table that was made on Windows
            for place in places:
                path = Path(os.path.normpath(place / spelling))
                if path.is_relative_to(place) or (place == beside and path.is_relative_to(top)):
                    outside = False
                    if os.path.exists(path):
                        return str(path)
        if outside:
            raise AudioError("outside the folder", f"{name} leads out of {self.root}.")
        raise AudioError("missing", f"there is no file {name} in {self.root}.")

    def _named(self, names: list[str], row: Row, split: str | None) -> str | None:
        """The first file that has one of the names; None if there is none."""
        for stems in (self._near, self._far):
            for name in names:
                if paths := stems.get(name) or stems.get(name.lower(), []):
                    return self._one_of(paths, row, split)
        foreign = next((self._foreign[name] for name in names if name in self._foreign), None)
        if foreign is not None:
            raise AudioError(f"{foreign.suffix.lower()} needs FFmpeg", f"{foreign} cannot be decoded without FFmpeg.")
        return None

    def _one_of(self, paths: list[Path], row: Row, split: str | None) -> str:
        """Choose between files of the same name: by the row's split and fold, then by format (see AUDIO_SUFFIXES)."""
        fold = f"fold{row.get('fold')}"
        for fits in (lambda path: split_of_path(path.relative_to(self._top).parts[:-1]) == split,
                     lambda path: fold in path.parts):  # fmt: skip
            paths = [path for path in paths if fits(path)] or paths
        if len({path.parent for path in paths}) > 1:
            raise AudioError("ambiguous", f"{paths[0]} and {paths[1]} have one name.")
        return str(min(paths, key=lambda path: AUDIO_SUFFIXES.index(path.suffix.lower())))

    @property
    def _top(self) -> Path:
        return self.audio or self.root

    @cached_property
    def _near(self) -> Stems:
        """Clips in audio/ or beside the tables, where most data sets have them."""
        if self.audio is not None:
            return self._far
        beside = _by_stem([(self.root, [name for name in os.listdir(self.root) if name[0] != "."])])
        return beside | _by_stem(walk(self.root / "audio"))

    @cached_property
    def _far(self) -> Stems:
        """Clips in all folders of the data set."""
        return _by_stem(walk(self._top))

    @cached_property
    def _foreign(self) -> dict[str, Path]:
        """Files in formats that are not read, such as .m4a, by name with and without suffix."""
        found = _by_stem(walk(self._top), FOREIGN_SUFFIXES)
        return {name: paths[0] for name, paths in found.items()}


def _by_stem(folders, suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> Stems:
    """Files by name with and without suffix, and by the name in lower case if only one name has this form."""
    found, lower = {}, {}
    for where, names in folders:
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes:
                for key in (stem, name):
                    found.setdefault(key, []).append(where / name)
                    lower.setdefault(key.lower(), set()).add(key)
    for key, spellings in lower.items():
        if len(spellings) == 1:
            found.setdefault(key, found[next(iter(spellings))])
    return found


def possible_names(row: Row) -> list[str]:
    """Names without suffix that a row's clip may have (see the module), the most specific first."""
    video = re.sub(r"\.\w{2,4}$", "", row.get("youtube_id") or "")
    videos = [video, f"Y{video}"]
    if len(video) == 12 and video[0] == "Y":  # an id has 11 characters
        videos.append(video[1:])
    times = _times(row.get("start_time") or "", row.get("end_time") or "")
    names = [f"{name}_{time}" for name in videos for time in times] + videos if video else []
    if row.get("audiocap_id"):
        names.append(row["audiocap_id"])
    return names


def _times(start: str, end: str) -> list[str]:
    """Spellings of a start time, alone and with the end: "30", "30.0", "30.000", "000030", "30000" (ms)."""
    try:
        first = float(start)
        last = float(end) if end else first + SECONDS
    except ValueError:
        return [start] if start else []
    if not (0 <= first < 1e6 and 0 <= last < 1e6):
        return [start]
    forms = ("{0:g}", "{0:.1f}", "{0:.3f}", "{0:06.0f}", "{1:.0f}")
    pairs = [(form.format(first, 1000 * first), form.format(last, 1000 * last)) for form in forms]
    return [start, *(begin for begin, _ in pairs), *(f"{begin}_{stop}" for begin, stop in pairs)]


def clips_of(
    table: Table, wanted: str | None, split_of: Callable[[Row], str | None], files: Files, report: CorpusReport,
    length: float, rate: int,
) -> list[Clip]:  # fmt: skip
    """Clips of the rows in the wanted split (None: in all splits); rows that cannot be used are listed in the report.

    split_of: function from a row to its split. length (s), rate (Hz): of the loaded clips, for the report.
    """
    clips, headers = [], {}
    for number, row in enumerate(rows(table)):
        split = split_of(row)
        path, problem = None, None
        try:
            path = files.find(row, table.path.parent, split)
        except AudioError as error:
            problem = error
        report.count(split, path is not None)
        if wanted not in (None, split):
            continue
        report.looked_at += 1
        try:
            caption = caption_of(table, row)
            if problem is not None:
                raise problem
            if path not in headers:
                headers[path] = check_audio(path)
            clips.append(_clip(row, number, caption, path))
        except AudioError as error:
            report.skip(row.get("file") or row.get("youtube_id") or f"row {number + 1}", error.reason)
            continue
        report.note_clip(*headers[path], length, rate)
        if not table.captions:
            report.note(FROM_NAME)
    return clips


def caption_of(table: Table, row: Row) -> str:
    """The row's caption, or a sentence made from its label ("dog" -> "A dog barks"); of several labels, the first."""
    from minigen.corpus.synthesis.captions import plain_caption

    if table.captions:
        return clean_caption(row.get("caption"))
    label = re.split(r"[,;]", row.get("label") or "")[0]
    if not re.search(r"[^\W\d_]", label):
        raise AudioError("no caption", "the label is no word.")
    caption = clean_caption(plain_caption(label))
    return caption[:1].upper() + caption[1:]


def start_of(text: str) -> float:
    """AudioCaps' `start_time` in seconds; 0 if the text is not a number."""
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else 0.0


def _clip(row: Row, number: int, caption: str, path: str) -> Clip:
    name, start = row.get("audiocap_id") or str(number), start_of(row.get("start_time") or "")
    return Clip(name, row.get("youtube_id") or "", start, caption, path, _events(row, number))


def _events(row: Row, number: int) -> tuple[Event, ...]:
    """The events of the built-in corpus' columns kinds, counts, onsets, offsets: lists joined by ";"."""
    kinds, counts, onsets, offsets = ([c for c in (row.get(name) or "").split(";") if c] for name in EVENT_COLUMNS)
    try:
        values = zip(kinds, map(int, counts), map(float, onsets), map(float, offsets), strict=True)
        events = [Event(*value) for value in values]
        if not all(0 <= event.onset <= event.offset < math.inf and 0 < event.count < 10**6 for event in events):
            raise ValueError("an event without a valid time or count")
        return tuple(sorted(events, key=lambda event: event.onset))
    except ValueError as error:
        raise AudioError("bad events", f"row {number + 1}: {error}") from error
