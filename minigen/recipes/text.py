"""How the "mini" text encoder was made: a compact T5 encoder that learns from captions alone.

    caption --tokenizer--> pieces, some hidden --T5 encoder--> states --+--> which piece was hidden?         (BERT)
    another wording of it --> the same                         states --+--> max- and mean-pooled: which of
                                                                             the other wordings is mine?  (SimCSE)

Two captions of one scene should lie close together and captions of different scenes apart, by the cosine of their
pooled states: the regularizer compares clips by just that number. The built-in corpus words every scene in many ways.
AudioCaps has one caption a clip, so both wordings are made from it by rule (`rewording.py`). The embeddings start from
counts (`pieces.py`): pieces that stand beside the same pieces get near vectors.
Sources: T5 (arXiv 1910.10683), BERT (1810.04805), InfoNCE (1807.03748), SimCSE (2104.08821).
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.errors import MinigenError
from minigen.recipes.pieces import END, embeddings_from_counts, train_tokenizer
from minigen.recipes.rewording import families, read_captions, reword, scene_groups, scene_pair
from minigen.regularizer import pool, similarity_matrix
from minigen.text import TextEncoder, no_loading_bar

LICENCE = """ AudioCaps' captions
(Kim, Kim, Lee and Kim, "AudioCaps: Generating Captions for Audios in The Wild", NAACL-HLT 2019) are for academic use;
none of them is contained here beyond the vocabulary of pieces."""


@dataclass(frozen=True)
class TextRecipe:
    """Sizes and rates. pieces: the largest vocabulary, before 256 bytes; batch: pairs of captions in a step."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 768
    pieces: int = 3700
    scenes: int = 10000
    batch: int = 128
    learning_rate: float = 1e-3
    temperature: float = 0.06
    hidden: float = 0.15


def train_text(
    folder: str | Path,
    minutes: float = 8,
    seed: int = 0,
    audiocaps: str | Path | None = None,
    progress: bool = True,
    recipe: TextRecipe | None = None,
    steps: int | None = None,
) -> dict[str, float]:
    """Train a text encoder and write config.json, model.safetensors (float16), the tokenizer and card.md to `folder`.

    minutes: length of the training proper; the learning rate follows it. audiocaps: a folder with AudioCaps' train.csv
    (and val.csv, which is only measured on). steps: stop after so many steps whatever the time, for runs that repeat
    exactly. A run that was interrupted goes on from its last checkpoint when it is started again.
    Returns the figures of the card.

    Raises:
        MinigenError: `audiocaps` has no readable train.csv.
    """
    recipe, folder = recipe or TextRecipe(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    real = [caption for _, caption in read_captions(audiocaps, "train")] if audiocaps else []
    rng = np.random.default_rng([seed, 0])
    captions = [caption for _ in range(recipe.scenes) for caption in scene_pair(rng)] + real
    tokenizer = train_tokenizer(captions, recipe.pieces)
    torch.manual_seed(seed)
    run = _Run(recipe, tokenizer, embeddings_from_counts(tokenizer, captions, recipe.width), real, seed)
    run.train(folder / "checkpoint.pt", 60 * minutes, steps, progress)
    with no_loading_bar():
        run.model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    figures = measure(TextEncoder(run.model.float(), tokenizer), audiocaps, seed)
    (folder / "card.md").write_text(card(recipe, run, figures, minutes, bool(real)), encoding="utf-8")
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return figures


class _Run:
    """One training: model, optimizer, and the losses so far."""

    def __init__(self, recipe: TextRecipe, tokenizer, embeddings: Tensor, real: list[str], seed: int):
        from transformers import T5Config, T5EncoderModel

        self.recipe, self.tokenizer, self.real, self.seed = recipe, tokenizer, real, seed
        self.kin = families(real) if real else {}
        self.model = T5EncoderModel(T5Config(
            vocab_size=len(tokenizer), d_model=recipe.width, d_kv=recipe.width // recipe.heads, d_ff=recipe.ffn,
            num_layers=recipe.layers, num_heads=recipe.heads, feed_forward_proj="gated-gelu",
            dropout_rate=0.0,  # the hidden pieces are noise enough, and drawing dropout would cost a fifth of the time
        ))  # fmt: skip
        self.model.shared.weight.data.copy_(embeddings)
        self.guess = nn.Sequential(nn.Linear(recipe.width, recipe.width), nn.GELU(), nn.LayerNorm(recipe.width))
        weights = [*self.model.parameters(), *self.guess.parameters()]
        self.optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.step, self.seconds, self.curve = 0, 0.0, []
        self.identity = f"{recipe}, seed {seed}, {len(real)} real captions"

    def train(self, checkpoint: Path, seconds: float, steps: int | None, progress: bool) -> None:
        """Step until the time (or the number of steps) is over; a checkpoint about twice a minute."""
        from tqdm import tqdm

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
                bar.set_postfix_str(f"hidden pieces {losses[0]:.2f}, paraphrases {losses[1]:.2f}")
                if self.seconds - saved > 30:
                    saved = self.seconds
                    self.save(checkpoint)

    def one_step(self, done: float) -> tuple[float, float]:
        """One update at `done` (0 to 1) of the way; the two losses."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # chance belongs to the step: a resumed run draws the same
        warm, cosine = min(1, (done + 0.002) / 0.05), 0.5 + 0.5 * math.cos(math.pi * done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * warm * cosine
        guessing, pairing = self.losses(self.pairs(np.random.default_rng([self.seed, 1, self.step])))
        self.optimizer.zero_grad()
        (guessing + pairing).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return round(guessing.item(), 4), round(pairing.item(), 4)

    def pairs(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Two wordings each of `batch` sounds: half from AudioCaps, where it is given, the rest from the corpus."""
        chosen = rng.integers(len(self.real), size=self.recipe.batch // 2) if self.real else []
        return [self.two_views(self.real[i], rng) for i in chosen] + [
            scene_pair(rng) for _ in range(self.recipe.batch - len(chosen))
        ]

    def two_views(self, caption: str, rng: np.random.Generator) -> tuple[str, str]:
        return reword(caption, self.kin, rng), reword(caption, self.kin, rng)

    def losses(self, pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the hidden pieces, and InfoNCE of the pairs, averaged over max and mean pooling."""
        words = [first for first, _ in pairs] + [second for _, second in pairs]
        order = sorted(range(len(words)), key=lambda i: len(words[i]))
        # captions of like length go through the network together: padding would more than double the work
        parts = [self.encode_hidden([words[i] for i in order[at : at + 64]]) for at in range(0, len(words), 64)]
        guesses, pieces, largest, means = (torch.cat(part) for part in zip(*parts, strict=True))
        back = torch.tensor(order).argsort()
        pairing = [info_nce(pooled[back], self.recipe.temperature) for pooled in (largest, means)]
        return F.cross_entropy(guesses, pieces), torch.stack(pairing).mean()

    def encode_hidden(self, words: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hide some pieces and encode: guesses [H, V] for the hidden pieces [H], then max and mean pools [B, D]."""
        batch = self.tokenizer(words, padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        start = torch.rand(ids.shape) < self.recipe.hidden / 2  # two in a row, so that none is read off its other half
        hidden = (start | start.roll(1, 1)) & mask & (ids != END)
        shown = ids.masked_fill(hidden, self.tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            states = self.model(input_ids=shown, attention_mask=mask).last_hidden_state
            guesses = self.guess(states[hidden]) @ self.model.shared.weight.T * self.recipe.width**-0.5
        states = states.float()
        return guesses.float(), ids[hidden], pool(states, mask, "max"), pool(states, mask, "mean")

    def save(self, path: Path) -> None:
        """Write a checkpoint, aside first, so that there is always a whole one."""
        weights = {name: getattr(self, name).state_dict() for name in ("model", "guess", "optimizer")}
        progress = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        torch.save({"of": self.identity, **progress, **weights}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            MinigenError: it belongs to a run with another recipe, seed or data.
        """
        saved = torch.load(path, weights_only=True)
        if saved["of"] != self.identity:
            raise MinigenError(f"{path} is from another run ({saved['of']}). Delete it, or name another folder.")
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]
        for name in ("model", "guess", "optimizer"):
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


def paraphrase_auc(encoder: TextEncoder, groups: list[tuple[str, str]], pooling: str) -> float:
    """Area under the ROC curve of the cosine of pooled states: do two captions describe the same clip?

    It is the chance that two captions of one clip have a higher cosine than two captions of different clips: 0.5 is
    guessing, 1 is perfect. groups: (clip, caption) pairs; pooling "max" or "mean".
    """
    from scipy.stats import rankdata

    pooled = torch.cat([pool(*encoder([c for _, c in groups[i : i + 64]]), pooling) for i in range(0, len(groups), 64)])
    clips = np.array([clip for clip, _ in groups])
    pair = np.triu_indices(len(groups), 1)
    same, cosine = (clips[:, None] == clips)[pair], similarity_matrix(pooled).numpy()[pair]
    positive = int(same.sum())
    above = rankdata(cosine)[same].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(same) - positive)))


def measure(encoder: TextEncoder, audiocaps: str | Path | None, seed: int) -> dict[str, float]:
    """Areas under the ROC curve on captions that were not trained on, for max and mean pooling.

    corpus: three test wordings of each of 300 new scenes; "new pairs": scenes with two sounds that training never
    put together.
    """
    rng = np.random.default_rng([seed, 2])
    sets = {"corpus": scene_groups(rng, 300, "seen"), "corpus, new pairs of sounds": scene_groups(rng, 300, "held_out")}
    if audiocaps and (Path(audiocaps) / "val.csv").is_file():
        sets["AudioCaps val"] = read_captions(audiocaps, "val")
    areas = {(name, how): paraphrase_auc(encoder, sets[name], how) for name in sets for how in ("max", "mean")}
    return {f"{name}, {how}": round(area, 4) for (name, how), area in areas.items()}


def card(recipe: TextRecipe, run: _Run, figures: dict[str, float], minutes: float, audiocaps: bool) -> str:
    """The model card in Markdown: what it is, how it was made, and how well it does."""
    curve = [np.mean(tenth, axis=0) for tenth in np.array_split(run.curve, min(10, len(run.curve)))]
    real = f" and the {len(run.real)} captions of AudioCaps' training split" if audiocaps else ""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    size, pieces = run.model.num_parameters() / 1e6, len(run.tokenizer)
    return f"""# Compact T5 text encoder

A `transformers.T5EncoderModel` of {size:.2f} M parameters with a Unigram tokenizer of {pieces} pieces (256 of them
bytes, so that no character is lost; case is folded). float16.

**Made by** `minigen train-text --minutes {minutes:g}{" --audiocaps FOLDER" if audiocaps else ""} --seed {run.seed}`:
{run.step} steps of {recipe.batch} pairs of captions in {run.seconds / 3600:.2f} hours of wall time on
{torch.get_num_threads()} processor thread(s).

**Data.** Captions of the built-in corpus' scenes (synthetic){real}. Of the corpus, no wording of the validation or test
split, and no scene with a held-out pair of sounds.

**Losses.** Hidden pieces (cross-entropy) and paraphrases (InfoNCE over max- and mean-pooled states), mean of each tenth
of the steps: {", ".join(f"{guess:.2f} / {pair:.2f}" for guess, pair in curve)}.

**Config.** {", ".join(f"{name} {value}" for name, value in asdict(recipe).items())}, seed {run.seed}.

**Figures.** Area under the ROC curve of the cosine of pooled states, captions of one clip against captions of two;
captions that were not trained on (corpus: test wordings of new scenes; AudioCaps: validation split, five a clip).

| captions, pooling | area |
|---|---|
{rows}

**Limits.** It knows the words of short English captions of sounds, and little else.

**Licence.** The weights are the project's own, under its licence, made from the
captions named under Data.{LICENCE if audiocaps else ""}
"""
