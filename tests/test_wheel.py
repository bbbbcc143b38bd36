"""Installed as a package, away from the repository: the shipped models come along and make a sound."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

TOP = Path(__file__).resolve().parents[1]


def python(*argv: str | Path, cwd: Path, packages: Path | None = None) -> str:
    """Run this Python in a folder, with `packages` before everything else it can import."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MINIGEN_DATA")}
    if packages:
        env["PYTHONPATH"] = str(packages)
    done = subprocess.run([sys.executable, *map(str, argv)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder into which the wheel of this repository is installed, without a network."""
    if not all(importlib.util.find_spec(name) for name in ("setuptools", "pip")):
        pytest.skip("setuptools or pip is not installed")
    top = tmp_path_factory.mktemp("wheel")
    source = top / "source"  # a copy: building leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    for name in ("minigen", "data"):
        shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-index", "--no-deps", "-q"]
    python("-m", "pip", "wheel", "--no-build-isolation", *offline, "-w", top, source, cwd=top)
    (wheel,) = top.glob("minigen-*.whl")
    python("-m", "pip", "install", *offline, "--target", top / "packages", wheel, cwd=top)
    return top / "packages"


def test_the_wheel_holds_every_file_of_the_library_and_of_data(packages):
    for name, there in (("minigen", packages / "minigen"), ("data", packages / "minigen" / "data")):
        files = [path.relative_to(TOP / name) for path in (TOP / name).rglob("*") if path.is_file()]
        assert not [str(file) for file in files if "__pycache__" not in file.parts and not (there / file).is_file()]


def test_an_installed_package_makes_a_sound_in_any_folder(packages, tmp_path):
    python("-m", "minigen", "generate", "a dog barks", "-o", "x.wav", cwd=tmp_path, packages=packages)
    sound, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 16000 and len(sound) == 64000 and abs(sound).max() > 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def test_the_doctor_of_an_installed_package_says_how_to_install_it_again(packages, tmp_path):
    code = "from minigen.app import doctor; from pathlib import Path; print(doctor._weights('codec', 'none').mend)"
    said = python("-c", code, cwd=tmp_path, packages=packages)
    assert "-m pip install --force-reinstall --no-deps file://" in said and "git checkout" not in said
