"""Running the notebooks anew (`make notebooks`): a lost reply costs another try, an error does not."""

import pytest

from minigen.course import execute as course
from minigen.engine.errors import MinigenError

TAKEN = course.Usage(seconds=1.0, processor=1.0, memory=100)
LOST = (None, ["[NbConvertApp] ERROR | Timeout waiting for execute reply (240s).", "CellTimeoutError"])
BROKEN = (None, ["ZeroDivisionError: division by zero"])


def answers(monkeypatch, *tries):
    """Let the tries end so, one after the other; returns the list of those that were made."""
    made, left = [], list(tries)
    monkeypatch.setattr(course, "_run", lambda path: made.append(path) or left.pop(0))
    return made


def test_a_lost_reply_is_another_try(monkeypatch, tmp_path):
    made = answers(monkeypatch, LOST, LOST, (TAKEN, []))
    assert course.execute(tmp_path / "a.ipynb") == TAKEN
    assert len(made) == 3


def test_lost_replies_end(monkeypatch, tmp_path):
    made = answers(monkeypatch, *[LOST] * 10)
    with pytest.raises(MinigenError, match="CellTimeoutError"):
        course.execute(tmp_path / "a.ipynb")
    assert len(made) == course.TRIES


def test_an_error_in_a_cell_ends_it_at_once(monkeypatch, tmp_path):
    made = answers(monkeypatch, BROKEN, (TAKEN, []))
    with pytest.raises(MinigenError, match="division by zero"):
        course.execute(tmp_path / "a.ipynb")
    assert len(made) == 1
