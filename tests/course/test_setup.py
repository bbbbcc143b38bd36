"""The first cell of a notebook: silent where all is there, else it installs what is missing, and never PyTorch."""

import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from minigen.app import doctor
from minigen.course import setup
from minigen.engine.errors import MinigenError


@pytest.fixture
def world(monkeypatch):
    """A machine on which all is there: `world.missing` names what is not, `world.ran` is what was run on it."""
    world = SimpleNamespace(missing=set(), ran=[], fails="", torch="2.13.0+cu130")

    def version(name):
        if name in world.missing:
            raise metadata.PackageNotFoundError(name)
        return world.torch if name == "torch" else "1.0"

    def run(command, **_):
        world.ran.append(command)
        return subprocess.CompletedProcess(command, bool(world.fails), "", world.fails)

    monkeypatch.setattr(setup.metadata, "version", version)
    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.setattr(setup, "torchaudio_imports", lambda: True)
    return world


def test_where_nothing_is_missing_nothing_is_run_and_nothing_is_said(world, capsys):
    setup.ready()
    assert world.ran == []
    assert capsys.readouterr() == ("", "")


def test_only_what_is_missing_is_installed_and_pytorch_is_held_as_it_is(world, capsys):
    world.missing = {"encodec", "accelerate"}
    setup.ready()
    (command,) = world.ran
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    packages = [word for word in command[4:] if not word.startswith("-")]
    assert packages[0] == "torch==2.13.0+cu130"  # already there: pip changes nothing, and may choose no other
    assert sorted(re.match(r"\w+", word)[0] for word in packages[1:]) == ["accelerate", "encodec"]
    assert not {"-U", "--upgrade", "--force-reinstall"} & set(command)
    assert capsys.readouterr().out == "installing encodec, accelerate\n"


def test_a_running_notebook_needs_no_jupyterlab(world, capsys):
    world.missing = {"jupyterlab"}
    setup.ready()
    assert world.ran == [] and capsys.readouterr().out == ""


def test_without_pytorch_the_reader_is_told_how_to_set_up_and_nothing_is_installed(world):
    world.missing = {"torch", "encodec"}
    with pytest.raises(MinigenError, match="make lab.*environment.yml"):
        setup.ready()
    assert world.ran == []


def test_a_pip_that_fails_is_one_line_with_its_reason(world):
    world.missing, world.fails = {"encodec"}, "WARNING: retrying\nERROR: No matching distribution found for encodec\n"
    with pytest.raises(MinigenError) as told:
        setup.ready()
    assert "\n" not in str(told.value)
    assert "encodec" in str(told.value) and "No matching distribution" in str(told.value)


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        ("2.6.0+cu124", "torchaudio==2.6.*"),
        ("2.9.1", "torchaudio==2.9.*"),
        ("2.11.0", "torchaudio>=2.11"),
        ("2.13.0+cpu", "torchaudio>=2.11"),
    ],
)
def test_torchaudio_is_the_one_of_this_pytorch(world, torch, wanted):
    world.torch, world.missing = torch, {"torchaudio"}
    assert setup.missing_libraries() == {"torchaudio": wanted}


def test_a_torchaudio_that_cannot_be_imported_is_mended_as_the_doctor_does(world, monkeypatch, capsys):
    monkeypatch.setattr(setup, "torchaudio_imports", lambda: False)
    monkeypatch.setattr(doctor, "mend_torchaudio", lambda: "torchaudio: set aside")
    setup.ready()
    assert capsys.readouterr().out == "torchaudio: set aside\n"


def fake_torchaudio(folder, monkeypatch, extension: bool, body: str):
    package = folder / "torchaudio"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    if extension:
        (package / "lib" / "_torchaudio.abi3.so").touch()
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)


@pytest.mark.parametrize(("extension", "body", "fine"), [
    (False, "raise RuntimeError('was imported')", True),  # without an extension it is not even tried
    (True, "raise OSError('libcudart.so.13: cannot open')", False),
    (True, "", True),
])  # fmt: skip
def test_torchaudio_is_tried_only_where_it_has_a_compiled_extension(tmp_path, monkeypatch, extension, body, fine):
    known = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchaudio"}
    fake_torchaudio(tmp_path, monkeypatch, extension, body)
    assert setup.torchaudio_imports() is fine
    sys.modules.pop("torchaudio", None)
    sys.modules.update(known)


def test_looking_costs_nothing_heavy():
    """A notebook waits for this before it shows anything."""
    if any(doctor._extension_folder().glob("*.so")):
        pytest.skip("torchaudio has its compiled extension here, and is tried")
    heavy = "[name for name in ('torch', 'numpy') if name in sys.modules]"
    code = f"import sys; from minigen.course.setup import ready; ready(); print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
