"""The bench: what the study measures a set of clips by, as one row of numbers and, caption by caption, as one line.

    sounds for the captions --Yardstick--> FAD, FAD inf, kernel, KL, CLAP, recall, diversity          rows.csv
                            --tagger-----> events asked for and found, in order, and how often  --+
                            --judge------> cosine with the caption                              --+-> captions.csv

The line is what a paired bootstrap needs (`minigen.evaluation.bootstrap`); the distances of sets have no such line.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minigen import metrics
from minigen.corpus.clip import Clip
from minigen.corpus.synthesis.scenes import has_held_out
from minigen.evaluation.counting import count_sounds, countable, said_counts
from minigen.evaluation.measure import THRESHOLD, Measurement, Yardstick, followed_by

SET_METRICS = ("fad", "fad_infinity", "kernel", "diversity")
# Measures that are a sum over captions divided by another: name -> (what is counted, among what) in captions.csv.
RATIOS = {
    "kl": ("kl", "one"), "clap": ("clap", "one"), "recall": ("found", "asked"), "recall_seen": ("found", "asked"),
    "recall_held_out": ("found", "asked"), "order": ("ordered", "both"), "count": ("counted", "counts"),
}  # fmt: skip
DIGITS = ("held_out", "asked", "found", "both", "ordered", "counts", "counted")  # one digit a caption
DECIMALS = {"clap": 3, "kl": 2}  # kept in captions.csv: a thousandth is far below what a caption's sound varies by


@dataclass(frozen=True)
class Line:
    """What every caption gave, arrays [n] by name; `captions.csv` holds it as text."""

    values: dict[str, np.ndarray]

    def text(self) -> dict[str, str]:
        """The cells of the CSV: digits without a gap, decimals with one."""
        cells = {name: "".join(str(int(v)) for v in self.values[name]) for name in DIGITS}
        return cells | {n: " ".join(f"{v:.{d}f}" for v in self.values[n]) for n, d in DECIMALS.items()}

    @classmethod
    def read(cls, row: dict[str, str]) -> "Line":
        """The line from the cells of the CSV."""
        values = {name: np.array([int(digit) for digit in row[name]], float) for name in DIGITS}
        return cls(values | {name: np.array(row[name].split(), float) for name in DECIMALS})

    def ratio(self, measure: str) -> tuple[np.ndarray, np.ndarray]:
        """What is counted and among what, [n] each: the measure is the sum of the first over that of the second."""
        counted, among = RATIOS[measure]
        below = np.ones_like(self.values["clap"]) if among == "one" else self.values[among]
        held = self.values["held_out"]
        kept = {"recall_seen": 1 - held, "recall_held_out": held}.get(measure, np.ones_like(held))
        return self.values[counted] * kept, below * kept


def mean(line: Line, measure: str) -> float:
    """A measure of all captions together; not a number where nothing is asked for."""
    above, below = line.ratio(measure)
    return float(above.sum() / below.sum()) if below.sum() else float("nan")


class Bench:
    """What sounds are measured by. reference: real clips of another split than `clips`, with their sounds.

    clips, real: whose captions are answered, and what they really sound like, [n, 1, samples] at 16 kHz.
    """

    def __init__(self, yardstick: Yardstick, clips: list[Clip], real: Tensor, counted: tuple[str, ...]):
        self.yardstick, self.clips, self.real, self.counted = yardstick, clips, real, counted
        self.heard = yardstick.tagger.probabilities(real)

    def measure(self, name: str, wavs: Tensor) -> tuple[dict[str, float], Line]:
        """The numbers of a row, and the line, of waveforms [n, 1, samples] at 16 kHz for the captions."""
        row, line = self.row(name, wavs)
        numbers = {field: getattr(row, field) for field in SET_METRICS}
        return numbers | {measure: mean(line, measure) for measure in RATIOS}, line

    def row(self, name: str, wavs: Tensor) -> tuple[Measurement, Line]:
        """The same as `minigen compare` shows it: a row of `minigen.evaluation.measure.table`, and the line."""
        row = self.yardstick.measure(name, wavs, self.clips, self.real)
        return row, self._line(wavs, row.matches)

    def _line(self, wavs: Tensor, matches: tuple[float, ...]) -> Line:
        tagger, kinds = self.yardstick.tagger, self.yardstick.tagger.kinds
        probs = tagger.probabilities(wavs)
        timed = hasattr(tagger, "timeline")  # AST has none: neither order nor counts are asked for then
        asked = self.yardstick.asked(self.clips)
        found = asked & (probs >= THRESHOLD).cpu()
        chances = [metrics.kl_divergence(a[None], b[None]) for a, b in zip(self.heard, probs, strict=True)]
        values = {"asked": asked.sum(1), "found": found.sum(1), "clap": matches, "kl": chances}
        values["held_out"] = [has_held_out([event.kind for event in clip.events]) for clip in self.clips]
        rows = [(0, 0, 0, 0)] * len(wavs)
        if timed:
            each = zip(self.clips, tagger.timeline(wavs), found, strict=True)
            rows = [(*_order(clip, kinds, own, there), *self._counts(clip, own, there)) for clip, own, there in each]
        names = ("both", "ordered", "counts", "counted")
        values |= dict(zip(names, zip(*rows, strict=True), strict=True))
        return Line({name: np.asarray(value, float) for name, value in values.items()})

    def _counts(self, clip: Clip, lines: Tensor, found: Tensor) -> tuple[int, int]:
        """How many counts the caption gives that can be checked, and how many of these the sound has."""
        kinds = self.yardstick.tagger.kinds
        said = {kinds.index(kind): count for kind, count in said_counts(clip).items() if kind in self.counted}
        return len(said), sum(bool(found[kind]) and count_sounds(lines[kind].cpu()) == n for kind, n in said.items())


def make_bench(judge, tagger, clips: list[Clip], real: Tensor, reference: tuple[list[Clip], list[Tensor]]) -> Bench:
    """A bench whose counted kinds are those that the counter gets right on the reference clips."""
    yardstick = Yardstick(judge, tagger, reference[1])
    if not hasattr(tagger, "timeline"):
        return Bench(yardstick, clips, real, ())
    lines = torch.cat([tagger.timeline(wav).cpu() for wav in reference[1]])
    return Bench(yardstick, clips, real, countable(reference[0], lines, tagger.kinds))


def _order(clip: Clip, kinds: tuple[str, ...], lines: Tensor, found: Tensor) -> tuple[int, int]:
    """Whether two events that follow each other are both found, and whether they are heard in their order."""
    pair = followed_by(clip, kinds)
    first, second = (kinds.index(kind) for kind in pair) if pair else (0, 0)
    if not pair or not (found[first] and found[second]):
        return 0, 0
    return 1, round(metrics.order_accuracy(lines[first][None], lines[second][None]))
