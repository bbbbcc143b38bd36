"""A listener who only knows real recordings: does a synthesised sound pass for the thing itself?

    recordings in class folders (ESC-10) --vary--> pictures --statistics--> points --kernel ridge--> Listener
    corpus clips of the same kinds (`alone`) ----> pictures --statistics--> point --------------------> a kind

No synthesised sound takes part in the training, so the share that is named rightly is evidence from outside: one who
has met only real dogs calls this a dog. The listener's own skill is measured by folds: train on all but one, name that.

It hears a clip as the statistics of its mel bands: how loud, how unsteady, at which speeds; such statistics are enough
for people to tell sounds apart (McDermott and Simoncelli, "Sound texture perception via statistics of the auditory
periphery", 2011). On a few hundred recordings a closed formula over them beats a network, and takes seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from minigen.audio import AUDIO_SUFFIXES, SAMPLE_RATE, fit_length, load_audio, log_mel, peak_normalize
from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.captions import kind_of_label
from minigen.corpus.synthesis.scenes import Scene, render_scene, sample_scene
from minigen.engine.errors import MinigenError
from minigen.recipes.judge.data import SECONDS, Augmentation, Examples, Luck, add_powers, augment

HARDER = Augmentation(gain=(-1.0, 0.3), noise=(-5, -1.5), floor=-5, turn=True)
FRAMES = int(SECONDS * SAMPLE_RATE) // 320  # of a picture, 20 ms each
SPEEDS = (1, 3, 6, 12, 24, 48, 72, 101)  # edges of the ranges of modulation, in quarters of Hz
PEAK = 0.6  # that of an ordinary clip of the corpus


@dataclass(frozen=True)
class Recordings:
    """Real clips. pictures: [n, F >= FRAMES, 64]; labels: int64 [n], places in `kinds`; folds: int64 [n]; paths: n."""

    pictures: Tensor
    labels: Tensor
    folds: Tensor
    kinds: tuple[str, ...]
    paths: tuple[Path, ...]

    def rows(self, chosen: Tensor) -> "Recordings":
        """The recordings that `chosen`, bool [n], points out."""
        paths = tuple(path for path, taken in zip(self.paths, chosen.tolist(), strict=True) if taken)
        pictures, labels, folds = (values[chosen] for values in (self.pictures, self.labels, self.folds))
        return Recordings(pictures, labels, folds, self.kinds, paths)


def read_recordings(folder: str | Path, seconds: float = 5.0) -> Recordings:
    """Recordings in class folders, trimmed or padded to `seconds`; kind from the folder's name, fold from the file's.

    The fold is the number the file's name begins with, as in ESC-10 ("4-182395-A.ogg").

    Raises:
        MinigenError: no class folder is named after one of the corpus's kinds, or a file's name begins with no fold.
    """
    paths = sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES)
    paths = tuple(path for path in paths if kind_of_label(path.parent.name))
    if not paths:
        raise MinigenError(f"no class folder in {folder} is named after a kind ({', '.join(KINDS)}). Rename them.")
    if wrong := next((path.name for path in paths if not path.name[0].isdigit()), None):
        raise MinigenError(
            f"{wrong} does not begin with the number of its fold. Name files as in ESC-10: 1-100032-A.ogg."
        )
    kinds = tuple(sorted({kind_of_label(path.parent.name) for path in paths}))
    labels = torch.tensor([kinds.index(kind_of_label(path.parent.name)) for path in paths])
    pictures = torch.cat([picture(fit_length(load_audio(path), int(seconds * SAMPLE_RATE))) for path in paths])
    return Recordings(pictures, labels, torch.tensor([int(path.name[0]) for path in paths]), kinds, paths)


def picture(wav: Tensor) -> Tensor:
    """Base-10 logarithm of mel power of a clip at the peak of the corpus: [1, 1, samples] -> [1, F, 64]."""
    return log_mel(peak_normalize(wav.reshape(1, 1, -1), PEAK)).transpose(1, 2)


def statistics(pictures: Tensor) -> Tensor:
    """What is remembered of each clip: [n, F, 64] -> [n, 607].

    Levels count from those of its loudest frames, and loud frames count most. For each band: mean, deviation, four
    quantiles, and contrast with its neighbours (harmonics); for each of 16 wider bands: power of modulation in seven
    ranges of speed, and the mean, greatest and least change between frames; for the clip: how much of it is loud.
    """
    x = pictures[:, :FRAMES].float()
    loudest = (10**x).sum(2).log10().quantile(0.95, 1)[:, None, None]
    x = (x - loudest).clamp(min=-5)
    level = x.amax(2, keepdim=True)
    loud = torch.sigmoid(3 * (level - level.amax(1, keepdim=True) + 2))
    share = loud / loud.sum(1, keepdim=True)
    mean = (share * x).sum(1)
    deviation = (share * (x - mean[:, None]) ** 2).sum(1).sqrt()
    quantiles = x.sort(1).values[:, [FRAMES // 10, FRAMES // 2, 9 * FRAMES // 10, 98 * FRAMES // 100]]
    contrast = (x[:, :, 1:-1] - x.unfold(2, 3, 1).mean(-1)).square().mean(1).sqrt()
    wide = x.unflatten(2, (16, 4)).mean(3)
    change = wide.diff(dim=1)
    changes = torch.stack([change.abs().mean(1), change.amax(1), change.amin(1)], 1)
    parts = (mean, deviation, quantiles, _modulation(wide), changes, contrast, loud.mean(1))
    return torch.cat([part.flatten(1) for part in parts], 1)


def _modulation(bands: Tensor) -> Tensor:
    """Logarithm of the power at which each band's level moves, in the ranges of SPEEDS: [n, F, b] -> [n, 7, b]."""
    power = torch.fft.rfft(bands - bands.mean(1, keepdim=True), dim=1).abs().square() / FRAMES
    ranges = [power[:, low:high].mean(1) for low, high in zip(SPEEDS[:-1], SPEEDS[1:], strict=True)]
    return torch.stack(ranges, 1).clamp(min=1e-4).log10()


def vary(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """The same sounds under other circumstances, each by its own luck: [n, F, 64] -> [n, FRAMES, 64].

    Another excerpt; faster or slower, deeper or higher; once more a moment later; beginning late or ending early; and
    what `augment` does. Each leaves the kind what it was.
    """
    first = int(torch.randint(pictures.shape[1] - FRAMES + 1, (1,), generator=rng))
    luck, x = Luck(len(pictures), rng), pictures[:, first : first + FRAMES].float()
    x = _stretch(x, luck)
    again = x.roll(int(torch.randint(30, 171, (1,), generator=rng)), 1) + luck.uniform(-0.8, 0)
    x = torch.where(luck.chance(0.3), add_powers(x, again), x)
    blank = torch.zeros(len(x), len(KINDS), FRAMES // 4, dtype=torch.bool)
    kept = Examples(_shorten(x, luck), blank.any(-1), blank, blank.any(-1).any(-1))
    return augment(kept, HARDER, rng).pictures


def _stretch(x: Tensor, luck: Luck) -> Tensor:
    """Resample the picture: 0.8 to 1.25 of its time, 0.92 to 1.08 of its bands, moved by up to two bands."""
    place = torch.zeros(len(x), 2, 3)
    place[:, 0, 0], place[:, 0, 2] = luck.uniform(0.92, 1.08).flatten(), luck.uniform(-0.06, 0.06).flatten()
    place[:, 1, 1] = luck.uniform(0.8, 1.25).flatten()
    grid = affine_grid(place, (len(x), 1, *x.shape[1:]), align_corners=False)
    return grid_sample(x[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0]


def _shorten(x: Tensor, luck: Luck) -> Tensor:
    """Silence up to 30 % of the time before and after, for two clips in five each; the sound fades to it."""
    time = torch.linspace(0, 1, x.shape[1])[:, None]
    begin, end = luck.uniform(0, 0.3) * luck.chance(0.4), 1 - luck.uniform(0, 0.3) * luck.chance(0.4)
    outside = torch.maximum(begin - time, time - end) / luck.uniform(0.02, 0.1)
    return (x - 5 * outside.clamp(0, 1)).clamp(min=-5)


@dataclass(frozen=True)
class Listener:
    """Kernel ridge regression over `statistics`: score = k(x) . weights, one for each kind.

    points: [m, D] standardised statistics of the training clips; weights: [m, C]; mean, spread: [D]; width: of the
    kernel exp(-width |x - y|^2 / D).
    """

    kinds: tuple[str, ...]
    points: Tensor
    weights: Tensor
    mean: Tensor
    spread: Tensor
    width: float

    def scores(self, pictures: Tensor) -> Tensor:
        """How much each clip sounds like each kind, near 1 for a sure one, else near 0: [n, F, 64] -> [n, C]."""
        x = (statistics(pictures) - self.mean) / self.spread
        return kernel(x, self.points, self.width) @ self.weights


def kernel(x: Tensor, y: Tensor, width: float) -> Tensor:
    """exp(-width |x - y|^2 / D): near 1 for alike clips, near 0 for unlike ones. [n, D], [m, D] -> [n, m]."""
    return torch.exp(-width * torch.cdist(x, y).square() / x.shape[1])


def train_listener(
    recordings: Recordings, copies: int = 10, width: float = 0.2, ridge: float = 0.1, seed: int = 0
) -> Listener:
    """A listener who has heard every recording as it is and in `copies` - 1 variations.

        weights = (K + ridge I)^-1 Y,   K = kernel(points, points)

    Source: kernel ridge regression, e.g. Rifkin and Lippert, "Notes on regularized least squares" (2007).
    """
    rng = torch.Generator().manual_seed(seed)
    heard = [statistics(recordings.pictures)]
    heard += [_in_parts(recordings.pictures, rng) for _ in range(copies - 1)]
    points, labels = torch.cat(heard), recordings.labels.repeat(copies)
    mean, spread = points.mean(0), points.std(0) + 1e-3
    points = (points - mean) / spread
    gram = kernel(points, points, width) + ridge * torch.eye(len(points))
    weights = torch.linalg.solve(gram, one_hot(labels, len(recordings.kinds)).float())
    return Listener(recordings.kinds, points, weights, mean, spread, width)


def _in_parts(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Statistics of one variation of each picture; a few at a time, for each few have one excerpt and one turn."""
    return torch.cat([statistics(vary(part, rng)) for part in pictures.split(32)])


def fold_accuracies(recordings: Recordings, **training) -> dict[int, float]:
    """Share of each fold's recordings that a listener who heard the other folds names rightly.

    Raises:
        MinigenError: the recordings are all of one fold.
    """
    folds = sorted(set(recordings.folds.tolist()))
    if len(folds) < 2:
        raise MinigenError(f"all recordings are of fold {folds[0]}. Give at least two folds to measure on one of them.")
    found = {}
    for fold in folds:
        listener, unheard = (recordings.rows(recordings.folds != fold), recordings.rows(recordings.folds == fold))
        named = train_listener(listener, **training).scores(unheard.pictures).argmax(1)
        found[fold] = float((named == unheard.labels).float().mean())
    return found


def alone(kind: str, index: int, seed: int = 0) -> tuple[Scene, np.ndarray]:
    """The `index`-th scene with this kind alone, as the corpus draws it, and its sound, float32 [4 s]."""
    rng = np.random.default_rng([seed, KINDS.index(kind), index])
    scene = sample_scene(rng, SECONDS)
    while scene.relation != "single" or scene.events[0].kind != kind:
        scene = sample_scene(rng, SECONDS)
    return scene, render_scene(scene, rng, int(SECONDS * SAMPLE_RATE))


def confusion(listener: Listener, clips: int = 40, seed: int = 0) -> Tensor:
    """What the listener calls `clips` synthesised clips of each kind it knows: int64 [C true, C named]."""
    table = torch.zeros(len(listener.kinds), len(listener.kinds), dtype=torch.long)
    for row, kind in zip(table, listener.kinds, strict=True):
        sounds = [torch.from_numpy(alone(kind, i, seed)[1]) for i in range(clips)]
        named = listener.scores(torch.cat([picture(sound) for sound in sounds])).argmax(1)
        row += one_hot(named, len(listener.kinds)).sum(0)
    return table
