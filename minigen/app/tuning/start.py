"""Steps that both tuning commands share: load the model, plan the training, run it, say how to use the result.

--from MODEL ─► load_base ─► plan_steps: time and memory ─► train_tuned ─► adapter, or a whole model, in --out
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from minigen.engine.errors import MinigenError
from minigen.engine.settings import TrainConfig

if TYPE_CHECKING:
    from minigen.corpus.token_cache import TokenSet
    from minigen.generate import TextToAudio
    from minigen.train import Objective

EMA = 0.9  # of the weights: a tuning has few steps


def load_base(name: str) -> TextToAudio:
    """The pipeline that a tuning begins from.

    Raises:
        MinigenError: no such model, or one whose generator is not a language model.
    """
    from minigen.generate import TextToAudio
    from minigen.generators.base import generator_name

    if (found := generator_name(name)) != "language_model":
        raise MinigenError(f"--from {name} is a {found} generator. Tuning is for language models, such as mini.")
    return TextToAudio.from_pretrained(name)


def tuned_config(options: Namespace, **others) -> TrainConfig:
    """Settings of a tuning: those of the command line, with the best of its measurements kept."""
    return TrainConfig(
        steps=options.steps or 1, batch_size=options.batch_size, learning_rate=options.learning_rate, seed=options.seed,
        accumulate=options.accumulate, checkpointing=options.checkpointing, ema=EMA, keep_best=True, **others,
    )  # fmt: skip


def plan_steps(
    config: TrainConfig, options: Namespace, lm, encoder, tokens: TokenSet, objective, measurements: int = 10
) -> TrainConfig:
    """Set the number of steps: that of --steps, or as many as fit into --minutes; and measurements on the way.

    Raises:
        MinigenError: the training does not fit into the free memory or disk.
    """
    from minigen.engine.resources import announce
    from minigen.train import seconds_per_step, training_requirements

    need = training_requirements(lm, tokens, config, options.out)
    need.check()
    tried = 3 if options.steps else 6
    pace = seconds_per_step(lm, encoder, tokens, config, tried, objective)
    steps = options.steps or max(1, int(60 * options.minutes / pace))
    if not options.steps:
        print(f"{steps} steps fit into {options.minutes:g} minutes (to go on after a break: --steps {steps})")
    announce(replace(need, seconds=steps * pace))
    return replace(
        config, steps=steps, warmup=min(config.warmup, 1 + steps // 10), valid_every=max(1, steps // measurements)
    )


def train_tuned(
    options: Namespace, base: TextToAudio, tokens: TokenSet, held: TokenSet, config: TrainConfig, objective: Objective
) -> list[dict]:
    """Train the model of `base`, and write the adapter, or the whole pipeline, to --out; returns the log."""
    from minigen.engine.distributed import is_first
    from minigen.train import train

    if options.all_weights and is_first():
        base.codec.save_pretrained(options.out / "codec")
        base.encoder.save_pretrained(options.out / "text")
    return train(base.lm, base.encoder, tokens, held, options.out, config, ("codec", "text"), objective=objective)


def best_row(history: list[dict]) -> dict:
    """The row of the log with the lowest validation loss, whose weights are kept; the first one if none is lower."""
    return min(history, key=lambda row: row["valid"])


def usage(options: Namespace, caption: str) -> str:
    """The command that lets the result be heard."""
    from minigen.app.commands import as_name

    own, adapted = f"--model {as_name(options.out)}", f"--model {options.start} --adapter {options.out}"
    place = own if options.all_weights else adapted
    return f'minigen generate "{caption}" {place}'


def peak_memory() -> int:
    """Largest memory of this process so far in bytes."""
    import psutil

    try:
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset
