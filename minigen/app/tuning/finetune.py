"""`minigen finetune`: a folder of recordings becomes an adapter that makes such sounds, and a page to compare by ear.

    recordings ─► train / held out ─► codes ─► LoRA beside the frozen model ─► adapter in --out
                         │                              ▲ weights of the lowest held-out loss
                         └► captions ─► sounds before and after, with the same seeds ─► report.html

The held-out clips take no part in the training. If their loss only rises, the start is kept and the page says so. With
--rehearse, clips of a corpus that the model knows make up half of the training, so that it forgets less of it.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minigen.app.commands import default_corpus, hold_back, subset
from minigen.app.preflight import check_writable
from minigen.app.tuning.start import (
    best_row,
    load_base,
    peak_memory,
    plan_steps,
    train_tuned,
    tuned_config,
    usage,
)
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from torch import Tensor

    from minigen.corpus.corpus import Corpus
    from minigen.corpus.token_cache import TokenSet
    from minigen.generate import TextToAudio

SHOWN = 6  # held-out clips on the page
REHEARSED = 480  # clips of the corpus of --rehearse, at the most
TEMPLATE = Path(__file__).with_name("page.html.j2")


class HeldOut(NamedTuple):
    """Held-out clips to hear: captions, and their recordings [n, 1, samples] at the codec's rate."""

    captions: list[str]
    recordings: Tensor


def finetune(options: Namespace) -> None:
    """`minigen finetune`: tune a model on recordings, and compare it with the start on held-out captions."""
    check_writable(options.out)
    base = load_base(options.start)
    _tune(options, base, _read(options, base.codec.sample_rate))


def _tune(options: Namespace, base: TextToAudio, splits: dict[str, Corpus]) -> None:
    """Tokenise, train, generate before and after, and write the page."""
    from minigen.train import CrossEntropyObjective
    from minigen.tuning.lora import add_lora

    tokens, held = _tokens(options, base.codec, splits)
    clips, recordings = _held_out(splits, held), len(tokens)
    if options.rehearse is not None:
        tokens = rehearse(tokens, _known(options, base.codec))
    before = _sounds(base, clips.captions, options, "before")
    if not options.all_weights:
        add_lora(base.lm, options.lora, options.start, options.seed)
    config = tuned_config(options, text_dropout=options.text_dropout)
    objective = CrossEntropyObjective(base.lm.config, base.encoder, config)
    config = plan_steps(config, options, base.lm, base.encoder, tokens, objective)
    history = train_tuned(options, base, tokens, held, config, objective)
    after = _sounds(base, clips.captions, options, "after")
    facts = _facts(options, base, recordings, len(held), history, clips, before, after)
    page = _write(options, base.codec.sample_rate, facts, history, clips, before, after)
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"{verdict(history)}\n{page}\nhear it: {usage(options, clips.captions[0])}")


def _read(options: Namespace, rate: int) -> dict[str, Corpus]:
    """The splits of the recordings that there are; of a single table, which has none, all of it as "train"."""
    from minigen.corpus import read_corpus

    splits, errors = {}, {}
    for name in ("train",) if Path(options.recordings).is_file() else ("train", "validation", "test"):
        skipped = options.out / "skipped.csv" if name == "train" else None
        try:
            splits[name] = read_corpus(options.recordings, name, None, options.seconds, rate, skipped)
        except MinigenError as error:
            errors[name] = error
    if "train" not in splits and splits:
        raise MinigenError(
            f"the recordings in {options.recordings} are too few to hold any out. Record at least three."
        ) from errors["train"]
    if not splits:
        raise errors["train"]
    print(f"train: {splits['train'].described()}", flush=True)
    return splits


def _tokens(options: Namespace, codec, splits: dict[str, Corpus]) -> tuple[TokenSet, TokenSet]:
    """Codes to learn from, and codes of the clips that are held out.

    Raises:
        MinigenError: too few clips to hold any out.
    """
    from minigen.corpus.tokens import tokenize

    sets = [tokenize(corpus, codec, options.out / "tokens" / name) for name, corpus in splits.items()]
    if len(sets) > 1:
        return sets[0], join_tokens(sets[1:])
    try:
        return hold_back(sets[0])
    except MinigenError as error:
        raise MinigenError(
            f"{len(sets[0])} clips of {options.recordings} are too few to hold any out. Record at least three."
        ) from error


def _known(options: Namespace, codec) -> TokenSet:
    """Codes of up to REHEARSED clips of the corpus of --rehearse, by default of the built-in one."""
    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import at_most
    from minigen.corpus.tokens import tokenize

    corpus = read_corpus(options.rehearse or default_corpus(), "train", None, options.seconds, codec.sample_rate)
    return tokenize(at_most(corpus, REHEARSED, options.seed), codec, options.out / "tokens" / "rehearsed")


def rehearse(tokens: TokenSet, known: TokenSet) -> TokenSet:
    """New and known clips as one set, the smaller one of both repeated until they are about equally many."""
    most = max(len(tokens), len(known))
    sets = [subset(each, [*range(len(each))] * max(1, round(most / len(each)))) for each in (tokens, known)]
    return join_tokens(sets)


def join_tokens(sets: list[TokenSet]) -> TokenSet:
    """Several token sets as one, in their order."""
    from dataclasses import replace

    import numpy as np

    codes = np.concatenate([each.codes for each in sets])
    lists = {name: sum((getattr(each, name) for each in sets), []) for name in ("captions", "events", "sources")}
    return replace(sets[0], codes=codes, **lists)


def _held_out(splits: dict[str, Corpus], held: TokenSet) -> HeldOut:
    """Up to SHOWN of the held-out clips, with their recordings; clips of different captions first."""
    import torch

    files = {clip.file: (corpus, row) for corpus in splits.values() for row, clip in enumerate(corpus.clips)}
    rows = sorted(range(len(held)), key=lambda row: held.captions[:row].count(held.captions[row]))[:SHOWN]
    wavs = []
    for row in rows:
        corpus, number = files[held.sources[row][0]]
        wavs.append(corpus.load(number))
    return HeldOut([held.captions[row] for row in rows], torch.cat(wavs))


def _sounds(tta: TextToAudio, captions: list[str], options: Namespace, label: str) -> Tensor:
    """Sounds [n, 1, samples] for the captions; the same seed gives the same random numbers before and after."""
    print(f"{label}: {len(captions)} held-out captions", flush=True)
    return tta.generate(captions, options.seconds, seed=options.seed, progress=True)


def _facts(
    options: Namespace, base: TextToAudio, clips: int, held: int, history: list[dict], shown: HeldOut, before: Tensor,
    after: Tensor,
) -> dict[str, str]:  # fmt: skip
    """The figures of the page by name."""
    from minigen.engine.resources import amount
    from minigen.evaluation.clap import load_judge
    from minigen.metrics import clap_score

    judge, rate, best = load_judge(), base.codec.sample_rate, best_row(history)
    text, real = judge.embed_text(shown.captions), judge.embed_audio(shown.recordings, rate)
    sounds = {"before": judge.embed_audio(before, rate), "after": judge.embed_audio(after, rate)}
    clap = {name: f"{clap_score(audio, text):.2f}" for name, audio in sounds.items()}
    alike = {name: f"{float((audio @ real.T).mean()):.2f}" for name, audio in sounds.items()}
    weights = options.out / ("model.safetensors" if options.all_weights else "adapter_model.safetensors")
    trained = sum(p.numel() for p in base.lm.parameters() if p.requires_grad)
    return {
        "recordings": f"{clips} to learn from, {held} held out",
        "base model": options.start,
        "trained": f"{amount(trained)} weights" + ("" if options.all_weights else f", LoRA of rank {options.lora}"),
        "size on disk": f"{amount(weights.stat().st_size)}B",
        "steps": f"{history[-1]['step']:,} of {options.batch_size} clips; those of step {best['step']:,} are kept",
        "time": f"{history[-1]['minutes']:.1f} min of training",
        "memory": f"{amount(peak_memory())}B at its peak",
        "held-out loss, nats a code": f"{history[0]['valid']:.3f} before, {best['valid']:.3f} after",
        "CLAP score with the captions": f"{clap['before']} before, {clap['after']} after",
        "similarity to the held-out recordings": f"{alike['before']} before, {alike['after']} after",
    }


def verdict(history: list[dict]) -> str:
    """A sentence on whether the model got better on the held-out clips."""
    start, best, last = history[0]["valid"], best_row(history), history[-1]
    if best["step"] == history[0]["step"]:
        return (
            f"worse: the held-out loss rose from {start:.3f} to {last['valid']:.3f}, so the start is kept: the result "
            "changes nothing. Add recordings, or lower --learning-rate."
        )
    text = f"better: the held-out loss fell from {start:.3f} to {best['valid']:.3f}"
    if last["valid"] > best["valid"]:
        text += f"; it rose again to {last['valid']:.3f} at the end, so the weights of step {best['step']:,} are kept"
    return text + "."


def _write(
    options: Namespace, rate: int, facts: dict[str, str], history: list[dict], shown: HeldOut, before: Tensor,
    after: Tensor,
) -> Path:  # fmt: skip
    """Write report.html, and the sounds as files beside it."""
    from minigen.app.demo.report import TEMPLATE as LOOK
    from minigen.audio import save_audio
    from minigen.display.players import data_uri
    from minigen.display.plots import loss_curves, svg
    from minigen.display.templates import render
    from minigen.engine.files import write_atomically

    examples = []
    for row, caption in enumerate(shown.captions):
        sounds = {"recording": shown.recordings[row], "before": before[row], "after": after[row]}
        for name, wav in sounds.items():
            save_audio(options.out / "audio" / f"{row + 1}-{name}.wav", wav, rate)
        clips = [clip_values(caption, name, wav, rate) for name, wav in sounds.items()]
        examples.append({"caption": caption, "clips": clips})
    steps = [row["step"] for row in history]
    curves = {
        "training": (steps, [row.get("loss", float("nan")) for row in history]),
        "held out": (steps, [row["valid"] for row in history]),
    }
    inks = {"light": "#222222", "dark": "#dddddd"}
    losses = {name: data_uri(svg(loss_curves(curves), ink).encode(), "image/svg+xml") for name, ink in inks.items()}
    losses["words"] = "Loss of the recordings that are learnt, and of those held out."
    page = render(
        TEMPLATE, LOOK, facts=facts, examples=examples, losses=losses, verdict=verdict(history), seed=options.seed,
        usage=usage(options, shown.captions[0]),
    )  # fmt: skip
    write_atomically(options.out / "report.html", page)
    return options.out / "report.html"


def clip_values(caption: str, label: str, wav: Tensor, rate: int) -> dict[str, str]:
    """Values of one player for the template."""
    from minigen.display.players import data_uri, flac
    from minigen.display.plots import spectrogram_png

    return {
        "label": label,
        "title": f"“{caption}”, {label}",
        "spectrogram": data_uri(spectrogram_png(wav, rate), "image/png"),
        "sound": data_uri(flac(wav, rate), "audio/flac"),
    }
