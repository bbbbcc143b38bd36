"""A corpus that has been opened: clips that are loaded one at a time, and a report of the files that cannot be used.

    read_corpus(path) -> Corpus: .clips (captions, events), .load(i) -> wav [1, 1, samples], .report (counts, reasons)

Only captions are held in memory. Opening a corpus reads the header of every file (about 0.5 ms a file), which reveals
files that are missing, not audio, empty or truncated. Silence, NaN and damage later in the file are found when the clip
is loaded. In both cases the clip is skipped, counted and listed with its reason, and the run continues.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from minigen.audio import AudioError, check_audio, fit_length, load_audio
from minigen.corpus.clip import Clip
from minigen.engine.files import write_atomically
from minigen.engine.sound_file import blocks, open_sound

FROM_NAME = "captioned from a name"
ROUNDING = 0.01  # seconds by which a clip may be longer or shorter without being counted
SHOWN = 10  # number of captions, and of skipped files, in a description
SILENT = 1e-4  # a clip is silent if its peak, or its largest distance from its mean, is below this


@dataclass
class CorpusReport:
    """How a data set was understood, and how many of its clips can be read.

    Attributes:
        unit: "rows" (of a table) or "files" (of class folders).
        looked_at: number of rows or files examined.
        skipped: (file, reason) of each one that cannot be used.
        splits: for each split, (files found, rows).
        understood: lines of text: the tables and columns that are read, and why other tables are not.
        changed: number of clips for each change on loading ("longer than 4 s, cut", "resampled from 44100 Hz").
    """

    unit: str = "files"
    looked_at: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    understood: list[str] = field(default_factory=list)
    changed: Counter = field(default_factory=Counter)

    @property
    def readable(self) -> int:
        """Number of rows or files that can be used, as far as is known."""
        return self.looked_at - len(self.skipped)

    @property
    def by_reason(self) -> dict[str, int]:
        """Number of skipped rows or files for each reason, most frequent first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())

    def skip(self, file: str, reason: str) -> None:
        """Count and list a row or file that cannot be used."""
        self.skipped.append((file, reason))

    def note(self, change: str) -> None:
        """Count a change that is made to a clip."""
        self.changed[change] += 1

    def note_clip(self, rate: int, frames: int, seconds: float, sample_rate: int) -> None:
        """Count the changes that turn a recording (Hz, frames) into a clip of `seconds` at `sample_rate` Hz."""
        length = frames / rate
        if length < seconds - ROUNDING:
            self.note(f"shorter than {seconds:g} s, filled with zeros")
        elif length > seconds + ROUNDING:
            self.note(f"longer than {seconds:g} s, cut")
        if rate != sample_rate:
            self.note(f"resampled from {rate} Hz")

    def count(self, split: str | None, found: bool) -> None:
        """Count a row of a split, and whether its file was found."""
        if split is not None:
            before = self.splits.get(split, (0, 0))
            self.splits[split] = before[0] + found, before[1] + 1

    def __str__(self) -> str:
        """Summary in one line: "12 rows looked at, 5 readable (6 missing, 1 truncated)"."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.by_reason.items())
        return f"{self.looked_at} {self.unit} looked at, {self.readable} readable" + (
            f" ({reasons})" if reasons else ""
        )

    def changes(self) -> str:
        """Changes made to the clips, with their counts: "40 captioned from a name; 12 longer than 4 s, cut"."""
        return "; ".join(f"{count} {change}" for change, count in self.changed.most_common()) or "none"

    def write(self, path: str | Path) -> None:
        """Write the skipped rows or files as CSV with the columns file,reason.

        Raises:
            MinigenError: the place cannot be written.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("file", "reason"), *self.skipped])
        write_atomically(path, text.getvalue())


@dataclass
class Corpus:
    """Captioned clips that are read from disk one at a time.

    Attributes:
        clips: the clips whose file has a valid header.
        report: how the data set was understood, and what was skipped.
        sample_rate: Hz; seconds: length of a clip; both hold for every `load`.
        read: function from a clip's number to a path or the bytes of a file.
        seek_sound: whether a file longer than a clip is read from its first sound (class folders) or from its start.
    """

    clips: list[Clip]
    report: CorpusReport
    sample_rate: int
    seconds: float
    read: Callable[[int], str | bytes]
    seek_sound: bool = False

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def captions(self) -> list[str]:
        """The captions, in the order of the clips."""
        return [clip.caption for clip in self.clips]

    def load(self, index: int) -> Tensor:
        """Clip `index` as float32 [1, 1, round(seconds * sample_rate)], cut or padded with zeros.

        Raises:
            AudioError: the file is missing, damaged, not finite, or silent (peak below 1e-4, or a constant).
        """
        source = self.read(index)
        start = first_sound(source, self.seconds) if self.seek_sound else 0.0
        wav = load_audio(source, self.sample_rate, start, self.seconds)
        if wav.abs().max() < SILENT or (wav - wav.mean()).abs().max() < SILENT:
            raise AudioError("silent", f"{self.clips[index].file} is silent. Use another recording.")
        return fit_length(wav, round(self.seconds * self.sample_rate))

    def described(self) -> str:
        """Description as text: tables and columns, readable clips, changes on loading, skipped files, some captions."""
        report = self.report
        lines = [str(report), *report.understood]
        if len(report.splits) > 1:
            lines.append(", ".join(f"{split}: {found} of {rows}" for split, (found, rows) in report.splits.items()))
        lines.append(f"changed when read: {report.changes()}")
        lines += [f"left out: {file} ({reason})" for file, reason in report.skipped[:SHOWN]]
        different = list(dict.fromkeys(self.captions))
        lines += [f'  "{caption}"' for caption in different[:: math.ceil(len(different) / SHOWN) or 1]]
        return "\n".join(lines)


def first_sound(source: str | bytes, seconds: float) -> float:
    """Start of the first sound in a file, in seconds, but at most its length minus `seconds`.

    The file is read in steps of 0.1 s until the peak of a step reaches 1e-4. 0 for a short, silent or damaged file.
    """
    import soundfile

    try:
        rate, frames = check_audio(source)
        step, latest = max(1, rate // 10), frames / rate - seconds
        if latest <= 0:
            return 0.0
        with open_sound(source) as file:
            for number, block in enumerate(blocks(file, step)):
                if abs(block).max() >= SILENT:
                    return min(number * step / rate, latest)
    except (soundfile.LibsndfileError, OSError, AudioError):
        pass  # load_audio raises the error
    return 0.0
