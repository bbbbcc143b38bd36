"""How the tagger and the judge are made: two trainings on the built-in corpus and, where given, real recordings.

    train_tagger: pictures --Tagger--> events in every frame               loss = clip BCE + frame BCE
    train_judge:  pictures --ears, Transformer--> a,   captions --> t      loss = -log softmax(scale a . t), both ways

The judge starts with the ears of the tagger, and keeps what they know: the tagger's loss is added to its own. So that
it listens for order, each "A followed by B" meets its opposite, "B followed by A", among the captions it must not be
taken for. Neither model ever hears the output of a codec or of a language model.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import tqdm

from minigen.engine.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from minigen.engine.files import remove_stale_parts
from minigen.engine.resources import Requirements, announce, fast_bf16, recipe_requirements
from minigen.evaluation.clap import Judge, JudgeConfig, Tagger, TaggerConfig, linear_softmax, load_judge, load_tagger
from minigen.recipes.judge.captions import plain_wordings, train_tokenizer, wordings
from minigen.recipes.judge.card import finish, judge_figures, tagger_figures
from minigen.recipes.judge.data import (
    Augmentation,
    Examples,
    augment,
    corpus_clip,
    examples,
    join,
    plain_noise,
    recordings,
)

TAGGER_AUGMENTATION = Augmentation(gain=(-1.5, 0.6), noise=(-5, -1), floor=-5, mix=0.3, turn=True)
JUDGE_AUGMENTATION = Augmentation(gain=(-0.1, 0.1), noise=(-5, -1), floor=-5)
SAVE_EVERY = 60.0  # seconds between checkpoints
REAL_SHARE = 0.12  # of every batch, where there are real recordings
PICTURE = 2 * 200 * 64 + 29 * 51  # bytes of a clip as `Examples` holds it: float16 picture, labels
NOTHING = 5  # clips of plain noise or silence that a batch of the tagger holds besides: steady noise is no rain

WHY_NOT_HTSAT = """Why not CLAP's own HTSAT: a ClapModel with a small HTSAT (48 channels, 3 stages, 1.5 M parameters;
110 clips a second forward and backward on one core) had, after 319 steps of 64 clips, a mean average precision of 0.19
for the events of the clips, and found 7 % of 100 clips by their caption: too slow for a quarter of an hour on one core.
The tagger's convolutions reach 0.95 after 2000 steps of 32 clips, so the judge hears with them. Official models in
ClapModel's format load by name."""


@dataclass(frozen=True)
class Training:
    """One training. clips: of the corpus; minutes: of training proper, which the learning rate follows; steps: stop
    after so many whatever the time, for runs that repeat exactly; test_clips: of the corpus, and test_fold: of the real
    recordings, are only measured on.
    """

    clips: int = 8000
    minutes: float = 8
    batch: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    steps: int | None = None
    test_clips: int = 500
    test_fold: str = "4"


JUDGE_TRAINING = Training(minutes=9, batch=64, learning_rate=1e-3)


def train_tagger(
    folder: str | Path, real: str | Path | None = None, training: Training | None = None, progress: bool = True,
    start: str | Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train an event classifier and write config.json, model.safetensors (float16) and card.md to `folder`.

    real: a folder of class folders of recordings (ESC-10). start: a tagger whose weights to begin with (random ones
    otherwise). A run that was interrupted goes on from its last checkpoint when it is started again. Returns the
    figures of the card.

    Raises:
        MinigenError: `real` has no class folder named after a kind, or there is no tagger `start`.
    """
    training = training or Training()
    torch.manual_seed(training.seed)
    tagger = Tagger(TaggerConfig())
    if start:
        tagger.load_state_dict(load_tagger(start).state_dict())
    announce(_requirements("training the tagger", tagger, training, folder), progress)
    data, nothing = _Data(training, real, progress), plain_noise(training.seed)

    def loss(rng: torch.Generator) -> Tensor:
        empty = nothing.rows(torch.randint(len(nothing), (NOTHING,), generator=rng))
        batch = augment(join(data.examples.rows(data.draw(rng)), empty), TAGGER_AUGMENTATION, rng)
        return tagger_loss(tagger(batch.pictures.transpose(1, 2)), batch)

    minutes, curve = fit(tagger, loss, training, Path(folder) / CHECKPOINT, progress)
    tagger.eval().save_pretrained(folder)
    figures = tagger_figures(load_tagger(folder), training.seed, training.test_clips, data.test)
    note = f"It began with the weights of the tagger {start}." if start else ""
    return finish(Path(folder), "tagger", figures, training, len(data.kinds), minutes, curve, note)


def tagger_loss(logits: Tensor, batch: Examples) -> Tensor:
    """Binary cross-entropy of the clips (linear softmax over frames) and of the frames where their labels are known.

    logits: [B, C, T].
    """
    logits = logits.float()
    frames = logits.sigmoid()
    clip = binary_cross_entropy(linear_softmax(frames).clamp(1e-6, 1 - 1e-6), batch.labels.float())
    each = binary_cross_entropy_with_logits(logits, batch.frames.float(), reduction="none").mean((1, 2))
    return clip + (each * batch.timed).sum() / batch.timed.sum().clamp(min=1)


def train_judge(
    folder: str | Path,
    real: str | Path | None = None,
    training: Training = JUDGE_TRAINING,
    progress: bool = True,
    tagger: str | Path = "mini",
) -> dict[str, float]:
    """Train a judge and write config.json, model.safetensors (float16), its tokenizer and card.md to `folder`.

    real: a folder of class folders of recordings (ESC-10). tagger: whose ears the judge starts with (`load_tagger`). A
    run that was interrupted goes on from its last checkpoint when it is started again. Returns the figures of the card.

    Raises:
        MinigenError: no such tagger, or `real` has no class folder named after a kind.
    """
    torch.manual_seed(training.seed)
    texts = [wordings(training.seed, i) for i in range(training.clips)]
    tokenizer = train_tokenizer([caption for right, _ in texts for caption in right])
    judge = Judge(JudgeConfig(pieces=len(tokenizer)), tokenizer)
    judge.ears.load_state_dict(load_tagger(tagger).state_dict())
    announce(_requirements("training the judge", judge, training, folder), progress)
    data = _Data(training, real, progress)
    texts += [(plain_wordings(kind), []) for kind in data.kinds]

    def loss(rng: torch.Generator) -> Tensor:
        chosen = data.draw(rng)
        batch = augment(data.examples.rows(chosen), JUDGE_AUGMENTATION, rng)
        return judge_loss(judge, batch, _draw_texts([texts[i] for i in chosen.tolist()], rng))

    minutes, curve = fit(judge, loss, training, Path(folder) / CHECKPOINT, progress)
    judge.eval().save_pretrained(folder)
    figures = judge_figures(load_judge(folder), training.seed, training.test_clips, data.test)
    return finish(Path(folder), "judge", figures, training, len(data.kinds), minutes, curve, WHY_NOT_HTSAT)


def _requirements(what: str, model: nn.Module, training: Training, folder: str | Path) -> Requirements:
    parameters = sum(weight.numel() for weight in model.parameters())
    return recipe_requirements(what, parameters, PICTURE * training.clips, training.minutes, folder)


def _draw_texts(choices: list[tuple[list[str], list[str]]], rng: torch.Generator) -> list[str]:
    """One caption for each sound, then one opposite for each that has any."""
    luck = torch.rand(len(choices), generator=rng).tolist()
    right, wrong = zip(*choices, strict=True)
    return [words[int(u * len(words))] for u, words in zip(luck * 2, right + wrong, strict=True) if words]


def judge_loss(judge: Judge, batch: Examples, texts: list[str]) -> Tensor:
    """Contrastive loss of B sounds with their captions, beside the tagger's loss of the judge's ears.

        loss = mean of CE(s a . t, i) over sounds i  +  mean of CE(s t . a, i) over captions i  +  tagger_loss

    texts: B captions in the order of the sounds, then any number that fit none of them.
    Source: CLAP (arXiv 2211.06687), section 3; opposites as negatives: "CompA" (arXiv 2310.08753).
    """
    features, own = judge.ears.hidden(batch.pictures.transpose(1, 2)), torch.arange(len(batch))
    audio, text, scale = judge.hear(features), judge.read(texts), judge.scale.exp().clamp(max=100)
    to_text = cross_entropy(scale * audio @ text.T, own)
    to_audio = cross_entropy(scale * text[: len(own)] @ audio.T, own)
    return to_text + to_audio + tagger_loss(judge.ears.head(features), batch)


class _Data:
    """Corpus clips, then real recordings, as pictures; `test` are the recordings of the test fold."""

    def __init__(self, training: Training, real: str | Path | None, progress: bool):
        self.training, self.kinds = training, []
        clips = tqdm(range(training.clips), "clips", disable=not progress, leave=False)
        self.examples = examples(corpus_clip(training.seed, "train", i) for i in clips)
        train, self.test = recordings(real, training.test_fold) if real else ([], [])
        if train:
            self.examples = join(self.examples, examples(train))
            self.kinds = [events[0].kind for _, events, _ in train]

    def draw(self, rng: torch.Generator) -> Tensor:
        """Numbers of the examples of one batch; `REAL_SHARE` of them are recordings, where there are any."""
        clips, real = self.training.clips, round(REAL_SHARE * self.training.batch) if self.kinds else 0
        corpus = torch.randint(clips, (self.training.batch - real,), generator=rng)
        return torch.cat([corpus, torch.randint(clips, max(len(self), clips + 1), (real,), generator=rng)])

    def __len__(self) -> int:
        return len(self.examples)


def fit(
    model: nn.Module, loss: Callable[[torch.Generator], Tensor], training: Training, checkpoint: Path, progress: bool
) -> tuple[float, list[float]]:
    """AdamW on `loss(generator)` until the time is over: -> (minutes of training, loss of every step).

    The learning rate rises over the first 5 % and then falls along a cosine. Each step's chance depends on the seed and
    its number alone, so a run that goes on from its checkpoint draws what it would have drawn.
    """
    run = _Run(model, torch.optim.AdamW(model.parameters(), training.learning_rate, (0.9, 0.98), weight_decay=0.02))
    run.load(checkpoint)
    model.train()
    before, saved = run.seconds - time.monotonic(), run.seconds
    with tqdm(total=100, disable=not progress, unit="%", desc="training") as bar:
        while (done := len(run.curve) / training.steps if training.steps else run.seconds / 60 / training.minutes) < 1:
            rate = training.learning_rate * min(1, (done + 0.002) / 0.05) * (0.5 + 0.5 * math.cos(math.pi * done))
            run.step(loss, rate, training.seed)
            run.seconds = before + time.monotonic()
            bar.update(int(100 * done) - bar.n)
            bar.set_postfix_str(f"loss {run.curve[-1]:.3f}")
            if run.seconds - saved > SAVE_EVERY:
                saved = run.seconds
                run.save(checkpoint)
    return run.seconds / 60, run.curve


@dataclass
class _Run:
    """What a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    seconds: float = 0.0
    curve: list[float] = field(default_factory=list)

    def step(self, loss: Callable[[torch.Generator], Tensor], rate: float, seed: int) -> None:
        chance = torch.Generator().manual_seed(seed * 1_000_003 + len(self.curve))
        torch.manual_seed(seed * 1_000_003 + len(self.curve))  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            value = loss(chance)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.curve.append(round(value.item(), 4))

    def save(self, path: Path) -> None:
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(path, {"seconds": self.seconds, "curve": self.curve, **parts})

    def load(self, path: Path) -> None:
        remove_stale_parts(path.parent)
        if path.is_file():
            saved = load_checkpoint(path)
            self.seconds, self.curve = saved["seconds"], saved["curve"]
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
