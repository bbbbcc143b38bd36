"""Settings that the library and the command line share: defaults, ranges and help texts, each in one place.

    steps: int = setting(2000, COUNT, "number of training steps")
                          │     │       └─ help text; a setting that has one is an option of the command, `--steps`
                          │     └─ range, checked by `check_settings` and by the command line
                          └─ default

Nothing here loads PyTorch, so `minigen train --help` answers at once, and so does a mistake in its options.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from numbers import Integral
from typing import Any, SupportsFloat

from minigen.engine.errors import MinigenError

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, by default all finite ones from `low`.

    kind: int for whole numbers. above, below: the limit itself is left out.
    """

    kind: type[int] | type[float]
    low: float
    high: float = LARGEST
    above: bool = False
    below: bool = False

    def holds(self, value: object) -> bool:
        """Whether `value` is a number of this kind between the limits."""
        if not isinstance(value, Integral if self.kind is int else SupportsFloat):
            return False
        try:
            number = self.kind(value)  # type: ignore[call-overload]  # one of many number types
        except (TypeError, ValueError, OverflowError):  # an array of several numbers, a number beyond float
            return False
        low = self.low < number if self.above else self.low <= number
        high = number < self.high if self.below else number <= self.high
        return low and high

    def __str__(self) -> str:
        name = "a whole number" if self.kind is int else "a finite number" if self.high == LARGEST else "a number"
        limits = [f"above {self.low:,}" if self.above else f"of at least {self.low:,}"]
        if self.high < LARGEST:
            limits.append(f"below {self.high:,}" if self.below else f"at most {self.high:,}")
        return f"{name} {' and '.join(limits)}"


MAX_SECONDS = 30  # longest clip that one call generates; MusicGen's limit
MAX_TOKENS = 256  # longest caption that the text encoder reads
MAX_GUIDANCE = 10**6  # far beyond useful values; larger ones exceed the precision of float32

COUNT, NATURAL = Range(int, 1), Range(int, 0)
POSITIVE, NOT_NEGATIVE = Range(float, 0, above=True), Range(float, 0)
SHARE, SECONDS = Range(float, 0, 1), Range(float, 0, MAX_SECONDS, above=True)
GUIDANCE, SEED = Range(float, -MAX_GUIDANCE, MAX_GUIDANCE), Range(int, 0, 2**31 - 1)
TORCH_SEED = Range(int, -(2**63), 2**64 - 1)  # what torch.Generator takes


def check_number(name: str, value: object, wanted: Range) -> None:
    """Refuse a value outside a range.

    Raises:
        MinigenError: `value` is no number, not of the kind that is wanted, or out of range.
    """
    if not wanted.holds(value):
        raise MinigenError(f"{name} is {value!r}. Give {wanted}.")


def setting(default: Any, allowed: Range | Sequence, help: str = "", repr: bool = True) -> Any:
    """A dataclass field with its default, its allowed values (a range, or a list of values), and its help text.

    repr: whether it is part of the config's text, by which a training knows its checkpoint.
    """
    return field(default=default, metadata={"allowed": allowed, "help": help}, repr=repr)


def options_of(config: type) -> list[Field]:
    """The settings of a dataclass that have a help text: those that its command offers as options."""
    return [each for each in fields(config) if each.metadata["help"]]


def check_settings(config: Any) -> None:
    """Check every setting of a dataclass against its allowed values.

    Raises:
        MinigenError: a number out of range, or a name that is not among those to choose from.
    """
    for each in fields(config):
        value, allowed = getattr(config, each.name), each.metadata["allowed"]
        if isinstance(allowed, Range):
            check_number(each.name, value, allowed)
        elif value not in allowed:
            raise MinigenError(f"{each.name} is {value!r}. Choose {' or '.join(map(repr, allowed))}.")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training of the language model: how long, how fast, and how often without text.

    Raises:
        MinigenError: a setting out of range, or the regulariser with batches of one clip.
    """

    steps: int = setting(2000, COUNT, "number of training steps")
    batch_size: int = setting(16, COUNT, "clips a step, over all processes")
    learning_rate: float = setting(5e-3, POSITIVE, "peak learning rate")
    warmup: int = setting(75, NATURAL)  # steps of linear rise; then cosine decay to a twentieth
    weight_decay: float = setting(0.1, NOT_NEGATIVE)
    clip: float = setting(1.0, Range(float, 0, math.inf, above=True))  # largest gradient norm
    ema: float = setting(0.99, Range(float, 0, 1, below=True))  # moving average of the weights
    ema_every: int = setting(10, COUNT)  # steps between two updates of the average; the last step makes one, too
    text_dropout: float = setting(0.1, SHARE, "share of the steps without text, the whole batch at once")
    similarity: float = setting(0.0, NOT_NEGATIVE, "weight of the similarity regulariser in the steps without text")
    pooling: str = setting("max", ("max", "mean"), "how the regulariser pools text and audio states")
    valid_every: int = setting(100, COUNT)  # steps between two measurements on the validation clips
    # These two save memory and change results in the last digits only: a training may go on with others.
    accumulate: int = setting(1, COUNT, "parts that a batch is computed in, one after the other, to save memory", False)
    checkpointing: bool = setting(False, (False, True), "compute each layer twice, to save memory", False)
    keep_best: bool = setting(False, (False, True), repr=False)  # of all measurements on the validation clips
    save_minutes: float = setting(1.0, Range(float, 0, math.inf))  # between two checkpoints
    seed: int = setting(0, SEED, "seed of the weights, the batches and the steps without text")

    def __post_init__(self):
        check_settings(self)
        if self.similarity and self.batch_size < 2:
            raise MinigenError("the regulariser compares pairs of clips. Give a batch_size of 2 or more.")
