"""What reading gives: clips that load one at a time, and a report of what could not be used and why.

    read_corpus(path) -> Corpus: .clips (captions, events), .load(i) -> wav [1, 1, samples], .report (counts, reasons)

Nothing is held in memory but captions. Opening a corpus looks at every file's header (about 0.5 ms a file), which finds
what is missing, not audio, empty or cut short; silence, NaN and damage further in show when a clip is loaded. Either
way the clip is skipped, counted and listed with its reason, and the run goes on.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from minigen.audio import AudioError, check_audio, fit_length, load_audio
from minigen.corpus.clip import Clip
from minigen.engine.files import write_atomically
from minigen.engine.sound_file import blocks, open_sound

SILENT = 1e-4  # a clip is silent whose largest sample stays below this, or whose largest distance from its mean does


@dataclass
class Report:
    """How much of what was asked for can be read.

    Attributes:
        looked_at: rows (of a CSV) or files (of class folders).
        skipped: (file, reason) of each that cannot be used.
        splits: for a folder of CSVs, each split's (clips found by name, rows).
    """

    unit: str = "files"
    looked_at: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)

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

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.by_reason.items())
        return f"{self.looked_at} {self.unit} looked at, {self.readable} readable" + (
            f" ({reasons})" if reasons else ""
        )

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
    report: Report
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

    def write_report(self, path: str | Path) -> None:
        """Write the list of skipped files, `Report.write`."""
        self.report.write(path)


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
