"""Measures of the study: the row of a set of clips, and scores for each of its captions.

    clips for the captions --Yardstick----> FAD, FAD inf, kernel, KL, CLAP, recall, diversity          rows.csv
                           --event tagger-> events heard, in order, how often                    --+
                           --CLAP model---> cosine with the caption                              --+-> captions.csv

`minigen.evaluation.measure` measures a set as a whole. A paired bootstrap (`minigen.evaluation.bootstrap`) needs the
scores of the single captions, which are kept here. FAD, kernel distance and diversity belong to a set and have none.
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
# Measures that are a sum over captions divided by another: name -> (score that is summed, score it is divided by).
RATIOS = {
    "kl": ("kl", "one"), "clap": ("clap", "one"), "recall": ("found", "asked"), "recall_seen": ("found", "asked"),
    "recall_held_out": ("found", "asked"), "order": ("ordered", "both"), "count": ("counted", "counts"),
}  # fmt: skip
DIGITS = ("held_out", "asked", "found", "both", "ordered", "counts", "counted")  # one digit for each caption
DECIMALS = {"clap": 3, "kl": 2}  # digits kept in captions.csv, far finer than the variation between captions


@dataclass(frozen=True)
class CaptionScores:
    """Scores of each caption: name -> array [n].

    held_out: 1 if the caption has a held-out pair of kinds. asked, found: events in the caption, and those heard.
    both, ordered: 1 if two successive events are both heard, and if they are heard in order. counts, counted: numbers
    in the caption that can be checked, and those that are right. clap: cosine. kl: divergence in nats.
    """

    values: dict[str, np.ndarray]

    def cells(self) -> dict[str, str]:
        """Cells of captions.csv: digits without separator, decimals separated by spaces."""
        cells = {name: "".join(str(int(value)) for value in self.values[name]) for name in DIGITS}
        return cells | {name: " ".join(f"{v:.{d}f}" for v in self.values[name]) for name, d in DECIMALS.items()}

    @classmethod
    def read(cls, row: dict[str, str]) -> "CaptionScores":
        """Scores from a row of captions.csv."""
        values = {name: np.array([int(digit) for digit in row[name]], float) for name in DIGITS}
        return cls(values | {name: np.array(row[name].split(), float) for name in DECIMALS})

    def ratio(self, measure: str) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays [n]: the measure is the sum of the first divided by the sum of the second."""
        counted, among = RATIOS[measure]
        held_out, ones = self.values["held_out"], np.ones_like(self.values["clap"])
        kept = {"recall_seen": 1 - held_out, "recall_held_out": held_out}.get(measure, ones)
        below = ones if among == "one" else self.values[among]
        return self.values[counted] * kept, below * kept


def mean(scores: CaptionScores, measure: str) -> float:
    """A measure over all captions; nan where it applies to none."""
    above, below = scores.ratio(measure)
    return float(above.sum() / below.sum()) if below.sum() else float("nan")


class Evaluator:
    """Measures sets of sounds that were made for the same captions.

    Args:
        yardstick: CLAP model, event tagger and reference clips.
        clips: captions and events.
        real: their true waveforms, [n, 1, samples] at 16 kHz.
        counted: kinds whose number of sounds is checked, see `countable`.
    """

    def __init__(self, yardstick: Yardstick, clips: list[Clip], real: Tensor, counted: tuple[str, ...]):
        self.yardstick, self.clips, self.real, self.counted = yardstick, clips, real, counted
        self.real_probabilities = yardstick.tagger.probabilities(real)

    def measure(self, name: str, wavs: Tensor) -> tuple[dict[str, float], CaptionScores]:
        """Numbers of a row of rows.csv, and the scores, of waveforms [n, 1, samples] at 16 kHz."""
        row, scores = self.row(name, wavs)
        numbers = {field: getattr(row, field) for field in SET_METRICS}
        return numbers | {measure: mean(scores, measure) for measure in RATIOS}, scores

    def row(self, name: str, wavs: Tensor) -> tuple[Measurement, CaptionScores]:
        """The `Measurement` of the same waveforms, as `minigen compare` prints it, and the scores."""
        row = self.yardstick.measure(name, wavs, self.clips, self.real)
        return row, self._scores(wavs, row)

    def _scores(self, wavs: Tensor, row: Measurement) -> CaptionScores:
        tagger = self.yardstick.tagger
        probs = tagger.probabilities(wavs)
        found = self.yardstick.asked(self.clips) & (probs >= THRESHOLD).cpu()
        pairs = zip(self.real_probabilities, probs, strict=True)
        values = {
            "asked": row.asked,
            "found": row.found,
            "clap": row.matches,
            "kl": [metrics.kl_divergence(real[None], own[None]) for real, own in pairs],
            "held_out": [has_held_out([event.kind for event in clip.events]) for clip in self.clips],
        }
        timed = np.zeros((len(wavs), 4))
        if hasattr(tagger, "timeline"):  # AST has none: neither order nor counts can be checked
            for i, (clip, lines) in enumerate(zip(self.clips, tagger.timeline(wavs), strict=True)):
                timed[i] = *_order(clip, tagger.kinds, lines, found[i]), *self._counts(clip, lines, found[i])
        values |= dict(zip(("both", "ordered", "counts", "counted"), timed.T, strict=True))
        return CaptionScores({name: np.asarray(value, float) for name, value in values.items()})

    def _counts(self, clip: Clip, lines: Tensor, found: Tensor) -> tuple[int, int]:
        """Numbers in the caption that can be checked, and how many of these the sound has."""
        kinds = self.yardstick.tagger.kinds
        said = {kinds.index(kind): count for kind, count in said_counts(clip).items() if kind in self.counted}
        right = [bool(found[kind]) and count_sounds(lines[kind].cpu()) == count for kind, count in said.items()]
        return len(said), sum(right)


def make_evaluator(judge, tagger, clips: list[Clip], real: Tensor, reference: tuple[list[Clip], list[Tensor]]):
    """An `Evaluator`. reference: real clips of another split; they also decide which kinds are counted."""
    yardstick = Yardstick(judge, tagger, reference[1])
    if not hasattr(tagger, "timeline"):
        return Evaluator(yardstick, clips, real, ())
    lines = torch.cat([tagger.timeline(wav).cpu() for wav in reference[1]])
    return Evaluator(yardstick, clips, real, countable(reference[0], lines, tagger.kinds))


def _order(clip: Clip, kinds: tuple[str, ...], lines: Tensor, found: Tensor) -> tuple[int, int]:
    """1 if two successive events are both heard, and 1 if they are heard in order. lines: [C, F], found: [C]."""
    pair = followed_by(clip, kinds)
    if pair is None:
        return 0, 0
    first, second = (kinds.index(kind) for kind in pair)
    if not (found[first] and found[second]):
        return 0, 0
    return 1, round(metrics.order_accuracy(lines[first][None], lines[second][None]))
