"""Evaluation: a set of clips becomes one row of numbers, and no row stands without its controls.

    captions --generate_for--> wavs --+
    real clips of the same captions --+--> Yardstick.measure --> Measurement --> table, save_csv
    other real clips (reference) -----+         judge: how well does it fit the caption?   tagger: which events, when?

The formulas are in `minigen.metrics`; here is decided what is compared with what, and by whom it is heard. A number is
read between its controls: real clips and their reconstruction by the codec are what a perfect model could reach with
these ears; noise, silence and other captions' clips are what a model reaches that does nothing.
"""

import csv
import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from minigen import metrics
from minigen.audio import SAMPLE_RATE, fit_length, resample
from minigen.corpus.clip import Clip
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically

NAN = math.nan
THRESHOLD = 0.5  # an event counts as heard from this probability on
REAL, CODEC, NOISE, SILENCE, SHUFFLED = "real clips", "codec reconstruction", "noise", "silence", "shuffled captions"
CONTROLS = (REAL, CODEC, NOISE, SILENCE, SHUFFLED)


class Column(NamedTuple):
    """A column of the table: field of `Measurement`, title, which way is better, how to read it."""

    field: str
    title: str
    better: str  # "low", "high" or ""
    reading: str


COLUMNS = (
    Column("clips", "n", "", "How many clips were measured."),
    Column("fad", "FAD", "low", "Fréchet distance between the tagger's features of these clips and of other real "
           "clips. Few clips raise it: compare it within this table only, with real clips as the floor."),
    Column("fad_infinity", "FAD inf", "low", "The same, extrapolated to infinitely many clips; noisier, and may fall "
           "below 0."),
    Column("kernel", "kernel", "low", "Kernel distance between the same features: free of the bias of small samples, "
           "around 0 for sets that are alike."),
    Column("kl", "KL", "low", "How far the events heard differ from those heard in the real clip of the same "
           "caption, in nats."),
    Column("clap", "CLAP", "high", "Cosine between sound and caption in the judge's space, -1 to 1, with its 95% "
           "interval."),
    Column("recall", "recall", "high", "Share of the events in the captions that the tagger hears with a probability "
           f"of at least {THRESHOLD:g}, with its 95% interval. Events that nobody asked for cost nothing here."),
    Column("of_codec", "of codec", "high", "That recall divided by the recall on real clips that only went through the "
           "codec: what the model loses, without what codec and tagger lose."),
    Column("order", "order", "high", "Share of the captions with one event after another whose events are heard in "
           "that order; 50% by chance."),
    Column("diversity", "diversity", "", "Mean cosine distance between two of the clips: 0 where all sound the same. "
           "Best near that of the real clips."),
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One row of the table. Not a number (nan) where a value does not apply, such as recall without known events.

    matches: cosine of each clip with its caption; their mean is `clap`. found: 1.0 or 0.0 for each event asked for,
    clip by clip; their mean is `recall`. Two models on the same captions have both in one order: see `difference`.
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
    matches: tuple[float, ...] = ()
    found: tuple[float, ...] = ()

    @cached_property
    def clap_interval(self) -> tuple[float, float]:
        """95% interval of `clap`, bootstrapped over the clips."""
        return _interval(self.matches)

    @cached_property
    def recall_interval(self) -> tuple[float, float]:
        """95% interval of `recall`, bootstrapped over the events as if those of one clip were independent."""
        return _interval(self.found)


class Yardstick:
    """What every row is measured with: the judge, the tagger, and the reference that FAD and the kernel distance use.

    judge, tagger: see `minigen.evaluation.clap`; the tagger may lack a timeline, then `order` is nan.
    reference: real waveforms [1, 1, samples] at 16 kHz of another split than the clips that will be measured.

    Raises:
        MinigenError: fewer than two reference clips.
    """

    def __init__(self, judge, tagger, reference: list[Tensor]):
        if len(reference) < 2:
            raise MinigenError(f"{len(reference)} reference clips. Give two or more real clips of another split.")
        self.judge, self.tagger, self._real = judge, tagger, (None, None)
        self.reference = tagger.embed(torch.cat(list(reference)))

    def measure(self, name: str, wavs: Tensor, clips: list[Clip], real: Tensor) -> Measurement:
        """Measure waveforms [n, 1, samples] at 16 kHz that answer the captions of `clips`.

        real: the true waveforms [n, 1, samples] of the same clips, for KL. Events are taken from `clips` as far as the
        tagger knows their kinds. FAD and kernel need 2 clips, FAD inf 4: nan for fewer.

        Raises:
            MinigenError: as many waveforms as clips are needed, and at least one.
        """
        if not len(wavs) == len(clips) == len(real) > 0:
            raise MinigenError(
                f"{len(wavs)} sounds, {len(clips)} clips and {len(real)} real sounds. Give as many of each."
            )
        features, probs = self.tagger.embed(wavs), self.tagger.probabilities(wavs)
        audio, text = self.judge.embed_audio(wavs), self.judge.embed_text([clip.caption for clip in clips])
        matches = tuple(metrics.clap_score(audio[i : i + 1], text[i : i + 1]) for i in range(len(clips)))
        true, enough = self.asked(clips), min(len(wavs), len(self.reference))
        return Measurement(
            name, len(wavs),
            fad=metrics.frechet_distance(self.reference, features) if enough >= 2 else NAN,
            fad_infinity=metrics.frechet_infinity(self.reference, features) if enough >= 4 else NAN,
            kernel=metrics.kernel_distance(self.reference, features) if enough >= 2 else NAN,
            kl=metrics.kl_divergence(self._heard_in_real(real), probs),
            clap=metrics.clap_score(audio, text),
            recall=metrics.event_recall(probs, true, THRESHOLD) if true.any() else NAN,
            order=self._order(wavs, clips),
            diversity=metrics.diversity(audio) if len(wavs) >= 2 else NAN,
            matches=matches,
            found=tuple(metrics.event_recall(probs[i : i + 1, [j]], true[i : i + 1, [j]], THRESHOLD)
                        for i, j in true.nonzero().tolist()),
        )  # fmt: skip

    def heard(self, wavs: Tensor) -> list[list[str]]:
        """The kinds that the tagger hears in each clip, the surest first."""
        order = self.tagger.probabilities(wavs).sort(dim=1, descending=True)
        return [
            [self.tagger.kinds[j] for p, j in zip(*row, strict=True) if p >= THRESHOLD]
            for row in zip(order.values.tolist(), order.indices.tolist(), strict=True)
        ]

    def asked(self, clips: list[Clip]) -> Tensor:
        """The events that truly sound: bool [n, C], columns in the order of the tagger's kinds."""
        kinds = [{event.kind for event in clip.events} for clip in clips]
        return torch.tensor([[kind in present for kind in self.tagger.kinds] for present in kinds])

    def _heard_in_real(self, real: Tensor) -> Tensor:
        """Probabilities of the real clips, kept for the next row."""
        if self._real[0] is not real:
            self._real = (real, self.tagger.probabilities(real))
        return self._real[1]

    def _order(self, wavs: Tensor, clips: list[Clip]) -> float:
        pairs = {i: pair for i, clip in enumerate(clips) if (pair := followed_by(clip, self.tagger.kinds))}
        if not pairs or not hasattr(self.tagger, "timeline"):
            return NAN
        lines = self.tagger.timeline(wavs[list(pairs)])
        first, second = ([self.tagger.kinds.index(pair[k]) for pair in pairs.values()] for k in (0, 1))
        rows = torch.arange(len(pairs))
        return metrics.order_accuracy(lines[rows, first], lines[rows, second])


def followed_by(clip: Clip, kinds: tuple[str, ...]) -> tuple[str, str] | None:
    """The first two different kinds of a clip of which one ends before the other begins; None where there are none."""
    events = [event for event in clip.events if event.kind in kinds]
    pairs = ((a, b) for a in events for b in events if a.offset <= b.onset and a.kind != b.kind)
    return next(((a.kind, b.kind) for a, b in pairs), None)


def generate_for(
    tta, captions: list[str], seconds: float = 4.0, guidance: float = 3.0, seed: int = 0, batch_size: int = 8,
    progress: bool = True, label: str = "generating",
) -> Tensor:  # fmt: skip
    """Sound for each caption, batch by batch: float32 [n, 1, seconds * 16000] at 16 kHz.

    Batch b is drawn with seed + b. The same captions in the same order therefore meet the same noise in every model:
    models are compared clip by clip. tta: a `minigen.generate.TextToAudio`.
    """
    from tqdm.auto import tqdm

    parts = []
    with tqdm(total=len(captions), desc=label, unit="clip", disable=not progress) as bar:
        for batch, i in enumerate(range(0, len(captions), batch_size)):
            part = captions[i : i + batch_size]
            wav = tta.generate(part, seconds=seconds, guidance=guidance, seed=seed + batch)
            parts.append(fit_length(resample(wav, tta.codec.sample_rate, SAMPLE_RATE), round(seconds * SAMPLE_RATE)))
            bar.update(len(part))
    return torch.cat(parts)


@torch.no_grad()
def control_sounds(real: Tensor, codec, seed: int = 0) -> dict[str, Tensor]:
    """What a model is compared with, by name, each [n, 1, samples] at 16 kHz as `real` is.

    Noise is white and as loud (rms) as the real clip. "Shuffled captions" are the real clips in another order, none in
    its place: each stands beside the caption of another.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(real.shape, generator=generator)
    order = torch.randperm(len(real), generator=generator)
    shuffled = torch.empty_like(real)
    shuffled[order] = real[order.roll(1)]  # a cycle through all clips leaves none in its place
    loudness = real.square().mean(-1, keepdim=True).sqrt()
    return {
        REAL: real,
        CODEC: torch.cat([_through(codec, part) for part in real.split(16)]),
        NOISE: (noise * loudness).clamp(-1, 1),
        SILENCE: torch.zeros_like(real),
        SHUFFLED: shuffled,
    }


def controls(yardstick: Yardstick, clips: list[Clip], real: Tensor, codec, seed: int = 0) -> list[Measurement]:
    """Rows of the table that a model is read between, in the order of CONTROLS; see `control_sounds`."""
    return [yardstick.measure(name, wavs, clips, real) for name, wavs in control_sounds(real, codec, seed).items()]


def difference(one: Measurement, other: Measurement, of: str = "found", seed: int = 0) -> tuple[float, float, float]:
    """Mean of `one` minus `other` on the same captions, and its 95% interval: (mean, low, high).

    of: "found" (recall) or "matches" (CLAP score). Where the interval holds 0 the two cannot be told apart.

    Raises:
        MinigenError: measured on other captions.
    """
    pairs = getattr(one, of), getattr(other, of)
    if len(pairs[0]) != len(pairs[1]):
        raise MinigenError(f"{one.name} and {other.name} were measured on different captions. Use the same for both.")
    values = [a - b for a, b in zip(*pairs, strict=True)]
    mean = sum(values) / len(values) if values else NAN
    return mean, *_interval(values, seed)


def of_codec(row: Measurement, rows: list[Measurement]) -> float:
    """Recall as a share of that of the codec's reconstruction among `rows`; nan where there is none to divide by."""
    base = next((other.recall for other in rows if other.name == CODEC), NAN)
    return row.recall / base if base > 0 else NAN


def cells(rows: list[Measurement]) -> list[list[str]]:
    """The table as text, a list for each measurement: its name, then COLUMNS."""
    return [[row.name, *(_cell(column.field, row, rows) for column in COLUMNS)] for row in rows]


def table(measurements: list[Measurement]) -> str:
    """A Markdown table, aligned so that it reads in a terminal too."""
    lines = [["", *(column.title for column in COLUMNS)], *cells(measurements)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rows = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))] for line in lines
    ]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def save_csv(path: str | Path, measurements: list[Measurement], extra: list[dict] | None = None) -> None:
    """Write the measurements with all their digits, intervals as two columns; nan is left empty.

    extra: for each row, further columns that come first, such as {"guidance": 3.0}.

    Raises:
        MinigenError: the place cannot be written.
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
    place = next((weights.device for weights in codec.parameters()), wav.device)
    there = codec.decode(codec.encode(resample(wav, SAMPLE_RATE, codec.sample_rate).to(place))).to(wav.device)
    return fit_length(resample(there, codec.sample_rate, SAMPLE_RATE), wav.shape[-1])


def _interval(values: tuple[float, ...] | list[float], seed: int = 0) -> tuple[float, float]:
    return metrics.bootstrap_interval(values, seed) if len(values) >= 2 else (NAN, NAN)


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
