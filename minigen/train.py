"""Training: the loop around the step (`minigen.trainer`), which logs, validates, saves, and goes on after a break.

    tokens --batch of (seed, step)--> step --> step --> step --> ...
                                        |        every `valid_every` steps: validate, log.csv
                                        |        every minute, and at the end: checkpoint.safetensors
    killed at any point: the next call takes up the last checkpoint and ends with the same weights, bit for bit

Batches depend on (seed, step) alone and so does everything else that is left to chance, so the position in the data and
the random states are no more than the number of the step. Under `accelerate launch` the same call trains in several
processes (`minigen.engine.distributed`); the first one logs and saves.
"""

import csv
import hashlib
import io
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from minigen.corpus.tokens import TokenSet
from minigen.engine import distributed
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.errors import MinigenError
from minigen.engine.files import remove_stale_parts, write_atomically
from minigen.engine.resources import Requirements, training_memory
from minigen.lm import AudioLM
from minigen.loss import cross_entropy
from minigen.optim import Ema, TrainConfig, learning_rate
from minigen.text import MAX_TOKENS, TextEncoder
from minigen.trainer import NotFinite, Trainer

__all__ = ["Ema", "TrainConfig", "Trainer", "cross_entropy", "learning_rate", "seconds_per_step", "train"]

SETTINGS_FILE = "training.json"
LOG = ("step", "minutes", "lr", "frames_per_second", "loss", "similarity", "valid", "valid_no_text")


def train(
    lm: AudioLM,
    encoder: TextEncoder,
    train_set: TokenSet,
    valid_set: TokenSet,
    folder: str | Path,
    config: TrainConfig | None = None,
    names: tuple[str, str] = ("mini", "mini"),
    progress: bool = True,
    trainer: type[Trainer] = Trainer,
) -> list[dict]:
    """Train `lm` in place on tokenised clips; an interrupted run with the same folder and settings goes on.

    Writes to `folder`: log.csv, checkpoint.safetensors, and at the end config.json, model.safetensors (averaged
    weights, float16) and pipeline.json, which `TextToAudio.from_pretrained(folder)` reads, and training.json, the
    settings.

    Args:
        lm: the model; afterwards it holds the averaged weights, in eval mode.
        encoder: the frozen text encoder.
        train_set: tokenised clips to learn from.
        valid_set: tokenised clips to measure on.
        folder: where everything goes; where several machines train, one that all of them see.
        config: see `TrainConfig`.
        names: of the codec and the text encoder, for pipeline.json.
        progress: show a bar.
        trainer: what makes the step (`minigen.evaluation.study.variants` has others).

    Returns:
        one dict a logged step: step, loss, similarity, lr, frames_per_second, minutes, valid, valid_no_text.

    Raises:
        MinigenError: parts that do not fit each other or the machine, no room on the disk, or a loss that is no
            number; the last good checkpoint stays in the folder.
    """
    config, folder = config or TrainConfig(), Path(folder)
    _check_fits(lm, train_set, encoder)
    _check_captions(train_set, encoder)
    training_requirements(lm, train_set, config, folder).check()
    folder.mkdir(parents=True, exist_ok=True)
    trainer, checkpoint = trainer(lm, encoder, config, fingerprint(train_set)), folder / CHECKPOINT
    history = trainer.resume(checkpoint) if checkpoint.exists() else []
    distributed.check_agreed("the step to go on from", trainer.step)
    if distributed.is_first():
        remove_stale_parts(folder)
    if not history:
        history.append({"step": 0, "minutes": 0.0, **trainer.validate(valid_set)})
    _loop(trainer, train_set, valid_set, checkpoint, history, progress and distributed.is_first())
    trainer.lm.load_state_dict(trainer.ema.weights)
    trainer.lm.eval()
    if distributed.is_first():
        codec, text = names
        write_atomically(folder / "pipeline.json", json.dumps({"codec": codec, "text": text}) + "\n")
        write_atomically(folder / SETTINGS_FILE, json.dumps(asdict(config), indent=1) + "\n")
        trainer.lm.save_pretrained(folder)
    return history


def _loop(
    trainer: Trainer, train_set: TokenSet, valid_set: TokenSet, checkpoint: Path, history: list, progress: bool
) -> None:
    config, began, first, saved = trainer.config, time.monotonic(), trainer.step, time.monotonic()
    base = history[-1]["minutes"]
    bar = tqdm(total=config.steps, initial=first, desc="training", unit="step", disable=not progress)
    while trainer.step < config.steps:
        entry = _step(trainer, train_set, checkpoint)
        bar.update()
        bar.set_postfix(loss=f"{entry['loss']:.3f}", valid=f"{history[-1]['valid']:.3f}")
        done = trainer.step == config.steps
        if trainer.step % config.valid_every == 0 or done:
            seconds = time.monotonic() - began
            pace = (trainer.step - first) * config.batch_size * train_set.codes.shape[-1] / seconds
            history.append({**_row(trainer, base + seconds / 60, pace), **trainer.validate(valid_set)})
            trainer.recent = []
            _write_log(checkpoint.with_name("log.csv"), history)
        if done or time.monotonic() - saved > 60 * config.save_minutes:
            trainer.save(checkpoint, history)
            saved = time.monotonic()
    bar.close()


def _step(trainer: Trainer, train_set: TokenSet, checkpoint: Path) -> dict:
    """The next step, remembered for the log; a loss that is no number names its batch and what can be gone back to."""
    rows = _rows(len(train_set), trainer.config, trainer.step)
    codes, captions = train_set.batch(rows)
    try:
        trainer.recent.append(trainer.train_step(codes, captions))
    except NotFinite as error:
        kept = f"The last good checkpoint is {checkpoint}" if checkpoint.exists() else "There is no checkpoint yet"
        raise MinigenError(
            f"{error} Its batch holds clips {', '.join(map(str, rows[:32]))} of the tokens, the first one "
            f"{captions[0][:60]!r}. {kept}. Look at these clips, or train into another folder at a lower learning rate."
        ) from error
    return trainer.recent[-1]


def _row(trainer: Trainer, minutes: float, pace: float) -> dict:
    """A row of the log: means over the steps since the last one."""
    means = {
        "loss": _mean([entry["loss"] for entry in trainer.recent if not entry["dropped"]]),
        "similarity": _mean([entry["similarity"] for entry in trainer.recent if entry["similarity"] is not None]),
    }
    rate = learning_rate(trainer.step - 1, trainer.config)
    return {
        "step": trainer.step, "lr": rate, "minutes": round(minutes, 3), "frames_per_second": round(pace), **means,
    }  # fmt: skip


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _rows(clips: int, config: TrainConfig, step: int) -> np.ndarray:
    """Clips of a step: every epoch visits each clip once, in an order that depends on (seed, epoch) alone."""
    wanted = np.arange(step * config.batch_size, (step + 1) * config.batch_size)
    orders = {e: np.random.default_rng([config.seed, 0, int(e)]).permutation(clips) for e in np.unique(wanted // clips)}
    return np.array([orders[i // clips][i % clips] for i in wanted])


def seconds_per_step(
    lm: AudioLM, encoder: TextEncoder, train_set: TokenSet, config: TrainConfig, steps: int = 12
) -> float:
    """Median time of a training step on this machine, measured over a few steps of a throw-away copy.

    Several processes agree on their mean: what is planned from it has to be the same in all of them.
    """
    trainer = Trainer(AudioLM(lm.config), encoder, config)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        trainer.train_step(*train_set.batch(_rows(len(train_set), config, trainer.step)))
        times.append(time.perf_counter() - began)
    measured = torch.tensor(float(np.median(times[steps // 3 :])), device=trainer.accelerator.device)
    return (distributed.total(measured) / distributed.count()).item()  # the first ones also set things up


def training_requirements(
    lm: AudioLM, tokens: TokenSet, config: TrainConfig, folder: str | Path, seconds: float = 0
) -> Requirements:
    """What a training will take: memory in every process of this machine, and twice its checkpoint on the disk."""
    sizes, parameters = lm.config, sum(p.numel() for p in lm.parameters())
    rows, steps = config.batch_size // distributed.count(), tokens.codes.shape[-1] + max(sizes.delays)
    memory = training_memory(parameters, sizes.layers, sizes.width, sizes.ffn, rows, steps)
    disk = (2 * 16 + 4) * parameters  # weights, moments and average, in the old checkpoint and the new; the model
    return Requirements("training", parameters, memory * distributed.beside(), disk, seconds, Path(folder))


def fingerprint(tokens: TokenSet) -> str:
    """A word that tells one set of tokens from another: its captions, and the codes of up to 64 clips."""
    digest = hashlib.sha256("\n".join(tokens.captions).encode("utf-8", "replace"))
    digest.update(np.ascontiguousarray(tokens.codes[:: max(1, len(tokens) // 64)]).tobytes())
    return f"{len(tokens)} clips, {digest.hexdigest()[:16]}"


def _check_fits(lm: AudioLM, tokens: TokenSet, encoder: TextEncoder) -> None:
    config = lm.config
    if tokens.codes.shape[1] != config.num_codebooks or tokens.codebook_size != config.codebook_size:
        raise MinigenError(
            f"the tokens have {tokens.codes.shape[1]} codebooks of {tokens.codebook_size}, the model "
            f"{config.num_codebooks} of {config.codebook_size}. Tokenise with the model's codec, or change its config."
        )
    if encoder.width != config.memory_width:
        raise MinigenError(
            f"the text encoder is {encoder.width} wide, the model expects memory_width {config.memory_width}. "
            f"Make them agree."
        )


def _check_captions(tokens: TokenSet, encoder: TextEncoder) -> None:
    """No caption longer than the encoder reads: told now, and not at the step that draws it."""
    for row, caption in enumerate(tokens.captions):
        if len(caption.encode("utf-8", "replace")) >= MAX_TOKENS and hasattr(encoder, "tokens"):
            length = len(encoder.tokens(caption))
            if length > MAX_TOKENS:
                raise MinigenError(
                    f"the caption of clip {row} has {length} tokens; the text encoder reads at most {MAX_TOKENS}. "
                    f"Shorten or remove it, and tokenise again."
                )


def _write_log(path: Path, history: list[dict]) -> None:
    if distributed.is_first():
        text = io.StringIO()
        writer = csv.DictWriter(text, LOG, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(path, text.getvalue())
