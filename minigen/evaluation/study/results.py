"""Results of the study, read from rows.csv and captions.csv, and the metrics that its table may show.

A metric is shown only if it rates real clips best and noise worst. A comparison of models by another metric would mean
nothing.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows
from minigen.evaluation.bootstrap import Ratio
from minigen.evaluation.measure import NOISE, REAL, SHUFFLED, SILENCE
from minigen.evaluation.per_caption import CaptionScores
from minigen.evaluation.study.plan import (
    ALIKE_TEXTS,
    CAPTIONS,
    CENTRED,
    CONTROL_ROWS,
    DROPOUT,
    EVERY_STEP,
    NO_DROPOUT,
    OTHER_SPLIT,
    REGULARIZED,
    ROWS,
    TEST,
    StudyConfig,
    chosen_guidance,
)

TIE = 1e-9  # values that differ by less are equal

Run = tuple[str, float]  # name of a training, and the guidance scale that it is sampled with


class Metric(NamedTuple):
    """A column of the table.

    field: of the rows; better: "low", "high", or "near" for near the value of real clips; percent: shown as such;
    whole: shown without decimals.
    """

    field: str
    title: str
    better: str
    percent: bool = False
    whole: bool = False


METRICS = (
    Metric("recall", "recall", "high", True), Metric("recall_seen", "recall, seen", "high", True),
    Metric("recall_held_out", "recall, held out", "high", True), Metric("order", "order", "high", True),
    Metric("count", "count", "high", True), Metric("clap", "CLAP", "high"), Metric("kl", "KL", "low"),
    Metric("fad", "FAD", "low"), Metric("fad_infinity", "FAD inf", "low"), Metric("kernel", "kernel", "low"),
    Metric("diversity", "diversity", "near"),
)  # fmt: skip


class Entry(NamedTuple):
    """A row of the table: a model at a guidance scale; None is the best scale on validation clips."""

    name: str
    model: str
    guidance: float | None = None


NO_TEXT_DROPOUT = Entry("no text dropout", NO_DROPOUT)
UNGUIDED = Entry("text dropout, no guidance", DROPOUT, 1.0)
GUIDED = Entry("text dropout, guidance", DROPOUT)
REGULARISED = Entry("regulariser", REGULARIZED)
REGULARISED_ALWAYS = Entry("regulariser in every step", EVERY_STEP)
REGULARISED_ALIKE = Entry("regulariser, alike texts", ALIKE_TEXTS)
REGULARISED_CENTRED = Entry("centred regulariser", CENTRED)
ENTRIES = (
    NO_TEXT_DROPOUT, UNGUIDED, GUIDED, REGULARISED, REGULARISED_ALWAYS, REGULARISED_ALIKE, REGULARISED_CENTRED,
)  # fmt: skip
COMPARISONS = (
    (GUIDED, UNGUIDED), (GUIDED, NO_TEXT_DROPOUT), (REGULARISED, GUIDED), (REGULARISED_ALWAYS, GUIDED),
    (REGULARISED_ALWAYS, REGULARISED), (REGULARISED_ALIKE, GUIDED), (REGULARISED_CENTRED, GUIDED),
    (REGULARISED_CENTRED, REGULARISED),
)  # fmt: skip

SHIPPED = (
    Entry("mini-no-dropout", "mini-no-dropout"), Entry("mini-dropout, no guidance", "mini-dropout", 1.0),
    Entry("mini-dropout", "mini-dropout"), Entry("mini-regularized, no guidance", "mini-regularized", 1.0),
    Entry("mini-regularized", "mini-regularized"),
)  # fmt: skip
SHIPPED_COMPARISONS = tuple((SHIPPED[one], SHIPPED[other]) for one, other in ((2, 1), (4, 3), (2, 0), (4, 2)))


class Results:
    """Rows and caption scores of a study.

    Raises:
        MinigenError: there are no rows yet.
    """

    def __init__(self, folder: str | Path, config: StudyConfig):
        self.config, self.rows = config, read_rows(Path(folder) / ROWS)
        if not self.rows:
            raise MinigenError(f"{Path(folder) / ROWS} holds no rows yet. Run `minigen study` first.")
        captions = read_rows(Path(folder) / CAPTIONS)
        self.scores = {(row["run"], float(row["guidance"])): CaptionScores.read(row) for row in captions}
        self.tested = {(row["run"], float(row["guidance"])): row for row in self.rows if row["split"] == TEST}

    def guidance(self, entry: Entry) -> float | None:
        """Guidance scale of an entry; None if its validation clips have not all been measured."""
        return entry.guidance or chosen_guidance(self.rows, entry.model, self.config)

    def runs(self, model: str, guidance: float | None) -> list[Run]:
        """Measured trainings of a model, by seed."""
        wanted = [(f"{model}-{seed}", guidance) for seed in self.config.seeds]
        return [run for run in wanted if run in self.tested]

    def of(self, entry: Entry) -> list[Run]:
        """Measured trainings of an entry, by seed."""
        return self.runs(entry.model, self.guidance(entry))

    def value(self, field: str, runs: list[Run]) -> float:
        """Mean of a column over trainings; nan without any."""
        values = [float(self.tested[run][field] or "nan") for run in runs]
        return float(np.mean(values)) if values else math.nan

    def ratio(self, measure: str, runs: list[Run]) -> Ratio:
        """A measure as a ratio of sums over captions, [seeds, captions] each."""
        counted, among = zip(*(self.scores[run].ratio(measure) for run in runs), strict=True)
        return Ratio(np.stack(counted), np.stack(among))


def sound_metrics(results: Results, entries: tuple[Entry, ...] = ENTRIES + SHIPPED) -> tuple[list[Metric], list[str]]:
    """Metrics that may be shown, and for each of the others a sentence that says why not. entries: all that are shown.

    Real clips of either split must be at least as good as the codec reconstruction and every model, and none of these
    may be worse than noise. Silence and shuffled captions are wrong in other ways and are not part of this test.
    """
    compared = {name: [(name, 0.0)] for name in CONTROL_ROWS if (name, 0.0) in results.tested}
    compared |= {entry.name: results.of(entry) for entry in entries}
    compared = {name: runs for name, runs in compared.items() if runs and name not in (SILENCE, SHUFFLED)}
    kept, dropped = [], []
    for metric in METRICS:
        reason = _unsound(metric, {name: _goodness(results, metric, runs) for name, runs in compared.items()})
        if reason:
            dropped.append(f"{metric.title} is left out: {reason}.")
        else:
            kept.append(metric)
    return kept, dropped


def _unsound(metric: Metric, goodness: dict[str, float]) -> str:
    """Reason why a metric is not shown; "" if it may be. goodness: -inf where the metric does not apply."""
    real = max(goodness.get(REAL, -math.inf), goodness.get(OTHER_SPLIT, -math.inf))
    noise = goodness.get(NOISE, -math.inf)
    rivals = [name for name in goodness if name not in (REAL, OTHER_SPLIT, NOISE)]
    if real == -math.inf:
        return "it does not apply to these real clips"
    if better := [name for name in rivals if goodness[name] > real + TIE]:
        return f"by it, {better[0]} would be better than real clips"
    if worse := [name for name in rivals if goodness[name] < noise - TIE]:
        return f"by it, {worse[0]} would be worse than noise"
    return "by it, noise would be as good as real clips" if noise >= real - TIE else ""


def _goodness(results: Results, metric: Metric, runs: list[Run]) -> float:
    """Value of a metric, turned so that larger is better; -inf where it does not apply."""
    value = results.value(metric.field, runs)
    if metric.better == "near":
        value = -abs(value - results.value(metric.field, [(REAL, 0.0)]))
    value = -value if metric.better == "low" else value
    return -math.inf if math.isnan(value) else value
