"""Measurement of a set of clips: one row of numbers for each model, and one for each control.

    captions --generate_for--> wavs --+
    real clips of the same captions --+--> Yardstick.measure --> Measurement --> table, save_csv
    other real clips (reference) -----+         CLAP model: fit to the caption      event tagger: which events, when

The formulas are in `minigen.metrics`. This module decides which sets are compared, and which models embed them. Every
number is read between its controls. Real clips, and real clips after the codec, are what a perfect model could reach
with this CLAP model and tagger. Noise, silence and real clips beside other captions are what chance reaches.
"""

import csv
import hashlib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigen import metrics
from minigen.audio import SAMPLE_RATE, fit_length, resample
from minigen.corpus.clip import Clip
from minigen.display.tables import padded_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.evaluation import bootstrap

NAN = math.nan
THRESHOLD = 0.5  # an event counts as heard if its probability is at least this
REAL, CODEC, NOISE, SILENCE, SHUFFLED = "real clips", "codec reconstruction", "noise", "silence", "shuffled captions"
CONTROLS = (REAL, CODEC, NOISE, SILENCE, SHUFFLED)


class Column(NamedTuple):
    """A column of the table.

    field: of `Measurement`; better: "low", "high", or "" where neither is; reading: an explanation for readers.
    """

    field: str
    title: str
    better: str
    reading: str


COLUMNS = (
    Column("clips", "n", "", "Number of clips measured."),
    Column("fad", "FAD", "low", "Fréchet distance between the tagger's features of these clips and of other real "
           "clips. It is larger for few clips: compare it within this table only. Real clips give the lowest value."),
    Column("fad_infinity", "FAD inf", "low", "FAD extrapolated to infinitely many clips. It is noisier, and can be "
           "below 0."),
    Column("kernel", "kernel", "low", "Kernel distance between the same features. It has no bias for few clips: about "
           "0 for two sets of one distribution."),
    Column("kl", "KL", "low", "Divergence of the event probabilities from those of the real clip with the same "
           "caption, in nats."),
    Column("clap", "CLAP", "high", "Cosine of sound and caption in the CLAP model's space, -1 to 1, with its 95% "
           "interval."),
    Column("recall", "recall", "high", "Share of the events in the captions that the tagger hears with a probability "
           f"of at least {THRESHOLD:g}, with its 95% interval. Additional events in the sound cost nothing."),
    Column("of_codec", "of codec", "high", "Recall divided by the recall of real clips after the codec: what the model "
           "loses, without the losses of codec and tagger."),
    Column("order", "order", "high", "Share of the captions with two successive events whose events are heard in that "
           "order; 50% by chance."),
    Column("diversity", "diversity", "", "Mean cosine distance between two of the clips, 0 if all are the same. "
           "Best near the value of the real clips."),
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One row of the table; nan where a value does not apply, such as recall without known events.

    The last fields belong to the single clips, for intervals and for `difference`:

    matches: cosine of each clip with its caption; `clap` is their mean.
    asked, found: number of events in each caption, and how many of them are heard; `recall` is their ratio.
    features: the tagger's features [n, E] that FAD compares. sounds: the judge's embeddings [n, E] that `diversity`
    compares. A recording with several captions has one row in both.
    """

    name: str
    clips: int
    fad: float
    fad_infinity: float
    kernel: float
    kl: float
    clap: float
    recall: float
    order: float
    diversity: float
    matches: tuple[float, ...]
    asked: tuple[int, ...]
    found: tuple[int, ...]
    features: Tensor | None = field(default=None, repr=False, compare=False)
    sounds: Tensor | None = field(default=None, repr=False, compare=False)

    @cached_property
    def clap_interval(self) -> tuple[float, float]:
        """95% interval of `clap`, bootstrapped over the clips."""
        return _mean_interval(self.matches)

    @cached_property
    def recall_interval(self) -> tuple[float, float]:
        """95% interval of `recall`, bootstrapped over the clips: the events of one clip are drawn together."""
        return bootstrap.interval(_recall_ratio(self))


class Yardstick:
    """Measures sets of clips, all with the same CLAP model, event tagger and reference clips.

    Args:
        judge: CLAP model, see `minigen.evaluation.clap`.
        tagger: event tagger, see `minigen.evaluation.tagger`. If it has no `timeline`, `order` is nan.
        reference: real waveforms [1, 1, samples] at 16 kHz, of another split than the measured clips; FAD and the
            kernel distance compare with them.

    Raises:
        MinigenError: fewer than two reference clips.
    """

    def __init__(self, judge, tagger, reference: list[Tensor]):
        if len(reference) < 2:
            raise MinigenError(f"{len(reference)} reference clips. Give two or more real clips of another split.")
        self.judge, self.tagger = judge, tagger
        self._real: tuple[Tensor | None, Tensor | None] = (None, None)  # real clips, and their event probabilities
        self.reference = tagger.embed(torch.cat(list(reference)))

    def measure(self, name: str, wavs: Tensor, clips: list[Clip], real: Tensor) -> Measurement:
        """Measure one set of clips.

        FAD and the kernel distance are nan for fewer than 2 clips, FAD inf for fewer than 4.

        Args:
            name: of the row.
            wavs: waveforms for the captions of `clips`, [n, 1, samples] at 16 kHz.
            clips: captions and events; events of a kind that the tagger does not know are left out.
            real: true waveforms of the same clips, [n, 1, samples], for KL.

        Raises:
            MinigenError: different numbers of waveforms, clips and real waveforms, or none.
        """
        if not len(wavs) == len(clips) == len(real) > 0:
            raise MinigenError(
                f"{len(wavs)} sounds, {len(clips)} clips and {len(real)} real sounds. Give as many of each."
            )
        features, probs = self.tagger.embed(wavs), self.tagger.probabilities(wavs)
        audio, text = self.judge.embed_audio(wavs), self.judge.embed_text([clip.caption for clip in clips])
        matches = tuple(metrics.clap_score(audio[i : i + 1], text[i : i + 1]) for i in range(len(clips)))
        once = [rows[0] for rows in _recordings(real, range(len(real)))]
        true, enough, own = self.asked(clips), min(len(once), len(self.reference)), features[once]
        found = true & (probs >= THRESHOLD).cpu()
        return Measurement(
            name, len(wavs),
            fad=metrics.frechet_distance(self.reference, own) if enough >= 2 else NAN,
            fad_infinity=metrics.frechet_infinity(self.reference, own) if enough >= 4 else NAN,
            kernel=metrics.kernel_distance(self.reference, own) if enough >= 2 else NAN,
            kl=metrics.kl_divergence(self._heard_in_real(real), probs),
            clap=metrics.clap_score(audio, text),
            recall=metrics.event_recall(probs, true, THRESHOLD) if true.any() else NAN,
            order=self._order(wavs, clips),
            diversity=metrics.diversity(audio[once]) if len(once) >= 2 else NAN,
            matches=matches,
            asked=tuple(true.sum(1).tolist()),
            found=tuple(found.sum(1).tolist()),
            features=own,
            sounds=audio[once],
        )  # fmt: skip

    def heard(self, wavs: Tensor) -> list[list[str]]:
        """Kinds of events that the tagger hears in each clip, the most probable first."""
        heard = []
        for probs in self.tagger.probabilities(wavs):
            order = probs.argsort(descending=True).tolist()
            heard.append([self.tagger.kinds[j] for j in order if probs[j] >= THRESHOLD])
        return heard

    def asked(self, clips: list[Clip]) -> Tensor:
        """Which kinds of events each clip truly has: bool [n, C], columns in the order of the tagger's kinds."""
        kinds = [{event.kind for event in clip.events} for clip in clips]
        return torch.tensor([[kind in present for kind in self.tagger.kinds] for present in kinds])

    def _heard_in_real(self, real: Tensor) -> Tensor:
        """Event probabilities of the real clips [n, C], computed once for all rows."""
        if self._real[0] is not real:
            self._real = (real, self.tagger.probabilities(real))
        return self._real[1]

    def _order(self, wavs: Tensor, clips: list[Clip]) -> float:
        pairs = {i: pair for i, clip in enumerate(clips) if (pair := followed_by(clip, self.tagger.kinds))}
        if not pairs or not hasattr(self.tagger, "timeline"):
            return NAN
        lines = self.tagger.timeline(wavs[list(pairs)])  # [pairs, C, F]
        first = [self.tagger.kinds.index(kind) for kind, _ in pairs.values()]
        second = [self.tagger.kinds.index(kind) for _, kind in pairs.values()]
        rows = torch.arange(len(pairs))
        return metrics.order_accuracy(lines[rows, first], lines[rows, second])


def followed_by(clip: Clip, kinds: tuple[str, ...]) -> tuple[str, str] | None:
    """First two events of different kinds of which one ends before the other begins, as kinds; None without such."""
    events = [event for event in clip.events if event.kind in kinds]
    pairs = ((a, b) for a in events for b in events if a.offset <= b.onset and a.kind != b.kind)
    return next(((a.kind, b.kind) for a, b in pairs), None)


def generate_for(
    tta, captions: list[str], seconds: float = 4.0, guidance: float = 3.0, seed: int = 0, batch_size: int = 8,
    progress: bool = True, label: str = "generating", **how,
) -> Tensor:  # fmt: skip
    """Waveforms for captions, generated in batches: float32 [n, 1, seconds * 16000] at 16 kHz.

    Batch b is sampled with the seed `seed` + b. Two models therefore get the same random numbers for the same captions,
    and can be compared clip by clip. tta: a `minigen.generate.TextToAudio`. how: further options of its `generate`.
    """
    from tqdm.auto import tqdm

    parts = []
    with tqdm(total=len(captions), desc=label, unit="clip", disable=not progress) as bar:
        for batch, i in enumerate(range(0, len(captions), batch_size)):
            part = captions[i : i + batch_size]
            wav = tta.generate(part, seconds=seconds, guidance=guidance, seed=seed + batch, **how)
            parts.append(fit_length(resample(wav, tta.codec.sample_rate, SAMPLE_RATE), round(seconds * SAMPLE_RATE)))
            bar.update(len(part))
    return torch.cat(parts)


@torch.no_grad()
def control_sounds(real: Tensor, codec, seed: int = 0) -> dict[str, Tensor]:
    """Waveforms of the controls by name, each [n, 1, samples] at 16 kHz like `real`.

    Noise is white, with the root mean square of the real clip. "Shuffled captions" are the real clips in another order:
    each stands beside the caption of another clip and of another recording.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(real.shape, generator=generator)
    order, shift = _by_recording(torch.randperm(len(real), generator=generator), real)
    shuffled = torch.empty_like(real)
    shuffled[order] = real[order.roll(shift)]  # a cycle through all clips: none keeps its place
    loudness = real.square().mean(-1, keepdim=True).sqrt()
    return {
        REAL: real,
        CODEC: torch.cat([_through(codec, part) for part in real.split(16)]),
        NOISE: (noise * loudness).clamp(-1, 1),
        SILENCE: torch.zeros_like(real),
        SHUFFLED: shuffled,
    }


def _recordings(real: Tensor, rows: Iterable[int]) -> list[list[int]]:
    """Some rows of `real` in groups of one recording: clips with several captions have one row for each."""
    groups: dict[bytes, list[int]] = {}
    for row in rows:
        groups.setdefault(hashlib.sha256(real[row].cpu().numpy().tobytes()).digest(), []).append(row)
    return list(groups.values())


def _by_recording(order: Tensor, real: Tensor) -> tuple[Tensor, int]:
    """The order with the clips of one recording side by side, and the number of places by which it is moved.

    Moved by the size of the largest group, no clip meets its own recording (unless one has more than half of the
    clips). Where every recording has one clip, the order stays as it is and is moved by 1.
    """
    groups = _recordings(real, order.tolist())
    return torch.tensor([row for group in groups for row in group]), max(map(len, groups))


def controls(yardstick: Yardstick, clips: list[Clip], real: Tensor, codec, seed: int = 0) -> list[Measurement]:
    """Rows of the controls, in the order of CONTROLS; see `control_sounds`."""
    return [yardstick.measure(name, wavs, clips, real) for name, wavs in control_sounds(real, codec, seed).items()]


def difference(one: Measurement, other: Measurement, of: str = "found", seed: int = 0) -> tuple[float, float, float]:
    """`one` minus `other` on the same captions, with its 95% interval: (difference, low, high).

    The bootstrap draws clips. If the interval includes 0, these clips do not tell the two apart.
    of: "found" for recall, "matches" for the CLAP score.

    Raises:
        MinigenError: the two were measured on different captions.
    """
    if len(one.matches) != len(other.matches) or one.asked != other.asked:
        raise MinigenError(f"{one.name} and {other.name} were measured on different captions. Use the same for both.")
    if of == "found":
        return bootstrap.paired_difference(_recall_ratio(one), _recall_ratio(other), seed)[:3]
    values = [a - b for a, b in zip(one.matches, other.matches, strict=True)]
    mean = sum(values) / len(values) if values else NAN
    return mean, *_mean_interval(values, seed)


def of_codec(row: Measurement, rows: list[Measurement]) -> float:
    """Recall divided by the recall of the codec reconstruction among `rows`; nan without such a row."""
    base = next((other.recall for other in rows if other.name == CODEC), NAN)
    return row.recall / base if base > 0 else NAN


def cells(rows: list[Measurement]) -> list[list[str]]:
    """Cells of the table as text: for each measurement its name, then COLUMNS."""
    return [[row.name, *(_cell(column.field, row, rows) for column in COLUMNS)] for row in rows]


def table(measurements: list[Measurement]) -> str:
    """A Markdown table whose columns also line up in a terminal."""
    return padded_table(["", *(column.title for column in COLUMNS)], cells(measurements))


def save_csv(path: str | Path, measurements: list[Measurement], extra: list[dict] | None = None) -> None:
    """Write the measurements with all digits. Intervals become two columns, nan an empty cell.

    extra: further columns for each row, placed first, such as {"guidance": 3.0}.

    Raises:
        MinigenError: the file cannot be written.
    """
    rows = []
    for i, row in enumerate(measurements):
        values = {column.field: _value(column.field, row, measurements) for column in COLUMNS}
        for name in ("clap", "recall"):
            values[f"{name}_low"], values[f"{name}_high"] = getattr(row, f"{name}_interval")
        values = {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}
        rows.append({**(extra[i] if extra else {}), "name": row.name, **values})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def _through(codec, wav: Tensor) -> Tensor:
    """Waveforms after encoding and decoding, at 16 kHz and of the same length."""
    device = next((weights.device for weights in codec.parameters()), wav.device)
    codes = codec.encode(resample(wav, SAMPLE_RATE, codec.sample_rate).to(device))
    decoded = codec.decode(codes).to(wav.device)
    return fit_length(resample(decoded, codec.sample_rate, SAMPLE_RATE), wav.shape[-1])


def _mean_interval(values: tuple[float, ...] | list[float], seed: int = 0) -> tuple[float, float]:
    return metrics.bootstrap_interval(values, seed) if len(values) >= 2 else (NAN, NAN)


def _recall_ratio(row: Measurement) -> bootstrap.Ratio:
    """Events heard and events asked for, [1, n] each, as the bootstrap takes them."""
    return bootstrap.Ratio(np.array([row.found], float), np.array([row.asked], float))


def _value(field: str, row: Measurement, rows: list[Measurement]) -> float:
    return of_codec(row, rows) if field == "of_codec" else getattr(row, field)


def _cell(field: str, row: Measurement, rows: list[Measurement]) -> str:
    value = _value(field, row, rows)
    if math.isnan(value):
        return "n/a"
    if field == "clips":
        return str(value)
    if field in ("order", "of_codec"):
        return f"{value:.0%}"
    if field == "recall":
        low, high = row.recall_interval
        return f"{value:.0%}" + ("" if math.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]")
    if field == "clap":
        low, high = row.clap_interval
        return f"{value:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
