"""What a command imports: nothing that takes seconds on the way from the arguments to the file."""

import ast
import subprocess
import sys

import pytest

HEAVY = {"transformers", "IPython", "matplotlib", "scipy", "sympy", "torch._dynamo", "encodec", "datasets"}
SMALL = ["--batch-size", "2", "--width", "32", "--layers", "1", "--steps", "2"]
CODE = """
import os, sys
from minigen.app.cli import main
status = main(sys.argv[1:])
print(status, sorted(sys.modules))
"""


def modules(folder, *argv):
    """Names of the modules that are loaded when the command has done its work in `folder`."""
    done = subprocess.run([sys.executable, "-c", CODE, *argv], cwd=folder, capture_output=True, text=True)
    status, _, names = done.stdout.strip().splitlines()[-1].partition(" ")
    assert status == "0", done.stderr
    return set(ast.literal_eval(names))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus of 20 clips, and its codes."""
    folder = tmp_path_factory.mktemp("light")
    for argv in (["corpus", "--out", "corpus", "--clips", "20", "--seconds", "1", "--workers", "1"],
                 ["tokenize", "corpus", "--out", "tokens", "--seconds", "1"]):  # fmt: skip
        modules(folder, *argv)
    return folder


@pytest.mark.parametrize(
    "argv, allowed",
    [
        (["corpus", "--out", "other", "--clips", "3", "--seconds", "1", "--workers", "1"], {"scipy"}),  # synthesis
        (["tokenize", "corpus", "--out", "again", "--seconds", "1"], {"scipy"}),
        (["train", "tokens", "--out", "model", *SMALL], {"torch._dynamo", "sympy"}),  # by PyTorch's optimizers
        (["generate", "a dog barks", "--seconds", "0.5", "-o", "dog.wav"], set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_with_shipped_parts_loads_nothing_heavy(place, argv, allowed):
    assert HEAVY & modules(place, *argv) <= allowed


def test_help_loads_neither_pytorch_nor_numpy(tmp_path):
    for argv in (["--help"], ["generate", "--help"], ["play", "--help"]):
        assert not {"torch", "numpy"} & modules(tmp_path, *argv)
