"""One step of training: a batch of clips, with its captions or without, moves the weights a little.

    codes [B, K, T] --pattern--> sequence [B, K, S] --shifted right--> model --> logits [B, K, S, V] --> cross-entropy
    captions --frozen encoder--> memory [B, N, D], taken from the whole batch with probability `text_dropout`

    loss = CE(sequence | memory)                                      with the text
    loss = CE(sequence) + similarity · similarity_loss(memory, hidden)   when the text was dropped

One network thus learns p(audio | text) and p(audio), which guidance needs (AudioGen, arXiv 2209.15352, section 3.2),
and the regulariser keeps what it hears without text arranged as the text would arrange it (arXiv 2309.08773). All that
is left to chance depends on (seed, step) alone; every process is given the same batch and works on its share.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.corpus.tokens import TokenSet
from minigen.engine import distributed
from minigen.engine.checkpoint import load_checkpoint, save_checkpoint
from minigen.engine.cuda_graphs import Replay
from minigen.engine.errors import MinigenError
from minigen.engine.resources import fast_bf16
from minigen.lm import AudioLM, shift_right
from minigen.loss import at_least_float32, heads_cross_entropy
from minigen.optim import Ema, TrainConfig, learning_rate, make_optimizers
from minigen.patterns import DelayPattern
from minigen.regularizer import pool, similarity_loss_pooled
from minigen.text import TextEncoder

WORDS = 16  # texts are padded to a multiple of it where every length costs a recording


class NotFinite(MinigenError):
    """A loss or a gradient that is no number; the weights have not been touched by it."""


class Trainer:
    """A model in training: its optimisers, its average, and the one step that changes them.

    data: what it learns from, in a word that a checkpoint remembers. recent: what the steps since the last row of the
    log gave.

    Raises:
        MinigenError: several processes that cannot share a batch evenly.
    """

    def __init__(self, lm: AudioLM, encoder: TextEncoder, config: TrainConfig, data: str = ""):
        from accelerate import Accelerator

        distributed.check_shares(config.batch_size)
        self.accelerator = Accelerator(mixed_precision="bf16" if fast_bf16() else "no")
        self.config, self.encoder, self.data = config, encoder, data
        self.pattern = DelayPattern(lm.config.delays)
        self.lm = lm.to(self.accelerator.device).train()
        self.ema = Ema(self.lm, config.ema)
        self.optimizers = make_optimizers(self.lm, config)
        self.step, self.recent, self.recorded = 0, [], {}

    def losses(self, codes: Tensor, captions: list[str], drop: bool, similarity: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy of a batch and its similarity loss (0 unless asked for): codes [B, K, T] -> two scalars.

        Among several processes the batch is this one's share, and the similarity loss is that of all their shares.
        """
        return self._losses(**self._batch(codes, captions, drop, similarity), similarity=similarity)

    def _batch(self, codes: Tensor, captions: list[str], drop: bool, similarity: float) -> dict[str, Tensor]:
        """What a step computes with: the sequence, and of the text what it needs, states and mask or pooled vectors."""
        device = self.accelerator.device
        batch = {"sequence": self.pattern.apply(codes.to(device), self.lm.config.codebook_size)}
        if drop and not similarity:
            return batch
        memory, mask = (part.to(device) for part in self.encoder(captions))
        if not drop:
            batch |= {"memory": memory, "mask": mask}
        return batch | ({"pooled": pool(memory, mask, self.config.pooling)} if similarity else {})

    def _losses(self, sequence: Tensor, memory: Tensor | None = None, mask: Tensor | None = None,
                pooled: Tensor | None = None, similarity: float = 0.0) -> tuple[Tensor, Tensor]:  # fmt: skip
        with self.accelerator.autocast():
            hidden = self.lm.hidden_states(shift_right(sequence, self.lm.config.codebook_size), memory, mask)
            entropy = heads_cross_entropy(hidden, self.lm.heads, sequence)
        if not similarity:
            return entropy, torch.zeros((), device=sequence.device)
        heard = pool(at_least_float32(hidden), None, self.config.pooling)
        return entropy, similarity_loss_pooled(*map(distributed.gather_rows, (pooled, heard)))

    def train_step(self, codes: Tensor, captions: list[str]) -> dict:
        """One step of the optimisers on a batch, the same one in every process; returns what the log shows.

        Raises:
            NotFinite: the loss or its gradient is not a finite number; the weights stay as they were.
        """
        config, own = self.config, distributed.share(len(captions))
        drop = np.random.default_rng([config.seed, 1, self.step]).random() < config.text_dropout
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(self.step, config)
        with self._chance():
            entropy, alike = self._gradients(codes[own], captions[own], drop)
        whole = distributed.total(entropy)
        self._check_finite("loss", whole + config.similarity * alike)
        distributed.sum_gradients(self.lm.parameters())
        self._check_finite("gradient", torch.nn.utils.clip_grad_norm_(self.lm.parameters(), config.clip))
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        if self.step % config.ema_every == 0:
            self.ema.update(self.lm)
        similarity = alike.item() if config.similarity and drop else None
        return {"loss": whole.item(), "similarity": similarity, "dropped": bool(drop)}

    def similarity(self, drop: bool) -> float:
        """Weight of the regulariser in a step."""
        return self.config.similarity if drop else 0.0

    def _gradients(self, codes: Tensor, captions: list[str], drop: bool) -> tuple[Tensor, Tensor]:
        """Make the gradients of this process's share; returns its part of the cross-entropy, and the similarity loss.

        A GPU records it once for each shape, and replays it from then on.
        """
        similarity = self.similarity(drop)
        if not self.recordable():
            return self._backward(*self.losses(codes, captions, drop, similarity))
        batch = self._batch(codes, captions, drop, similarity)
        if "mask" in batch:  # few lengths of text: each wants a graph
            spare = -batch["mask"].shape[1] % WORDS
            batch |= {"memory": F.pad(batch["memory"], (0, 0, 0, spare)), "mask": F.pad(batch["mask"], (0, spare))}
        kind = tuple((name, part.shape) for name, part in batch.items())
        if kind not in self.recorded:
            self.recorded[kind] = self._record(batch, similarity)
        replay, gradients = self.recorded[kind]
        found = replay(*batch.values())
        for parameter, gradient in zip(self.lm.parameters(), gradients, strict=True):
            parameter.grad = gradient
        return found

    def recordable(self) -> bool:
        """Whether the way there and back is the same operations in every step, on a GPU of its own."""
        alone = self.accelerator.device.type == "cuda" and distributed.count() == 1
        return alone and self.lm.config.dropout == 0

    def _record(self, batch: dict[str, Tensor], similarity: float) -> tuple[Replay, list[Tensor | None]]:
        names = list(batch)

        def there_and_back(*parts: Tensor) -> tuple[Tensor, Tensor]:
            return self._backward(*self._losses(**dict(zip(names, parts, strict=True)), similarity=similarity))

        replay = Replay(there_and_back, *batch.values())
        return replay, [parameter.grad for parameter in self.lm.parameters()]

    def _backward(self, entropy: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
        entropy = entropy / distributed.count()
        self.lm.zero_grad(set_to_none=True)
        self.accelerator.backward(entropy + self.config.similarity * alike)
        return entropy.detach(), alike.detach()

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise NotFinite(f"the {what} of step {self.step} is {value.item()}.")

    @contextmanager
    def _chance(self) -> Iterator[None]:
        """Dropout's random numbers: those of (seed, step, process), whatever was drawn before."""
        device = self.accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            words = [self.config.seed, 2, self.step, distributed.rank()]
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
            yield

    @torch.no_grad()
    def validate(self, tokens: TokenSet, clips: int = 64) -> dict[str, float]:
        """Cross-entropy of the averaged weights on the first clips of a set, with their captions and without.

        Every process does all of it: the others would only wait.
        """
        model = copy.deepcopy(self.lm).eval()
        model.load_state_dict(self.ema.weights)
        trained, self.lm = self.lm, model
        totals, clips = {"valid": 0.0, "valid_no_text": 0.0}, min(clips, len(tokens))
        for chunk in np.array_split(np.arange(clips), max(1, clips // self.config.batch_size)):
            codes, captions = tokens.batch(chunk)
            share = len(chunk) / clips
            totals["valid"] += share * self.losses(codes, captions, drop=False)[0].item()
            totals["valid_no_text"] += share * self.losses(codes, captions, drop=True)[0].item()
        self.lm = trained
        return totals

    def save(self, path: Path, history: list[dict]) -> None:
        """Write a checkpoint, once among all processes; the last good one is there until the new one is whole.

        Raises:
            MinigenError: no room on the disk, or a place that cannot be written.
        """
        if distributed.is_first():
            state = {"config": asdict(self.config), "data": self.data, "step": self.step, "lm": self.lm.state_dict()}
            state |= {"optimizers": [o.state_dict() for o in self.optimizers], "ema": self.ema.weights}
            state |= {"ema_updates": self.ema.updates, "history": history, "recent": self.recent}
            save_checkpoint(path, state)

    def resume(self, path: Path) -> list[dict]:
        """Take up a checkpoint and return the history so far.

        Raises:
            MinigenError: the checkpoint is damaged, or was made with other settings, clips or sizes.
        """
        state = load_checkpoint(path, self.accelerator.device)
        sizes = {name: list(value.shape) for name, value in self.lm.state_dict().items()}
        same = {"lm", "optimizers", "config", "data"} <= state.keys()  # else of another recipe, or from before Muon
        same = same and {name: list(value.shape) for name, value in state["lm"].items()} == sizes
        if not same or state["config"] != asdict(self.config) or state["data"] != self.data:
            raise MinigenError(
                f"{path} was made with other settings, clips, sizes or optimisers. Name another folder, or delete it "
                f"to start afresh."
            )
        self.lm.load_state_dict(state["lm"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.ema.weights, self.ema.updates, self.step = state["ema"], state["ema_updates"], state["step"]
        self.recent = state["recent"]
        return state["history"]
