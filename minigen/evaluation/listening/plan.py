"""Plan of a blind listening test: which clips are compared, in which order, under which file names.

    Plan (models, captions, secret key) ──► trials: two clips of one caption ──► order and sides of each listener

Each trial is a forced choice between two clips of one caption. A listener who hears no difference guesses, and guesses
cancel out. Attention checks (a real clip against noise of the same loudness) are spread over the trials: a listener who
always guesses passes c of them with probability 2^-c. File names are hashes with a secret key: they reveal nothing.

`plan.json` in the folder of a test holds the plan. The other modules: `make` writes the clips, `server` shows them in a
browser, `answers` stores what listeners say, `results` counts it.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically

REAL_CHECK, NOISE_CHECK = "attention check: real clip", "attention check: noise"
SIDES = ("left", "right")


class Trial(NamedTuple):
    """Two clips of one caption. files: their names without suffix; models: who made them, in the same order."""

    id: str
    caption: str
    files: tuple[str, str]
    models: tuple[str, str]


class Shown(NamedTuple):
    """A trial as one listener sees it, without the names of the models."""

    trial: str
    caption: str
    left: str
    right: str


@dataclass(frozen=True)
class Plan:
    """A listening test.

    Args:
        key (str): secret of the test, hexadecimal; file names are hashed with it.
        seed (int): of the orders, the sides and the noise of the attention checks.
        models (tuple): names of the models that are compared.
        captions (tuple): one row of clips for each.
        checks (tuple): rows of `captions` that also have an attention check.
        recipe (dict): settings the clips are made with, so that an interrupted `make_test` continues.
    """

    key: str
    seed: int
    models: tuple[str, ...]
    captions: tuple[str, ...]
    checks: tuple[int, ...]
    recipe: dict = field(default_factory=dict)

    def name(self, *of: object) -> str:
        """Hash of `of` with the key, 16 hexadecimal digits: equal for equal arguments, and reveals nothing."""
        return hashlib.sha256(json.dumps([self.key, *of]).encode()).hexdigest()[:16]

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """All trials by id: each pair of models for each caption, and the attention checks."""
        rows = [(row, pair) for row in range(len(self.captions)) for pair in combinations(self.models, 2)]
        rows += [(row, (REAL_CHECK, NOISE_CHECK)) for row in self.checks]
        trials = {}
        for row, pair in rows:
            files = tuple(self.name("clip", row, model) for model in pair)
            trial = Trial(self.name("trial", row, *pair), self.captions[row], files, pair)
            trials[trial.id] = trial
        return trials

    def files(self, row: int) -> dict[str, str]:
        """Model -> file name of its clip, for one row of `captions`."""
        checks = (REAL_CHECK, NOISE_CHECK) if row in self.checks else ()
        return {model: self.name("clip", row, model) for model in (*self.models, *checks)}

    def shown_to(self, listener: str) -> list[Shown]:
        """Trials in the order and with the sides of this listener. Repeated calls give the same list.

        The test is cut into as many stretches as there are attention checks; each stretch gets one, at a random place.
        """
        digest = hashlib.sha256(check_name(listener).encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
        trials = list(self.trials.values())
        mixed = [trials[i] for i in rng.permutation(len(trials))]
        checks = [trial for trial in mixed if trial.models[0] == REAL_CHECK]
        others = [trial for trial in mixed if trial.models[0] != REAL_CHECK]
        order = []
        for number, stretch in enumerate(np.array_split(np.arange(len(others)), max(1, len(checks)))):
            part = [others[i] for i in stretch]
            if checks:
                part.insert(int(rng.integers(len(part) + 1)), checks[number])
            order += part
        return [Shown(trial.id, trial.caption, *trial.files[:: rng.choice([1, -1])]) for trial in order]


def new_plan(
    key: str, seed: int, models: Iterable[str], captions: Iterable[str], checks: int = 4, recipe: dict | None = None
) -> Plan:
    """A plan whose `checks` attention checks are spread evenly over the captions.

    Raises:
        MinigenError: fewer than two different models, no captions, fewer than one check.
    """
    models, captions = tuple(models), tuple(captions)
    if len(models) < 2 or len(set(models)) < len(models):
        raise MinigenError(f"the models are {', '.join(models) or 'none'}. Give two or more different ones.")
    if not captions or checks < 1:
        raise MinigenError(f"{len(captions)} captions and {checks} attention checks. Give one or more of each.")
    rows = np.linspace(0, len(captions) - 1, min(checks, len(captions))).round().astype(int)
    return Plan(key, seed, models, captions, tuple(rows.tolist()), recipe or {})


def write_plan(folder: str | Path, plan: Plan) -> None:
    """Write plan.json. From then on the plan, and with it every file name, is fixed.

    Raises:
        MinigenError: the folder cannot be written.
    """
    write_atomically(Path(folder) / "plan.json", json.dumps(asdict(plan), indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: str | Path) -> Plan | None:
    """The plan of a folder; None where there is none.

    Raises:
        MinigenError: plan.json is damaged.
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
        raise MinigenError(f"{file} is damaged. Remove {folder}, or restore the file.") from error


def require_plan(folder: str | Path) -> Plan:
    """The plan of a folder that must hold a test.

    Raises:
        MinigenError: there is no plan, or it is damaged.
    """
    plan = read_plan(folder)
    if plan is None:
        raise MinigenError(f"there is no listening test in {folder}. Make one with `minigen listen {folder}`.")
    return plan


def clip_file(folder: str | Path, name: str) -> Path:
    """Path of a clip in the folder of a test."""
    return Path(folder) / "clips" / f"{name}.flac"


def missing_rows(folder: str | Path, plan: Plan) -> list[int]:
    """Rows of `captions` whose clips have not all been written yet."""
    rows = range(len(plan.captions))
    return [row for row in rows if not all(clip_file(folder, name).is_file() for name in plan.files(row).values())]


def check_name(listener: str) -> str:
    """Normalised name of a listener: letters, digits, space, - and _, 40 characters at most, in lower case.

    Raises:
        MinigenError: an empty name, a longer one, or one with other characters, such as a path.
    """
    name = " ".join(unicodedata.normalize("NFC", str(listener)).casefold().split())
    letters = "".join(sign for sign in name if unicodedata.category(sign)[0] != "M")  # vowel signs are no letters
    if not re.fullmatch(r"\w[\w -]{0,39}", letters) or len(name) > 40:
        raise MinigenError(f"{str(listener)[:60]!r} cannot be a listener's name. Use letters, digits, spaces, - and _.")
    return name
