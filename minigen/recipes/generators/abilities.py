"""Figures of what one kind of generator can do and the others cannot: repair, wider bands, styles.

    python -m minigen.recipes.generators.abilities mini-masked corpus       data/generators/mini-masked/abilities.csv
    python -m minigen.recipes.generators.abilities mini-discrete corpus
    python -m minigen.recipes.generators.abilities mini-latent corpus
    python -m minigen.recipes.generators.abilities mini-style corpus

The corpus is the one of the training; its test split is measured, which no model has heard. The model's card
(`minigen.recipes.generators.ship`) shows the rows. Each row is a mean over clips with its 95 % interval over clips, and
each kind of figure stands beside its control:

    masked   half a second in the middle is hidden and repaired. Seam: whether the spectral flux at both edges is below
             the 95th percentile of the recording's own flux. Control: the recording itself.
    discrete captions at 25 steps, with the exact stride of the library and with that of two released samplers (notebook
             12), with the same seed: share of the captions' events that is heard, and the paired difference.
    latent   a clip is muffled at 2 kHz and made whole. Gain: distance to the original above 2 kHz of the codec's output
             of the muffled clip, less that of the extended clip, in log10. Control: the model's part is left out.
    style    an excerpt of 2 s, without a caption: likeness and copying (`minigen.metrics`) over the codebooks q.
             Controls: the excerpt after the codec, and the output for another excerpt. Then a caption of one clip with
             the style of another, over the guidance β, with α = 1: share of the caption's events that is heard, and
             likeness to the excerpt. Then kinds of sound that the corpus lacks (`minigen.course.new_kind`), with and
             without retrieved styles, each by a detector of its own (`minigen.evaluation.probe`).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigen.audio import log_mel
from minigen.corpus.readers import read_corpus
from minigen.corpus.subsets import load_some
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_rows
from minigen.engine.hub import ROOT
from minigen.generate import TextToAudio
from minigen.generators.base import generator_name
from minigen.generators.discrete_diffusion import DiscreteSampler
from minigen.generators.filling import blank
from minigen.generators.iterate import iterate
from minigen.guidance import Condition
from minigen.metrics import bootstrap_interval, is_nearest, neighbours_in_common

FILE = "abilities.csv"
CLIPS, OTHERS, SECONDS, SEED = 10, 200, 4.0, 0
HOLE = (1.75, 2.25)  # seconds
CUTOFF = 2000.0  # Hz
EXCERPT = 32000  # samples of a style, 2 s
STYLES, CAPTIONS_OF_STRIDES, STEPS = 200, 40, 25
AT_ONCE = 25  # clips with a style that are generated together
REMEMBERED, EACH = 10, 4  # recordings of a new kind in the collection; sounds for each caption


class Row(NamedTuple):
    """One figure: its name, the number of clips, their mean, and the mean's 95 % interval."""

    figure: str
    clips: int
    value: float
    low: float
    high: float


def row(figure: str, values: Sequence[float]) -> Row:
    """The figure of some clips."""
    return Row(figure, len(values), float(np.mean(values)), *bootstrap_interval(list(values), seed=0))


# masked


def flux(wav: Tensor) -> Tensor:
    """Mean change of the log-mel bands from frame to frame: [1, samples] -> [frames - 1]."""
    return log_mel(wav[None])[0].diff(dim=-1).abs().mean(0)


def is_smooth(wav: Tensor, recording: Tensor, edges: Sequence[int]) -> bool:
    """Whether the flux of a clip [1, samples] at some frames is below the recording's own 95th percentile."""
    return bool((flux(wav)[list(edges)] <= flux(recording).quantile(0.95)).all())


def repairs(tta: TextToAudio, wavs: Tensor, captions: list[str]) -> list[Row]:
    """Rows of repaired holes in recordings [n, 1, samples]."""
    mended = torch.cat([tta.inpaint(wav[None], caption, *HOLE, seed=SEED)
                        for wav, caption in zip(wavs, captions, strict=True)])  # fmt: skip
    frames = flux(wavs[0]).shape[0] + 1
    edges = [round(second / SECONDS * frames) - 1 for second in HOLE]
    codes = tta.codec.encode(wavs)  # [n, K, T]
    hole = torch.zeros(codes.shape[-1], dtype=torch.bool)
    rate = codes.shape[-1] / SECONDS
    hole[int(HOLE[0] * rate) : int(HOLE[1] * rate)] = True
    filled = tta.inpaint_codes(codes, captions, hole, seed=SEED)
    kept = [float(torch.equal(a[:, ~hole], b[:, ~hole])) for a, b in zip(codes, filled, strict=True)]
    return [
        row(
            "seam not louder than elsewhere",
            [float(is_smooth(*pair, edges)) for pair in zip(mended, wavs, strict=True)],
        ),
        row("the same places in the recording", [float(is_smooth(wav, wav, edges)) for wav in wavs]),
        row("cells outside the hole unchanged", kept),
    ]


# discrete


class ReleasedSampler(DiscreteSampler):
    """The sampler with the stride of `sample_fast` in VQ-Diffusion and Diffsound: single steps, whatever is skipped."""

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """As `DiscreteSampler.step`, but the state of time t is taken for one of time s + 1."""
        return super().step(state, known, s + 1, s, predicted, generator)


def strides(tta: TextToAudio, captions: list[str], asked: Tensor, tagger) -> list[Row]:
    """Rows of the exact and the released stride at `STEPS` steps. asked: bool [n, kinds], events of the captions."""
    generator = tta.generator
    shares = {}
    for name, sampler in (("exact", DiscreteSampler), ("released", ReleasedSampler)):
        found = []
        for first in range(0, len(captions), 8):
            text = Condition(*tta.encoder(captions[first : first + 8]))
            known = blank(text, round(50 * SECONDS), generator.config, generator.device, None)  # [B, K, T]
            draw = torch.Generator().manual_seed(SEED)
            made = iterate(generator.model, sampler(generator.transitions), known, text.memory, text.memory_mask, STEPS,
                           3.0, draw, False)  # fmt: skip
            heard = tagger.probabilities(tta.sound(made.state)) >= 0.5  # [B, kinds]
            found += share_heard(heard, asked[first : first + 8])
        shares[name] = found
    rows = [row(f"{name} stride, {STEPS} steps: events heard", each) for name, each in shares.items()]
    return [*rows, row("exact less released", [a - b for a, b in zip(*shares.values(), strict=True)])]


def share_heard(heard: Tensor, asked: Tensor) -> list[float]:
    """Share of each caption's events that is heard; both bool [n, kinds]."""
    return [float((h & w).sum() / w.sum()) for h, w in zip(heard, asked, strict=True)]


# latent


def muffle(wavs: Tensor, rate: int, cutoff: float = CUTOFF) -> Tensor:
    """Clips without what lies above the cutoff: [n, 1, samples] -> [n, 1, samples]."""
    spectrum = torch.fft.rfft(wavs)
    spectrum[..., round(cutoff / rate * wavs.shape[-1]) :] = 0
    return torch.fft.irfft(spectrum, n=wavs.shape[-1])


def distance_above(wav: Tensor, original: Tensor, rate: int, cutoff: float = CUTOFF) -> float:
    """Mean distance of the log10 spectra of two clips [1, samples] above the cutoff."""

    def high(sound: Tensor) -> Tensor:
        spectrum = torch.stft(sound[0], 512, 256, window=torch.hann_window(512), return_complex=True).abs()  # [257, t]
        return (spectrum[round(cutoff / rate * 512) + 1 :] + 1e-4).log10()

    samples = min(wav.shape[-1], original.shape[-1])
    return float((high(wav[..., :samples]) - high(original[..., :samples])).abs().mean())


def bands(tta: TextToAudio, wavs: Tensor, captions: list[str]) -> list[Row]:
    """Rows of muffled clips [n, 1, samples] that are made whole."""
    from minigen.generators.bandwidth import extend_bandwidth, low_bands

    rate = tta.codec.sample_rate
    muffled = muffle(wavs, rate)
    passed = tta.codec.decode(tta.codec.encode(muffled))
    whole = extend_bandwidth(tta, muffled, captions, CUTOFF, seed=SEED)
    model = tta.generator.model
    mean = torch.zeros(len(wavs), -(-wavs.shape[-1] // tta.codec.config.hop), model.config.components)
    alone = tta.sound(model.to_latents(low_bands(tta.codec, model, muffled, CUTOFF)(mean)))
    before = [distance_above(*pair, rate) for pair in zip(passed, wavs, strict=True)]
    rows = []
    for name, made in (("extended", whole), ("the known bands alone", alone)):
        after = [distance_above(*pair, rate) for pair in zip(made, wavs, strict=True)]
        gains = [a - b for a, b in zip(before, after, strict=True)]
        rows.append(row(f"{name}: gain above 2 kHz", gains))
        rows.append(row(f"{name}: share of clips with a gain", [float(gain > 0) for gain in gains]))
    return rows


# style


def in_parts(
    tta: TextToAudio, captions: list[str] | None, excerpts: Tensor | None, guidance: float = 3.0, **how
) -> Tensor:
    """Sounds [n, 1, 32000] of captions, of excerpts [n, 1, samples], or of both, `AT_ONCE` of them at a time."""
    count = len(excerpts if captions is None else captions)  # type: ignore[arg-type]
    made = []
    for first in range(0, count, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        style = {} if excerpts is None else {"style": excerpts[part], **how}
        made.append(tta.generate(captions and captions[part], 2.0, guidance, seed=SEED + first, **style))
    return torch.cat(made)


def styles(
    tta: TextToAudio, wavs: Tensor, captions: list[str], asked: Tensor, others: Tensor, judge, tagger
) -> list[Row]:
    """Rows of styles: likeness and copying over q, then the conflict of a caption and a style over β.

    wavs: [n, 1, samples]. asked: bool [n, kinds], the events of the captions. others: [m, 1, samples] of other clips.
    """
    excerpts = wavs[..., :EXCERPT]
    near, far = judge.embed_audio(excerpts), judge.embed_audio(others[..., :EXCERPT])
    made = {q: in_parts(tta, None, excerpts, codebooks=q) for q in (1, 3, 6)}
    rows = []
    for q, sounds in made.items():
        rows.append(row(f"q = {q}: neighbours in common", _each(neighbours_in_common, near, sounds, far, judge)))
        rows.append(row(f"q = {q}: copied", _each(is_nearest, near, sounds, far, judge)))
    copies, strangers = through_codec(tta, excerpts), made[3].roll(1, 0)
    rows.append(row("the excerpt after the codec: neighbours in common",
                    _each(neighbours_in_common, near, copies, far, judge)))  # fmt: skip
    rows.append(row("another's output, q = 3: neighbours in common",
                    _each(neighbours_in_common, near, strangers, far, judge)))  # fmt: skip
    for beta in (1.0, 3.0, 5.0, 7.0):
        mixed = in_parts(tta, [*captions[1:], captions[0]], excerpts, 1.0, style_guidance=beta)
        shares = share_heard(tagger.probabilities(mixed) >= 0.5, asked.roll(-1, 0))
        rows.append(row(f"β = {beta:g}: events of the caption heard", shares))
        rows.append(row(f"β = {beta:g}: neighbours in common", _each(neighbours_in_common, near, mixed, far, judge)))
    return rows


def _each(metric: Callable, near: Tensor, sounds: Tensor, far: Tensor, judge) -> list[float]:
    """A metric of every clip by itself."""
    made = judge.embed_audio(sounds)
    return [metric(near[i : i + 1], made[i : i + 1], far) for i in range(len(near))]


def through_codec(tta: TextToAudio, wavs: Tensor) -> Tensor:
    """The first 2 s of sounds after the codec: [n, 1, samples] -> [n, 1, 32000]."""
    return torch.cat([tta.codec.decode(tta.codec.encode(part)) for part in wavs[..., :EXCERPT].split(16)])


def retrieval(tta: TextToAudio, others: Tensor, captions: list[str], judge) -> list[Row]:
    """Rows of kinds that the corpus lacks: share of sounds with the kind, for captions alone and with retrieved styles.

    The collection holds some recordings of each new kind, and half of the `others`. The other half are the negative
    examples of the detectors. No caption that is asked for is in the collection, and no detector learns from its
    recordings.
    """
    from minigen.course.new_kind import NEW_KINDS, recordings
    from minigen.evaluation.probe import train_probe

    half = len(others) // 2
    known = [(wav, caption) for wav, caption in zip(others[:half], captions, strict=False)]
    for kind, new in NEW_KINDS.items():
        some = recordings(kind, REMEMBERED, seed=0)
        known += [(wav, new.captions[i % len(new.captions)]) for i, wav in enumerate(some)]
    find = collection(tta, known, judge)
    negatives = judge.embed_audio(through_codec(tta, others[half:]))
    found: dict[str, list[float]] = {"unseen recordings": [], "caption alone": [], "caption and retrieved style": [],
                                     "retrieved style": []}  # fmt: skip
    rows = []
    for kind, new in NEW_KINDS.items():
        probe = train_probe(judge.embed_audio(through_codec(tta, recordings(kind, 32, seed=1))), negatives)
        asked = [*new.asked] * EACH
        styles = torch.cat([find([*new.asked], k) for k in range(1, EACH + 1)])  # [n, 1, samples]
        sounds = {
            "unseen recordings": through_codec(tta, recordings(kind, 20, seed=2)),
            "caption alone": in_parts(tta, asked, None),
            "caption and retrieved style": in_parts(tta, asked, styles, style_guidance=1.0, codebooks=6),
            "retrieved style": in_parts(tta, None, styles, codebooks=6),
        }
        for name, wavs in sounds.items():
            heard = [float(p > 0.5) for p in probe.probabilities(judge.embed_audio(wavs))]
            found[name] += heard
            if name in ("caption alone", "retrieved style"):
                rows.append(row(f"{kind}, {name}", heard))
    return [row(f"new kinds, {name}", heard) for name, heard in found.items()] + rows


def collection(tta: TextToAudio, known: list[tuple[Tensor, str]], judge) -> Callable[[list[str], int], Tensor]:
    """A function of captions and k that gives the loudest 2 s of the k-th nearest of some clips with captions."""
    from minigen.conditioning.retrieval import ClipMemory, retrieve_styles
    from minigen.corpus.tokens import TokenSet

    codes = torch.cat([tta.codec.encode(wav[None, :, :EXCERPT]) for wav, _ in known])  # [n, K, T]
    n = len(known)
    clips = TokenSet(codes.numpy().astype(np.int16), [caption for _, caption in known], [()] * n, [[]] * n, 50.0,
                     tta.codec.codebook_size)  # fmt: skip
    remembered = ClipMemory.build(clips, tta.codec, judge, progress=False)
    return lambda captions, k: retrieve_styles(captions, remembered, clips, tta.codec, judge, k)


# the command


def measure(name: str, corpus: str) -> list[Row]:
    """All rows of a model."""
    tta, kind = TextToAudio.from_pretrained(name), generator_name(name)
    test = read_corpus(corpus, "test", None, SECONDS, tta.codec.sample_rate)
    count = {"style": STYLES, "discrete": CAPTIONS_OF_STRIDES}.get(kind, CLIPS)
    clips, sounds = load_some(test, count + OTHERS, SEED)
    wavs, captions = torch.cat(sounds[:count]), [clip.caption for clip in clips]  # [n, 1, samples]
    if kind == "masked":
        return repairs(tta, wavs, captions[:count])
    if kind == "latent":
        return bands(tta, wavs, captions[:count])
    if kind not in ("discrete", "style"):
        raise MinigenError(f"{name} is a {kind} generator, which has no ability of its own. Name another model.")
    from minigen.evaluation.clap import load_judge, load_tagger

    judge, tagger, others = load_judge(), load_tagger(), torch.cat(sounds[count:])
    present = [{event.kind for event in clip.events} for clip in clips[:count]]
    asked = torch.tensor([[kind in kinds for kind in tagger.kinds] for kinds in present])  # [n, kinds]
    if kind == "discrete":
        return strides(tta, captions[:count], asked, tagger)
    rows = styles(tta, wavs, captions[:count], asked, others, judge, tagger)
    return rows + retrieval(tta, others, captions[count:], judge)


def save(rows: list[Row], path: Path) -> None:
    """Write the rows as CSV."""
    write_rows(path, [each._asdict() for each in rows])


def main(name: str, corpus: str) -> None:
    """Measure a model, print the rows and write them beside it."""
    rows = measure(name, corpus)
    for each in rows:
        print(f"{each.figure:50} {each.value:.3f} [{each.low:.3f}, {each.high:.3f}]  {each.clips} clips")
    save(rows, ROOT / "data/generators" / name / FILE)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
