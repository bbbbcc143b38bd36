"""Answers of a listening test: one CSV for each listener, one row for each answer, on the disk before the next trial.

answers/anna.csv    listener, trial, left, right, answer, when
"""

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.files import append_row, cannot_write, read_rows, remove_stale_parts
from minigen.evaluation.listening.plan import SIDES, Plan, Shown, check_name

COLUMNS = ("listener", "trial", "left", "right", "answer", "when")
REQUIRED = COLUMNS[:-1]


def answers_file(folder: str | Path, listener: str) -> Path:
    """Path of the CSV with a listener's answers."""
    return Path(folder) / "answers" / f"{check_name(listener)}.csv"


def open_trials(folder: str | Path, plan: Plan, listener: str) -> list[Shown]:
    """Trials that this listener has not answered yet, in the listener's order.

    Raises:
        MinigenError: a name that cannot be used, or answers that cannot be read.
    """
    done = {row.get("trial") for row in read_rows(answers_file(folder, listener))}
    return [shown for shown in plan.shown_to(listener) if shown.trial not in done]


def store(folder: str | Path, plan: Plan, listener: str, trial: str, answer: str) -> bool:
    """Append one answer to the listener's CSV and flush it to the disk.

    Returns False, and appends nothing, where the listener has answered this trial before.

    Raises:
        MinigenError: no such trial or side, a name that cannot be used, a folder that cannot be written.
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


def read_answers(*places: str | Path) -> list[dict[str, str]]:
    """Rows of answers from folders of tests (all listeners), folders of CSVs, or single CSVs. No file is changed.

    Raises:
        MinigenError: a place without answers, or a CSV with other columns.
    """
    rows = []
    for place in map(Path, places):
        for file in _answer_files(place):
            rows += _read_table(file)
    return rows


def _answer_files(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    is_test = (place / "plan.json").is_file()
    files = sorted((place / "answers" if is_test else place).glob("*.csv"))
    if not files and not is_test:
        raise MinigenError(f"there are no answers in {place}. Name a folder with CSVs of answers, or such a CSV.")
    return files


def _read_table(file: Path) -> list[dict[str, str]]:
    """Rows of one CSV. Spreadsheet exports are accepted (byte order mark, semicolons); a cut last row is left out."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise MinigenError(f"cannot read {file} ({error.strerror}). Check the path.") from error
    lines = text.replace("\0", "").splitlines()
    if not lines:
        return []
    separator = ";" if lines[0].count(";") > lines[0].count(",") else ","
    try:
        reader = csv.DictReader(lines, delimiter=separator)
        columns, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise MinigenError(f"{file} is no table of answers ({error}). Leave it out.") from error
    if not set(REQUIRED) <= set(columns):
        raise MinigenError(f"{file} is no table of answers: its first line is {lines[0][:80]!r}. Leave it out.")
    return [row for row in rows if all(row.get(column) for column in REQUIRED)]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    remove_stale_parts(folder)
