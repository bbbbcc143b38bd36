"""The command line keeps every command, option, default and range that it ever had: options.json holds them.

options.json is a list made once, by `described` below. A new command or option need not be added to it; one that goes
missing, or whose default or range changes, fails here. One thing changed on purpose: beside `generate --stdin` no
caption is given, so it is optional.
"""

import argparse
import inspect
import json
import re
from pathlib import Path

import pytest

from minigen.app import cli
from minigen.corpus.synthesis.builtin import build_corpus
from minigen.engine.settings import TrainConfig, options_of
from minigen.evaluation.listening.make import RECIPE
from minigen.generate import TextToAudio
from minigen.lm import AudioLMConfig

STORED = json.loads(Path(__file__).with_name("options.json").read_text())
PROBES = ["-1", "0", "0.5", "1", "2", "3", "30", "31", "70000", "1e9", "2147483648", "nan", "inf", "four", "a.wav", ""]


def options_of_parser(parser: argparse.ArgumentParser) -> dict[str, dict]:
    """What each option of a command is called, stands for by default, and takes."""
    return {action.dest: described(action) for action in parser._actions if action.dest != "help"}


def described(action: argparse.Action) -> dict:
    """default: the value, or what the help text says of it. takes: the probes that the option accepts."""
    stated = re.search(r"\(default: (.*)\)", action.help)
    default = stated[1] if action.default is None and stated else action.default
    taken = [] if action.nargs == 0 else [text for text in PROBES if takes(action, text)]
    return {
        "names": action.option_strings,
        "default": shown(default),
        "nargs": str(action.nargs),
        "choices": list(action.choices or []),
        "takes": "anything" if taken == PROBES else taken,
    }


def shown(default: object) -> str:
    """A default as text: 3 and 3.0 are the same."""
    if isinstance(default, list):
        return " ".join(map(shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def takes(action: argparse.Action, text: str) -> bool:
    """Whether the option accepts a value."""
    try:
        (action.type or str)(text)
    except (argparse.ArgumentTypeError, ValueError):
        return False
    return True


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser by name."""
    (listed,) = [action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return listed.choices


@pytest.mark.parametrize("command", STORED)
def test_a_command_keeps_its_options_with_their_defaults_and_ranges(command):
    found = options_of_parser(commands()[command])
    assert {name: found.get(name) for name in STORED[command]} == STORED[command]


def defaults_of(function) -> dict[str, str]:
    """The defaults of a function's arguments, as text."""
    return {name: shown(each.default) for name, each in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    ("command", "library", "names"),
    [
        ("corpus", defaults_of(build_corpus), ["clips", "seconds", "seed"]),
        ("generate", defaults_of(TextToAudio.generate), ["seconds", "guidance", "temperature", "top_k", "top_p"]),
        ("train", {field.name: shown(field.default) for field in options_of(TrainConfig)}, None),
        ("train", {name: shown(getattr(AudioLMConfig(), name)) for name in ("width", "layers")}, None),
        ("listen", {name: shown(RECIPE[name]) for name in ("guidance", "clips", "checks", "seconds", "seed")}, None),
    ],
)
def test_the_defaults_of_the_command_line_are_those_of_the_library(command, library, names):
    found = {name: each["default"] for name, each in options_of_parser(commands()[command]).items()}
    for name in names or library:
        assert found[name] == library[name], name
