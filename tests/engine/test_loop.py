"""The loop of trainings: what Ctrl-C leaves behind."""

import signal

import pytest
import torch

from minigen.engine.loop import Loop


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
