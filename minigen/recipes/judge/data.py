"""Training data of the tagger and the judge: log-mel spectrograms of sounds with their labels, and their augmentation.

    corpus clips, real recordings --examples--> spectrograms [n, F, M], labels [n, C], frame labels [n, C, T]
    a batch of them --augment--> mixed in pairs, shifted in time, louder or softer, filtered, noisy, blurred, masked

A spectrogram is the base-10 logarithm of mel power. Augmenting spectrograms instead of waveforms takes almost no time
and is nearly exact: filters and gains are sums, and mixing adds powers (unrelated sounds have no cross term).

Symbols: n clips · F frames of the spectrogram · M mel bands · C kinds of event · T label frames · B clips of a batch
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from minigen.audio import SAMPLE_RATE, fit_length, log_mel, peak_normalize
from minigen.corpus.clip import KINDS, Event
from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.scenes import render_scene
from minigen.corpus.synthesis.sounds.nature import coloured
from minigen.engine.errors import MinigenError
from minigen.recipes.esc10 import Recording, recordings_of_known_kinds

SECONDS = 4.0
LABEL_RATE = 12.5  # frame labels per second: the tagger's own rate
LN10 = 2.302585


@dataclass(frozen=True)
class Examples:
    """Spectrograms with labels.

    pictures: spectrograms, float16 [n, F, M]. labels: bool [n, C], which kinds occur. frames: bool [n, C, T], when they
    sound. timed: bool [n], False where the kinds are known but not their times.
    """

    pictures: Tensor
    labels: Tensor
    frames: Tensor
    timed: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, chosen: Tensor) -> "Examples":
        """The chosen examples, with spectrograms in float32."""
        return Examples(self.pictures[chosen].float(), self.labels[chosen], self.frames[chosen], self.timed[chosen])


def examples(sounds: Iterable[tuple]) -> Examples:
    """Examples of (waveform [1, 1, samples], events, timed) triples."""
    pictures, frames, timed = zip(*((log_mel(w).half(), frame_labels(e), t) for w, e, t in sounds), strict=True)
    frames = torch.stack(frames)
    return Examples(torch.cat(pictures).transpose(1, 2), frames.any(-1), frames, torch.tensor(timed))


def join(first: Examples, second: Examples) -> Examples:
    """Concatenate two sets of examples."""
    return Examples(*(torch.cat(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))


def corpus_clip(seed: int, split: str, index: int) -> tuple[Tensor, tuple, bool]:
    """Render one clip of the built-in corpus: (waveform [1, 1, 4 s], events, True)."""
    scene, _, rng = describe_clip(seed, split, index, SECONDS)
    wav = render_scene(scene, rng, int(SECONDS * SAMPLE_RATE))
    return torch.from_numpy(wav).view(1, 1, -1), scene.events, True


def plain_noise(seed: int, clips: int = 240) -> Examples:
    """Clips of steady noise without any event: a sixth silent, a third white, the rest coloured; rms 0.001 to 0.5."""
    rng, sounds = np.random.default_rng([seed, clips]), []
    for i in range(clips):
        curve = [(hz, 0 if i % 6 < 3 else rng.uniform(-15, 15)) for hz in (40, 200, 1000, 4000, 8000)]
        noise = coloured(rng, int(SECONDS * SAMPLE_RATE), curve) * 10 ** rng.uniform(-3, -0.3) * (i % 6 > 0)
        sounds.append((torch.from_numpy(noise.astype(np.float32)).view(1, 1, -1), (), True))
    return examples(sounds)


def frame_labels(events: Iterable[Event]) -> Tensor:
    """When each kind sounds: bool [C, T], `LABEL_RATE` frames per second, True where an event overlaps the frame."""
    frames = torch.zeros(len(KINDS), int(SECONDS * LABEL_RATE), dtype=torch.bool)
    for event in events:
        first = min(int(event.onset * LABEL_RATE), frames.shape[1] - 1)
        last = max(-int(-event.offset * LABEL_RATE // 1), first + 1)
        frames[KINDS.index(event.kind), first:last] = True
    return frames


def recordings(folder: str | Path, test_fold: str) -> tuple[list[tuple], list[tuple]]:
    """Real recordings as (waveform [1, 1, 4 s], events, False): those to train on, and those of the test fold.

    The single event of a recording lasts from beginning to end; the peak is that of an ordinary clip of the corpus.

    Raises:
        MinigenError: no folder is named after one of the corpus's kinds.
    """
    train, test = [], []
    for recording in training_recordings(folder, test_fold):
        wav = fit_length(peak_normalize(recording.load(), 0.6), int(SECONDS * SAMPLE_RATE))
        chosen = test if recording.fold == test_fold else train
        chosen.append((wav, (Event(recording.kind, 1, 0, SECONDS),), False))
    return train, test


def training_recordings(folder: str | Path, test_fold: str) -> list[Recording]:
    """The recordings that `recordings` reads; no file is opened.

    Raises:
        MinigenError: no folder is named after one of the corpus's kinds, or all recordings are of the test fold.
    """
    found = recordings_of_known_kinds(folder)
    if all(recording.fold == test_fold for recording in found):
        raise MinigenError(f"all recordings in {folder} are of the test fold {test_fold}. Add others.")
    return found


@dataclass(frozen=True)
class Augmentation:
    """Settings of `augment`. Powers and levels are base-10 logarithms, so that 0.1 is 1 dB.

    gain: range of the change of level. noise: range of the level of added noise. floor: smallest value of a
    spectrogram. mix: probability that another clip of the batch is added, with its labels. turn: shift clips in time,
    circularly.
    """

    gain: tuple[float, float]
    noise: tuple[float, float]
    floor: float
    mix: float = 0.0
    turn: bool = False


def augment(batch: Examples, how: Augmentation, generator: torch.Generator) -> Examples:
    """Augment a batch, with random numbers of its own for every clip.

    In order: mixing, circular shift, gain and filter (a smooth curve over the bands, 3 dB standard deviation), noise of
    random tilt (half of the clips), blur over 3 x 3 points as by a codec (a third), masks over a few bands and frames.
    """
    draw = PerClipRandom(len(batch), generator)
    batch = _mix(batch, draw, how.mix)
    batch = _turn(batch, draw) if how.turn else batch
    bands = batch.pictures.shape[2]
    x = batch.pictures + draw.uniform(*how.gain) + _curve(draw, 5, bands, 0.3)
    x = torch.where(draw.chance(0.5), add_powers(x, draw.uniform(*how.noise) + _noise(draw, x)), x)
    x = torch.where(draw.chance(0.33), avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)
    return replace(batch, pictures=_hide(x.clamp(min=how.floor), draw))


class PerClipRandom:
    """Random numbers for each clip of a batch, shaped [B, 1, 1] to broadcast over its spectrogram."""

    def __init__(self, clips: int, generator: torch.Generator):
        self.clips, self.generator = clips, generator

    def uniform(self, low: float, high: float) -> Tensor:
        """One number between `low` and `high` for each clip."""
        return low + (high - low) * torch.rand(self.clips, 1, 1, generator=self.generator)

    def chance(self, probability: float) -> Tensor:
        """True with `probability`, independently for each clip."""
        return self.uniform(0, 1) < probability


def add_powers(x: Tensor, y: Tensor) -> Tensor:
    """Base-10 logarithm of the sum of two powers, given as base-10 logarithms: two unrelated sounds at once."""
    return torch.logaddexp(x * LN10, y * LN10) / LN10


def _curve(draw: PerClipRandom, knots: int, bands: int, spread: float) -> Tensor:
    """A random smooth curve over the bands, [B, 1, M]."""
    points = spread * torch.randn(draw.clips, 1, knots, generator=draw.generator)
    return interpolate(points, bands, mode="linear", align_corners=True)


def _noise(draw: PerClipRandom, x: Tensor) -> Tensor:
    """Noise of random tilt around level 0, [B, F, M]. Low bands hold few bins of the transform and fluctuate most."""
    fluctuation = 0.434 / torch.linspace(1, 4, x.shape[2])
    return _curve(draw, 2, x.shape[2], 0.7) + fluctuation * torch.randn(x.shape, generator=draw.generator)


def _mix(batch: Examples, draw: PerClipRandom, probability: float) -> Examples:
    """Add the next clip, 0 to 8 dB softer, to some clips. Labels are united; the mixture is timed where both are."""
    mixed, softer = draw.chance(probability), draw.uniform(-0.8, 0.0)
    other = Examples(*(value.roll(1, 0) for value in vars(batch).values()))
    return Examples(
        torch.where(mixed, add_powers(batch.pictures, other.pictures + softer), batch.pictures),
        batch.labels | (other.labels & mixed[:, 0]),
        batch.frames | (other.frames & mixed),
        batch.timed & (other.timed | ~mixed[:, 0, 0]),
    )


def _turn(batch: Examples, draw: PerClipRandom) -> Examples:
    """Shift the batch in time, circularly, by a random number of label frames."""
    steps = int(torch.randint(batch.frames.shape[2], (1,), generator=draw.generator))
    per_label = batch.pictures.shape[1] / batch.frames.shape[2]
    pictures = batch.pictures.roll(round(steps * per_label), 1)
    return replace(batch, pictures=pictures, frames=batch.frames.roll(steps, 2))


def _hide(x: Tensor, draw: PerClipRandom) -> Tensor:
    """SpecAugment (arXiv 1904.08779): replace up to 8 bands, and up to 5 % of the time, by the clip's mean."""
    for axis, most in ((1, x.shape[1] // 20), (2, 8)):  # time, bands
        place = torch.arange(x.shape[axis]).view(1, -1, 1).transpose(1, axis)
        first, width = draw.uniform(0, x.shape[axis]), draw.uniform(0, most)
        x = torch.where((place >= first) & (place < first + width), x.mean((1, 2), keepdim=True), x)
    return x
