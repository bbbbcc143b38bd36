"""Parts of a corpus: its three splits, cut down to a number of clips, and a random choice of clips with their sound."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from minigen.audio import AudioError
from minigen.corpus.clip import Clip
from minigen.corpus.corpus import Corpus
from minigen.corpus.readers import read_corpus
from minigen.corpus.synthesis.builtin import SPLITS, build_corpus
from minigen.engine.errors import MinigenError


def open_splits(
    out: Path, data: str | Path | None, clips: int, seed: int = 0, seconds: float = 4.0, progress: bool = True
) -> dict[str, Corpus]:
    """Open the three splits of `data`; with `data` None, of a built-in corpus that is made in `out`.

    clips: number of clips to make; a larger split of `data` is cut down to this number at random.

    Raises:
        MinigenError: `data` is a single table, which has no splits, or cannot be read.
    """
    if data is not None and Path(data).is_file():
        raise MinigenError(
            f"{data} is one table without splits: the clips it trains on would be those it is tested on. Give a folder "
            "with train.csv, validation.csv and test.csv, or one with a subfolder for each class."
        )
    folder = out / f"corpus-{clips}-{seconds:g}s-seed{seed}" if data is None else data
    if data is None:
        build_corpus(folder, clips, seed, seconds, progress=progress)
    return {name: at_most(read_corpus(folder, name, seconds=seconds), clips, seed) for name in SPLITS}


def load_some(corpus: Corpus, count: int, seed: int = 0) -> tuple[list[Clip], list[Tensor]]:
    """Load up to `count` random clips: the clips and their sounds [1, 1, samples], without silent and damaged ones.

    A recording with several captions is taken once, with one of them.
    """
    clips, wavs, seen = [], [], set()
    for row in np.random.default_rng([seed, 1]).permutation(len(corpus)).tolist():
        clip = corpus.clips[row]
        if clip.recording in seen:
            continue
        seen.add(clip.recording)
        try:
            wavs.append(corpus.load(row))
            clips.append(clip)
        except AudioError as error:
            corpus.report.skip(clip.file, error.reason)
        if len(wavs) == count:
            break
    return clips, wavs


def at_most(corpus: Corpus, count: int, seed: int) -> Corpus:
    """The corpus cut down to `count` random clips, in their old order."""
    if len(corpus) <= count:
        return corpus
    rows = np.sort(np.random.default_rng(seed).permutation(len(corpus))[:count])
    return replace(corpus, clips=[corpus.clips[row] for row in rows], read=lambda i: corpus.read(int(rows[i])))
