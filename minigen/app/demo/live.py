"""Live training: from an empty folder to a trained model in a given number of minutes.

    corpus (built in, or yours) ─► tokens ─► seconds per step ─► as many steps as fit ─► live model
                                                                                            └► caption effect

The control is paired: the loss of the same model on the same held-out clips, with their own captions and with other
clips' captions (`minigen.evaluation.caption_effect`). Corpus and tokens are kept and reused with the same settings;
training is always done anew.
"""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from minigen.corpus.corpus import Corpus
from minigen.corpus.tokens import TokenSet, glimpse, tokenize
from minigen.evaluation.caption_effect import CaptionEffect, caption_effect
from minigen.lm import AudioLM, AudioLMConfig
from minigen.train import TrainConfig, seconds_per_step, train

VALIDATIONS = 8  # in a training, beside the one before it
VALIDATED = 2 * 64  # clips that a validation hears: 64 with text and without, forward only, a third of a step's work


@dataclass(frozen=True)
class LiveConfig:
    """Sizes of the live model and of its training, chosen so that three minutes on two cores give audible results."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    learning_rate: float = 1.2e-2
    batch_size: int = 16
    warmup: int = 8
    guidance: float = 5.0  # in sampling; not told apart from the usual 3 (docs/demo.md)


class Live(NamedTuple):
    """Result of the live training: the model, its history (`minigen.train.train`), and its use of the captions."""

    lm: AudioLM
    history: list[dict]
    effect: CaptionEffect


def tokens_for(corpus: Corpus, codec, folder: Path, mix: float = 0.0, progress: bool = True) -> TokenSet:
    """Tokens of a corpus. Their subfolder of `folder` is named by a digest of clips, codec and mix, and reused."""
    digest = hashlib.sha256(
        repr((mix, [(clip.file, clip.caption, glimpse(clip.file)) for clip in corpus.clips])).encode()
    )
    for weights in codec.state_dict().values():
        digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
    return tokenize(corpus, codec, folder / digest.hexdigest()[:12], mix, progress=progress)


def train_live(
    encoder, train_set: TokenSet, valid_set: TokenSet, folder: Path, minutes: float, seed: int = 0,
    config: LiveConfig | None = None, progress: bool = True,
) -> Live:  # fmt: skip
    """Train the live model for as many steps as fit into the minutes, then measure whether it uses its captions.

    Writes to `folder`/live, see `minigen.train.train`.
    """
    config = config or LiveConfig()
    plan = TrainConfig(batch_size=config.batch_size, learning_rate=config.learning_rate, seed=seed)
    pace = seconds_per_step(new_model(encoder, train_set, config, seed), encoder, train_set, plan)
    steps = steps_in(minutes * 60, pace, VALIDATED / config.batch_size / 3)
    plan = replace(plan, steps=steps, warmup=min(config.warmup, steps // 4), valid_every=max(1, steps // VALIDATIONS),
                   ema_every=min(10, max(1, steps // 50)))  # fmt: skip
    print(f"    {steps} steps of {pace:.2f} s", flush=True)
    shutil.rmtree(folder / "live", ignore_errors=True)
    lm = new_model(encoder, train_set, config, seed)
    history = train(lm, encoder, train_set, valid_set, folder / "live", plan, progress=progress)
    return Live(lm, history, caption_effect(lm, encoder, valid_set, seed=seed))


def steps_in(seconds: float, seconds_a_step: float, validation: float) -> int:
    """Number of steps that fit into the time, if each validation takes as long as `validation` steps.

    At least half of what would fit without any, and never below 2.
    """
    all_of_it = seconds / seconds_a_step
    return max(2, round(max(all_of_it - VALIDATIONS * validation, all_of_it / 2)))


def new_model(encoder, tokens: TokenSet, config: LiveConfig, seed: int = 0) -> AudioLM:
    """The live model before training; its weights depend on the seed only."""
    streams = tokens.codes.shape[1]
    sizes = AudioLMConfig(
        streams, tokens.codebook_size, config.width, config.layers, config.heads, 4 * config.width, encoder.width,
        tuple(range(streams)),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AudioLM(sizes)
