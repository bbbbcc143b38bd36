"""Training of the "mini" text encoder: a compact T5 encoder that learns from captions and from a teacher.

    caption, some pieces hidden --T5 encoder--> states --+--> predict the hidden pieces                      (BERT)
                                                         +--> max-pooled:  cosines of the batch --+
                                                         +--> mean-pooled: cosines of the batch --+--> should be equal
    caption --larger sentence encoder (the teacher)--> vectors ---------> cosines of the batch --+

The similarity regulariser compares clips by the cosine of pooled states, so this cosine is trained: for both poolings,
the matrix of cosines of a batch should be the teacher's (`teacher.py`). The teacher also gives the start vectors of the
pieces, because a few million weights cannot find out from captions alone that a puppy is a dog. Without a teacher, only
the pairs of wordings of one sound are known (SimCSE), and the start vectors come from counts (`tokenizer.py`).

Sources: T5 (arXiv 1910.10683), BERT (1810.04805), InfoNCE (1807.03748), SimCSE (2104.08821), similarity-preserving
distillation (1907.09682).
"""

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.loop import Loop
from minigen.engine.resources import announce, fast_bf16, recipe_requirements
from minigen.optim import recipe_rate, set_rate
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
    """Sizes of the model and settings of its training.

    pieces: largest vocabulary, before the 256 bytes. batch: texts per step. hidden: share of the second wording's
    pieces that are hidden. temperature: of the softmax over similarities. scenes, measured: number of scenes of the
    corpus to train on and to measure on.
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

    An interrupted run continues from its last checkpoint when it is started again.

    Args:
        folder (str or Path): output folder.
        minutes (float): length of the training; the learning rate follows it.
        seed (int): seed of the weights, the captions and the batches.
        audiocaps (str or Path): folder with AudioCaps' train.csv, and val.csv, which is only measured on.
        progress (bool): show progress bars.
        recipe (TextRecipe): sizes and settings, the defaults where None.
        steps (int): number of steps instead of minutes, for runs that repeat exactly.
        teacher (str or Path): folder with the files of all-MiniLM-L6-v2, or another encoder for `transformers`.
        kept (str or Path): folder for the teacher's vectors; "teacher" in `folder`, removed at the end, where None.

    Returns:
        The figures of the card.

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
    run = TextTraining(recipe, tokenizer, _start(tokenizer, lessons, master, recipe.width), lessons, seed)
    parameters = sum(weight.numel() for group in run.optimizer.param_groups for weight in group["params"])
    announce(recipe_requirements("training the text encoder", parameters, 0, minutes, folder), progress)
    run.train(folder / CHECKPOINT, minutes, steps, progress)
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
    """Start vectors of the pieces, [vocabulary, width]."""
    if teacher:
        return embeddings_from_teacher(tokenizer, teacher, lessons.view)
    return embeddings_from_counts(tokenizer, lessons.first + lessons.second, width)


def _new_model(recipe: TextRecipe, embeddings: Tensor):
    """A T5 encoder. Its output projections start small, so that its states start as the vectors of the pieces."""
    model = T5Encoder(T5Config(
        vocab_size=len(embeddings), d_model=recipe.width, d_kv=recipe.width // recipe.heads, d_ff=recipe.ffn,
        num_layers=recipe.layers, num_heads=recipe.heads, feed_forward_proj="relu",
        dropout_rate=0.0,  # the hidden pieces are noise enough; dropout would take a fifth of the time
    ))  # fmt: skip
    model.shared.weight.data.copy_(embeddings)
    for name, weight in model.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            weight.data.mul_(0.2)
    return model


class TextTraining:
    """A text encoder in training: model, prediction head, optimiser, and the losses of all steps so far."""

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

    def train(self, checkpoint: Path, minutes: float, steps: int | None, progress: bool) -> None:
        """Train until the budget is spent; an interrupted training continues from `checkpoint`."""
        loop = Loop(checkpoint, self.identity, self.state, steps, minutes, "text encoder", progress=progress)
        if saved := loop.resume():
            self.load(saved)
        self.model.train()
        for share in loop:
            hidden, likeness = self.one_step(share)
            self.curve.append((hidden, likeness))
            loop.show(f"hidden pieces {hidden:.2f}, likeness {likeness:.3f}")
        self.seconds = loop.seconds

    def one_step(self, share: float) -> tuple[float, float]:
        """One update after `share` (0 to 1) of the budget; returns both losses."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # a resumed run draws the same numbers in this step
        set_rate(self.optimizer, self.recipe.learning_rate * recipe_rate(share))
        guessing, likeness = self.losses(self.drawn())
        self.optimizer.zero_grad()
        (0.1 * guessing + likeness).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return round(guessing.item(), 4), round(likeness.item(), 4)

    def drawn(self) -> np.ndarray:
        """Numbers of this step's lessons, [batch]: the first half shows its first wording, the second half its second.

        With a teacher all lessons are different, since it gives a target for every text. Without one, both halves are
        the same lessons: pairs of wordings.
        """
        count = self.recipe.batch if self.lessons.view else self.recipe.batch // 2
        return np.resize(self.lessons.draw(count, np.random.default_rng([self.seed, 1, self.step])), self.recipe.batch)

    def losses(self, drawn: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the hidden pieces, and the loss of the cosines between the lessons' pooled states."""
        half = len(drawn) // 2
        texts = [self.wordings[0][i] for i in drawn[:half]] + [self.wordings[1][i] for i in drawn[half:]]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        # captions of similar length go through the network together, since padding would more than double the work
        parts = [self.encode(order[at : at + 64], texts) for at in range(0, len(texts), 64)]
        guesses, pieces, largest, means = (torch.cat(part) for part in zip(*parts, strict=True))
        back = torch.tensor(order).argsort()
        count = max(1, len(pieces))  # a small batch may hide no piece
        guessing = F.cross_entropy(guesses, pieces, reduction="sum") / count
        return guessing, self.likeness(largest[back], means[back], drawn)

    def likeness(self, largest: Tensor, means: Tensor, drawn: np.ndarray) -> Tensor:
        """Loss of the pooled states, [batch, D] each: teacher's cosines, or pairs of wordings without a teacher."""
        if not self.lessons.view:
            return torch.stack([info_nce(pooled, self.recipe.temperature) for pooled in (largest, means)]).mean()
        targets = self.lessons.targets[drawn]
        direct = [1 - F.cosine_similarity(rows, targets).mean() for rows in (means, self.read(largest))]
        return sum(direct) + sum(likeness_loss(rows, targets, self.recipe.temperature) for rows in (largest, means))

    def encode(self, rows: list[int], texts: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode some texts: predictions [H, V] for the hidden pieces [H], then max and mean pools [rows, D].

        Pieces are hidden in second wordings only, so that the model also reads whole captions, as it will in use.
        """
        ids = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in rows], True, PAD)
        mask, second = ids != PAD, torch.tensor(rows)[:, None] >= len(texts) // 2
        start = torch.rand(ids.shape) < self.recipe.hidden / 2  # two in a row: the rest of a word would give one away
        hidden = (start | start.roll(1, 1)) & mask & (ids != END) & second
        shown = ids.masked_fill(hidden, self.tokenizer.token_to_id(MASK))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            states = self.model(shown, mask)  # [rows, N, D]
            guesses = self.guess(states[hidden]) @ self.model.shared.weight.T * self.recipe.width**-0.5
        states = states.float()
        return guesses.float(), ids[hidden], pool(states, mask, "max"), pool(states, mask, "mean")

    def state(self) -> dict:
        """Everything that the next step depends on, for a checkpoint."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "guess", "read", "optimizer")}
        return {"curve": self.curve, **parts}

    def load(self, saved: dict) -> None:
        """Go on from a checkpoint."""
        self.step, self.curve = saved["step"], saved["curve"]
        for name in ("model", "guess", "read", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])


def info_nce(pooled: Tensor, temperature: float) -> Tensor:
    """Contrastive loss of B pairs, [2B, D], row i with row B + i: identify the partner among the 2B - 1 other rows.

        loss = -log( exp(cos(i, partner) / t) / sum over j != i of exp(cos(i, j) / t) ), averaged over i

    t is the temperature. Returns a scalar, log(2B - 1) when nothing is known. Source: SimCSE, equation 4.
    """
    rows = len(pooled)
    scores = similarity_matrix(pooled) / temperature
    scores = scores.masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, (torch.arange(rows) + rows // 2) % rows)


def likeness_loss(pooled: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Difference between the cosines of the batch, s, and of the teacher, t: [B, B] from rows [B, D], without i = j.

        loss = 10 * mean of (s - t)^2  +  mean over i of KL( softmax_j(t_ij / T) || softmax_j(s_ij / T) )

    T is the temperature. The square keeps the scale of all pairs. The divergence weights each row's nearest neighbours,
    which decide how a prompt is understood. Returns a scalar, 0 where all cosines agree.
    """
    other = ~torch.eye(len(pooled), dtype=torch.bool)
    ours, theirs = (similarity_matrix(rows)[other].view(len(rows), -1) for rows in (pooled, targets))
    nearest = [F.log_softmax(cosines / temperature, dim=1) for cosines in (ours, theirs)]
    return 10 * F.mse_loss(ours, theirs) + F.kl_div(*nearest, reduction="batchmean", log_target=True)
