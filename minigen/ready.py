"""The first cell of every notebook: is all there that the course needs? Where not (Colab), only that is installed.

    import sys
    sys.path[:0] = [".."]  # where minigen is not installed, the repository is one folder up
    from minigen.ready import ready
    ready()

PyTorch is never installed here: where it is missing, `make lab` or `environment.yml` is the way.
"""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from minigen.errors import MinigenError

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


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
    if not missing:
        return
    print("installing", ", ".join(missing))
    pip(list(missing.values()))


def missing_libraries() -> dict[str, str]:
    """Name -> requirement of each library of pyproject.toml that is not installed; a version is not looked at."""
    listed = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    asked = {re.match(r"[\w-]+", line)[0]: line for line in listed}
    return {name: line for name, line in asked.items() if not _installed(name)}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def pip(requirements: list[str]) -> None:
    """Install requirements, with the PyTorch that is there held as it is.

    Raises:
        MinigenError: pip failed, with its last line.
    """
    held = f"torch=={metadata.version('torch')}"
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", held, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MinigenError(f"pip could not install {', '.join(requirements)}: {last}")
