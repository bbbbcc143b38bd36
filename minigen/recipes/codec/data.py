"""Training data of the codec: random crops of the corpus and of real recordings.

sources, held as 16-bit samples --draw, change speed, mix, level--> [batch, 1, crop]
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from minigen.audio import AudioError, load_audio
from minigen.engine.errors import MinigenError


class Recordings:
    """Real recordings of a folder of class folders, named as in ESC-10: fold-source-take.ogg."""

    def __init__(self, folder: str | Path, fold: str = "4", held_out: bool = False):
        files = sorted(Path(folder).glob("*/*-*-*.*"))
        self.files = [path for path in files if path.name.startswith(f"{fold}-") == held_out]
        if not self.files:
            raise MinigenError(f"{folder} has no recordings named fold-source-take.ogg in class folders, as ESC-10.")

    NAME = (
        'recordings of ESC-10 (K. J. Piczak, "ESC: Dataset for environmental sound classification", 2015, CC BY 3.0; '
        "none of them is part of the weights) but for fold 4"
    )

    def __len__(self) -> int:
        return len(self.files)

    def by_kind(self) -> dict[str, list[Tensor]]:
        """Class folder, without its number -> all its waveforms; silent and damaged recordings are left out."""
        kinds = {}
        for index, path in enumerate(self.files):
            with suppress(AudioError):
                kinds.setdefault(path.parent.name.split(" - ")[-1].lower(), []).append(self.load(index))
        return kinds

    def load(self, index: int) -> Tensor:
        """Waveform [1, 1, samples], 16 kHz."""
        return load_audio(self.files[index])


class Crops:
    """Random crops from sources held in memory as 16-bit samples, each source equally often.

    skipped: number of clips left out, by reason: silent, damaged, or shorter than 1.25 crops.

    Raises:
        MinigenError: no clip of a source is usable.
    """

    def __init__(self, sources: list, crop: int, progress: bool):
        self.crop, self.skipped = crop, Counter()
        self.sources = [self._hold(source, progress) for source in sources]
        told = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
        if not all(self.sources):
            raise MinigenError(f"a source of sound has no clip of {1.25 * crop:.0f} samples or more ({told}).")
        if told and progress:
            print(f"clips passed over: {told}", flush=True)

    def _hold(self, source, progress: bool) -> list[Tensor]:
        """The usable clips of a source, int16 [samples] each."""
        held = []
        for index in tqdm(range(len(source)), desc="loading", disable=not progress):
            try:
                wav = source.load(index)[0, 0]
            except AudioError as error:
                self.skipped[error.reason] += 1
                continue
            if len(wav) >= 1.25 * self.crop:
                held.append((wav.clamp(-1, 1) * 32767).short())
            else:
                self.skipped["too short"] += 1
        return held

    def whole(self, count: int, seed: int) -> Iterator[Tensor]:
        """`count` whole clips of each source in turn, [1, 1, samples], for the fit in closed form (`fit.py`).

        From the second round on their speed changes by up to 18 %. Every second clip is scaled to a peak of 0.56 to 1,
        because the figures are measured at 1; the others keep their level.
        """
        for i in range(count):
            rng = np.random.default_rng([seed, i])
            for source in self.sources:
                wav = source[i % len(source)][None, None].float() / 32767
                if i >= len(source):
                    wav = F.interpolate(wav, scale_factor=float(rng.uniform(0.85, 1.18)), mode="linear")
                if i % 2:
                    wav = wav / wav.abs().max().clamp(min=0.02) * 10 ** rng.uniform(-0.25, 0)
                yield wav

    def batch(self, size: int, rng: np.random.Generator) -> Tensor:
        """A batch [size, 1, crop]: half of the clips change speed by up to 25 %, a third are mixed with another clip.

        Levels are random (peak 0.1 to 1), so that the codec works at any level.
        """
        rows = torch.stack([self._one(self.sources[i % len(self.sources)], rng) for i in range(size)])
        mixed = torch.from_numpy(rng.uniform(0.1, 1, size) * (rng.uniform(size=size) < 1 / 3)).float()[:, None]
        rows = rows + mixed * rows.roll(len(self.sources), 0)
        level = torch.from_numpy(10 ** rng.uniform(-1, 0, size)).float()[:, None]
        return (rows / rows.abs().amax(1, keepdim=True).clamp(min=0.02) * level)[:, None]

    def _one(self, source: list[Tensor], rng: np.random.Generator) -> Tensor:
        wav = source[rng.integers(len(source))]
        reach = self.crop if rng.uniform() < 0.5 else int(self.crop * rng.uniform(0.8, 1.25))
        first = rng.integers(len(wav) - reach + 1)
        crop = wav[first : first + reach].float() / 32767
        crop = F.interpolate(crop[None, None], size=self.crop, mode="linear")[0, 0] if reach != self.crop else crop
        return crop / crop.abs().max().clamp(min=0.02)
