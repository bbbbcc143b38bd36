"""How the "mini" text encoder was made: a compact T5 encoder that learns from captions and from a teacher.

    caption, some pieces hidden --T5 encoder--> states --+--> which piece was hidden?                        (BERT)
                                                         +--> max-pooled:  who is like whom in this batch? --+
                                                         +--> mean-pooled: who is like whom in this batch? --+
    the caption's vector, from a larger sentence encoder ----------------- cosines of the batch -------------+

The regularizer compares clips by the cosine of pooled states, so that cosine is what is taught: for both poolings, the
matrix of cosines in a batch should be the teacher's (`teacher.py`). A few million weights need not find out by
themselves that a puppy is a dog: pieces start as what the teacher makes of each alone. Without a teacher the only thing
known is which two wordings belong together (SimCSE), and the pieces start from counts (`pieces.py`).
Sources: T5 (arXiv 1910.10683), BERT (1810.04805), InfoNCE (1807.03748), SimCSE (2104.08821), similarity-preserving
distillation (1907.09682).
"""

import json
import math
import shutil
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.engine.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.engine.files import remove_stale_parts
from minigen.engine.resources import announce, recipe_requirements
from minigen.recipes.text.card import card
from minigen.recipes.text.lessons import Lessons, prepare
from minigen.recipes.text.paraphrase import prompt_words, read_captions
from minigen.recipes.text.retrieval import held_out, measure, measure_rivals
from minigen.recipes.text.teacher import Teacher
from minigen.recipes.text.tokenizer import (
    END,
    MASK,
    PAD,
    embeddings_from_counts,
    embeddings_from_teacher,
    train_tokenizer,
)
from minigen.regularizer import pool, similarity_matrix
from minigen.t5 import T5Config, T5Encoder
from minigen.text import TextEncoder, save_tokenizer


@dataclass(frozen=True)
class TextRecipe:
    """Sizes and rates. pieces: the largest vocabulary, before 256 bytes; batch: texts in a step.

    hidden: share of the second wording's pieces that are hidden. temperature: of the softmax over similarities.
    scenes, measured: how many scenes of the corpus to learn from, and to measure on.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 512
    pieces: int = 6000
    scenes: int = 3000
    batch: int = 128
    learning_rate: float = 1.5e-3
    temperature: float = 0.1
    hidden: float = 0.1
    measured: int = 300


def train_text(
    folder: str | Path,
    minutes: float = 8,
    seed: int = 0,
    audiocaps: str | Path | None = None,
    progress: bool = True,
    recipe: TextRecipe | None = None,
    steps: int | None = None,
    teacher: str | Path | None = None,
    kept: str | Path | None = None,
) -> dict[str, float]:
    """Train a text encoder and write config.json, model.safetensors (float16), the tokenizer and card.md to `folder`.

    minutes: length of the training proper; the learning rate follows it. audiocaps: a folder with AudioCaps' train.csv
    (and val.csv, which is only measured on). steps: stop after so many steps whatever the time, for runs that repeat
    exactly. teacher: a folder with the files of all-MiniLM-L6-v2, or of another encoder that `transformers` loads; its
    vectors are kept in `kept` (default: "teacher" in `folder`, for as long as the training). A run that was interrupted
    goes on from its last checkpoint when it is started again.
    Returns the figures of the card.

    Raises:
        MinigenError: `audiocaps` has no readable train.csv, or `teacher` no model.
    """
    recipe, folder = recipe or TextRecipe(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    real = [caption for _, caption in read_captions(audiocaps, "train")] if audiocaps else []
    master = Teacher(teacher, Path(kept or folder / "teacher"), progress) if teacher else None
    lessons = prepare(real, recipe.scenes, seed, master, recipe.width)
    tokenizer = train_tokenizer(lessons.first + lessons.second + 5 * prompt_words(), recipe.pieces)
    torch.manual_seed(seed)
    run = _Run(recipe, tokenizer, _start(tokenizer, lessons, master, recipe.width), lessons, seed)
    parameters = sum(weight.numel() for group in run.optimizer.param_groups for weight in group["params"])
    announce(recipe_requirements("training the text encoder", parameters, 0, minutes, folder), progress)
    run.train(folder / CHECKPOINT, 60 * minutes, steps, progress)
    run.model.half().save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    sets = held_out(audiocaps, seed, recipe.measured)
    figures = measure(TextEncoder(run.model.float(), tokenizer), sets)
    figures |= measure_rivals(sets, real or lessons.first, master, lessons.view)
    (folder / "card.md").write_text(card(run, figures, minutes, bool(real)), encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if master and not kept:
        shutil.rmtree(master.kept)
    return figures


def _start(tokenizer, lessons: Lessons, teacher: Teacher | None, width: int) -> Tensor:
    if teacher:
        return embeddings_from_teacher(tokenizer, teacher, lessons.view)
    return embeddings_from_counts(tokenizer, lessons.first + lessons.second, width)


def _new_model(recipe: TextRecipe, embeddings: Tensor):
    """A T5 encoder whose layers change little at first: it begins as the bag of its pieces."""
    model = T5Encoder(T5Config(
        vocab_size=len(embeddings), d_model=recipe.width, d_kv=recipe.width // recipe.heads, d_ff=recipe.ffn,
        num_layers=recipe.layers, num_heads=recipe.heads, feed_forward_proj="relu",
        dropout_rate=0.0,  # the hidden pieces are noise enough, and drawing dropout would cost a fifth of the time
    ))  # fmt: skip
    model.shared.weight.data.copy_(embeddings)
    for name, weight in model.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            weight.data.mul_(0.2)
    return model


class _Run:
    """One training: model, optimizer, and the losses so far."""

    def __init__(self, recipe: TextRecipe, tokenizer, embeddings: Tensor, lessons: Lessons, seed: int):
        self.recipe, self.tokenizer, self.lessons, self.seed = recipe, tokenizer, lessons, seed
        self.model = _new_model(recipe, embeddings)
        self.guess = nn.Sequential(nn.Linear(recipe.width, recipe.width), nn.GELU(), nn.LayerNorm(recipe.width))
        self.read = nn.Linear(recipe.width, recipe.width)  # from max-pooled states to the teacher's vectors
        weights = [*self.model.parameters(), *self.guess.parameters(), *self.read.parameters()]
        self.optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.wordings = [
            [encoding.ids for encoding in tokenizer.encode_batch(side)] for side in (lessons.first, lessons.second)
        ]
        self.step, self.seconds, self.curve = 0, 0.0, []
        data = zlib.crc32(json.dumps([lessons.first, sorted(tokenizer.get_vocab().items())]).encode())
        self.identity = f"{recipe}, seed {seed}, data {data:x}, teacher {lessons.view is not None}"

    def train(self, checkpoint: Path, seconds: float, steps: int | None, progress: bool) -> None:
        """Step until the time (or the number of steps) is over; a checkpoint about twice a minute."""
        from tqdm import tqdm

        remove_stale_parts(checkpoint.parent)
        if checkpoint.is_file():
            self.load(checkpoint)
        self.model.train()
        before, saved = self.seconds - time.monotonic(), self.seconds
        with tqdm(total=100, disable=not progress, unit="%", desc="text encoder") as bar:
            while (done := self.step / steps if steps else self.seconds / seconds) < 1:
                losses = self.one_step(done)
                self.seconds = before + time.monotonic()
                self.curve.append(losses)
                bar.update(int(100 * done) - bar.n)
                bar.set_postfix_str(f"hidden pieces {losses[0]:.2f}, likeness {losses[1]:.3f}")
                if self.seconds - saved > 30:
                    saved = self.seconds
                    self.save(checkpoint)

    def one_step(self, done: float) -> tuple[float, float]:
        """One update at `done` (0 to 1) of the way; the two losses."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # chance belongs to the step: a resumed run draws the same
        warm, cosine = min(1, (done + 0.002) / 0.05), 0.5 + 0.5 * math.cos(math.pi * done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * warm * cosine
        guessing, likeness = self.losses(self.drawn())
        self.optimizer.zero_grad()
        (0.1 * guessing + likeness).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return round(guessing.item(), 4), round(likeness.item(), 4)

    def drawn(self) -> np.ndarray:
        """Lessons of this step, [batch]: the first half shows its first wording, the second half its second.

        A teacher says where each text belongs, so all are others; without one, the halves are the same lessons.
        """
        count = self.recipe.batch if self.lessons.view else self.recipe.batch // 2
        return np.resize(self.lessons.draw(count, np.random.default_rng([self.seed, 1, self.step])), self.recipe.batch)

    def losses(self, drawn: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the hidden pieces, and how far the likenesses of these lessons are from what is known."""
        half = len(drawn) // 2
        texts = [self.wordings[0][i] for i in drawn[:half]] + [self.wordings[1][i] for i in drawn[half:]]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        # captions of like length go through the network together: padding would more than double the work
        parts = [self.encode(order[at : at + 64], texts) for at in range(0, len(texts), 64)]
        guesses, pieces, largest, means = (torch.cat(part) for part in zip(*parts, strict=True))
        back = torch.tensor(order).argsort()
        guessing = F.cross_entropy(guesses, pieces, reduction="sum") / max(
            1, len(pieces)
        )  # a small batch may hide none
        return guessing, self.likeness(largest[back], means[back], drawn)

    def likeness(self, largest: Tensor, means: Tensor, drawn: np.ndarray) -> Tensor:
        """The loss of the pooled states, [batch, D] each."""
        if not self.lessons.view:
            return torch.stack([info_nce(pooled, self.recipe.temperature) for pooled in (largest, means)]).mean()
        targets = self.lessons.targets[drawn]
        direct = [1 - F.cosine_similarity(rows, targets).mean() for rows in (means, self.read(largest))]
        return sum(direct) + sum(likeness_loss(rows, targets, self.recipe.temperature) for rows in (largest, means))

    def encode(self, rows: list[int], texts: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode some texts: guesses [H, V] for the hidden pieces [H], then max and mean pools [rows, D].

        Only second wordings have pieces hidden, so that whole captions are read in training as they will be in use.
        """
        ids = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in rows], True, PAD)
        mask, second = ids != PAD, torch.tensor(rows)[:, None] >= len(texts) // 2
        start = torch.rand(ids.shape) < self.recipe.hidden / 2  # two in a row, so that none is read off its other half
        hidden = (start | start.roll(1, 1)) & mask & (ids != END) & second
        shown = ids.masked_fill(hidden, self.tokenizer.token_to_id(MASK))
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            states = self.model(shown, mask)
            guesses = self.guess(states[hidden]) @ self.model.shared.weight.T * self.recipe.width**-0.5
        states = states.float()
        return guesses.float(), ids[hidden], pool(states, mask, "max"), pool(states, mask, "mean")

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        weights = {name: getattr(self, name).state_dict() for name in ("model", "guess", "read", "optimizer")}
        progress = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        save_checkpoint(path, {"of": self.identity, **progress, **weights})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            MinigenError: it is damaged, or belongs to a run with another recipe, seed or data.
        """
        saved = load_checkpoint(path)
        if saved["of"] != self.identity:
            raise MinigenError(f"{path} is from another run ({saved['of']}). Delete it, or name another folder.")
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]
        for name in ("model", "guess", "read", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])


def info_nce(pooled: Tensor, temperature: float) -> Tensor:
    """Contrastive loss of B pairs, [2B, D], row i with row B + i: find the partner among all 2B - 1 other rows.

        loss = -log( exp(cos(i, partner) / t) / sum over j != i of exp(cos(i, j) / t) ), averaged over i

    t is the temperature. Returns a scalar, log(2B - 1) when nothing is known. Source: SimCSE, equation 4.
    """
    rows = len(pooled)
    scores = similarity_matrix(pooled) / temperature
    scores = scores.masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, (torch.arange(rows) + rows // 2) % rows)


def likeness_loss(pooled: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """How far the cosines of the batch, s, are from the teacher's, t: both [B, B] from rows [B, D], without i = j.

        loss = 10 * mean of (s - t)^2  +  mean over i of KL( softmax_j(t_ij / T) || softmax_j(s_ij / T) )

    T is the temperature. The square keeps the scale of all pairs; the divergence cares for each row's nearest, which
    decide what a prompt is taken for. Returns a scalar, 0 where all cosines agree.
    """
    other = ~torch.eye(len(pooled), dtype=torch.bool)
    ours, theirs = (similarity_matrix(rows)[other].view(len(rows), -1) for rows in (pooled, targets))
    nearest = [F.log_softmax(cosines / temperature, dim=1) for cosines in (ours, theirs)]
    return 10 * F.mse_loss(ours, theirs) + F.kl_div(*nearest, reduction="batchmean", log_target=True)
