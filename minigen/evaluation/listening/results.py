"""Preferences: what the answers of a listening test say, with what interval, and who was left out and why.

    answers (CSVs of a person, of a class, of several tests) ──► judgements ──► checks passed? ──► wins of n ──► report

Whoever gets an attention check wrong is named and left out, and so is whoever has met none yet. The interval is
Wilson's: it stays within 0 and 1, and holds for few judgements. It takes judgements as independent, which those of one
person, or about one clip, are not quite: it is a little too narrow.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.make import COLUMNS, NOISE_CHECK, REAL_CHECK, SIDES, Plan, Trial, check_name


class Judgement(NamedTuple):
    """One answer. chosen, other: the models; side: where the chosen one was."""

    listener: str
    chosen: str
    other: str
    side: str


class Preference(NamedTuple):
    """How often `first` was preferred to `second`: wins of n judgements, the share, and its 95 % Wilson interval."""

    first: str
    second: str
    wins: int
    n: int
    low: float
    high: float

    @property
    def says(self) -> str:
        """What the interval allows to say."""
        if self.low > 0.5 or self.high < 0.5:
            return f"{self.first if self.low > 0.5 else self.second} is preferred: the interval leaves out 50 %"
        return "no preference shown: the interval holds 50 %"

    def __str__(self) -> str:
        text = f"{self.first} preferred to {self.second}: {self.wins} of {self.n}"
        return f"{text}, {self.wins / self.n:.0%} [{self.low:.0%}, {self.high:.0%}]; {self.says}" if self.n else text


@dataclass(frozen=True)
class Report:
    """What the answers say. checked: listener -> (checks right, checks answered), for all who answered anything.

    left: share of answers "left" among those counted, about a half. repeated, foreign: answers that are not counted,
    because that trial was answered before, or does not belong to the test.
    """

    preferences: tuple[Preference, ...]
    checked: dict[str, tuple[int, int]]
    left: float
    repeated: int = 0
    foreign: int = 0

    @property
    def left_out(self) -> list[str]:
        """Listeners who got a check wrong, or have not met one yet."""
        return sorted(name for name, (right, asked) in self.checked.items() if right < asked or not asked)

    def __str__(self) -> str:
        kept = len(self.checked) - len(self.left_out)
        lines = [f"{sum(row.n for row in self.preferences)} judgements of {kept} listener{'s' * (kept != 1)}"]
        lines += [str(row) for row in self.preferences]
        lines += ["In brackets: 95 % Wilson interval, as if all judgements were independent."]
        lines += [f"left out: {name} ({self._why(name)})" for name in self.left_out]
        lines += [f"answers on the left: {self.left:.0%}"] * (not math.isnan(self.left))
        lines += [f"not counted: {self.repeated} repeated answers, the first to a trial counts"] * bool(self.repeated)
        lines += [f"not counted: {self.foreign} rows that do not belong to this test"] * bool(self.foreign)
        return "\n".join(lines)

    def _why(self, listener: str) -> str:
        right, asked = self.checked[listener]
        return f"{right} of {asked} attention checks right" if asked else "no attention check answered yet"


def report(plans: Iterable[Plan], rows: Iterable[Mapping[str, str]]) -> Report:
    """Count the answers to one or several tests. rows: of `read_answers`; the order of `models` names the pairs."""
    plans = tuple(plans)
    judgements, repeated, foreign = _first_answers(plans, rows)
    empty = Report((), _checked(judgements), math.nan, repeated, foreign)
    counted = [j for j in judgements if j.listener not in empty.left_out and not _is_check(j)]
    wins = Counter((j.chosen, j.other) for j in counted)
    pairs: dict[frozenset, tuple[str, str]] = {}
    for pair in (pair for plan in plans for pair in combinations(plan.models, 2)):
        pairs.setdefault(frozenset(pair), pair)
    left = sum(j.side == "left" for j in counted) / len(counted) if counted else math.nan
    return replace(empty, preferences=tuple(_preference(*pair, wins) for pair in pairs.values()), left=left)


def _first_answers(plans: tuple[Plan, ...], rows: Iterable[Mapping[str, str]]) -> tuple[list[Judgement], int, int]:
    """The first answer of each listener to each trial; how many repeat one; how many belong to no trial."""
    trials = {name: trial for plan in plans for name, trial in plan.trials.items()}
    found: dict[tuple[str, str], Judgement] = {}
    repeated = foreign = 0
    for row in rows:
        judgement = _judgement(row, trials.get(row.get("trial")))
        place = judgement and (judgement.listener, row["trial"])
        foreign, repeated = foreign + (judgement is None), repeated + (place in found)
        if judgement:
            found.setdefault(place, judgement)
    return list(found.values()), repeated, foreign


def _judgement(row: Mapping[str, str], trial: Trial | None) -> Judgement | None:
    """The answer in a row; None where it does not belong to the trial."""
    sides = {side: row.get(side) for side in SIDES}
    if trial is None or set(sides.values()) != set(trial.files) or row.get("answer") not in SIDES:
        return None
    try:
        listener = check_name(row["listener"])
    except (MinigenError, KeyError):
        return None
    chosen = trial.files.index(sides[row["answer"]])
    return Judgement(listener, trial.models[chosen], trial.models[1 - chosen], row["answer"])


def _is_check(judgement: Judgement) -> bool:
    return {judgement.chosen, judgement.other} == {REAL_CHECK, NOISE_CHECK}


def _checked(judgements: Iterable[Judgement]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for judgement in judgements:
        right, asked = found.get(judgement.listener, (0, 0))
        is_check = _is_check(judgement)
        found[judgement.listener] = right + (is_check and judgement.chosen == REAL_CHECK), asked + is_check
    return found


def _preference(first: str, second: str, wins: Counter) -> Preference:
    won, n = wins[first, second], wins[first, second] + wins[second, first]
    return Preference(first, second, won, n, *wilson(won, n))


def wilson(wins: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share of `wins` out of n: the p that lie within z standard errors of the share.

        (share + z²/2n ± z sqrt(share (1 - share) / n + z²/4n²)) / (1 + z²/n)

    z 1.96: 95 %. (0, 1) for n = 0: nothing is known. Source: E. B. Wilson, Probable inference, the law of succession,
    and statistical inference, JASA 22 (1927).

    Raises:
        MinigenError: more wins than judgements, or fewer than none.
    """
    if not 0 <= wins <= n:
        raise MinigenError(f"{wins} wins in {n} judgements. Give 0 to n.")
    if n == 0:
        return 0.0, 1.0
    share, extra = wins / n, z * z / n
    centre, reach = share + extra / 2, z * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return max(0.0, (centre - reach) / (1 + extra)), min(1.0, (centre + reach) / (1 + extra))


def read_answers(*places: str | Path) -> list[dict[str, str]]:
    """Rows of answers: of a test's folder (all its listeners), of a folder of CSVs, or of a CSV. No file is changed.

    Raises:
        MinigenError: nothing there, or a table of something else.
    """
    rows = []
    for place in map(Path, places):
        inside = place / "answers" if (place / "plan.json").is_file() else place
        files = sorted(inside.glob("*.csv")) if not place.is_file() else [place]
        if not files and not (place / "plan.json").is_file():
            raise MinigenError(f"there are no answers in {place}. Name a folder with CSVs of answers, or such a CSV.")
        for file in files:
            rows += _read_table(file)
    return rows


def _read_table(file: Path) -> list[dict[str, str]]:
    """A table of answers that may have gone through a spreadsheet or a mail; a half line at its end is left out."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise MinigenError(f"cannot read {file} ({error.strerror}). Check the path.") from error
    lines = text.replace("\0", "").splitlines()
    if not lines:
        return []
    comma = ";" if lines[0].count(";") > lines[0].count(",") else ","
    try:
        reader = csv.DictReader(lines, delimiter=comma)
        columns, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise MinigenError(f"{file} is no table of answers ({error}). Leave it out.") from error
    if not set(COLUMNS[:-1]) <= set(columns):
        raise MinigenError(f"{file} is no table of answers: its first line is {lines[0][:80]!r}. Leave it out.")
    return [row for row in rows if all(row.get(column) for column in COLUMNS[:-1])]
