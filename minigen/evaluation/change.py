"""What a tuning changed: four measures of the same captions before and after, with intervals, over one or more seeds.

    measured on captions 1 ... n       before      after
    training of seed 0                 Measurement Measurement     --.    CLAP, recall, FAD, diversity:
    training of seed 1                 Measurement Measurement     --+--> before, after, and after less before,
    ...                                                            --'    each with its 95 % interval

CLAP and recall are ratios of sums over captions, whose intervals are those of `minigen.evaluation.bootstrap`. FAD and
diversity belong to a set of clips. Their bootstrap draws captions and seeds as well, but a clip that is drawn twice is
too near to itself, so the mean of the resamples is off. The interval is therefore the measured value ± 1.96 standard
deviations of the resamples. It covers the captions and the seeds of these trainings, not the choice of the reference
clips.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from minigen import metrics
from minigen.display.tables import padded_table
from minigen.engine.checkpoint import load_checkpoint, save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_rows
from minigen.evaluation import bootstrap
from minigen.evaluation.bootstrap import Difference, Ratio
from minigen.evaluation.measure import Measurement

TITLES = {"clap": "CLAP", "recall": "recall", "fad": "FAD", "diversity": "diversity"}
RESAMPLES = 200  # of FAD and diversity, for a standard deviation


class Change(NamedTuple):
    """One measure before and after, and the difference; each with the middle 95 % of its resamples."""

    before: Difference
    after: Difference
    change: Difference


def measure_changes(before: list[Measurement], after: list[Measurement], reference: ArrayLike) -> dict[str, Change]:
    """The changes of CLAP, recall, FAD and diversity; the values are means over the seeds.

    Args:
        before: one row for each seed.
        after: the rows of the same seeds, on the same captions.
        reference: features [m, E] of the real clips that FAD compares with.

    Raises:
        MinigenError: rows of different captions, or as many rows before as after are missing.
    """
    if not len(before) == len(after) > 0 or len({row.asked for row in (*before, *after)}) > 1:
        raise MinigenError("rows before and after of different captions. Measure all on the same ones.")
    ratios = {"clap": lambda rows: _ratio([row.matches for row in rows]),
              "recall": lambda rows: _ratio([row.found for row in rows], [row.asked for row in rows])}  # fmt: skip
    changes = {}
    for name, ratio in ratios.items():
        one, other = ratio(after), ratio(before)
        zero = Ratio(np.zeros_like(one.counted), np.ones_like(one.among))
        pairs = ((other, zero), (one, zero), (one, other))
        changes[name] = Change(*(bootstrap.paired_difference(*pair) for pair in pairs))
    real = np.asarray(reference, np.float64)
    changes["fad"] = _of_sets(lambda rows: metrics.frechet_distance(real, rows), *(
        [row.features for row in rows] for rows in (before, after)))  # fmt: skip
    changes["diversity"] = _of_sets(_diversity, *([row.sounds for row in rows] for rows in (before, after)))
    return changes


def _ratio(counted: list, among: list | None = None) -> Ratio:
    values = np.array(counted, float)  # [S, n]
    return Ratio(values, np.ones_like(values) if among is None else np.array(among, float))


def _diversity(rows: np.ndarray) -> float:
    return metrics.diversity(rows)


def _of_sets(measure: Callable[[np.ndarray], float], before: list, after: list) -> Change:
    """The change of a measure of sets of vectors, [n, E] for each seed."""
    sets = [np.array([np.asarray(rows, np.float64) for rows in each]) for each in (before, after)]  # [S, n, E]
    own = np.array([[measure(rows) for rows in each] for each in sets])  # [2, S]
    rng, (seeds, captions) = np.random.default_rng(0), sets[0].shape[:2]
    drawn = []
    for _ in range(RESAMPLES):
        rows, which = rng.integers(captions, size=captions), rng.integers(seeds, size=seeds)
        values = {s: [measure(each[s][rows]) for each in sets] for s in np.unique(which).tolist()}
        drawn.append(np.mean([values[s] for s in which.tolist()], axis=0))
    spread = np.array(drawn)  # [R, 2]
    return Change(
        _around(own[0], spread[:, 0]), _around(own[1], spread[:, 1]),
        _around(own[1] - own[0], spread[:, 1] - spread[:, 0]),
    )  # fmt: skip


def _around(values: np.ndarray, drawn: np.ndarray) -> Difference:
    """The mean of `values` [S], and 1.96 standard deviations of the resamples on either side."""
    mean, half = float(values.mean()), 1.96 * float(drawn.std())
    return Difference(mean, mean - half, mean + half, tuple(values.tolist()))


def changes_table(changes: dict[str, Change]) -> str:
    """The changes as a Markdown table, each value with its interval."""
    rows = []
    for name, (before, after, change) in changes.items():
        digits = 1 if name == "fad" else 3
        plain = [f"{each.mean:.{digits}f} [{each.low:.{digits}f}, {each.high:.{digits}f}]" for each in (before, after)]
        signed = f"{change.mean:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}]"
        rows.append([TITLES[name], *plain, signed])
    return padded_table(["", "before", "after", "after less before, 95 % interval"], rows)


def save_changes(path: str | Path, changes: dict[str, Change]) -> None:
    """Write the changes as CSV: for each measure and each of "before", "after", "change" the mean, the interval and
    the values of the seeds.
    """
    rows = []
    for name, change in changes.items():
        for when, each in zip(Change._fields, change, strict=True):
            seeds = {f"seed_{s}": value for s, value in enumerate(each.seeds)}
            rows.append({"measure": name, "when": when, "mean": each.mean, "low": each.low, "high": each.high, **seeds})
    write_rows(path, rows)


def save_rows(path: str | Path, rows: list[Measurement], reference: ArrayLike) -> None:
    """Keep rows, with the values of their clips, and FAD's reference, for `load_rows`."""
    state = [{field.name: _plain(getattr(row, field.name)) for field in fields(row)} for row in rows]
    save_checkpoint(path, {"rows": state, "reference": torch.as_tensor(reference)})


def load_rows(path: str | Path) -> tuple[list[Measurement], Tensor]:
    """The rows and the reference that `save_rows` kept.

    Raises:
        MinigenError: no such file, or a damaged one.
    """
    state = load_checkpoint(path)
    rows = [Measurement(**row) for row in state["rows"]]
    lists = ("matches", "asked", "found")
    return [replace(row, **{name: tuple(getattr(row, name)) for name in lists}) for row in rows], state["reference"]


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
