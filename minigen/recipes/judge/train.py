"""Training of the tagger and the judge (the CLAP model) on the built-in corpus and, if given, real recordings.

    train_tagger   spectrograms --Tagger--> events in every frame                       loss = clip BCE + frame BCE
    train_judge    spectrograms --tagger's layers, Transformer--> a,   captions --> t   loss = -log softmax(scale a · t)

The judge starts with the tagger's layers and keeps what they have learnt: the tagger's loss is added to its own. To
make it sensitive to order, each caption "A followed by B" has its opposite, "B followed by A", among its negatives.
Neither model is trained on the output of a codec or of a language model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import tqdm

from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.loop import Loop
from minigen.engine.resources import Requirements, announce, fast_bf16, recipe_requirements
from minigen.evaluation.clap import Judge, JudgeConfig, Tagger, TaggerConfig, linear_softmax, load_judge, load_tagger
from minigen.optim import recipe_rate, set_rate
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
REAL_SHARE = 0.12  # share of real recordings in every batch, where there are any
CLIP_BYTES = 2 * 200 * 64 + 29 * 51  # memory of a clip in `Examples`: float16 spectrogram, labels
NOISE_CLIPS = 5  # clips of noise or silence added to every batch of the tagger: steady noise is not rain

WHY_NOT_HTSAT = """The audio encoder is not CLAP's HTSAT. A ClapModel with a small HTSAT (48 channels, 3 stages, 1.5 M
parameters) processes 110 clips per second forward and backward on one core. After 319 steps of 64 clips it had a mean
average precision of 0.19 for the events of the clips, and found 7 % of 100 clips by their caption: too slow for a
quarter of an hour on one core. The tagger's convolutions reach 0.95 after 2000 steps of 32 clips, so the judge uses
them. Official models in ClapModel's format load by name."""


@dataclass(frozen=True)
class Training:
    """Settings of one training.

    clips: number of corpus clips. minutes: length of the training; the learning rate follows it. steps: number of steps
    instead of minutes, for runs that repeat exactly. test_clips: corpus clips that are only measured on. test_fold:
    fold of the real recordings that is only measured on.
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

    An interrupted run continues from its last checkpoint when it is started again.

    Args:
        folder (str or Path): output folder.
        real (str or Path): folder of class folders of recordings (ESC-10).
        training (Training): settings, the defaults where None.
        progress (bool): show progress bars.
        start (str or Path): tagger whose weights to start from; random weights where None.

    Returns:
        The figures of the card.

    Raises:
        MinigenError: `real` has no class folder named after a kind, or there is no tagger `start`.
    """
    training = training or Training()
    torch.manual_seed(training.seed)
    tagger = Tagger(TaggerConfig())
    if start:
        tagger.load_state_dict(load_tagger(start).state_dict())
    announce(_requirements("training the tagger", tagger, training, folder), progress)
    data, noise = _Data(training, real, progress), plain_noise(training.seed)

    def loss(rng: torch.Generator) -> Tensor:
        without_event = noise.rows(torch.randint(len(noise), (NOISE_CLIPS,), generator=rng))
        batch = augment(join(data.examples.rows(data.draw(rng)), without_event), TAGGER_AUGMENTATION, rng)
        return tagger_loss(tagger(batch.pictures.transpose(1, 2)), batch)

    minutes, curve = fit(tagger, loss, training, Path(folder) / CHECKPOINT, progress)
    tagger.eval().save_pretrained(folder)
    figures = tagger_figures(load_tagger(folder), training.seed, training.test_clips, data.test)
    note = f"It started from the weights of the tagger {start}." if start else ""
    return finish(Path(folder), "tagger", figures, training, len(data.kinds), minutes, curve, note)


def tagger_loss(logits: Tensor, batch: Examples) -> Tensor:
    """Binary cross-entropy of the clips (linear softmax over frames), plus that of the frames of timed clips.

    logits: [B, C, T]. Returns a scalar.
    """
    logits = logits.float()
    frames = logits.sigmoid()  # [B, C, T]
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

    An interrupted run continues from its last checkpoint when it is started again.

    Args:
        folder (str or Path): output folder.
        real (str or Path): folder of class folders of recordings (ESC-10).
        training (Training): settings.
        progress (bool): show progress bars.
        tagger (str or Path): tagger whose layers the judge starts with (`load_tagger`).

    Returns:
        The figures of the card.

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
    return recipe_requirements(what, parameters, CLIP_BYTES * training.clips, training.minutes, folder)


def _draw_texts(choices: list[tuple[list[str], list[str]]], rng: torch.Generator) -> list[str]:
    """One caption for each sound, then one opposite caption for each sound that has any."""
    numbers = torch.rand(len(choices), generator=rng).tolist()
    captions, opposites = [], []
    for number, (right, wrong) in zip(numbers, choices, strict=True):
        captions.append(right[int(number * len(right))])
        if wrong:
            opposites.append(wrong[int(number * len(wrong))])
    return captions + opposites


def judge_loss(judge: Judge, batch: Examples, texts: list[str]) -> Tensor:
    """Contrastive loss of B sounds and their captions, plus the tagger's loss of the judge's audio layers.

        loss = mean of CE(s a . t, i) over sounds i  +  mean of CE(s t . a, i) over captions i  +  tagger_loss

    texts: B captions in the order of the sounds, then any number of captions that fit none of them.
    Source: CLAP (arXiv 2211.06687), section 3; opposites as negatives: "CompA" (arXiv 2310.08753).
    """
    features, own = judge.ears.hidden(batch.pictures.transpose(1, 2)), torch.arange(len(batch))
    audio, text, scale = judge.hear(features), judge.read(texts), judge.scale.exp().clamp(max=100)
    to_text = cross_entropy(scale * audio @ text.T, own)
    to_audio = cross_entropy(scale * text[: len(own)] @ audio.T, own)
    return to_text + to_audio + tagger_loss(judge.ears.head(features), batch)


class _Data:
    """Examples of corpus clips, then of real recordings. test: the recordings of the test fold."""

    def __init__(self, training: Training, real: str | Path | None, progress: bool):
        self.training, self.kinds = training, []
        clips = tqdm(range(training.clips), "clips", disable=not progress, leave=False)
        self.examples = examples(corpus_clip(training.seed, "train", i) for i in clips)
        train, self.test = recordings(real, training.test_fold) if real else ([], [])
        if train:
            self.examples = join(self.examples, examples(train))
            self.kinds = [events[0].kind for _, events, _ in train]

    def draw(self, rng: torch.Generator) -> Tensor:
        """Numbers of the examples of one batch; a share of `REAL_SHARE` are recordings, where there are any."""
        clips, real = self.training.clips, round(REAL_SHARE * self.training.batch) if self.kinds else 0
        corpus = torch.randint(clips, (self.training.batch - real,), generator=rng)
        return torch.cat([corpus, torch.randint(clips, max(len(self), clips + 1), (real,), generator=rng)])

    def __len__(self) -> int:
        return len(self.examples)


def fit(
    model: nn.Module, loss: Callable[[torch.Generator], Tensor], training: Training, checkpoint: Path, progress: bool
) -> tuple[float, list[float]]:
    """Minimise `loss(generator)` with AdamW until the budget is spent.

    The random numbers of a step depend on the seed and its number alone, so a resumed run draws the same ones.

    Returns:
        Minutes of training, and the loss of every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, (0.9, 0.98), weight_decay=0.02)
    curve = []

    def state() -> dict:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "curve": curve}

    loop = Loop(checkpoint, str(training), state, training.steps, training.minutes, progress=progress)
    if saved := loop.resume():
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        curve += saved["curve"]
    model.train()
    for share in loop:
        set_rate(optimizer, training.learning_rate * recipe_rate(share))
        curve.append(_update(model, optimizer, loss, seed=training.seed * 1_000_003 + loop.step))
        loop.show(f"loss {curve[-1]:.3f}")
    return loop.seconds / 60, curve


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, seed: int) -> float:
    """One step of the optimiser; returns the loss."""
    torch.manual_seed(seed)  # for dropout
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        value = loss(torch.Generator().manual_seed(seed))
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return round(value.item(), 4)
