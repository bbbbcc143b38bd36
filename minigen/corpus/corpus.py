"""What reading gives: clips that load one at a time, and a report of what could not be used and why.

    read_corpus(path) -> Corpus: .clips (captions, events), .load(i) -> wav [1, 1, samples], .report (counts, reasons)

Nothing is held in memory but captions. Opening a corpus looks at every file's header (about 0.5 ms a file), which finds
what is missing, not audio, empty or cut short; silence, NaN and damage further in show when a clip is loaded. Either
way the clip is skipped, counted and listed with its reason, and the run goes on.
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
SHOWN = 10  # captions, and files that are left out, in a description
SILENT = 1e-4  # a clip is silent whose largest sample stays below this, or whose largest distance from its mean does


@dataclass
class CorpusReport:
    """How a data set was understood, and how much of what was asked for can be read.

    Attributes:
        unit: "rows" (of a table) or "files" (of class folders).
        looked_at: how many of them.
        skipped: (file, reason) of each that cannot be used.
        splits: of tables, each split's (clips found by name, rows).
        understood: how the data set is read, a line each: which table, which columns, what was not read and why.
        changed: what happens to the clips that are read ("cut to 4 s", "resampled from 44100 Hz") -> how many.
    """

    unit: str = "files"
    looked_at: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    understood: list[str] = field(default_factory=list)
    changed: Counter = field(default_factory=Counter)

    @property
    def readable(self) -> int:
        """How many can be used, as far as is known."""
        return self.looked_at - len(self.skipped)

    @property
    def by_reason(self) -> dict[str, int]:
        """Reason -> how many were skipped for it, commonest first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())

    def skip(self, file: str, reason: str) -> None:
        """Count and list one that cannot be used."""
        self.skipped.append((file, reason))

    def note(self, change: str) -> None:
        """Count something that happens to a clip."""
        self.changed[change] += 1

    def note_clip(self, rate: int, frames: int, seconds: float, sample_rate: int) -> None:
        """Count what happens to a recording (Hz, frames) that becomes a clip of `seconds` at `sample_rate` Hz."""
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
        """How much can be read: "12 rows looked at, 5 readable (6 missing, 1 truncated)"."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.by_reason.items())
        return f"{self.looked_at} {self.unit} looked at, {self.readable} readable" + (
            f" ({reasons})" if reasons else ""
        )

    def changes(self) -> str:
        """What happens to the clips that are read: "40 captioned from a name, 12 longer than 4 s, cut"."""
        return "; ".join(f"{count} {change}" for change, count in self.changed.most_common()) or "none"

    def write(self, path: str | Path) -> None:
        """Write the skipped as CSV with the columns file,reason.

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
        clips: what can be read, as far as its header says.
        report: how much that is of what was asked for.
        sample_rate: Hz; seconds: length of a clip; both hold for every `load`.
        read: clip number -> a file's path or its bytes.
        seek_sound: a file longer than a clip is read from its first sound on (class folders), not from its start.
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
            AudioError: the file turns out missing, damaged, not finite, or silent (peak below 1e-4, or a constant).
        """
        source = self.read(index)
        start = first_sound(source, self.seconds) if self.seek_sound else 0.0
        wav = load_audio(source, self.sample_rate, start, self.seconds)
        if wav.abs().max() < SILENT or (wav - wav.mean()).abs().max() < SILENT:
            raise AudioError("silent", f"{self.clips[index].file} is silent. Use another recording.")
        return fit_length(wav, round(self.seconds * self.sample_rate))

    def described(self) -> str:
        """How the data set was understood, as text: table and columns, what can be read, changes, some captions."""
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
    """Where to begin in a file longer than `seconds`: at its first sound, but no later than `seconds` before its end.

    Read in steps of 0.1 s until one's peak reaches 1e-4. Returns seconds; 0 for a short, silent or damaged file.
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
        pass  # load_audio says what is wrong with it
    return 0.0
