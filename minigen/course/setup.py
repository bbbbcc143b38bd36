"""First cell of every notebook: installs the libraries that the course needs and that are missing, as on Colab.

    import sys
    sys.path[:0] = [".."]  # where minigen is not installed (Colab), the repository is one folder up
    from minigen.course.setup import ready
    ready()

PyTorch is never installed or changed here; without it, set up with `make lab` or `environment.yml`. A library that is
installed stays as it is, even if it is old, because replacing a library under a running kernel breaks more than it
repairs. JupyterLab is left out: a running notebook does not need it, and installing it would break Colab's own server.

On Binder (environment.yml) and after some installations with pip, torchaudio is a CUDA build beside a PyTorch without
CUDA and cannot be imported. Then it is repaired as by `minigen doctor --mend`. Nothing heavy is imported at the top.
"""

import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.hub import ROOT

PROJECT = ROOT / "pyproject.toml"
NOT_HERE = ("jupyterlab",)  # not needed by a running kernel
LAST_TORCHAUDIO = (2, 11)  # the last version; it fits every later PyTorch


def ready() -> None:
    """Install the libraries of pyproject.toml that are missing, and print their names. Prints nothing if none are.

    Raises:
        MinigenError: PyTorch is missing, or pip failed.
    """
    missing = missing_libraries()
    if "torch" in missing:
        raise MinigenError(
            "PyTorch is not installed. Set up with `make lab`, or `conda env create -f environment.yml`."
        )
    if missing:
        print("installing", ", ".join(missing))
        pip(list(missing.values()))
    if not torchaudio_imports():
        from minigen.app.doctor import mend_torchaudio

        print(mend_torchaudio())


def missing_libraries() -> dict[str, str]:
    """Libraries of pyproject.toml that a notebook needs and that are not installed: name -> requirement."""
    listed = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]
    asked = {re.match(r"[\w-]+", line)[0]: line for line in listed}
    missing = {name: line for name, line in asked.items() if name not in NOT_HERE and not _version(name)}
    if "torchaudio" in missing and _version("torch"):
        missing["torchaudio"] = matching_torchaudio(_version("torch"), missing["torchaudio"])
    return missing


def matching_torchaudio(torch: str, listed: str) -> str:
    """Requirement of torchaudio for a PyTorch: the same minor version; from 2.11, its last one, what is listed."""
    minor = tuple(map(int, re.match(r"(\d+)\.(\d+)", torch).groups()))
    return listed if minor >= LAST_TORCHAUDIO else f"torchaudio=={minor[0]}.{minor[1]}.*"


def _version(name: str) -> str:
    """The installed version of a library, "" if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def pip(requirements: list[str]) -> None:
    """Install requirements without changing the installed PyTorch.

    Raises:
        MinigenError: pip failed; the message holds its last line.
    """
    held = f"torch=={_version('torch')}"
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", held, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MinigenError(f"pip could not install {', '.join(requirements)}: {last}")
    importlib.invalidate_caches()  # this process remembers that they were missing


def torchaudio_imports() -> bool:
    """Whether `import torchaudio` works. It is tried only if there is a compiled extension, which alone can break it.

    `minigen doctor --mend` leaves a folder without extension; then this takes no time.
    """
    place = PathFinder.find_spec("torchaudio")
    if place is None or not any((Path(place.origin).parent / "lib").glob("*.so")):
        return True
    try:
        importlib.import_module("torchaudio")
    except Exception:  # an extension that does not fit raises OSError or something else
        return False
    return True
