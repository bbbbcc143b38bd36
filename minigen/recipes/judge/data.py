"""What the judge is trained on: log-mel pictures of sounds with their labels, and what is done to them at every step.

    corpus clips, real recordings --examples--> pictures [n, F, M], labels [n, C], frame labels [n, C, T]
    a batch of those --------------augment----> mixed in pairs, turned in time, coloured, softer, noisy, blurred, hidden

A picture is the base-10 logarithm of mel power. Working on pictures instead of waveforms makes augmentation nearly
free, and close to exact: filters and gain are sums, and mixing adds powers (unrelated sounds have no cross term).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from minigen.audio import AUDIO_SUFFIXES, SAMPLE_RATE, fit_length, load_audio, log_mel, peak_normalize
from minigen.corpus.clip import KINDS, Event
from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.captions import kind_of_label
from minigen.corpus.synthesis.scenes import render_scene
from minigen.corpus.synthesis.sounds.nature import coloured
from minigen.engine.errors import MinigenError

SECONDS = 4.0
LABEL_RATE = 12.5  # frame labels per second: the tagger's own rate
LN10 = 2.302585


@dataclass(frozen=True)
class Examples:
    """Pictures with labels; `timed` is False where the kinds are known but not when they sound.

    pictures: float16 [n, F, M]; labels: bool [n, C]; frames: bool [n, C, T]; timed: bool [n].
    """

    pictures: Tensor
    labels: Tensor
    frames: Tensor
    timed: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, chosen: Tensor) -> "Examples":
        """The chosen examples, pictures as float32."""
        return Examples(self.pictures[chosen].float(), self.labels[chosen], self.frames[chosen], self.timed[chosen])


def examples(sounds: Iterable[tuple]) -> Examples:
    """Examples of (waveform [1, 1, samples], events, timed) triples."""
    pictures, frames, timed = zip(*((log_mel(w).half(), frame_labels(e), t) for w, e, t in sounds), strict=True)
    frames = torch.stack(frames)
    return Examples(torch.cat(pictures).transpose(1, 2), frames.any(-1), frames, torch.tensor(timed))


def join(first: Examples, second: Examples) -> Examples:
    """The examples of both, one after the other."""
    return Examples(*(torch.cat(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))


def corpus_clip(seed: int, split: str, index: int) -> tuple[Tensor, tuple, bool]:
    """A clip of the built-in corpus of this seed, rendered on the spot: (waveform [1, 1, 4 s], events, True)."""
    scene, _, rng = describe_clip(seed, split, index, SECONDS)
    wav = render_scene(scene, rng, int(SECONDS * SAMPLE_RATE))
    return torch.from_numpy(wav).view(1, 1, -1), scene.events, True


def plain_noise(seed: int, clips: int = 240) -> Examples:
    """Steady noise, which holds no event: a sixth silence, a third white, the rest coloured; rms 0.001 to 0.5."""
    rng, sounds = np.random.default_rng([seed, clips]), []
    for i in range(clips):
        curve = [(hz, 0 if i % 6 < 3 else rng.uniform(-15, 15)) for hz in (40, 200, 1000, 4000, 8000)]
        noise = coloured(rng, int(SECONDS * SAMPLE_RATE), curve) * 10 ** rng.uniform(-3, -0.3) * (i % 6 > 0)
        sounds.append((torch.from_numpy(noise.astype(np.float32)).view(1, 1, -1), (), True))
    return examples(sounds)


def frame_labels(events: Iterable[Event]) -> Tensor:
    """Which kind sounds when: bool [C, T], `LABEL_RATE` frames a second; a frame counts if an event touches it."""
    frames = torch.zeros(len(KINDS), int(SECONDS * LABEL_RATE), dtype=torch.bool)
    for event in events:
        first = min(int(event.onset * LABEL_RATE), frames.shape[1] - 1)
        last = max(-int(-event.offset * LABEL_RATE // 1), first + 1)
        frames[KINDS.index(event.kind), first:last] = True
    return frames


def recordings(folder: str | Path, test_fold: str) -> tuple[list[tuple], list[tuple]]:
    """Real recordings in class folders as (waveform [1, 1, 4 s], events, False): to train on, and of the test fold.

    The kind is read from the folder's name, the fold from the file's first character, as in ESC-10 ("4-182395-A.ogg").
    The one event of a recording lasts from beginning to end; the peak is that of an ordinary clip of the corpus.

    Raises:
        MinigenError: no folder is named after one of the corpus's kinds.
    """
    train, test = [], []
    for path, kind in class_files(folder, test_fold):
        wav = fit_length(peak_normalize(load_audio(path), 0.6), int(SECONDS * SAMPLE_RATE))
        (test if path.name.startswith(test_fold) else train).append((wav, (Event(kind, 1, 0, SECONDS),), False))
    return train, test


def class_files(folder: str | Path, test_fold: str) -> list[tuple[Path, str]]:
    """The recordings that `recordings` reads, each with its kind; nothing is opened. Raises as it does."""
    paths = sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES)
    files = [(path, kind) for path in paths if (kind := kind_of_label(path.parent.name))]
    if all(path.name.startswith(test_fold) for path, _ in files):
        raise MinigenError(f"no class folder in {folder} is named after a kind ({', '.join(KINDS)}). Rename them.")
    return files


@dataclass(frozen=True)
class Augmentation:
    """What `augment` does to a batch; powers and levels are base-10 logarithms, so that 0.1 is 1 dB.

    gain: range of the change of level. noise: range of the level of added noise. floor: smallest value of a picture.
    mix: chance that a clip gets another one of the batch added, with its labels. turn: roll the clips round in time.
    """

    gain: tuple[float, float]
    noise: tuple[float, float]
    floor: float
    mix: float = 0.0
    turn: bool = False


def augment(batch: Examples, how: Augmentation, generator: torch.Generator) -> Examples:
    """A batch made harder; every clip draws its own luck.

    In order: mixing, turning, gain and colour (a smooth curve over the bands, 3 dB standard deviation), noise of random
    tilt (half of the clips), blur over 3 x 3 points as a codec would (a third), hiding of a few bands and moments.
    """
    luck = Luck(len(batch), generator)
    batch = _mix(batch, luck, how.mix)
    batch = _turn(batch, luck) if how.turn else batch
    bands = batch.pictures.shape[2]
    x = batch.pictures + luck.uniform(*how.gain) + _curve(luck, 5, bands, 0.3)
    x = torch.where(luck.chance(0.5), add_powers(x, luck.uniform(*how.noise) + _noise(luck, x)), x)
    x = torch.where(luck.chance(0.33), avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)
    return replace(batch, pictures=_hide(x.clamp(min=how.floor), luck))


class Luck:
    """Random numbers for each clip of a batch, shaped [B, 1, 1] to spread over its picture."""

    def __init__(self, clips: int, generator: torch.Generator):
        self.clips, self.generator = clips, generator

    def uniform(self, low: float, high: float) -> Tensor:
        """One number between `low` and `high` for each clip."""
        return low + (high - low) * torch.rand(self.clips, 1, 1, generator=self.generator)

    def chance(self, probability: float) -> Tensor:
        """True with `probability`, for each clip on its own."""
        return self.uniform(0, 1) < probability


def add_powers(x: Tensor, y: Tensor) -> Tensor:
    """Base-10 logarithm of the sum of two powers given as such logarithms: two unrelated sounds at once."""
    return torch.logaddexp(x * LN10, y * LN10) / LN10


def _curve(luck: Luck, knots: int, bands: int, spread: float) -> Tensor:
    """A random smooth curve over the bands, [B, 1, M]."""
    points = spread * torch.randn(luck.clips, 1, knots, generator=luck.generator)
    return interpolate(points, bands, mode="linear", align_corners=True)


def _noise(luck: Luck, x: Tensor) -> Tensor:
    """Noise of random tilt around level 0; a low band holds few bins of the transform and so fluctuates most."""
    flutter = 0.434 / torch.linspace(1, 4, x.shape[2])
    return _curve(luck, 2, x.shape[2], 0.7) + flutter * torch.randn(x.shape, generator=luck.generator)


def _mix(batch: Examples, luck: Luck, probability: float) -> Examples:
    """Add its neighbour, 0 to 8 dB softer, to some clips: labels are united, and timed only where both are."""
    mixed, softer = luck.chance(probability), luck.uniform(-0.8, 0.0)
    other = Examples(*(value.roll(1, 0) for value in vars(batch).values()))
    return Examples(
        torch.where(mixed, add_powers(batch.pictures, other.pictures + softer), batch.pictures),
        batch.labels | (other.labels & mixed[:, 0]),
        batch.frames | (other.frames & mixed),
        batch.timed & (other.timed | ~mixed[:, 0, 0]),
    )


def _turn(batch: Examples, luck: Luck) -> Examples:
    """Roll the batch round in time by a random number of label frames: what leaves at the end enters at the front."""
    steps = int(torch.randint(batch.frames.shape[2], (1,), generator=luck.generator))
    per_label = batch.pictures.shape[1] / batch.frames.shape[2]
    pictures = batch.pictures.roll(round(steps * per_label), 1)
    return replace(batch, pictures=pictures, frames=batch.frames.roll(steps, 2))


def _hide(x: Tensor, luck: Luck) -> Tensor:
    """SpecAugment (arXiv 1904.08779): replace up to 8 bands, and up to 5 % of the time, by the clip's mean."""
    for axis, most in ((1, x.shape[1] // 20), (2, 8)):
        place = torch.arange(x.shape[axis]).view(1, -1, 1).transpose(1, axis)
        first, width = luck.uniform(0, x.shape[axis]), luck.uniform(0, most)
        x = torch.where((place >= first) & (place < first + width), x.mean((1, 2), keepdim=True), x)
    return x
