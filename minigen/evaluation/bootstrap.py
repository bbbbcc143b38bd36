"""Paired bootstrap over captions and over seeds: how sure is the difference of two models?

              caption 1  caption 2  ...            draw S seeds and n captions with replacement, the same for both
    seed 0      a - b      a - b                   models; take the difference of their measures; repeat:
    seed 1      a - b      a - b                   the middle 95 % of these differences is the interval
    seed 2      a - b      a - b

Both models answered the same captions, and at the same seed they began with the same weights and met the same batches
and the same noise: what they share cancels. Drawing captions alone would tell how sure it is of these very trainings;
drawing seeds as well, whether it would be so for others. Three seeds are few: the interval is then a lower bound, and
the table prints the seeds one by one. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8, 13.
"""

from typing import NamedTuple

import numpy as np

from minigen.engine.errors import MinigenError

Ratio = tuple[np.ndarray, np.ndarray]  # what is counted and among what, [S, n] each


class Difference(NamedTuple):
    """A difference with its 95 % interval, and the difference at each seed."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(one: Ratio, other: Ratio, seed: int = 0, resamples: int = 2000) -> Difference:
    """Measure of `one` minus that of `other`, where a measure is a sum over captions divided by another sum.

        measure = sum of counted over seeds and captions / sum of among over seeds and captions

    one, other: (counted [S, n], among [S, n]) of the same seeds and captions, in the same order. Resamples in which
    nothing is left to divide by are left out. A measure that applies to no caption gives nan.

    Raises:
        MinigenError: other shapes.
    """
    if not one[0].shape == one[1].shape == other[0].shape == other[1].shape or one[0].ndim != 2:
        shapes = [list(array.shape) for array in (*one, *other)]
        raise MinigenError(f"shapes {shapes} are no pairs. Give [seeds, captions], the same for both models.")
    times = _draws(*one[0].shape, seed, resamples)
    drawn = _resampled(one, times) - _resampled(other, times)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    each = [[_ratio(model[0][s], model[1][s]) for model in (one, other)] for s in range(len(one[0]))]
    mean = _ratio(*one) - _ratio(*other)
    return Difference(mean, float(low), float(high), tuple(a - b for a, b in each))


def interval(one: Ratio, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of one model's own measure, over captions and seeds."""
    nothing = np.zeros_like(one[0]), np.ones_like(one[1])
    return paired_difference(one, nothing, seed, resamples)[1:3]


def _draws(seeds: int, captions: int, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """How many times each seed and each caption is drawn, with replacement: [R, S] and [R, n]."""
    rng = np.random.default_rng(seed)
    return tuple(rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in (seeds, captions))


def _resampled(model: Ratio, times: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The measure in every resample, [R]; nan where nothing is left to divide by."""
    above, below = (np.einsum("rs,sn,rn->r", times[0], values, times[1], optimize=True) for values in model)
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _ratio(counted: np.ndarray, among: np.ndarray) -> float:
    below = among.sum()
    return float(counted.sum() / below) if below else float("nan")
