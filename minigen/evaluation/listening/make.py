"""The listening test: two clips and a caption, which fits better? Blind, by any number of people, and never lost.

    Plan (models, captions, a secret key) ──► clips/3f09….flac    loudness matched; a name says nothing without the key
      │ seed + listener                       plan.json           the key, and what was made for it
      ▼                                       answers/anna.csv    one row an answer, flushed before the next trial
    trials in the listener's order and sides ──► answers      listening.results makes the report of them

The clips of one caption are matched by `listening.loudness` (K-weighted). Forced choice: who hears no difference
guesses, and guesses cancel. Attention checks, a real clip against noise of the same loudness, stand among the
trials, one in each stretch of them: a guesser passes c of them with probability 2^-c.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from minigen.audio import SAMPLE_RATE, save_audio
from minigen.engine.errors import MinigenError
from minigen.engine.files import append_row, cannot_write, read_rows, remove_stale_parts, write_atomically
from minigen.evaluation.listening.loudness import match_loudness

REAL_CHECK, NOISE_CHECK = "attention check: real clip", "attention check: noise"
SIDES = ("left", "right")
COLUMNS = ("listener", "trial", "left", "right", "answer", "when")


class Trial(NamedTuple):
    """Two clips of one caption. files: names without their suffix; models: whose they are, in the same order."""

    id: str
    caption: str
    files: tuple[str, str]
    models: tuple[str, str]


class Shown(NamedTuple):
    """A trial as one listener meets it: nothing here tells whose clip is whose."""

    trial: str
    caption: str
    left: str
    right: str


@dataclass(frozen=True)
class Plan:
    """What is compared. key: secret, hex; seed: of orders, sides and noise; checks: rows of `captions` that are checks.

    recipe: how the clips are made, so that a stopped making goes on; whoever calls `write_plan` says what is in it.
    """

    key: str
    seed: int
    models: tuple[str, ...]
    captions: tuple[str, ...]
    checks: tuple[int, ...]
    recipe: dict = field(default_factory=dict)

    def name(self, *of: object) -> str:
        """A name that is always the same for the same things, and says nothing about them: 16 hex digits."""
        return hashlib.sha256(json.dumps([self.key, *of]).encode()).hexdigest()[:16]

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """Every trial by its id: each pair of models for each caption, and the checks."""
        rows = [(row, pair) for row in range(len(self.captions)) for pair in combinations(self.models, 2)]
        rows += [(row, (REAL_CHECK, NOISE_CHECK)) for row in self.checks]
        found = (Trial(self.name("trial", row, *pair), self.captions[row],
                       tuple(self.name("clip", row, model) for model in pair), pair) for row, pair in rows)  # fmt: skip
        return {trial.id: trial for trial in found}

    def files(self, row: int) -> dict[str, str]:
        """Model -> name of its clip, for the caption of a row."""
        checks = (REAL_CHECK, NOISE_CHECK) if row in self.checks else ()
        return {model: self.name("clip", row, model) for model in (*self.models, *checks)}

    def shown_to(self, listener: str) -> list[Shown]:
        """The trials in the order and with the sides of this listener: the same at every call.

        The checks are spread: one at a random place in each of as many stretches of the test.
        """
        digest = hashlib.sha256(check_name(listener).encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
        mixed = [list(self.trials.values())[i] for i in rng.permutation(len(self.trials))]
        checks = [trial for trial in mixed if trial.models[0] == REAL_CHECK]
        order = []
        rest = np.array_split(np.arange(len(mixed) - len(checks)), max(1, len(checks)))
        others = [trial for trial in mixed if trial.models[0] != REAL_CHECK]
        for number, stretch in enumerate(rest):
            part = [others[i] for i in stretch]
            if checks:
                part.insert(int(rng.integers(len(part) + 1)), checks[number])
            order += part
        return [Shown(trial.id, trial.caption, *trial.files[:: rng.choice([1, -1])]) for trial in order]


def new_plan(
    key: str, seed: int, models: Iterable[str], captions: Iterable[str], checks: int = 4, recipe: dict | None = None
) -> Plan:
    """A plan whose `checks` attention checks are spread over the captions.

    Raises:
        MinigenError: fewer than two different models, no captions, fewer than one check.
    """
    models, captions = tuple(models), tuple(captions)
    if len(models) < 2 or len(set(models)) < len(models):
        raise MinigenError(f"the models are {', '.join(models) or 'none'}. Give two or more that differ.")
    if not captions or checks < 1:
        raise MinigenError(f"{len(captions)} captions and {checks} attention checks. Give one or more of each.")
    rows = np.linspace(0, len(captions) - 1, min(checks, len(captions))).round().astype(int)
    return Plan(key, seed, models, captions, tuple(rows.tolist()), recipe or {})


def write_plan(folder: str | Path, plan: Plan) -> None:
    """Begin a test in a folder: from now on `Plan`, and so every name, is fixed.

    Raises:
        MinigenError: the place cannot be written.
    """
    write_atomically(Path(folder) / "plan.json", json.dumps(asdict(plan), indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: str | Path) -> Plan | None:
    """The plan of a folder; None where there is none.

    Raises:
        MinigenError: it is damaged.
    """
    file = Path(folder) / "plan.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text("utf-8"))
        texts = {name: tuple(str(text) for text in values[name]) for name in ("models", "captions")}
        checks = tuple(range(len(texts["captions"]))[int(row)] for row in values["checks"])
        return Plan(
            **{**values, **texts, "checks": checks, "key": str(values["key"]), "seed": abs(int(values["seed"]))}
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise MinigenError(f"{file} is damaged. Remove {folder}, or bring the plan back.") from error


def begun_plan(folder: str | Path) -> Plan:
    """The plan of a folder in which a test was begun.

    Raises:
        MinigenError: there is none, or it is damaged.
    """
    plan = read_plan(folder)
    if plan is None:
        raise MinigenError(f"there is no listening test in {folder}. Make one with `minigen listen {folder}`.")
    return plan


def clip_file(folder: str | Path, name: str) -> Path:
    """Where a clip lies."""
    return Path(folder) / "clips" / f"{name}.flac"


def missing(folder: str | Path, plan: Plan) -> list[int]:
    """Rows of the captions whose clips are not all there."""
    rows = range(len(plan.captions))
    return [row for row in rows if not all(clip_file(folder, name).is_file() for name in plan.files(row).values())]


def write_clips(
    folder: str | Path, plan: Plan, row: int, sounds: Mapping[str, Tensor], real: Tensor, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write all clips of one caption, at one loudness. sounds: model -> waveform; real: the true clip, for the checks.

    Raises:
        MinigenError: the place cannot be written, or a waveform is not finite.
    """
    noise = np.random.default_rng([plan.seed, row]).normal(0, 0.1, real.shape)
    every = {**sounds, REAL_CHECK: real, NOISE_CHECK: real.new_tensor(noise)}
    files = plan.files(row)
    for name, wav in zip(files.values(), match_loudness([every[model] for model in files], sample_rate), strict=True):
        save_audio(clip_file(folder, name), wav, sample_rate)


def check_name(listener: str) -> str:
    """A listener's name as it is kept: letters, digits, space, - and _, 40 at the most, small and large alike.

    Raises:
        MinigenError: anything else, such as an empty name or a path.
    """
    name = " ".join(unicodedata.normalize("NFC", str(listener)).casefold().split())
    spelt = "".join(sign for sign in name if unicodedata.category(sign)[0] != "M")  # without the vowel signs of scripts
    if not re.fullmatch(r"\w[\w -]{0,39}", spelt) or len(name) > 40:
        raise MinigenError(f"{str(listener)[:60]!r} cannot be a listener's name. Use letters, digits, spaces, - and _.")
    return name


def answers_file(folder: str | Path, listener: str) -> Path:
    """Where a listener's answers lie."""
    return Path(folder) / "answers" / f"{check_name(listener)}.csv"


def open_trials(folder: str | Path, plan: Plan, listener: str) -> list[Shown]:
    """The trials that this listener has not answered yet, in order: where to begin, and where to go on.

    Raises:
        MinigenError: a name that cannot be used, or answers that cannot be read.
    """
    done = {row.get("trial") for row in read_rows(answers_file(folder, listener))}
    return [shown for shown in plan.shown_to(listener) if shown.trial not in done]


def store(folder: str | Path, plan: Plan, listener: str, trial: str, answer: str) -> bool:
    """Add one answer to the listener's CSV; False where that trial was answered before, and nothing is added.

    When this returns, the row is on the disk.

    Raises:
        MinigenError: no such trial or side, a name that cannot be used, a place that cannot be written.
    """
    listener = check_name(listener)
    shown = {shown.trial: shown for shown in plan.shown_to(listener)}.get(trial)
    if shown is None or answer not in SIDES:
        raise MinigenError(f"{str(answer)[:40]!r} to trial {str(trial)[:40]!r} does not belong to this test. Reload.")
    file = answers_file(folder, listener)
    if any(row.get("trial") == trial for row in read_rows(file)):
        return False
    _make_folder(file.parent)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    append_row(file, dict(zip(COLUMNS, (listener, trial, shown.left, shown.right, answer, when), strict=True)))
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    remove_stale_parts(folder)
