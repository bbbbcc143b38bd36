"""Measurements of the tagger and the judge on held-out clips, and their model cards."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigen.audio import SAMPLE_RATE
from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.captions import caption, plain_caption
from minigen.corpus.synthesis.scenes import Scene
from minigen.display.tables import markdown_table
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.files import write_atomically
from minigen.evaluation.clap import Judge, Tagger
from minigen.metrics import average_precision, event_recall, order_accuracy
from minigen.recipes.esc10 import CITATION
from minigen.recipes.judge.captions import opposite
from minigen.recipes.judge.data import SECONDS, corpus_clip, frame_labels


def held_out(seed: int, clips: int) -> tuple[Tensor, list[Scene], list[str]]:
    """The first test clips of the corpus with this seed: waveforms [n, 1, 4 s], scenes, captions.

    Every other clip holds a pair of kinds that never sounds together in training.
    """
    described = [describe_clip(seed, "test", i, SECONDS) for i in range(clips)]
    wavs = torch.cat([corpus_clip(seed, "test", i)[0] for i in range(clips)])
    return wavs, [scene for scene, _, _ in described], [text for _, text, _ in described]


def tagger_figures(tagger: Tagger, seed: int, clips: int, real: list[tuple]) -> dict[str, float]:
    """Figures of a tagger on held-out corpus clips, on noise, and on recordings (waveform, events, False)."""
    wavs, scenes, _ = held_out(seed, clips)
    true = torch.stack([frame_labels(scene.events).any(-1) for scene in scenes])
    timeline, probs = tagger.timeline(wavs), tagger.probabilities(wavs)
    ordered = [(i, scene.foreground) for i, scene in enumerate(scenes) if scene.relation == "followed by"]
    pair = [[timeline[i, KINDS.index(events[k].kind)] for i, events in ordered] for k in (0, -1)]
    figures = {
        "mean average precision": average_precision(probs, true),
        "event recall at 0.5": event_recall(probs, true),
        "events found beyond the true ones, per clip": float(((probs > 0.5) & ~true).sum(1).float().mean()),
        "order accuracy": order_accuracy(*map(torch.stack, pair)),
        "events found in noise, per clip": float((tagger.probabilities(noises()) > 0.5).sum(1).float().mean()),
    }
    if real:
        kinds = sorted({events[0].kind for _, events, _ in real})
        scores = tagger.probabilities(torch.cat([wav for wav, _, _ in real]))[:, [KINDS.index(kind) for kind in kinds]]
        figures["accuracy on real recordings"] = _accuracy(scores, real, kinds)
    return figures


def judge_figures(judge: Judge, seed: int, clips: int, real: list[tuple]) -> dict[str, float]:
    """Figures of a judge on held-out corpus clips, in hundreds, and on recordings (waveform, events, False)."""
    wavs, scenes, captions = held_out(seed, clips)
    audio, text = judge.embed_audio(wavs), judge.embed_text(captions)
    hundreds = [retrieval_ranks(text[i : i + 100] @ audio[i : i + 100].T) for i in range(0, clips, 100)]
    ranks = torch.cat(hundreds)
    figures = {f"caption to clip, R@{k}": float((ranks < k).float().mean()) for k in (1, 5, 10)}
    figures["CLAP score, own captions"] = float((audio * text).sum(1).mean())
    figures["CLAP score, other captions"] = float((audio * text.roll(1, 0)).sum(1).mean())
    rng = np.random.default_rng(seed)
    ordered = [i for i, scene in enumerate(scenes) if scene.relation == "followed by"]
    wrong = judge.embed_text([caption(opposite(scenes[i]), rng) for i in ordered])
    figures["order accuracy"] = float(((audio[ordered] * (text[ordered] - wrong)).sum(1) > 0).float().mean())
    if real:
        kinds = sorted({events[0].kind for _, events, _ in real})
        names = judge.embed_text([plain_caption(kind) for kind in kinds])
        scores = judge.embed_audio(torch.cat([wav for wav, _, _ in real])) @ names.T
        figures["accuracy on real recordings, by caption"] = _accuracy(scores, real, kinds)
    return figures


def retrieval_ranks(similarity: Tensor) -> Tensor:
    """Number of clips that are closer to a caption than its own clip: [n, n], pairs on the diagonal -> int64 [n]."""
    return (similarity > similarity.diagonal()[:, None]).sum(1)


def noises() -> Tensor:
    """White and coloured noise and silence at levels from 0 to 0.3, [16, 1, 4 s]."""
    clips = 16
    rng = torch.Generator().manual_seed(0)
    white = torch.randn(clips, 1, int(SECONDS * SAMPLE_RATE), generator=rng)
    dull = 2 * torch.nn.functional.avg_pool1d(white, 9, 1, 4)
    level = torch.linspace(0, 0.3, clips)[:, None, None]
    return level * torch.where(torch.arange(clips)[:, None, None] % 2 == 0, white, dull)


def _accuracy(scores: Tensor, real: list[tuple], kinds: list[str]) -> float:
    true = torch.tensor([kinds.index(events[0].kind) for _, events, _ in real])
    return float((scores.argmax(1) == true).float().mean())


LICENCE = f"""The corpus is synthesised by minigen itself. {CITATION} is licensed CC BY 3.0 as a whole; its clips come
from freesound.org under CC0 or CC BY, and its README names the author of each. The folder of the weights contains no
recording."""


def finish(
    folder: Path, part: str, figures: dict, training, real: int, minutes: float, curve: list[float], note: str = ""
) -> dict:
    """Write card.md, remove the checkpoint, and return the figures rounded to four places."""
    figures = {name: round(value, 4) for name, value in figures.items()}
    falls = ", ".join(f"{part.mean():.3f}" for part in np.array_split(np.asarray(curve), 10) if len(part))
    hours = (training.clips + real) * SECONDS / 3600
    recordings = f" and {real} real recordings (ESC-10; fold {training.test_fold} is kept for the test)" if real else ""
    tested = f" and on the recordings of fold {training.test_fold}" if real else ""
    text = [
        f"# {part}/mini", "",
        f"Made by `minigen.recipes.judge.train.train_{part}`: {len(curve)} steps of {training.batch} clips in "
        f"{minutes:.1f} minutes on {torch.get_num_threads()} processor core(s).", "",
        f"Data: {training.clips} clips of the built-in corpus (seed {training.seed}, split train){recordings}, "
        f"{hours:.1f} hours in all. No output of a codec or of a language model was used.", "",
        LICENCE if real else "The corpus is synthesised by minigen itself.", "",
        f"Training: `{training}`", "", f"Loss, mean of each tenth of the steps: {falls}", "",
        f"Figures on {training.test_clips} held-out corpus clips (seed {training.seed}, split test; every second one "
        f"has a pair of kinds that never sounds together in training){tested}:", "",
        markdown_table(("figure", "value"), figures.items()), "",
        *([note, ""] if note else []),
    ]  # fmt: skip
    write_atomically(folder / "card.md", "\n".join(text))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return figures
