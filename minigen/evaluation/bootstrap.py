"""Paired bootstrap over captions and training seeds: the interval of a measure, and of the difference of two models.

              caption 1  caption 2  ...            draw S seeds and n captions with replacement, the same for both
    seed 0      a - b      a - b                   models; take the difference of their measures; repeat:
    seed 1      a - b      a - b                   the middle 95 % of these differences is the interval
    seed 2      a - b      a - b

A measure is a ratio of two sums over captions, such as events heard over events asked for. All that belongs to one
caption is drawn together, because the events of one clip are not independent.

Both models answered the same captions. At the same seed they began with the same weights and saw the same batches and
the same noise, so what they have in common cancels. Drawing captions gives the uncertainty for these trainings; drawing
seeds as well gives it for other trainings. With three seeds the interval is a lower bound: the table also prints the
seeds one by one. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minigen.engine.errors import MinigenError


class Ratio(NamedTuple):
    """A measure of one model: sum of `counted` over sum of `among`, both [S, n] for S seeds and n captions."""

    counted: np.ndarray
    among: np.ndarray

    @property
    def value(self) -> float:
        """The measure over all seeds and captions; nan where `among` is 0."""
        below = self.among.sum()
        return float(self.counted.sum() / below) if below else float("nan")

    def of_seed(self, seed: int) -> "Ratio":
        """The measure of one seed."""
        return Ratio(self.counted[seed], self.among[seed])


class Difference(NamedTuple):
    """A difference, its 95 % interval, and the difference at each seed."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def sure(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(one: Ratio, other: Ratio, seed: int = 0, resamples: int = 2000) -> Difference:
    """Measure of `one` minus that of `other`, for the same seeds and captions in the same order.

    Resamples without anything to divide by are left out. A measure that applies to no caption gives nan, and so does
    the interval of a single caption at a single seed.

    Raises:
        MinigenError: the arrays differ in shape.
    """
    shapes = [array.shape for array in (*one, *other)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise MinigenError(
            f"shapes {list(map(list, shapes))} are no pairs. Give [seeds, captions], the same for both models."
        )
    draws = _draws(*one.counted.shape, seed, resamples)
    drawn = _resampled(one, draws) - _resampled(other, draws)
    drawn = drawn[np.isfinite(drawn)]
    single = one.counted.size == 1
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) and not single else (np.nan, np.nan)
    each = tuple(one.of_seed(s).value - other.of_seed(s).value for s in range(len(one.counted)))
    return Difference(one.value - other.value, float(low), float(high), each)


def interval(one: Ratio, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the measure of one model, over captions and seeds."""
    zero = Ratio(np.zeros_like(one.counted), np.ones_like(one.among))
    return paired_difference(one, zero, seed, resamples)[1:3]


@lru_cache(maxsize=4)  # a table asks for the same draws hundreds of times
def _draws(seeds: int, captions: int, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed and each caption is drawn in each resample: [R, S] and [R, n]."""
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    return of_seeds, rng.multinomial(captions, np.full(captions, 1 / captions), size=resamples)


def _resampled(model: Ratio, draws: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The measure in each resample, [R]; nan where there is nothing to divide by."""
    above, below = (np.einsum("rs,sn,rn->r", draws[0], values, draws[1], optimize=True) for values in model)
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
