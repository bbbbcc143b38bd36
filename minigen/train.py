"""Training: the language model learns to continue sound, with its caption and, now and then, without.

    codes [B, K, T] --pattern--> sequence [B, K, S] --shifted right--> model --> logits [B, K, S, V] --> cross-entropy
    captions --frozen encoder--> memory [B, N, D], taken from the whole batch with probability `text_dropout`

    loss = CE(sequence | memory)                                      with the text
    loss = CE(sequence) + similarity · similarity_loss(memory, hidden)   when the text was dropped

One network thus learns p(audio | text) and p(audio), which guidance needs (AudioGen, arXiv 2209.15352, section 3.2),
and the regulariser keeps what it hears without text arranged as the text would arrange it (arXiv 2309.08773). Batches
and coins depend on (seed, step) alone, so an interrupted run goes on as if nothing had happened.
"""

import csv
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from minigen.corpus.tokens import TokenSet
from minigen.device import fast_bf16
from minigen.errors import MinigenError
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern
from minigen.regularizer import similarity_loss
from minigen.text import TextEncoder


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, and what is done to the text. The optimiser is AudioGen's, but for a shorter schedule."""

    steps: int = 2000
    batch_size: int = 16  # clips a step
    learning_rate: float = 1e-3
    warmup: int = 150  # steps of linear rise; then cosine decay to a twentieth
    weight_decay: float = 0.1
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.99  # moving average of the weights, taken every `ema_every` steps
    ema_every: int = 10
    text_dropout: float = 0.1  # share of steps without text, the whole batch at once; 1 never sees the text
    similarity: float = 0.0  # weight of the regulariser (the paper's lambda) in those steps
    pooling: str = "max"
    valid_every: int = 100
    save_minutes: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.steps < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise MinigenError(
                f"steps {self.steps}, batch_size {self.batch_size} and learning_rate {self.learning_rate} "
                f"must be positive."
            )
        if not 0 <= self.text_dropout <= 1 or self.similarity < 0:
            raise MinigenError(
                f"text_dropout {self.text_dropout} lies in 0..1 and similarity {self.similarity} is 0 or more."
            )
        if self.similarity and self.batch_size < 2:
            raise MinigenError("the regulariser compares pairs of clips. Give a batch_size of 2 or more.")


def cross_entropy(logits: Tensor, sequence: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the real codes: logits [B, K, S, V], sequence int64 [B, K, S] (V = no code)."""
    return F.cross_entropy(logits.flatten(0, 2), sequence.flatten(), ignore_index=logits.shape[-1])


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine from `learning_rate` down to a twentieth of it."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))))


class Ema:
    """Moving average of the weights. The decay grows from 0.1 to `decay`, so that short runs forget their start."""

    def __init__(self, model: AudioLM, decay: float):
        self.decay, self.updates = decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: AudioLM) -> None:
        """Move every weight towards the model's."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        for name, value in model.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)


class Trainer:
    """A model in training: its optimiser, its average, and the one step that changes them."""

    def __init__(self, lm: AudioLM, encoder: TextEncoder, config: TrainConfig):
        from accelerate import Accelerator

        self.accelerator = Accelerator(mixed_precision="bf16" if fast_bf16() else "no")
        self.config, self.encoder = config, encoder
        self.pattern = DelayPattern(lm.config.delays)
        self.lm = lm.to(self.accelerator.device).train()
        self.ema = Ema(self.lm, config.ema)
        self.optimizer = torch.optim.AdamW(
            _decayed(self.lm, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.95)
        )
        # On a processor the fused kernel's backward pass is slower than the plain product of matrices.
        fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
        self.attention = [*(fused if self.accelerator.device.type == "cuda" else []), SDPBackend.MATH]
        self.step = 0

    def losses(self, codes: Tensor, captions: list[str], drop: bool, similarity: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy of a batch and its similarity loss (0 unless asked for): codes [B, K, T] -> two scalars."""
        device, fill = self.accelerator.device, self.lm.config.codebook_size
        sequence = self.pattern.apply(codes.to(device), fill)
        memory, mask = (None, None) if drop and not similarity else self.encoder(captions)
        text = {} if drop else {"memory": memory.to(device), "memory_mask": mask.to(device)}
        with self.accelerator.autocast(), sdpa_kernel(self.attention):
            hidden = self.lm.hidden_states(shift_right(sequence, fill), **text)
            logits = self.lm.head(hidden)
        entropy = cross_entropy(logits.float(), sequence)
        if not similarity:
            return entropy, torch.zeros((), device=device)
        alike = similarity_loss(memory.to(device), hidden.float(), mask.to(device), pooling=self.config.pooling)
        return entropy, alike

    def train_step(self, codes: Tensor, captions: list[str]) -> dict:
        """One step of the optimiser on a batch; returns what the log shows.

        Raises:
            MinigenError: the loss is not a finite number.
        """
        config = self.config
        drop = np.random.default_rng([config.seed, 1, self.step]).random() < config.text_dropout
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config)
        entropy, alike = self.losses(codes, captions, drop, config.similarity if drop else 0.0)
        loss = entropy + config.similarity * alike
        if not torch.isfinite(loss):
            raise MinigenError(
                f"the loss of step {self.step} is {loss.item()}. Lower the learning rate, or look at the data."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        if self.step % config.ema_every == 0:
            self.ema.update(self.lm)
        return {
            "loss": entropy.item(),
            "similarity": alike.item() if config.similarity and drop else None,
            "dropped": drop,
        }

    @torch.no_grad()
    def validate(self, tokens: TokenSet, clips: int = 64) -> dict[str, float]:
        """Cross-entropy of the averaged weights on the first clips of a set, with their captions and without."""
        model = AudioLM(self.lm.config).to(self.accelerator.device).eval()
        model.load_state_dict(self.ema.weights)
        trained, self.lm = self.lm, model
        totals = {"valid": 0.0, "valid_no_text": 0.0}
        rows = np.array_split(
            np.arange(min(clips, len(tokens))), max(1, min(clips, len(tokens)) // self.config.batch_size)
        )
        for chunk in rows:
            codes, captions = tokens.batch(chunk)
            share = len(chunk) / sum(map(len, rows))
            totals["valid"] += share * self.losses(codes, captions, drop=False)[0].item()
            totals["valid_no_text"] += share * self.losses(codes, captions, drop=True)[0].item()
        self.lm = trained
        return totals

    def save(self, path: Path, history: list[dict]) -> None:
        """Write a checkpoint aside and rename it, so that the last good one is always there."""
        state = {"step": self.step, "lm": self.lm.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {
            "ema": self.ema.weights,
            "ema_updates": self.ema.updates,
            "history": history,
            "config": asdict(self.config),
        }
        aside = path.with_suffix(".new")
        torch.save(state, aside)
        aside.replace(path)

    def resume(self, path: Path) -> list[dict]:
        """Take up a checkpoint and return the history so far.

        Raises:
            MinigenError: the checkpoint was made with other settings.
        """
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        if state["config"] != asdict(self.config):
            raise MinigenError(
                f"{path} was made with other settings. Name another folder, or delete it to start afresh."
            )
        self.lm.load_state_dict(state["lm"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.weights, self.ema.updates, self.step = state["ema"], state["ema_updates"], state["step"]
        return state["history"]


def train(
    lm: AudioLM,
    encoder: TextEncoder,
    train_set: TokenSet,
    valid_set: TokenSet,
    folder: str | Path,
    config: TrainConfig | None = None,
    names: tuple[str, str] = ("mini", "mini"),
    progress: bool = True,
) -> list[dict]:
    """Train `lm` in place on tokenised clips; an interrupted run with the same folder and settings goes on.

    Writes to `folder`: log.csv, checkpoint.pt, and at the end config.json, model.safetensors (averaged weights,
    float16) and pipeline.json, which `TextToAudio.from_pretrained(folder)` reads.

    Args:
        lm: the model; afterwards it holds the averaged weights, in eval mode.
        encoder: the frozen text encoder.
        train_set: tokenised clips to learn from.
        valid_set: tokenised clips to measure on.
        folder: where everything goes.
        config: see `TrainConfig`.
        names: of the codec and the text encoder, for pipeline.json.
        progress: show a bar.

    Returns:
        one dict a logged step: step, loss, similarity, lr, frames_per_second, minutes, valid, valid_no_text.
    """
    config, folder = config or TrainConfig(), Path(folder)
    _check_fits(lm, train_set, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    trainer, checkpoint = Trainer(lm, encoder, config), folder / "checkpoint.pt"
    history = trainer.resume(checkpoint) if checkpoint.exists() else []
    if not history:
        history.append({"step": 0, "minutes": 0.0, **trainer.validate(valid_set)})
    _loop(trainer, train_set, valid_set, checkpoint, history, progress)
    trainer.lm.load_state_dict(trainer.ema.weights)
    trainer.lm.eval().save_pretrained(folder)
    codec, text = names
    (folder / "pipeline.json").write_text(json.dumps({"codec": codec, "text": text}) + "\n")
    return history


def _loop(
    trainer: Trainer, train_set: TokenSet, valid_set: TokenSet, checkpoint: Path, history: list, progress: bool
) -> None:
    config, saved, recent = trainer.config, time.monotonic(), []
    bar = tqdm(total=config.steps, initial=trainer.step, desc="training", unit="step", disable=not progress)
    base, began, first = history[-1]["minutes"], time.monotonic(), trainer.step
    while trainer.step < config.steps:
        entry = trainer.train_step(*train_set.batch(_rows(len(train_set), config, trainer.step)))
        recent.append(entry)
        bar.update()
        bar.set_postfix(loss=f"{entry['loss']:.3f}", valid=f"{history[-1]['valid']:.3f}")
        if trainer.step % config.valid_every == 0 or trainer.step == config.steps:
            minutes = (time.monotonic() - began) / 60
            frames = (trainer.step - first) * config.batch_size * train_set.codes.shape[-1]
            row = {
                "step": trainer.step,
                "lr": learning_rate(trainer.step - 1, config),
                "minutes": round(base + minutes, 3),
            }
            row["frames_per_second"] = round(frames / (60 * minutes))
            row["loss"] = _mean([e["loss"] for e in recent if not e["dropped"]])
            row["similarity"] = _mean([e["similarity"] for e in recent if e["similarity"] is not None])
            history.append(row | trainer.validate(valid_set))
            recent = []
            _write_log(checkpoint.with_name("log.csv"), history)
        if time.monotonic() - saved > 60 * config.save_minutes or trainer.step == config.steps:
            trainer.save(checkpoint, history)
            saved = time.monotonic()
    bar.close()


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _rows(clips: int, config: TrainConfig, step: int) -> np.ndarray:
    """Clips of a step: every epoch visits each clip once, in an order that depends on (seed, epoch) alone."""
    wanted = np.arange(step * config.batch_size, (step + 1) * config.batch_size)
    orders = {e: np.random.default_rng([config.seed, 0, int(e)]).permutation(clips) for e in np.unique(wanted // clips)}
    return np.array([orders[i // clips][i % clips] for i in wanted])


def seconds_per_step(lm: AudioLM, encoder: TextEncoder, train_set: TokenSet, config: TrainConfig) -> float:
    """Median time of a training step on this machine, measured over a few steps of a throw-away copy."""
    trainer = Trainer(AudioLM(lm.config), encoder, config)
    times = []
    for _ in range(12):
        began = time.perf_counter()
        trainer.train_step(*train_set.batch(_rows(len(train_set), config, trainer.step)))
        times.append(time.perf_counter() - began)
    return float(np.median(times[4:]))  # the first ones also set things up


def _decayed(lm: AudioLM, weight_decay: float) -> list[dict]:
    """Parameter groups: matrices decay, gains and biases do not."""
    matrices = [p for p in lm.parameters() if p.ndim > 1]
    vectors = [p for p in lm.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


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


def _write_log(path: Path, history: list[dict]) -> None:
    fields = ["step", "minutes", "lr", "frames_per_second", "loss", "similarity", "valid", "valid_no_text"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(history)
