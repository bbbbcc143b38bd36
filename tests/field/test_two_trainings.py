"""Two trainings in one folder: the second is refused with one line, whatever its settings; neither is lost."""

import os
import subprocess
import sys

import pytest

from minigen.engine.errors import MinigenError
from minigen.engine.loop import LOCK, Loop

HOLD = """
import sys, time
from pathlib import Path
from minigen.engine.loop import Loop

for _ in Loop(Path(sys.argv[1]) / "checkpoint", "one", dict, steps=2, progress=False):
    print("training", flush=True)
    sys.stdin.readline()
"""


def loop(folder, identity="other"):
    return Loop(folder / "checkpoint", identity, dict, steps=3, progress=False)


@pytest.fixture
def training(tmp_path):
    """Another process in the middle of a step of a training in this folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "training\n"
        yield process
        process.kill()


@pytest.mark.parametrize("identity", ["one", "other"])
def test_a_second_training_in_the_folder_is_refused_in_one_line(training, tmp_path, identity):
    for _ in range(2):
        with pytest.raises(MinigenError, match=f"another training writes to {tmp_path}. Wait until it is done"):
            next(iter(loop(tmp_path, identity)))
    training.communicate("\n\n", timeout=60)
    assert training.returncode == 0 and os.listdir(tmp_path) == ["checkpoint"]


def test_a_killed_training_leaves_the_folder_free(training, tmp_path):
    training.kill()
    training.wait()
    assert len(list(loop(tmp_path))) == 3 and os.listdir(tmp_path) == ["checkpoint"]


def test_an_error_or_the_end_frees_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError):
        for _ in loop(tmp_path):
            assert (tmp_path / LOCK).exists()
            raise ZeroDivisionError
    assert not (tmp_path / LOCK).exists()
    assert len(list(loop(tmp_path))) == 3 and os.listdir(tmp_path) == ["checkpoint"]
