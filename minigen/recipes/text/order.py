"""Second training of the "mini" text encoder, which adds order: `minigen train-text --from NAME`.

    caption --T5 encoder--> states --+--> for each piece: does it sound first, second, or neither?   (`order_labels.py`)
                                     +--> max- and mean-pooled: similarities stay as they were

Training on similarity alone teaches no order: "X, then Y" and "Y, then X" are similar. This loss alone did not teach it
either. T5 does not scale its attention scores (arXiv 1910.10683, section 2.1), and after the first training they lie
tens apart. Each piece then attends to one other piece at any distance, the position bias has no influence, and no
gradient reaches it. Therefore two heads of the first layer are set by hand to look for the words of order, one backward
and one forward (`look_for_order`). Every state then contains what they see, and the order is learnt in minutes.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.corpus.synthesis.captions import paraphrases, split_of
from minigen.corpus.synthesis.scenes import sample_scene
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.errors import MinigenError
from minigen.engine.loop import Loop
from minigen.engine.resources import announce, recipe_requirements
from minigen.optim import cosine, set_rate
from minigen.recipes.text.card import order_card
from minigen.recipes.text.order_labels import UNASKED, label, order_accuracy, ordered_captions
from minigen.recipes.text.paraphrase import read_captions
from minigen.recipes.text.retrieval import held_out, measure
from minigen.recipes.text.tokenizer import PAD
from minigen.regularizer import pool, similarity_matrix
from minigen.text import TextEncoder, load_text_encoder

# Words of order, as pieces. 1: the text before the word sounds first; -1: it sounds second.
SIGNS = {"▁then": 1.0, "▁followed": 1.0, "▁before": 1.0, "▁after": -1.0}


@dataclass(frozen=True)
class OrderRecipe:
    """Data and rates. ordered, others: captions per step that name an order, and of all kinds."""

    scenes: int = 1500  # captions of the corpus that name an order, to train on; twice as many of all kinds
    real: int = 6000  # captions of AudioCaps, where a folder is given
    ordered: int = 32
    others: int = 48
    learning_rate: float = 5e-4  # a tenth for the pieces' vectors, tenfold for the output layer
    measured: int = 300  # scenes of the corpus to measure on


def teach_order(
    folder: str | Path,
    start: str | Path = "mini",
    minutes: float = 8,
    seed: int = 0,
    audiocaps: str | Path | None = None,
    progress: bool = True,
    recipe: OrderRecipe | None = None,
    steps: int | None = None,
) -> dict[str, float]:
    """Train an encoder until its states contain the order, and write it with its card to `folder`.

    start: name or folder of the encoder. The other arguments are those of `train_text`; an interrupted run continues.

    Returns:
        The figures of the card: areas under the ROC curve, and shares of pieces whose order a linear probe reads from
        their states, before and after.

    Raises:
        MinigenError: no such encoder, or its tokenizer has none of the words of order as one piece.
    """
    recipe, folder = recipe or OrderRecipe(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before, encoder = load_text_encoder(start), load_text_encoder(start)
    run = OrderTraining(encoder, recipe, seed, audiocaps)
    parameters = sum(weight.numel() for weight in encoder.model.parameters())
    announce(recipe_requirements("teaching order", parameters, 0, minutes, folder), progress)
    run.train(folder / CHECKPOINT, minutes, steps, progress)
    TextEncoder(copy.deepcopy(encoder.model).half(), encoder.tokenizer).save_pretrained(folder)
    taught, sets = load_text_encoder(folder), held_out(audiocaps, seed, recipe.measured)
    figures = measure(taught, sets)
    figures |= {"order, before": order_accuracy(before, seed), "order, after": order_accuracy(taught, seed)}
    (folder / "card.md").write_text(order_card(run, figures, start, minutes, bool(audiocaps)), encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return figures


class OrderTraining:
    """An encoder that learns order: model, output layer, optimiser, and captions with the order of their pieces."""

    def __init__(self, encoder: TextEncoder, recipe: OrderRecipe, seed: int, audiocaps: str | Path | None):
        self.model, self.tokenizer, self.recipe, self.seed = encoder.model, encoder.tokenizer, recipe, seed
        rng = np.random.default_rng([seed, 4])
        ordered = ordered_captions(rng, recipe.scenes, "train")
        real = [caption for _, caption in read_captions(audiocaps, "train")][: recipe.real] if audiocaps else []
        others = real + [_wording(rng) for _ in range(2 * recipe.scenes)]
        self.ordered, self.others = (self._lessons(captions) for captions in (ordered, others))
        self.old = copy.deepcopy(self.model)
        look_for_order(self.model, self.tokenizer, [ids for ids, _ in self.ordered + self.others])
        self.model.requires_grad_(True)
        torch.manual_seed(seed)
        self.ask = nn.Linear(encoder.width, 3)
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98), weight_decay=0.01)
        self.step, self.seconds, self.curve = 0, 0.0, []
        self.identity = f"{recipe}, seed {seed}, {len(real)} real captions"

    def _lessons(self, captions: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Pieces and their order (FIRST, SECOND, NEITHER, UNASKED), int64 [N] each."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(captions)]
        return [(torch.tensor(i), torch.tensor(p)) for i, p in zip(ids, label(self.tokenizer, captions), strict=True)]

    def _groups(self) -> list[dict]:
        """Parameter groups of the optimiser, each with its share of the learning rate."""
        vectors = [self.model.shared.weight]
        rest = [weight for weight in self.model.parameters() if weight is not self.model.shared.weight]
        shares = ((vectors, 0.1), (rest, 1.0), (list(self.ask.parameters()), 10.0))
        return [{"params": weights, "share": share} for weights, share in shares]

    def train(self, checkpoint: Path, minutes: float, steps: int | None, progress: bool) -> None:
        """Train until the budget is spent; an interrupted training continues from `checkpoint`."""
        loop = Loop(checkpoint, self.identity, self.state, steps, minutes, "order", progress=progress)
        if saved := loop.resume():
            self.load(saved)
        for share in loop:
            self.curve.append(self.one_step(share))
            loop.show("order {:.2f}, change {:.3f}, right {:.2f}".format(*self.curve[-1]))
        self.seconds = loop.seconds
        self.model.requires_grad_(False)

    def one_step(self, share: float) -> tuple[float, float, float]:
        """One update after `share` (0 to 1) of the budget: both losses, and the share of pieces placed rightly."""
        rate = self.recipe.learning_rate * min(1, (self.step + 1) / 20) * cosine(share, floor=0.1)
        set_rate(self.optimizer, rate)
        ids, places = self._draw()
        mask = ids != PAD
        states = self.model(ids, mask)  # [batch, N, D]
        with torch.no_grad():
            old = self.old(ids, mask)
        answers = self.ask(states).flatten(0, 1)  # [batch N, 3]
        question = F.cross_entropy(answers, places.flatten(), ignore_index=UNASKED)
        unlike = sum(unlikeness(pool(states, mask, how), pool(old, mask, how)) for how in ("max", "mean"))
        self.optimizer.zero_grad()
        (question + unlike).backward()
        nn.utils.clip_grad_norm_([w for group in self.optimizer.param_groups for w in group["params"]], 1.0)
        self.optimizer.step()
        self.step += 1
        asked = places.flatten() != UNASKED
        right = (answers.argmax(1) == places.flatten())[asked].float().mean()
        return round(question.item(), 4), round(unlike.item(), 4), round(right.item(), 4)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Pieces of this step's captions and their order, [batch, N] each; they depend on (seed, step) alone."""
        rng, drawn = np.random.default_rng([self.seed, 5, self.step]), []
        for lessons, count in ((self.ordered, self.recipe.ordered), (self.others, self.recipe.others)):
            drawn += [lessons[i] for i in rng.integers(len(lessons), size=count)]
        ids, places = zip(*drawn, strict=True)
        padded = nn.utils.rnn.pad_sequence
        return padded(ids, True, PAD), padded(places, True, UNASKED)

    def state(self) -> dict:
        """Everything that the next step depends on, for a checkpoint."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "ask", "optimizer")}
        return {"curve": self.curve, **parts}

    def load(self, saved: dict) -> None:
        """Go on from a checkpoint."""
        for name in ("model", "ask", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        self.step, self.curve = saved["step"], saved["curve"]


def _wording(rng: np.random.Generator) -> str:
    """A caption of the corpus in a wording of the training split."""
    while True:
        wordings = [text for text in paraphrases(sample_scene(rng), rng, 6) if split_of(text) == "train"]
        if wordings:
            return wordings[0]


def unlikeness(rows: Tensor, old: Tensor) -> Tensor:
    """Change of pooled states [B, D] against those of the model before this training.

        10 · mean over pairs of (s - t)²  +  mean over rows of 1 - cos(new, old)

    s and t are the cosines of two rows, now and before. Returns a scalar, 0 where nothing changed.
    """
    kept = F.mse_loss(similarity_matrix(rows), similarity_matrix(old))
    return 10 * kept + 1 - F.cosine_similarity(rows, old).mean()


@torch.no_grad()
def look_for_order(model, tokenizer, texts: list[Tensor]) -> None:
    """Set heads 0 and 1 of the first layer so that they attend to the words of order before and after each piece.

        q · k = 10 at a word of order, about 0 elsewhere;  value = the word's sign;  output = value · 8 · unit vector

    Queries, keys and values are linear functions of the pieces' vectors, fitted by least squares; each piece counts as
    often as it occurs in `texts`. The position bias switches the other direction off.

    Raises:
        MinigenError: the tokenizer splits all those words into several pieces.
    """
    ids = {word: tokenizer.token_to_id(word) for word in SIGNS}
    signs = {ids[word]: sign for word, sign in SIGNS.items() if ids[word] is not None}
    if not signs:
        raise MinigenError(f"the tokenizer has none of {', '.join(SIGNS)} as one piece. Start from another encoder.")
    layer = model.encoder.block[0].layer[0]
    attention, vectors = layer.SelfAttention, layer.layer_norm(model.shared.weight)
    often = torch.bincount(torch.cat(texts), minlength=len(vectors)).float()
    often = often / often.mean() + 0.05
    sign = torch.zeros(len(vectors))
    for i, value in signs.items():
        sign[i], often[i] = value, max(float(often[i]), 30.0)
    constant, key, value = (_read(vectors, often, target) for target in (torch.ones_like(sign), sign.abs(), sign))
    behind, ahead = attention.relative_attention_bias.weight.view(2, -1, model.config.num_heads)
    generator = torch.Generator().manual_seed(0)
    for head, shut in enumerate((ahead, behind)):
        rows = slice(head * model.config.d_kv, (head + 1) * model.config.d_kv)
        shut[:, head] -= 8
        behind[0, head] -= 8  # distance 0: the piece itself
        attention.q.weight[rows] *= 0.02  # the head's former query
        attention.q.weight[rows.start], attention.k.weight[rows.start] = 4 * constant, 2.5 * key
        attention.v.weight[rows.start] = value
        attention.o.weight[:, rows.start] = 8 * F.normalize(torch.randn(len(constant), generator=generator), dim=0)


def _read(vectors: Tensor, often: Tensor, target: Tensor, ridge: float = 1e-2) -> Tensor:
    """Weighted ridge regression: the w [D] that minimises the weighted square of vectors @ w - target."""
    weighted = vectors * often[:, None]
    square = weighted.T @ vectors
    edge = ridge * square.trace() / len(square) * torch.eye(len(square))
    return torch.linalg.solve(square + edge, weighted.T @ target)
