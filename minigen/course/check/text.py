"""Checks of notebook 04: a masked softmax, a mean over real words, what counts as no text, what dropping it teaches."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, call, number

SCORES = torch.tensor([[2.0, 1.0, -1.0, 3.0], [-2.0, -1.0, -3.0, -0.5], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
REAL = torch.tensor([[True, True, True, False], [True, True, False, False], [True, False, True, True]])
STATES = torch.tensor(
    [[[1.0, -2.0], [3.0, 0.5], [0.0, 0.0], [0.0, 0.0]], [[-4.0, 1.0], [-2.0, 5.0], [-3.0, 3.0], [7.0, 1.0]]],
    dtype=torch.float64,
)
STATES_REAL = torch.tensor([[True, True, False, False], [True, True, True, True]])
STRAY = torch.where(STATES_REAL[..., None], STATES, torch.tensor(50.0, dtype=torch.float64))  # padding is not zero here
NO_TEXT = ("memory=None", "mask all False", "states of zeros, mask all True", "the caption 'silence'")


def masked_softmax(function: Callable[[Tensor, Tensor], object]) -> Verdict:
    """Softmax over the real words: function(scores [S, N], mask bool [S, N], True = real) -> weights [S, N]."""
    value, failed = call("masked_softmax", function, SCORES.clone(), REAL.clone())
    if failed:
        return failed
    right = _softmax(SCORES, REAL)
    if _equal(value, right):
        return Verdict(True, "−∞ before the softmax is weight 0 after it, and the real words still add up to 1.")
    plain = SCORES.softmax(-1)
    mistakes = (
        (plain, "the padding still takes its share: the mask has no effect."),
        (plain * REAL, "padding is 0, but the words no longer add up to 1: mask the scores, not the weights."),
        (_softmax(SCORES, ~REAL), "the mask is upside down: True is a real word."),
        ((SCORES * REAL).softmax(-1), "a score of 0 is not small: e⁰ = 1. Padding needs a score of −∞."),
        (
            SCORES.masked_fill(~REAL, -torch.inf).softmax(0),
            "each column of the table adds up to 1. Words lie along dim −1.",
        ),
        (SCORES.masked_fill(~REAL, -torch.inf), "these are the masked scores. The softmax is still to come."),
        (SCORES.masked_fill(~REAL, -1.0).softmax(-1), "a score of −1 is small only beside large ones. Use −∞."),
    )
    return _diagnose(value, right, mistakes, "Padding must get exactly 0, and each row must add up to 1.")


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


def no_text(answer: object) -> Verdict:
    """Which of NO_TEXT give exactly the logits of the model without text. answer: a set, a list or one of them."""
    if answer is ...:
        return UNANSWERED
    given = [answer] if isinstance(answer, str) else list(answer) if isinstance(answer, Iterable) else [answer]
    names = {" ".join(str(name).split()) for name in given}
    unknown = sorted(names - set(NO_TEXT))
    if unknown:
        return Verdict(False, f"{', '.join(unknown)} is not on the list. Choose among: {'; '.join(NO_TEXT)}.")
    if NO_TEXT[3] in names:
        return Verdict(False, "'silence' is a word like any other. It has states, and cross-attention reads them.")
    if NO_TEXT[2] in names:
        return Verdict(
            False, "the states pass a projection with a bias: zeros go in, and something is read that is not 0."
        )
    missing = [name for name in NO_TEXT[:2] if name not in names]
    if missing:
        return Verdict(False, f"{missing[0]} is missing. What does cross-attention add to x there?")
    return Verdict(True, "without anything to read, cross-attention adds 0 to x.")


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
