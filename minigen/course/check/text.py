"""Checks of notebook 04: cross-attention, buckets of distances, a mean over real words, what dropping text teaches."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from minigen.course.check.verdict import Verdict, call, number, numbers, same

DISTANCES = (0, 1, 7, 8, 15, 16, 18, 25, 40, 70, 100, 127, 128, 500)  # no bucket begins exactly here but at 16
STATES = torch.tensor(
    [[[1.0, -2.0], [3.0, 0.5], [0.0, 0.0], [0.0, 0.0]], [[-4.0, 1.0], [-2.0, 5.0], [-3.0, 3.0], [7.0, 1.0]]],
    dtype=torch.float64,
)
STATES_REAL = torch.tensor([[True, True, False, False], [True, True, True, True]])
STRAY = torch.where(STATES_REAL[..., None], STATES, torch.tensor(50.0, dtype=torch.float64))  # padding is not zero here


def cross_attention(function: Callable[[Tensor, Tensor, Tensor, Tensor], object]) -> Verdict:
    """Masked attention: function(q [B, heads, S, d], k and v [B, heads, N, d], mask [B, N]) -> [B, heads, S, d].

    The last clip has no token; its result must be 0.
    """
    q, k, v, mask = _queries_and_words()
    value, failed = call("cross_attention", function, q.clone(), k.clone(), v.clone(), mask.clone())
    if failed:
        return failed
    scores = q @ k.mT / 2  # √d = 2
    right = _read(scores, mask) @ v
    if _equal(value, right):
        return Verdict(True, "padding gets weight 0, each column's words add up to 1, and no text adds nothing.")
    nothing = torch.full_like(v[..., :1, :], torch.nan)
    mistakes = (
        (torch.where(mask.any(1)[:, None, None, None], right, nothing), "right, but for the clip without text: NaN."),
        (_read(2 * scores, mask) @ v, "the scores are not divided by √d."),
        (_read(scores / 2, mask) @ v, "the scores are divided by d. Divide by √d."),
        (scores.softmax(-1) @ v, "the mask has no effect: padding is read."),
        (_read(scores, ~mask) @ v, "the mask is the wrong way round: True is a token."),
        (scores.softmax(-1) * mask[:, None, None] @ v, "masked after the softmax: the words no longer add up to 1."),
        ((scores * mask[:, None, None]).softmax(-1) @ v, "a score of 0 still counts as e⁰ = 1. Padding needs −∞."),
        (scores.masked_fill(~mask[:, None, None], -1e9).softmax(-1) @ v, "the clip without text reads its padding."),
    )
    return _diagnose(value, right, mistakes, "Scores, mask, softmax over the words, values: compare each step.")


def _queries_and_words() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random q [3, 2, 5, 4], k and v [3, 2, 6, 4], and a mask [3, 6] whose last row is all False."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 4, generator=generator, dtype=torch.float64) for n in (5, 6, 6))
    return q, k, v, torch.arange(6) < torch.tensor([[6], [3], [0]])


def _read(scores: Tensor, mask: Tensor) -> Tensor:
    """Weights over the real words, 0 where there is none."""
    return _softmax(scores, mask[:, None, None]).nan_to_num()


def decoder_bucket(function: Callable[[int], int]) -> Verdict:
    """Bucket of T5's decoder for a token n back: function(n) -> 0 ... 31."""
    given, failed = numbers("decoder_bucket", function, [(n,) for n in DISTANCES])
    if failed:
        return failed
    if same(given, [_bucket(n, 16, 16, 31) for n in DISTANCES]):
        return Verdict(True, "16 buckets of one distance each, then 16 that grow, up to the distance 128.")
    mistakes = (
        (lambda n: _bucket(n, 8, 8, 15), "this is the encoder's half: 8 exact buckets and 8 shared ones."),
        (lambda n: _bucket(n, 16, 16, 99), "far distances have buckets above 31. The last bucket takes all of them."),
        (lambda n: _bucket(n, 8, 24, 31), "8 exact buckets. Here the first 16 distances have a bucket each."),
        (lambda n: min(n, 31), "distances from 16 on must share buckets, up to 128."),
        (lambda n: 16 + _bucket(n, 8, 8, 15), "the upper half was for tokens after n. The decoder has none."),
    )
    for formula, text in mistakes:
        if same(given, [formula(n) for n in DISTANCES]):
            return Verdict(False, text)
    wrong = next(i for i, n in enumerate(DISTANCES) if not same(given[i : i + 1], [_bucket(n, 16, 16, 31)]))
    n = DISTANCES[wrong]
    return Verdict(False, f"distance {n} gives {given[wrong]}, not {_bucket(n, 16, 16, 31)}. {_side(n)}")


def _bucket(n: int, exact: int, shared: int, last: int) -> int:
    if n < exact:
        return n
    return min(last, exact + int(math.log(n / exact) / math.log(128 / exact) * shared))


def _side(n: int) -> str:
    return (
        "Distances below 16 are their own bucket." if n < 16 else "From 16 on: 16 + ⌊log(n / 16) / log(128 / 16) · 16⌋."
    )


def mean_pool(function: Callable[[Tensor, Tensor], object]) -> Verdict:
    """Mean over the real words: function(states [B, N, D], mask bool [B, N]) -> [B, D]."""
    for states in (STATES, STRAY):
        value, failed = call("mean_pool", function, states.clone(), STATES_REAL.clone())
        if failed:
            return failed
        right = (states * STATES_REAL[..., None]).sum(1) / STATES_REAL.sum(1, keepdim=True)
        words = states.masked_fill(~STATES_REAL[..., None], -torch.inf)
        if _equal(value, right):
            continue
        mistakes = (
            (STATES.mean(1), "this divides by N. A caption of 2 words in a batch of 4 columns has 2 to divide by."),
            (states.mean(1), "padding takes part. It is not always zero, and it is never a word."),
            (
                states.sum(1) / STATES_REAL.sum(1, keepdim=True),
                "the number of words is right, but padding is added in.",
            ),
            (words.amax(1), "this is the maximum. The mean was asked for."),
            ((states * STATES_REAL[..., None]).sum(1), "this is the sum. Divide by the number of real words."),
        )
        return _diagnose(value, right, mistakes, "Add up the real words of each caption and divide by their number.")
    return Verdict(True, "the sum over real words, divided by how many there are: padding changes nothing.")


def dropped(answer: object, dog: float = 0.3, bark: tuple[float, float] = (0.9, 0.2)) -> Verdict:
    """q(bark | no text) after training: p(dog) p(bark | dog) + p(rain) p(bark | rain).

    dog: share of the caption "dog", the others are "rain". bark: p(bark | dog), p(bark | rain).
    """
    with_dog, with_rain = bark
    right = dog * with_dog + (1 - dog) * with_rain
    mistakes = (
        ((with_dog + with_rain) / 2, "weighs both captions alike. Dogs are rarer here."),
        (0.5, "is the probability before training. The steps without text change it."),
        (0.1 * right, "multiplies by the share of dropped steps. That share says how often the row learns, not what."),
        (0.1 * right + 0.9 * 0.5, "mixes in the value before training. After enough steps nothing of it is left."),
        (with_dog, "is p(bark | dog). Without text the model does not know that it is a dog."),
        (with_rain, "is p(bark | rain). Without text the model does not know that it rains."),
        ((1 - dog) * with_dog + dog * with_rain, "has the captions' shares the wrong way round."),
        (dog * with_dog, 'leaves out the captions "rain", in which something may bark as well.'),
        (1 - right, "is the probability that nothing barks."),
    )
    said = f"{dog:g} × {with_dog:g} + {1 - dog:g} × {with_rain:g} = {right:g} = p(bark), as if there were no captions."
    return number(answer, right, said, mistakes, "Average p(bark | caption) over the captions, as often as they come.")


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


def _equal(value: object, wanted: Tensor) -> bool:
    """Equal up to float32, in any kind of array."""
    try:
        given = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    return given.shape == wanted.shape and torch.allclose(given, wanted, atol=1e-6, equal_nan=True)


def _diagnose(value: object, right: Tensor, mistakes: Iterable[tuple[Tensor, str]], hint: str) -> Verdict:
    if not hasattr(value, "shape"):
        return Verdict(False, f"{type(value).__name__} comes back, not a tensor.")
    if tuple(value.shape) != tuple(right.shape):
        return Verdict(False, f"the result has shape {list(value.shape)}, but {list(right.shape)} is wanted. {hint}")
    for wrong, text in mistakes:
        if _equal(value, wrong):
            return Verdict(False, text)
    return Verdict(False, f"{'NaN comes back. ' if torch.as_tensor(value).isnan().any() else ''}{hint}")
