"""The demo: the whole chain in about ten minutes, from an empty folder to a page of sounds, figures and a table.

corpus ─► tokens ─► live training ─► generation ─► measurement ─► report.html, table.csv, sweep.csv, audio/
                    one model, and      live model; shipped: no       with the controls
                    its use of the      guidance, guidance,           in the same table
                    captions            guidance + regulariser
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from minigen.app.demo.live import Live, LiveConfig, new_model, tokens_for, train_live
from minigen.app.demo.report import write_report
from minigen.app.demo.sentences import (
    GUIDED,
    LIVE,
    LIVE_MISMATCHED,
    MISMATCHED,
    PLAIN,
    REGULARIZED,
    Example,
    Facts,
    Results,
)
from minigen.audio import save_audio
from minigen.corpus.clip import Clip
from minigen.corpus.corpus import Corpus
from minigen.corpus.subsets import load_some, open_splits
from minigen.corpus.synthesis.builtin import corpus_requirements
from minigen.corpus.tokens import TokenSet
from minigen.engine.errors import MinigenError
from minigen.engine.resources import Requirements, announce, training_memory
from minigen.engine.weights import WithoutMemory
from minigen.evaluation import measure as evaluate
from minigen.evaluation.measure import CODEC, REAL, Measurement, Yardstick
from minigen.generate import TextToAudio
from minigen.lm import AudioLM

DROPOUT, SIMILARITY = "mini-dropout", "mini-regularized"  # the shipped models, in the sweep by these names
OTHER_STAGES = 300  # seconds that all stages but the training take on two cores, about
STAGES = ("corpus", "tokens", "live training", "generation", "measurement", "report")
Sounds = dict[str, Tensor]  # name in the table -> waveforms [n, 1, samples]
Points = dict[str, dict[float, Measurement]]  # model -> guidance scale -> its row


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo, chosen so that all of it but the training takes about five minutes on two cores."""

    seconds: float = 4.0
    captions: int = 48  # held-out captions in the table
    sweep_captions: int = 32  # the first of them, in the guidance sweep: whole batches, so that the noise is the same
    scales: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.0)
    guidance: float = 3.0  # of the shipped models
    examples: int = 6  # captions on the page
    reference: int = 240  # real clips, at the most, that FAD compares with
    generated_at_once: int = 16
    live: LiveConfig = LiveConfig()


@dataclass(frozen=True)
class Parts:
    """Models used by the demo; by default the shipped ones."""

    codec: object
    encoder: object
    judge: object
    tagger: object
    dropout: AudioLM
    regularized: AudioLM

    @classmethod
    def shipped(cls) -> "Parts":
        """Load the built-in models."""
        from minigen.evaluation.clap import load_judge, load_tagger

        dropout, regularized = TextToAudio.from_pretrained(DROPOUT), TextToAudio.from_pretrained(SIMILARITY)
        return cls(dropout.codec, dropout.encoder, load_judge(), load_tagger(), dropout.lm, regularized.lm)


class HeldOut(NamedTuple):
    """Clips of the test split, whose captions every model gets, and their real sounds [n, 1, samples]."""

    clips: list[Clip]
    real: Tensor


@dataclass
class Run:
    """One run: its settings and models, and the duration of each stage."""

    out: Path
    seed: int
    progress: bool
    config: DemoConfig
    parts: Parts
    times: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, what: str):
        """Print the name of the next stage, and at its end its duration."""
        name, number, began = STAGES[len(self.times)], len(self.times) + 1, time.monotonic()
        print(f"\n{number}/{len(STAGES)} {name}: {what}", flush=True)
        yield
        self.times.append((name, time.monotonic() - began))
        print(f"    {name} took {self.times[-1][1]:.0f} s", flush=True)

    def generate(self, lm: AudioLM, captions: list[str], guidance: float, label: str) -> Tensor:
        """Sound for each caption through one model, [n, 1, samples]."""
        tta, config = TextToAudio(self.parts.codec, self.parts.encoder, lm), self.config
        at_once = config.generated_at_once
        return evaluate.generate_for(
            tta, captions, config.seconds, guidance, self.seed, at_once, self.progress, f"{label:22}"
        )


def run_demo(
    out: str | Path = "build",
    minutes: float = 3.0,
    seed: int = 0,
    data: str | Path | None = None,
    clips: int = 1200,
    progress: bool = True,
    config: DemoConfig | None = None,
    parts: Parts | None = None,
) -> Path:
    """Run the whole chain and write `out`/report.html, table.csv, sweep.csv and audio/; prints the table.

    Args:
        out: folder for everything that is made.
        minutes: of live training.
        seed: of corpus, training and sampling.
        data: captioned audio of any kind that `read_corpus` takes, instead of the built-in corpus.
        clips: how many to build, or at the most to take from a split of `data`.
        progress: show bars.
        config: sizes, see `DemoConfig`.
        parts: other models than the shipped ones.

    Returns:
        the path of report.html.

    Raises:
        MinigenError: minutes not above 0, a folder that cannot be written, no usable data, missing weights.
    """
    if not 0 < minutes < 1e4:
        raise MinigenError(f"minutes is {minutes}. Give the training more than 0 minutes; 3 is usual.")
    run = Run(_writable(Path(out)), seed, progress, config or DemoConfig(), parts or Parts.shipped())
    announce(demo_requirements(run, minutes, clips, built=data is None))
    with run.stage("built in" if data is None else str(data)):
        splits = open_splits(run.out, data, clips, seed, run.config.seconds, progress)
        held_out = _hold_out(splits, run.config.captions, seed)
    with run.stage("every clip goes through the codec once"):
        train_set, valid_set = _tokens(run, splits, mix=data is not None)
    with run.stage(f"{minutes:g} min"):
        live = train_live(run.parts.encoder, train_set, valid_set, run.out, minutes, seed, run.config.live, progress)
        _say_losses(live)
    with run.stage(f"{len(held_out.clips)} held-out captions, and the guidance sweep"):
        sounds = answer(run, live.lm, [clip.caption for clip in held_out.clips])
        sweep = answer_sweep(run, [clip.caption for clip in held_out.clips], sounds)
    with run.stage("the judge and the tagger listen"):
        reference = load_some(splits["validation"], run.config.reference, seed)[1]
        yardstick = Yardstick(run.parts.judge, run.parts.tagger, reference)
        sounds = {**evaluate.control_sounds(held_out.real, run.parts.codec, seed), **sounds}
        rows, points = measure(run, yardstick, sounds, held_out), measure_sweep(run, yardstick, sweep, held_out)
    with run.stage(str(run.out)):
        source = "the built-in corpus" if data is None else f"“{Path(data).resolve().name}”, mixtures of two among them"
        facts = _facts(run, live, yardstick, source, len(train_set), minutes)
        examples = choose_examples(yardstick, held_out, sounds, run.config.examples)
        report = _write(run.out, Results(facts, examples, live.history, live.effect, rows, points))
    print(f"\n{evaluate.table(rows)}\n\n{sum(s for _, s in run.times) / 60:.1f} min in all", flush=True)
    return report


def demo_requirements(run: Run, minutes: float, clips: int, built: bool) -> Requirements:
    """Requirements of the demo: the live model with its checkpoint, and the corpus if it has to be made."""
    sizes, encoder, codec = run.config.live, run.parts.encoder, run.parts.codec
    tokens = TokenSet(np.zeros((1, codec.num_codebooks, 1), np.int16), [""], [()], [[]], codec.frame_rate,
                      codec.codebook_size)  # fmt: skip
    with WithoutMemory():
        live = sum(weight.numel() for weight in new_model(encoder, tokens, sizes).parameters())
    steps = round(run.config.seconds * codec.frame_rate) + codec.num_codebooks
    memory = training_memory(live, sizes.layers, sizes.width, 4 * sizes.width, sizes.batch_size, steps)
    corpus = corpus_requirements(run.out, clips, run.seed, run.config.seconds).disk if built else 0
    return Requirements("the demo", live, memory, 40 * live + corpus, 60 * minutes + OTHER_STAGES, run.out)


def answer(run: Run, live: AudioLM, captions: list[str]) -> Sounds:
    """Sounds of the live model and of the shipped ones for the captions."""
    models = {LIVE: live, PLAIN: run.parts.dropout, GUIDED: run.parts.dropout, REGULARIZED: run.parts.regularized}
    scales = dict.fromkeys(models, run.config.guidance) | {PLAIN: 1.0, LIVE: run.config.live.guidance}
    return {name: run.generate(lm, captions, scales[name], name) for name, lm in models.items()}


def answer_sweep(run: Run, captions: list[str], made: Sounds) -> dict[str, dict[float, Tensor]]:
    """Sounds of the shipped models for the first captions at every scale; those in `made` are reused."""
    captions, guidance = captions[: run.config.sweep_captions], run.config.guidance
    at_hand = {(DROPOUT, 1.0): PLAIN, (DROPOUT, guidance): GUIDED, (SIMILARITY, guidance): REGULARIZED}
    sweep = {DROPOUT: {}, SIMILARITY: {}}
    for name, lm in ((DROPOUT, run.parts.dropout), (SIMILARITY, run.parts.regularized)):
        for scale in run.config.scales:
            known = made.get(at_hand.get((name, scale)))
            new = run.generate(lm, captions, scale, f"sweep, guidance {scale:g}") if known is None else known
            sweep[name][scale] = new[: len(captions)]
    return sweep


def measure(run: Run, yardstick: Yardstick, sounds: Sounds, held_out: HeldOut) -> list[Measurement]:
    """Rows of the table: controls, models, and two of the models with the captions of other clips."""
    sounds = {**sounds, MISMATCHED: sounds[REGULARIZED].roll(1, 0), LIVE_MISMATCHED: sounds[LIVE].roll(1, 0)}
    bar = tqdm(sounds.items(), desc=f"{'table':22}", unit="row", disable=not run.progress)
    return [yardstick.measure(name, wavs, held_out.clips, held_out.real) for name, wavs in bar]


def measure_sweep(run: Run, yardstick: Yardstick, sweep: dict[str, dict[float, Tensor]], held_out: HeldOut) -> Points:
    """The points of the guidance sweep."""
    points = {name: {} for name in sweep}
    clips, real = held_out.clips[: run.config.sweep_captions], held_out.real[: run.config.sweep_captions]
    flat = [(name, scale, wavs) for name, scales in sweep.items() for scale, wavs in scales.items()]
    for name, scale, wavs in tqdm(flat, desc=f"{'sweep':22}", unit="point", disable=not run.progress):
        points[name][scale] = yardstick.measure(name, wavs, clips, real)
    return points


def choose_examples(yardstick: Yardstick, held_out: HeldOut, sounds: Sounds, count: int) -> list[Example]:
    """The first held-out clips with different events (or captions), with the events detected in each sound."""
    about = [frozenset(event.kind for event in clip.events) or clip.caption for clip in held_out.clips]
    rows = [i for i in range(len(about)) if about[i] not in about[:i]][:count]
    shown = {name: sounds[name][rows] for name in (REAL, CODEC, LIVE, PLAIN, GUIDED, REGULARIZED)}
    heard = {name: yardstick.heard(wavs) for name, wavs in shown.items()}
    examples = []
    for i, clip in enumerate(held_out.clips[row] for row in rows):
        asked = list(dict.fromkeys(event.kind for event in clip.events))
        of_this = [{name: values[i] for name, values in all_of_them.items()} for all_of_them in (shown, heard)]
        examples.append(Example(clip.caption, asked, *of_this))
    return examples


def _hold_out(splits: dict[str, Corpus], count: int, seed: int) -> HeldOut:
    for name, corpus in splits.items():
        print(f"    {name}: {corpus.report}")
    clips, wavs = load_some(splits["test"], count, seed)
    if len(wavs) < 2:
        raise MinigenError(f"the test split has {len(wavs)} usable clips, too few to compare. Give more recordings.")
    return HeldOut(clips, torch.cat(wavs))


def _tokens(run: Run, splits: dict[str, Corpus], mix: bool):
    """Tokens for training and validation.

    Recordings, few as they are, are mixed in pairs as well; the built-in corpus has mixtures of its own.
    """
    share = 1.0 if mix and len(splits["train"]) >= 2 else 0.0
    folder = run.out / "tokens"
    return (
        tokens_for(splits["train"], run.parts.codec, folder, share, run.progress),
        tokens_for(splits["validation"], run.parts.codec, folder, 0.0, run.progress),
    )


def _say_losses(live: Live) -> None:
    start, end = live.history[0]["valid"], live.history[-1]["valid"]
    print(f"    validation loss {start:.2f} -> {end:.2f} nats per code")
    print(f"    loss {live.effect}")


def _facts(run: Run, live: Live, yardstick: Yardstick, source: str, train_clips: int, minutes: float) -> Facts:
    weights = [sum(p.numel() for p in lm.parameters()) for lm in (live.lm, run.parts.dropout)]
    return Facts(
        source, train_clips, len(yardstick.reference), run.config.seconds, minutes, live.history[-1]["step"], *weights,
        run.parts.codec.codebook_size, run.config.guidance, run.config.live.guidance, "the built-in tagger",
        yardstick.reference.shape[1], "the built-in CLAP judge", run.seed, tuple(run.times),
    )  # fmt: skip


def _write(out: Path, results: Results) -> Path:
    """Write all files of the run; the sounds of the page are 1-real-clips.wav, 1-codec-reconstruction.wav, ..."""
    for number, example in enumerate(results.examples, 1):
        for name, wav in example.sounds.items():
            save_audio(out / "audio" / f"{number}-{name.replace(' + ', '-').replace(' ', '-')}.wav", wav)
    sweep = [(scale, row) for scales in results.sweep.values() for scale, row in scales.items()]
    evaluate.save_csv(out / "table.csv", results.rows)
    evaluate.save_csv(out / "sweep.csv", [row for _, row in sweep], [{"guidance": scale} for scale, _ in sweep])
    return write_report(out / "report.html", results)


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise MinigenError(f"cannot write to {out} ({error.strerror}). Name another folder.") from error
    return out
