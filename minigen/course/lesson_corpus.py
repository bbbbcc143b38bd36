"""The corpus of a notebook: the built-in one, or the data set that `data` or MINIGEN_CORPUS names.

    DATA = None                          the built-in corpus, or what the environment variable MINIGEN_CORPUS names
    DATA = "recordings/"                 a folder with a subfolder for each class (ESC-10), or with AudioCaps' tables
    DATA = "audiocaps/train.csv"         AudioCaps' table beside its clips
    DATA = "owner/name"                  a copy of AudioCaps on the hub, through the `datasets` library

The outputs that the notebooks were compared with are those of the built-in corpus.
"""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from minigen.corpus.corpus import Corpus
from minigen.corpus.readers import read_corpus
from minigen.corpus.synthesis.builtin import build_corpus, split_sizes
from minigen.engine.files import cannot_write
from minigen.engine.hub import ROOT, where_typed

VARIABLE = "MINIGEN_CORPUS"


def lesson_corpus(
    data: str | Path | None = None, clips: int = 64, seconds: float = 4.0, split: str = "train", seed: int = 0
) -> Corpus:
    """A small corpus for a notebook: `clips` clips of a split at the most.

    Args:
        data: see the module; None asks the environment, and failing that the built-in corpus is made (or was before).
        clips: how many; drawn by chance where there are more, the same ones for the same seed.
        seconds: length of each clip.
        split: "train", "validation" or "test".
        seed: of the built-in corpus, and of the draw.

    Raises:
        MinigenError: no such data, or not one readable recording in it.
    """
    data = data or where_typed(os.environ.get(VARIABLE, ""))
    corpus = read_corpus(data or _built(clips, seconds, split, seed), split, seconds=seconds)
    rows = sorted(np.random.default_rng(seed).permutation(len(corpus))[:clips].tolist())
    if len(rows) == len(corpus):
        return corpus
    return replace(corpus, clips=[corpus.clips[row] for row in rows], read=lambda i: corpus.read(rows[i]))


def _built(clips: int, seconds: float, split: str, seed: int) -> Path:
    """The folder of a built-in corpus whose split holds `clips`; built once, aside, and renamed when whole."""
    whole = next(n for n in range(clips + 2, 12 * clips + 12) if split_sizes(n)[split] >= clips)
    folder = lessons_folder() / f"corpus-{whole}-{seconds:g}s-seed{seed}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="part-") as part:
            build_corpus(Path(part) / "corpus", whole, seed, seconds, progress=False)
            try:
                (Path(part) / "corpus").rename(folder)
            except OSError:  # another notebook made it in the meantime
                if not folder.is_dir():
                    raise
    return folder


def lessons_folder() -> Path:
    """Folder for the files that notebooks make: build/lessons beside the package, which git ignores.

    Raises:
        MinigenError: it cannot be written.
    """
    folder = ROOT / "build" / "lessons"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder
