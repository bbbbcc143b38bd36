"""Classifier of real recordings, which tests whether the corpus's synthesised sounds are recognised as real ones are.

    recordings in class folders (ESC-10) --vary--> spectrograms --statistics--> points --kernel ridge--> Listener
    corpus clips of the same kinds (`alone`) ----> spectrograms --statistics--> point --Listener-------> a kind

The classifier is trained on real recordings alone. The share of synthesised clips that it classifies correctly is
therefore evidence from outside the corpus. Its own accuracy is measured by cross-validation over the folds.

A clip is described by statistics of its mel bands: level, variation, and modulation in several ranges of frequency.
People recognise sound textures by such statistics (McDermott and Simoncelli, "Sound texture perception via statistics
of the auditory periphery", 2011). On a few hundred recordings a closed formula over them is more accurate than a
network, and takes seconds.

Symbols: n clips · F frames of a spectrogram · D statistics · m training clips · C kinds
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from minigen.audio import SAMPLE_RATE, fit_length, log_mel, peak_normalize
from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.scenes import Scene, render_scene, sample_scene
from minigen.engine.errors import MinigenError
from minigen.recipes.esc10 import recordings_of_known_kinds
from minigen.recipes.judge.data import SECONDS, Augmentation, Examples, PerClipRandom, add_powers, augment

HARDER = Augmentation(gain=(-1.0, 0.3), noise=(-5, -1.5), floor=-5, turn=True)
FRAMES = int(SECONDS * SAMPLE_RATE) // 320  # of a spectrogram, 20 ms each
SPEEDS = (1, 3, 6, 12, 24, 48, 72, 101)  # edges of the ranges of modulation frequency, in quarters of Hz
PEAK = 0.6  # peak of an ordinary clip of the corpus


@dataclass(frozen=True)
class Recordings:
    """Real recordings as spectrograms.

    pictures: spectrograms [n, F >= FRAMES, 64]. labels: int64 [n], indices into `kinds`. folds: int64 [n]. paths: the
    n files.
    """

    pictures: Tensor
    labels: Tensor
    folds: Tensor
    kinds: tuple[str, ...]
    paths: tuple[Path, ...]

    def rows(self, chosen: Tensor) -> "Recordings":
        """The recordings where `chosen`, bool [n], is True."""
        paths = tuple(path for path, taken in zip(self.paths, chosen.tolist(), strict=True) if taken)
        pictures, labels, folds = (values[chosen] for values in (self.pictures, self.labels, self.folds))
        return Recordings(pictures, labels, folds, self.kinds, paths)


def read_recordings(folder: str | Path) -> Recordings:
    """Read recordings in class folders (`minigen.recipes.esc10`), trimmed or padded to 5 s.

    Raises:
        MinigenError: no class folder is named after one of the corpus's kinds, or a file name starts without a fold.
    """
    found = recordings_of_known_kinds(folder)
    if wrong := next((recording.path.name for recording in found if not recording.fold.isdigit()), None):
        raise MinigenError(
            f"{wrong} does not begin with the number of its fold. Name files as in ESC-10: 1-100032-A.ogg."
        )
    kinds = tuple(sorted({recording.kind for recording in found}))
    labels = torch.tensor([kinds.index(recording.kind) for recording in found])
    pictures = torch.cat([picture(fit_length(recording.load(), 5 * SAMPLE_RATE)) for recording in found])
    folds = torch.tensor([int(recording.fold) for recording in found])
    return Recordings(pictures, labels, folds, kinds, tuple(recording.path for recording in found))


def picture(wav: Tensor) -> Tensor:
    """Log-mel spectrogram (base 10, power) of a clip at the peak of the corpus: [1, 1, samples] -> [1, F, 64]."""
    return log_mel(peak_normalize(wav.reshape(1, 1, -1), PEAK)).transpose(1, 2)


def statistics(pictures: Tensor) -> Tensor:
    """Statistics that describe each clip: [n, F, 64] -> [n, 607].

    Levels are relative to the loudest frames, and loud frames have more weight. For each band: mean, deviation, four
    quantiles, and contrast with its neighbours (harmonics). For each of 16 wider bands: power of modulation in seven
    ranges of frequency, and the mean, largest and smallest change between frames. For the clip: the share that is loud.
    """
    x = pictures[:, :FRAMES].float()  # [n, FRAMES, 64]
    loudest = (10**x).sum(2).log10().quantile(0.95, 1)[:, None, None]
    x = (x - loudest).clamp(min=-5)
    level = x.amax(2, keepdim=True)  # [n, FRAMES, 1]
    loud = torch.sigmoid(3 * (level - level.amax(1, keepdim=True) + 2))
    share = loud / loud.sum(1, keepdim=True)
    mean = (share * x).sum(1)  # [n, 64]
    deviation = (share * (x - mean[:, None]) ** 2).sum(1).sqrt()
    quantiles = x.sort(1).values[:, [FRAMES // 10, FRAMES // 2, 9 * FRAMES // 10, 98 * FRAMES // 100]]
    contrast = (x[:, :, 1:-1] - x.unfold(2, 3, 1).mean(-1)).square().mean(1).sqrt()
    wide = x.unflatten(2, (16, 4)).mean(3)  # [n, FRAMES, 16]
    change = wide.diff(dim=1)
    changes = torch.stack([change.abs().mean(1), change.amax(1), change.amin(1)], 1)
    parts = (mean, deviation, quantiles, _modulation(wide), changes, contrast, loud.mean(1))
    return torch.cat([part.flatten(1) for part in parts], 1)


def _modulation(bands: Tensor) -> Tensor:
    """Base-10 logarithm of the modulation power of each band in the ranges of SPEEDS: [n, F, b] -> [n, 7, b]."""
    power = torch.fft.rfft(bands - bands.mean(1, keepdim=True), dim=1).abs().square() / FRAMES
    ranges = [power[:, low:high].mean(1) for low, high in zip(SPEEDS[:-1], SPEEDS[1:], strict=True)]
    return torch.stack(ranges, 1).clamp(min=1e-4).log10()


def vary(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Random variations of the clips, each with random numbers of its own: [n, F, 64] -> [n, FRAMES, 64].

    Another excerpt; a change of speed and pitch; a delayed copy added; silence before or after; and `augment`. None of
    these changes the kind.
    """
    first = int(torch.randint(pictures.shape[1] - FRAMES + 1, (1,), generator=rng))
    draw, x = PerClipRandom(len(pictures), rng), pictures[:, first : first + FRAMES].float()
    x = _stretch(x, draw)
    again = x.roll(int(torch.randint(30, 171, (1,), generator=rng)), 1) + draw.uniform(-0.8, 0)
    x = torch.where(draw.chance(0.3), add_powers(x, again), x)
    blank = torch.zeros(len(x), len(KINDS), FRAMES // 4, dtype=torch.bool)
    kept = Examples(_shorten(x, draw), blank.any(-1), blank, blank.any(-1).any(-1))
    return augment(kept, HARDER, rng).pictures


def _stretch(x: Tensor, draw: PerClipRandom) -> Tensor:
    """Resample the spectrogram: time by 0.8 to 1.25, bands by 0.92 to 1.08, and a shift of up to two bands."""
    place = torch.zeros(len(x), 2, 3)
    place[:, 0, 0], place[:, 0, 2] = draw.uniform(0.92, 1.08).flatten(), draw.uniform(-0.06, 0.06).flatten()
    place[:, 1, 1] = draw.uniform(0.8, 1.25).flatten()
    grid = affine_grid(place, (len(x), 1, *x.shape[1:]), align_corners=False)
    return grid_sample(x[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0]


def _shorten(x: Tensor, draw: PerClipRandom) -> Tensor:
    """Replace up to 30 % of the time at the start and at the end by silence, with a fade; two clips in five each."""
    time = torch.linspace(0, 1, x.shape[1])[:, None]
    begin, end = draw.uniform(0, 0.3) * draw.chance(0.4), 1 - draw.uniform(0, 0.3) * draw.chance(0.4)
    outside = torch.maximum(begin - time, time - end) / draw.uniform(0.02, 0.1)
    return (x - 5 * outside.clamp(0, 1)).clamp(min=-5)


@dataclass(frozen=True)
class Listener:
    """Kernel ridge regression over `statistics`: score = k(x) · weights, one for each kind.

    points: [m, D] standardised statistics of the training clips. weights: [m, C]. mean, spread: [D], for standardising.
    width: of the kernel exp(-width |x - y|^2 / D).
    """

    kinds: tuple[str, ...]
    points: Tensor
    weights: Tensor
    mean: Tensor
    spread: Tensor
    width: float

    def scores(self, pictures: Tensor) -> Tensor:
        """Score of each clip for each kind, near 1 for the kind of the clip, else near 0: [n, F, 64] -> [n, C]."""
        x = (statistics(pictures) - self.mean) / self.spread
        return kernel(x, self.points, self.width) @ self.weights


def kernel(x: Tensor, y: Tensor, width: float) -> Tensor:
    """Gaussian kernel exp(-width |x - y|^2 / D): [n, D], [m, D] -> [n, m]."""
    return torch.exp(-width * torch.cdist(x, y).square() / x.shape[1])


def train_listener(
    recordings: Recordings, copies: int = 10, width: float = 0.2, ridge: float = 0.1, seed: int = 0
) -> Listener:
    """Fit the classifier to every recording and `copies` - 1 variations of each.

        weights = (K + ridge I)^-1 Y,   K = kernel(points, points)

    Source: kernel ridge regression, e.g. Rifkin and Lippert, "Notes on regularized least squares" (2007).
    """
    rng = torch.Generator().manual_seed(seed)
    varied = [statistics(recordings.pictures)]
    varied += [_in_parts(recordings.pictures, rng) for _ in range(copies - 1)]
    points, labels = torch.cat(varied), recordings.labels.repeat(copies)
    mean, spread = points.mean(0), points.std(0) + 1e-3
    points = (points - mean) / spread
    gram = kernel(points, points, width) + ridge * torch.eye(len(points))
    weights = torch.linalg.solve(gram, one_hot(labels, len(recordings.kinds)).float())
    return Listener(recordings.kinds, points, weights, mean, spread, width)


def _in_parts(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Statistics of one variation of each clip; in parts of 32, since a part shares one excerpt and one shift."""
    return torch.cat([statistics(vary(part, rng)) for part in pictures.split(32)])


def fold_accuracies(recordings: Recordings, **training) -> dict[int, float]:
    """Accuracy on each fold of a classifier that was trained on the other folds.

    Raises:
        MinigenError: the recordings are all of one fold.
    """
    folds = sorted(set(recordings.folds.tolist()))
    if len(folds) < 2:
        raise MinigenError(f"all recordings are of fold {folds[0]}. Give at least two folds to measure on one of them.")
    found = {}
    for fold in folds:
        train, test = recordings.rows(recordings.folds != fold), recordings.rows(recordings.folds == fold)
        predicted = train_listener(train, **training).scores(test.pictures).argmax(1)
        found[fold] = float((predicted == test.labels).float().mean())
    return found


def alone(kind: str, index: int, seed: int = 0) -> tuple[Scene, np.ndarray]:
    """A scene that holds one event of this kind, as the corpus draws it, and its sound, float32 [4 s]."""
    rng = np.random.default_rng([seed, KINDS.index(kind), index])
    scene = sample_scene(rng, SECONDS)
    while scene.relation != "single" or scene.events[0].kind != kind:
        scene = sample_scene(rng, SECONDS)
    return scene, render_scene(scene, rng, int(SECONDS * SAMPLE_RATE))


def confusion(listener: Listener, clips: int = 40, seed: int = 0) -> Tensor:
    """Confusion matrix over `clips` synthesised clips of each kind: int64 [C true, C predicted]."""
    table = torch.zeros(len(listener.kinds), len(listener.kinds), dtype=torch.long)
    for row, kind in zip(table, listener.kinds, strict=True):
        sounds = [torch.from_numpy(alone(kind, i, seed)[1]) for i in range(clips)]
        predicted = listener.scores(torch.cat([picture(sound) for sound in sounds])).argmax(1)
        row += one_hot(predicted, len(listener.kinds)).sum(0)
    return table
