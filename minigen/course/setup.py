"""The first cell of every notebook: is all there that the course needs? Where not (Colab), only that is installed.

    import sys
    sys.path[:0] = [".."]  # where minigen is not installed (Colab), the repository is one folder up
    from minigen.course.setup import ready
    ready()

PyTorch is never installed or changed here, whatever version it is: where it is missing, `make lab` or `environment.yml`
is the way. Libraries that are there are not looked at again, old ones neither: to replace a library under a running
kernel breaks more than it mends. JupyterLab is not needed by a notebook that runs already, and would pull Colab's own
server apart.

On Binder (environment.yml) and wherever pip chose it, torchaudio may be a CUDA build beside a PyTorch without CUDA,
which cannot be imported; then it is mended as `minigen doctor --mend` does. Nothing heavy is imported at the top.
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
NOT_HERE = ("jupyterlab",)  # what a kernel does not need
LAST_TORCHAUDIO = (2, 11)  # PyTorch goes on without it: this one fits every later PyTorch


def ready() -> None:
    """Install the libraries of pyproject.toml that are missing, and say which; silent where all is there.

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
    """Name -> requirement of each library of pyproject.toml that a notebook needs and that is not installed."""
    listed = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]
    asked = {re.match(r"[\w-]+", line)[0]: line for line in listed}
    missing = {name: line for name, line in asked.items() if name not in NOT_HERE and not _version(name)}
    if "torchaudio" in missing and _version("torch"):
        missing["torchaudio"] = matching_torchaudio(_version("torch"), missing["torchaudio"])
    return missing


def matching_torchaudio(torch: str, listed: str) -> str:
    """The torchaudio for a PyTorch: that of the same minor version, and from 2.11, its last one, on what is listed."""
    minor = tuple(map(int, re.match(r"(\d+)\.(\d+)", torch).groups()))
    return listed if minor >= LAST_TORCHAUDIO else f"torchaudio=={minor[0]}.{minor[1]}.*"


def _version(name: str) -> str:
    """The installed version of a library, "" where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def pip(requirements: list[str]) -> None:
    """Install requirements, with the PyTorch that is there held as it is.

    Raises:
        MinigenError: pip failed, with its last line.
    """
    held = f"torch=={_version('torch')}"
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", held, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MinigenError(f"pip could not install {', '.join(requirements)}: {last}")
    importlib.invalidate_caches()  # this process has looked for them before, in vain


def torchaudio_imports() -> bool:
    """Whether `import torchaudio` works. Tried only where it has a compiled extension: nothing else can be in its way.

    A folder without extension is what `minigen doctor --mend` leaves, and then this takes no time at all.
    """
    place = PathFinder.find_spec("torchaudio")
    if place is None or not any((Path(place.origin).parent / "lib").glob("*.so")):
        return True
    try:
        importlib.import_module("torchaudio")
    except Exception:  # an extension that does not fit raises OSError, and others what they like
        return False
    return True
