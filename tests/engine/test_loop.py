"""The loop of trainings: its budget, its checkpoints, and what Ctrl-C leaves behind."""

import signal

import pytest
import torch

from minigen.engine import loop as loop_module
from minigen.engine.checkpoint import load_checkpoint
from minigen.engine.errors import MinigenError
from minigen.engine.loop import Loop


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C works as in a terminal, also where the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Walk:
    """A training in small: each step adds a number that depends on the step alone."""

    def __init__(self, folder, steps=6, save_minutes=60.0):
        self.place = torch.zeros(())
        self.loop = Loop(folder / "checkpoint.safetensors", "walk", lambda: {"place": self.place}, steps,
                         save_minutes=save_minutes, progress=False)  # fmt: skip
        saved = self.loop.resume()
        if saved is not None:
            self.place = saved["place"]

    def run(self, interrupt_at: tuple[int, ...] = ()) -> float:
        for _ in self.loop:
            for _ in range(interrupt_at.count(self.loop.step)):
                signal.raise_signal(signal.SIGINT)
            self.place = self.place + torch.tensor(0.1 * (1 + self.loop.step)).sin()
        return self.place.item()


def test_ctrl_c_finishes_the_step_saves_it_and_the_next_run_ends_as_if_nothing_had_happened(tmp_path):
    usual = Walk(tmp_path / "usual").run()
    with pytest.raises(KeyboardInterrupt):
        Walk(tmp_path / "stopped").run(interrupt_at=(3,))
    again = Walk(tmp_path / "stopped")
    assert again.loop.step == 4 and again.run() == usual
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_lock_left_by_a_process_killed_after_its_last_step_is_cleared(tmp_path):
    usual = Walk(tmp_path).run()
    (tmp_path / loop_module.LOCK).touch()
    assert Walk(tmp_path).run() == usual
    assert not (tmp_path / loop_module.LOCK).exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Walk(tmp_path).run(interrupt_at=(3, 3))
    assert Walk(tmp_path).loop.step == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_a_step_gives_ctrl_c_back(tmp_path):
    with pytest.raises(ZeroDivisionError):
        for _ in Walk(tmp_path).loop:
            1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# budget and checkpoints


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(loop_module, "time", found)
    return found


def test_a_budget_of_steps_is_spent_in_equal_shares(tmp_path):
    assert list(Loop(tmp_path / "c", "walk", dict, steps=4, progress=False)) == [0, 0.25, 0.5, 0.75]


def test_a_budget_of_minutes_is_spent_by_the_clock_over_all_runs(tmp_path, clock):
    first, shares = Loop(tmp_path / "c", "walk", dict, minutes=2.0, progress=False), []
    for share in first:
        shares.append(share)
        clock.now += 30.0
        if len(shares) == 3:
            break
    first.save()
    clock.now += 5000.0  # the time between two runs does not count
    second = Loop(tmp_path / "c", "walk", dict, minutes=2.0, progress=False)
    second.resume()
    assert second.step == 2 and second.seconds == 60.0  # the third step was broken off
    for share in second:
        shares.append(share)
        clock.now += 30.0
    assert shares == [0.0, 0.25, 0.5, 0.5, 0.75] and second.step == 4


def test_a_checkpoint_is_written_when_the_last_one_is_old_enough_and_after_the_last_step(tmp_path, clock):
    state, written = {"step": 0}, []
    loop = Loop(tmp_path / "c", "walk", lambda: {"value": state["step"]}, steps=8, save_minutes=1.0, progress=False)
    for _ in loop:
        state["step"] += 1
        clock.now += 25.0
        written.append(load_checkpoint(tmp_path / "c")["value"] if (tmp_path / "c").exists() else 0)
    assert written == [0, 0, 0, 3, 3, 3, 6, 6]  # every 75 s: the first three steps with more than a minute
    assert load_checkpoint(tmp_path / "c") == {"value": 8, "identity": "walk", "step": 8, "seconds": 200.0}


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    list(Loop(tmp_path / "c", "seed 0", dict, steps=1, progress=False))
    with pytest.raises(MinigenError, match="other settings"):
        Loop(tmp_path / "c", "seed 1", dict, steps=1, progress=False).resume()


def test_a_finished_training_has_no_steps_left(tmp_path):
    list(Loop(tmp_path / "c", "walk", dict, steps=3, progress=False))
    again = Loop(tmp_path / "c", "walk", dict, steps=3, progress=False)
    assert again.resume() is not None and list(again) == []
