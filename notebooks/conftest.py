"""Notebooks that pytest runs (nbval) run guarded: without a network, and without leaving a file in the repository."""

import os
from pathlib import Path

guard = str(Path(__file__).resolve().parent.parent / "tests" / "guard")
others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != guard]
os.environ["PYTHONPATH"] = os.pathsep.join([guard, *others])
