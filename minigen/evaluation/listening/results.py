"""Results of a listening test: how often each model was preferred, with Wilson's interval, and who was left out.

    answers (CSVs of one person, a class, several tests) ──► judgements ──► attention checks ──► wins of n ──► report

Listeners who fail an attention check, or have answered none yet, are named and left out. Wilson's interval stays within
0 and 1 and holds for few judgements. It treats judgements as independent; those of one listener, or about one clip, are
correlated, so the interval is slightly too narrow.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.answers import read_answers
from minigen.evaluation.listening.plan import (
    NOISE_CHECK,
    REAL_CHECK,
    SIDES,
    Plan,
    Trial,
    check_name,
    read_plan,
    require_plan,
)


class Judgement(NamedTuple):
    """One answer. chosen, other: models; side: where the chosen clip was."""

    listener: str
    chosen: str
    other: str
    side: str


class Preference(NamedTuple):
    """How often `first` was preferred to `second`: wins of n judgements, and the 95 % Wilson interval of the share."""

    first: str
    second: str
    wins: int
    n: int
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The conclusion that the interval allows."""
        if self.low > 0.5:
            return f"{self.first} is preferred: the interval excludes 50 %"
        if self.high < 0.5:
            return f"{self.second} is preferred: the interval excludes 50 %"
        return "no preference shown: the interval includes 50 %"

    def __str__(self) -> str:
        text = f"{self.first} preferred to {self.second}: {self.wins} of {self.n}"
        if not self.n:
            return text
        return f"{text}, {self.wins / self.n:.0%} [{self.low:.0%}, {self.high:.0%}]; {self.verdict}"


@dataclass(frozen=True)
class ListeningReport:
    """Preferences, and the answers that were not counted.

    Args:
        preferences: one for each pair of models.
        checked: listener -> (attention checks right, attention checks answered).
        left: share of counted answers that chose the left clip, about one half.
        repeated: answers to a trial that the listener had answered before.
        foreign: rows that belong to no trial of the test.
    """

    preferences: tuple[Preference, ...]
    checked: dict[str, tuple[int, int]]
    left: float
    repeated: int = 0
    foreign: int = 0

    @property
    def left_out(self) -> list[str]:
        """Listeners with a wrong attention check, or without any."""
        return _unreliable(self.checked)

    def __str__(self) -> str:
        kept = len(self.checked) - len(self.left_out)
        lines = [f"{sum(row.n for row in self.preferences)} judgements of {kept} listener{'' if kept == 1 else 's'}"]
        lines += [str(row) for row in self.preferences]
        lines += ["In brackets: 95 % Wilson interval, as if all judgements were independent."]
        lines += [f"left out: {name} ({self._reason(name)})" for name in self.left_out]
        if not math.isnan(self.left):
            lines += [f"answers on the left: {self.left:.0%}"]
        if self.repeated:
            lines += [f"not counted: {self.repeated} repeated answers; the first to a trial counts"]
        if self.foreign:
            lines += [f"not counted: {self.foreign} rows that do not belong to this test"]
        return "\n".join(lines)

    def _reason(self, listener: str) -> str:
        right, asked = self.checked[listener]
        return f"{right} of {asked} attention checks right" if asked else "no attention check answered yet"


def report_of(folder: str | Path, more: Iterable[str | Path] = ()) -> ListeningReport:
    """Report on a test. more: further CSVs, folders of CSVs, or folders of other tests.

    Raises:
        MinigenError: no test in the folder, or a place without answers.
    """
    plans = [require_plan(folder), *(plan for place in more if (plan := read_plan(place)))]
    return report(plans, read_answers(folder, *more))


def report(plans: Iterable[Plan], rows: Iterable[Mapping[str, str]]) -> ListeningReport:
    """Count the answers to one or several tests.

    plans: of the tests; the order of `models` names the pairs. rows: of `read_answers`.
    """
    plans = tuple(plans)
    found, repeated, foreign = _first_answers(plans, rows)
    judgements = list(found.values())
    checked = _checks_passed(judgements)
    left_out = _unreliable(checked)
    counted = [j for j in judgements if j.listener not in left_out and not _is_check(j)]
    wins = Counter((j.chosen, j.other) for j in counted)
    pairs: dict[frozenset, tuple[str, str]] = {}
    for pair in (pair for plan in plans for pair in combinations(plan.models, 2)):
        pairs.setdefault(frozenset(pair), pair)
    left = sum(j.side == "left" for j in counted) / len(counted) if counted else math.nan
    preferences = tuple(_preference(*pair, wins) for pair in pairs.values())
    return ListeningReport(preferences, checked, left, repeated, foreign)


def counted_choices(plan: Plan, rows: Iterable[Mapping[str, str]]) -> list[tuple[Trial, str]]:
    """The trials of the answers that count in a report, each with the model whose clip was chosen."""
    found, _, _ = _first_answers((plan,), rows)
    left_out = _unreliable(_checks_passed(found.values()))
    counted = {key: j for key, j in found.items() if j.listener not in left_out and not _is_check(j)}
    return [(plan.trials[trial], j.chosen) for (_, trial), j in counted.items()]


def _first_answers(
    plans: tuple[Plan, ...], rows: Iterable[Mapping[str, str]]
) -> tuple[dict[tuple[str, str], Judgement], int, int]:
    """First answer by (listener, trial); number of repeated answers; number of rows of no trial."""
    trials = {name: trial for plan in plans for name, trial in plan.trials.items()}
    found: dict[tuple[str, str], Judgement] = {}
    repeated = foreign = 0
    for row in rows:
        judgement = _judgement(row, trials.get(row.get("trial")))
        if judgement is None:
            foreign += 1
        elif (judgement.listener, row["trial"]) in found:
            repeated += 1
        else:
            found[judgement.listener, row["trial"]] = judgement
    return found, repeated, foreign


def _judgement(row: Mapping[str, str], trial: Trial | None) -> Judgement | None:
    """The judgement in a row; None where the row does not belong to the trial."""
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


def _checks_passed(judgements: Iterable[Judgement]) -> dict[str, tuple[int, int]]:
    """Listener -> (attention checks right, attention checks answered), for all who answered anything."""
    found: dict[str, tuple[int, int]] = {}
    for judgement in judgements:
        right, asked = found.get(judgement.listener, (0, 0))
        if _is_check(judgement):
            right, asked = right + (judgement.chosen == REAL_CHECK), asked + 1
        found[judgement.listener] = right, asked
    return found


def _unreliable(checked: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(name for name, (right, asked) in checked.items() if right < asked or not asked)


def _preference(first: str, second: str, wins: Counter) -> Preference:
    won, n = wins[first, second], wins[first, second] + wins[second, first]
    return Preference(first, second, won, n, *wilson(won, n))


def wilson(wins: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share of `wins` out of n: all p that lie within z standard errors of the share.

        (share + z²/2n ± z sqrt(share (1 - share) / n + z²/4n²)) / (1 + z²/n)

    z 1.96 gives 95 %. The interval is (0, 1) for n = 0. Source: E. B. Wilson, Probable inference, the law of
    succession, and statistical inference, JASA 22 (1927).

    Raises:
        MinigenError: fewer wins than 0, or more than n.
    """
    if not 0 <= wins <= n:
        raise MinigenError(f"{wins} wins in {n} judgements. Give 0 to n.")
    if n == 0:
        return 0.0, 1.0
    share, extra = wins / n, z * z / n
    centre, reach = share + extra / 2, z * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return max(0.0, (centre - reach) / (1 + extra)), min(1.0, (centre + reach) / (1 + extra))
