"""Training: a batch of clips, with its captions or without, moves the weights a little, many times over.

    train()      every step:  train_step() -> gradients() -> loss.backward()
                 every `valid_every` steps: validate, log.csv;  every minute: checkpoint.safetensors

    captions --frozen encoder--> memory [B, N, D_text], left out for the whole batch with probability `text_dropout`
    codes [B, K, T] --pattern--> sequence [B, K, S] --shifted right--> model --> hidden [B, S, D] --heads--> CE

The objective is an argument: an object with `batch(codes, captions, rng)` and `loss(model, **batch)` (see `Objective`).
The usual one, `CrossEntropyObjective`, is the paper's (arXiv 2309.08773):

    loss = CE(sequence | memory)                                         in a step with text
    loss = CE(sequence) + similarity · similarity_loss(memory, hidden)   in a step without text

One network thus learns p(audio | text) and p(audio), which guidance needs (AudioGen, arXiv 2209.15352, section 3.2),
and the regulariser makes clips without text as similar to each other as their captions are.

Everything random depends on (seed, step) alone. A training that is killed at any point continues from its checkpoint
and ends with the same weights, bit for bit (`minigen.engine.loop`). Under `accelerate launch` the same call trains in
several processes, each on its share of every batch (`minigen.engine.distributed`). A GPU records the step once and
replays it (`minigen.engine.cuda_graphs`).

Symbols: B clips · K codebooks · T frames · S = T + max(delays) columns · V codebook size · N words · D width
"""

import copy
import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from minigen.corpus.tokens import TokenSet
from minigen.engine import distributed
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.cuda_graphs import RecordedGradients
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.loop import Loop
from minigen.engine.resources import Requirements, amount, fast_bf16, memory_held, return_freed_memory, training_memory
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import at_least_float32, cross_entropy, heads_cross_entropy
from minigen.optim import Ema, TrainConfig, learning_rate, make_optimizers, set_rate, trained_weights
from minigen.patterns import DelayPattern
from minigen.regularizer import pool, similarity_loss_pooled
from minigen.text import MAX_TOKENS, TextEncoder

__all__ = ["CrossEntropyObjective", "Ema", "Objective", "TrainConfig", "Trainer", "cross_entropy", "learning_rate",
           "seconds_per_step", "train"]  # fmt: skip

SETTINGS_FILE = "training.json"
VALID_CLIPS = 64
LOG = ("step", "minutes", "lr", "frames_per_second", "loss", "similarity", "valid", "valid_no_text")


def train(
    lm: nn.Module,
    encoder: TextEncoder,
    train_set: TokenSet,
    valid_set: TokenSet,
    folder: str | Path,
    config: TrainConfig | None = None,
    names: tuple[str, str] = ("mini", "mini"),
    progress: bool = True,
    objective: "Objective | None" = None,
) -> list[dict]:
    """Train a model in place on tokenised clips; an interrupted run with the same folder and settings continues.

    Writes to `folder`: log.csv, checkpoint.safetensors, and at the end config.json, model.safetensors (averaged
    weights, float16), pipeline.json, which `TextToAudio.from_pretrained(folder)` reads, and training.json (settings).
    Of a model with a LoRA adapter (`minigen.tuning.lora`) the adapter is trained and written, and nothing else.

    Args:
        lm (Module): an `AudioLM`, or the model of another objective; afterwards it holds the averaged weights, in eval
            mode.
        encoder (TextEncoder): the frozen text encoder.
        train_set (TokenSet): tokenised clips to learn from.
        valid_set (TokenSet): tokenised clips to measure on.
        folder (str or Path): output folder; several machines need one that all of them see.
        config (TrainConfig): settings, the defaults where None.
        names (tuple of str): names of the codec and the text encoder, for pipeline.json.
        progress (bool): show a progress bar.
        objective (Objective): what is minimised, `CrossEntropyObjective` where None.

    Returns:
        One dict for each row of the log: step, loss, similarity, lr, frames_per_second, minutes, valid, valid_no_text.

    Raises:
        MinigenError: the parts do not fit each other or the machine, the disk is full, or the loss is not finite; the
            last good checkpoint stays in the folder.
    """
    config, folder = config or TrainConfig(), Path(folder)
    objective = objective or _usual_objective(lm, encoder, config)
    check_parts(lm, train_set, encoder)
    training_requirements(lm, train_set, config, folder).check()
    trainer = Trainer(lm, objective, config)
    history: list[dict] = []  # rows of the log
    recent: list[dict] = []  # entries of the steps since the last row

    def state() -> dict:
        return {**trainer.state(), "history": history, "recent": recent}

    identity = f"{config}, {lm.config}, {fingerprint(train_set)}{frozen_digest(lm)}"
    identity += ", the best is kept" if config.keep_best else ""
    loop = Loop(folder / CHECKPOINT, identity, state, config.steps, save_minutes=config.save_minutes,
                progress=progress and distributed.is_first())  # fmt: skip
    if saved := loop.resume(trainer.device):
        trainer.load(saved)
        history, recent = saved["history"], saved["recent"]
    else:
        history.append({"step": 0, "minutes": 0.0, **trainer.validate(valid_set)})

    first_step, first_seconds = loop.step, loop.seconds
    for _ in loop:
        rows = clips_of_step(len(train_set), config, trainer.step)
        try:
            recent.append(trainer.train_step(*train_set.batch(rows)))
        except NotFinite as error:
            raise MinigenError(_explain(error, rows, train_set, loop.checkpoint)) from error
        if trainer.step % config.valid_every == 0 or trainer.step == config.steps:
            steps_per_second = (trainer.step - first_step) / (loop.elapsed() - first_seconds)
            frames_per_second = steps_per_second * config.batch_size * train_set.codes.shape[-1]
            row = log_row(trainer.step, loop.elapsed() / 60, frames_per_second, recent, config)
            history.append({**row, **trainer.validate(valid_set)})
            recent = []
            write_log(folder / "log.csv", history)
        loop.show(f"loss={recent[-1]['loss'] if recent else history[-1]['loss']:.3f}, valid={history[-1]['valid']:.3f}")

    load_trained(trainer.lm, trainer.result())
    trainer.lm.eval()
    if distributed.is_first():
        write_atomically(folder / SETTINGS_FILE, json.dumps(asdict(config), indent=1) + "\n")
        _save(trainer.lm, folder, {"codec": names[0], "text": names[1], "generator": objective.generator})
    return history


def _save(lm: nn.Module, folder: Path, parts: dict[str, str]) -> None:
    """Write the model, and its `parts` to pipeline.json; of a model with an adapter, the adapter alone."""
    from minigen.tuning.lora import is_adapted, save_adapter

    if is_adapted(lm):
        return save_adapter(lm, folder)
    write_atomically(folder / "pipeline.json", json.dumps(parts) + "\n")
    lm.save_pretrained(folder)


# the objective


class Objective(Protocol):
    """The loss that a training minimises. `Trainer` calls `batch` and then `loss` in every step.

    Among several processes the result is that of one process, by three rules:

        batch   gets the whole batch and the same `rng` in every process, so that all draw the same numbers. Each tensor
                that it returns has B rows. The trainer keeps the rows of this process.
        loss    gets these rows. The mean of its results over the processes is minimised, and must be the loss of the
                whole batch. A mean over targets whose number differs from clip to clip is therefore the sum over the
                own targets divided by `distributed.average(number of own targets)`.
        pairs   of clips are compared after `distributed.gather_rows`; see `CrossEntropyObjective.loss` for the weight.
    """

    generator: str
    """Name of the generator that the trained model belongs to, for pipeline.json (`minigen.generators.base`)."""

    same_shapes: bool
    """Whether batches come in a few sets of shapes, so that a GPU may record the step."""

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Everything that the loss needs, as tensors of B rows: codes int64 [B, K, T] and B captions.

        rng: source of all random choices, such as text dropout. drop: whether to leave the text out; given in
        validation, where the loss has no parts that belong to training alone, such as the regulariser. None: random.
        A batch without text has no "memory".
        """

    def loss(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and its parts for the log by name, "loss" among them.

        The arguments are the model and, by name, the tensors of the batch.
        """


class CrossEntropyObjective:
    """Cross-entropy of the codes, and in steps without text the similarity regulariser (arXiv 2309.08773).

    Args:
        sizes (AudioLMConfig): of the model that is trained.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout, similarity and pooling.
    """

    generator = "language_model"
    same_shapes = True

    def __init__(self, sizes: AudioLMConfig, encoder: TextEncoder, config: TrainConfig):
        self.encoder, self.config = encoder, config
        self.pattern, self.fill = DelayPattern(sizes.delays), sizes.codebook_size

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """As `Objective.batch`. The whole batch has text or none: the regulariser compares all pairs of clips."""
        regularise = False
        if drop is None:
            drop = rng.random() < self.config.text_dropout
            regularise = drop and self.config.similarity > 0
        return self.tensors(codes, captions, drop, regularise)

    def tensors(self, codes: Tensor, captions: list[str], drop: bool, regularise: bool) -> dict[str, Tensor]:
        """The sequence; memory and mask unless the text is dropped; the pooled text where the regulariser needs it."""
        batch = {"sequence": self.pattern.apply(codes, self.fill)}  # [B, K, S]
        if drop and not regularise:
            return batch
        memory, mask = self.encoder(captions)  # [B, N, D_text], [B, N]
        if not drop:
            batch |= {"memory": memory, "mask": mask}
        if regularise:
            batch["pooled"] = pool(memory, mask, self.config.pooling)  # [B, D_text]
        return batch

    def loss(
        self,
        model: AudioLM,
        sequence: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """CE(sequence | memory), plus `similarity` · similarity loss where `pooled` is given."""
        shifted = shift_right(sequence, self.fill)  # [B, K, S]: column s holds what is known before column s
        hidden = model.hidden_states(shifted, memory, mask)  # [B, S, D]
        entropy = heads_cross_entropy(hidden, model.heads, sequence)  # logits [B, K, S, V] are made piece by piece
        if pooled is None:
            return entropy, {"loss": entropy}
        audio = pool(at_least_float32(hidden), None, self.config.pooling)  # [B, D]
        text, audio = distributed.gather_rows(pooled), distributed.gather_rows(audio)  # rows of all processes
        alike = self.alike(text, audio)
        # Each process compares all pairs, but its gradient reaches its own rows only. The trainer averages over the
        # processes, so the weight is multiplied by their number.
        weight = self.config.similarity * distributed.count()
        return entropy + weight * alike, {"loss": entropy, "similarity": alike}

    def alike(self, text: Tensor, audio: Tensor) -> Tensor:
        """The regulariser of pooled vectors [B, D_text] and [B, D]; a variant of the study replaces it."""
        return similarity_loss_pooled(text, audio)


def _usual_objective(lm: nn.Module, encoder: TextEncoder, config: TrainConfig) -> Objective:
    sizes: Any = lm.config
    return CrossEntropyObjective(sizes, encoder, config)


# the step


class NotFinite(MinigenError):
    """A loss or a gradient that is not finite; the weights have not been changed by it."""


class Trainer:
    """A model in training: its objective, its optimisers, the average of its weights, and the step that changes them.

    Args:
        lm (Module): the model, moved to this process's device.
        objective (Objective): what is minimised.
        config (TrainConfig): settings.

    step: number of finished steps. ema: average of the weights.

    Raises:
        MinigenError: several processes that cannot share a batch evenly.
    """

    def __init__(self, lm: nn.Module, objective: Objective, config: TrainConfig):
        distributed.check_shares(config.batch_size)
        self.device, self.objective, self.config = distributed.device(), objective, config
        self.lm = lm.to(self.device).train()
        if config.accumulate > 1 or config.checkpointing:
            save_memory(self.lm, config)
        self.ema = Ema(self.lm, config.ema, trained_weights(self.lm))
        self.optimizers = make_optimizers(self.lm, config)
        self.recorded = RecordedGradients(self.gradients, self.lm.parameters())
        self.step = 0
        self.best: dict = {}  # with `keep_best`: the average with the lowest validation loss, and that loss

    def train_step(self, codes: Tensor, captions: list[str]) -> dict:
        """One step of the optimisers on a batch, the same batch in every process.

        Args:
            codes (Tensor): int64 [B, K, T].
            captions (list of str): B captions.

        Returns:
            Entry of the log: "loss", "similarity" (None where it was not computed), and whether the text was "dropped".

        Raises:
            NotFinite: the loss or its gradient is not finite; the weights stay as they were.
        """
        config, own = self.config, distributed.share(len(captions))
        rng = np.random.default_rng([config.seed, 1, self.step])
        batch = self._batch(codes, captions, rng, rows=own)
        gradients = self.recorded if self.recordable() else self.gradients
        with self._dropout_seed():
            parts = {name: distributed.total(part) for name, part in gradients(batch).items()}
        self._check_finite("loss", parts["total"])
        distributed.sum_gradients(self.lm.parameters())
        self._check_finite("gradient", nn.utils.clip_grad_norm_(self.lm.parameters(), config.clip))
        for optimizer in self.optimizers:
            set_rate(optimizer, learning_rate(self.step, config))
            optimizer.step()
        self.step += 1
        if self.step % config.ema_every == 0 or self.step == config.steps:
            self.ema.update(self.lm)
        similarity = parts["similarity"].item() if "similarity" in parts else None
        return {"loss": parts["loss"].item(), "similarity": similarity, "dropped": "memory" not in batch}

    def gradients(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set the gradients of this process's share; returns its part of the loss, "total", and of the logged parts."""
        self.lm.zero_grad(set_to_none=True)
        loss, parts = self._loss(self.lm, batch)
        loss = loss / distributed.count()
        loss.backward()
        return {"total": loss.detach()} | {name: part.detach() / distributed.count() for name, part in parts.items()}

    def recordable(self) -> bool:
        """Whether to record the step: on a GPU, in one process, if every step runs the same operations."""
        sizes: Any = self.lm.config
        alone = self.device.type == "cuda" and distributed.count() == 1
        return alone and self.objective.same_shapes and sizes.dropout == 0

    @torch.no_grad()
    def validate(self, tokens: TokenSet) -> dict[str, float]:
        """Loss of the averaged weights on the first 64 clips of a set, with captions ("valid") and without.

        Every process measures all of the clips.
        """
        model = copy_trained(self.lm).eval()
        load_trained(model, self.ema.weights)
        means, clips = {"valid": 0.0, "valid_no_text": 0.0}, min(VALID_CLIPS, len(tokens))
        for chunk in np.array_split(np.arange(clips), max(1, clips // self.config.batch_size)):
            for name, drop in (("valid", False), ("valid_no_text", True)):
                rng = np.random.default_rng([self.config.seed, 4, int(chunk[0])])
                loss = self._loss(model, self._batch(*tokens.batch(chunk), rng, drop))[1]["loss"]
                means[name] += len(chunk) / clips * loss.item()
        if self.config.keep_best and not means["valid"] >= self.best.get("valid", math.inf):
            self.best = {"valid": means["valid"], "weights": {k: v.clone() for k, v in self.ema.weights.items()}}
        return means

    def result(self) -> dict[str, Tensor]:
        """The averaged weights; with `keep_best` those of the lowest validation loss, which may be the start."""
        return self.best["weights"] if self.config.keep_best else self.ema.weights

    def state(self) -> dict:
        """Everything that the next step depends on, for a checkpoint."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        return {"step": self.step, "lm": trained_weights(self.lm), "optimizers": optimizers,
                "ema": self.ema.weights, "ema_updates": self.ema.updates,
                **({"best": self.best} if self.config.keep_best else {})}  # fmt: skip

    def load(self, state: dict) -> None:
        """Go on from what `state` returned."""
        load_trained(self.lm, state["lm"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.ema.weights, self.ema.updates = state["step"], state["ema"], state["ema_updates"]
        self.best = state.get("best", {})

    def _batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None,
        rows: slice = slice(None),
    ) -> dict:  # fmt: skip
        """The objective's batch, of which `rows` are kept, on this process's device."""
        batch = self.objective.batch(codes, captions, rng, drop)
        return {name: part[rows].to(self.device) for name, part in batch.items()}

    def _loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16()):
            return self.objective.loss(model, **batch)

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise NotFinite(f"the {what} of step {self.step} is {value.item()}. Train at a lower learning rate.")

    @contextmanager
    def _dropout_seed(self) -> Iterator[None]:
        """Dropout's random numbers depend on (seed, step, process) alone."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            words = [self.config.seed, 2, self.step, distributed.rank()]
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
            yield


def save_memory(lm: nn.Module, config: TrainConfig) -> None:
    """Have a language model keep fewer activations in training, see `AudioLM.hidden_states`.

    Raises:
        MinigenError: another kind of model.
    """
    if not isinstance(lm, AudioLM):
        kind = type(lm).__name__
        raise MinigenError(f"accumulate and checkpointing are for language models, not for a {kind}. Leave them out.")
    lm.row_parts, lm.checkpointing = config.accumulate, config.checkpointing
    return_freed_memory()


def copy_trained(lm: nn.Module) -> nn.Module:
    """A copy of a model that shares the frozen weights with it, such as the base model under a LoRA adapter."""
    return copy.deepcopy(lm, {id(p): p for p in lm.parameters() if not p.requires_grad})


def load_trained(lm: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set all weights that are not frozen; `weights` has the names of `trained_weights(lm)`."""
    lm.load_state_dict({**lm.state_dict(), **weights})


def clips_of_step(clips: int, config: TrainConfig, step: int) -> np.ndarray:
    """Clips of a step, int64 [B]: every epoch visits each clip once, in an order that depends on (seed, epoch)."""
    wanted = np.arange(step * config.batch_size, (step + 1) * config.batch_size)
    orders = {e: np.random.default_rng([config.seed, 0, int(e)]).permutation(clips) for e in np.unique(wanted // clips)}
    return np.array([orders[i // clips][i % clips] for i in wanted])


# the log


def log_row(step: int, minutes: float, frames_per_second: float, recent: list[dict], config: TrainConfig) -> dict:
    """A row of the log: means over the entries of the steps since the last row; "loss" over those with text."""
    return {
        "step": step,
        "lr": learning_rate(step - 1, config),
        "minutes": round(minutes, 3),
        "frames_per_second": round(frames_per_second),
        "loss": _mean([entry["loss"] for entry in recent if not entry["dropped"]]),
        "similarity": _mean([entry["similarity"] for entry in recent if entry["similarity"] is not None]),
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def write_log(path: Path, history: list[dict]) -> None:
    """Write all rows as CSV, once among all processes."""
    if distributed.is_first():
        text = io.StringIO()
        writer = csv.DictWriter(text, LOG, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(path, text.getvalue())


# before a training


def seconds_per_step(
    lm: nn.Module,
    encoder: TextEncoder,
    train_set: TokenSet,
    config: TrainConfig,
    steps: int = 12,
    objective: Objective | None = None,
) -> float:
    """Median time of a training step on this machine, measured over a few steps of a throw-away copy.

    Several processes agree on their mean, because they must plan the same number of steps. objective: that of the
    training, `CrossEntropyObjective` where None.
    """
    trainer = Trainer(copy_trained(lm), objective or _usual_objective(lm, encoder, config), config)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        trainer.train_step(*train_set.batch(clips_of_step(len(train_set), config, trainer.step)))
        times.append(time.perf_counter() - began)
    median = float(np.median(times[steps // 3 :]))  # without the first steps, which set things up
    return distributed.average(torch.tensor(median, device=trainer.device)).item()


def training_requirements(
    lm: nn.Module, tokens: TokenSet, config: TrainConfig, folder: str | Path, seconds: float = 0
) -> Requirements:
    """Memory of a training in all processes of this machine, and the disk for two checkpoints and the model.

    The memory is that of the whole process at its peak: what it holds now (libraries, text encoder, the weights) and
    what the training adds (`training_memory` less the weights).

    lm: a model whose config has layers, width and ffn. A language model reads max(delays) columns more than frames.
    """
    sizes: Any = lm.config
    trained = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in lm.parameters()) - trained
    rows, steps = config.batch_size // distributed.count(), tokens.codes.shape[-1]
    if isinstance(sizes, AudioLMConfig):
        steps += max(sizes.delays)
    added = training_memory(
        trained, sizes.layers, sizes.width, sizes.ffn, rows, steps, frozen, config.accumulate, config.checkpointing
    )
    added -= sum(p.numel() * p.element_size() for p in lm.parameters() if p.device.type == "cpu")
    held, processes = memory_held(), distributed.processes_here()
    disk = (2 * 16 + 4) * trained  # weights, moments and average, in the old checkpoint and the new; the model
    what = f"training ({amount(trained)} trained)" if frozen else "training"
    memory = processes * (held + max(0, added))
    return Requirements(what, trained + frozen, memory, disk, seconds, Path(folder), processes * held)


def fingerprint(tokens: TokenSet) -> str:
    """Digest of a token set: number of clips, all captions, and the codes of up to 64 clips."""
    digest = hashlib.sha256("\n".join(tokens.captions).encode("utf-8", "replace"))
    digest.update(np.ascontiguousarray(tokens.codes[:: max(1, len(tokens) // 64)]).tobytes())
    return f"{len(tokens)} clips, {digest.hexdigest()[:16]}"


def frozen_digest(lm: nn.Module) -> str:
    """Digest of what is trained and of the frozen weights, for models that have some; "" where all are trained.

    Shapes, and the first 1024 numbers of each frozen tensor, are read: enough to tell two base models apart.
    """
    if all(parameter.requires_grad for parameter in lm.parameters()):
        return ""
    digest = hashlib.sha256(repr([(name, list(value.shape)) for name, value in trained_weights(lm).items()]).encode())
    for parameter in lm.parameters():
        if not parameter.requires_grad:
            digest.update(parameter.detach().flatten()[:1024].cpu().double().numpy().tobytes())
    return f", {digest.hexdigest()[:16]}"


def check_parts(lm: nn.Module, tokens: TokenSet, encoder: TextEncoder) -> None:
    """Check that model, tokens and text encoder fit each other, and that the encoder can read every caption.

    Raises:
        MinigenError: they do not, with the sizes, or the first caption that is too long.
    """
    config: Any = lm.config
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
    for row, caption in enumerate(tokens.captions):
        if len(caption.encode("utf-8", "replace")) < MAX_TOKENS or not hasattr(encoder, "tokens"):
            continue  # a token has one byte or more: a short caption need not be tokenised
        length = len(encoder.tokens(caption))
        if length > MAX_TOKENS:
            raise MinigenError(
                f"the caption of clip {row} has {length} tokens; the text encoder reads at most {MAX_TOKENS}. "
                f"Shorten or remove it, and tokenise again."
            )


def _explain(error: NotFinite, rows: np.ndarray, tokens: TokenSet, checkpoint: Path) -> str:
    kept = f"The last good checkpoint is {checkpoint}" if checkpoint.exists() else "There is no checkpoint yet"
    return (
        f"{error} Its batch holds clips {', '.join(map(str, rows[:32]))} of the tokens, the first one "
        f"{tokens.captions[rows[0]][:60]!r}. {kept}. Look at these clips, or train into another folder."
    )
