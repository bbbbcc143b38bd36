"""Checks of notebook 08: pooling without padding, the loss of two matrices, pairs of a coin, pairs lost to pieces."""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, number, stopped
from minigen.regularizer import pool


def _states() -> tuple[Tensor, Tensor]:
    """States [3, 4, 2], all of them negative, and a mask [3, 4]; the padding holds what no one wrote."""
    states = -1 - torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    return states.masked_fill(~mask[..., None], 0), mask


def max_pool(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """function(states [B, N, D], mask [B, N]) must be `minigen.regularizer.pool` with "max"."""
    states, mask = _states()
    got = _call(function, states.clone(), mask.clone())
    if isinstance(got, Verdict):
        return got
    right = pool(states, mask, "max")
    if got.shape != right.shape:
        return Verdict(False, f"the shape is {list(got.shape)}. One vector a clip is [B, D], here {list(right.shape)}.")
    if torch.allclose(got.double(), right):
        return _with_other_padding(function, states, mask)
    mistakes = (
        (states.amax(1), "the zeros of the padding win wherever all real tokens are negative. Use the mask."),
        (pool(states, mask, "mean"), "this is the mean over the real tokens. Take the largest."),
        (states.mean(1), "this is the mean, and it counts the padding."),
        (states.masked_fill(~mask[..., None], torch.inf).amin(1), "this is the smallest. Take the largest."),
        (states[:, 0], "this is the first token."),
    )
    for value, text in mistakes:
        if torch.allclose(got.double(), value):
            return Verdict(False, text)
    return Verdict(False, "other numbers than the largest real token of each channel. Try a clip of one token by hand.")


def _call(function: Callable, *arguments) -> Tensor | Verdict:
    """What a reader's function gives, as a tensor; or what went wrong."""
    try:
        answer = function(*arguments)
        return UNANSWERED if answer is ... else torch.as_tensor(answer)
    except Exception as error:  # whatever a reader's function may raise or give
        return stopped("the function", error)


def _with_other_padding(function: Callable, states: Tensor, mask: Tensor) -> Verdict:
    """The same, when the padding holds large numbers instead of zeros, as the last states of a model do."""
    got = _call(function, states.masked_fill(~mask[..., None], 9.0), mask)
    if isinstance(got, Tensor) and torch.allclose(got.double(), pool(states, mask, "max")):
        return Verdict(True, "padding is never the maximum, whatever it contains.")
    return Verdict(False, "right only while the padding is zero. Replace it by −inf, then take the maximum.")


def loss(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """function(text, audio), two similarity matrices [B, B], must be the regulariser's loss."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(2, 5, 3, generator=generator, dtype=torch.float64), dim=-1)
    text, audio = rows @ rows.mT
    got = _call(function, text.clone(), audio.clone())
    if isinstance(got, Verdict):
        return got
    if got.numel() != 1:
        return Verdict(False, f"the shape is {list(got.shape)}. The loss is one number: take the mean.")
    difference = (text - audio).square()
    right = difference.sum() / (5 * 4)
    mistakes = (
        (difference.mean(), "the diagonal is in the mean: B B terms, B of them zero. Divide by B (B − 1)."),
        (difference.sum(), "this is the sum. Divide by the B (B − 1) pairs."),
        (difference.sum() / 10, "each pair is in the sum twice: divide by B (B − 1), or sum one triangle."),
        (difference.triu(1).sum() / 20, "one triangle holds B (B − 1) / 2 pairs. Divide by as many."),
        ((text - audio).abs().sum() / 20, "these are absolute differences. Square them."),
        ((text - audio).sum() / 20, "differences of both signs cancel. Square them."),
        (right.sqrt(), "no root at the end: the loss is the mean square."),
    )
    if torch.allclose(got.double().flatten(), right):
        return Verdict(True, "the mean square over the pairs of two different clips.")
    for value, said in mistakes:
        if torch.allclose(got.double().flatten(), value):
            return Verdict(False, said)
    return Verdict(False, f"{got.item():.4g}, and {right.item():.4g} for the matrices tried. Compare with the loop.")


def pairs(answer: object, batch: int, share: float) -> Verdict:
    """Expected ordered pairs of dropped clips when each of `batch` clips has a coin of probability `share`."""
    all_of_them, dropped = batch * (batch - 1), batch * share
    right = all_of_them * share**2
    mistakes = (
        (right / 2, "counts each pair once. The loss has B (B − 1) terms, i with j and j with i."),
        (all_of_them * share, "is what a coin for the whole batch gives. Here both clips must have lost their text."),
        (all_of_them, "is all pairs of the batch."),
        (dropped, "is the expected number of clips, not of pairs."),
        (dropped * (dropped - 1), "puts the expected number into n (n − 1). The mean of a square is not the square "
         "of the mean: think of one pair at a time."),
        (dropped**2, "has a clip paired with itself."),
    )  # fmt: skip
    said = f"B (B − 1) p² = {right:g} of {all_of_them}. A coin for the whole batch gives {all_of_them * share:g}."
    return number(answer, right, said, mistakes, "What is the chance that both clips of one pair lose their text?")


def lost(answer: object, batch: int, pieces: int) -> Verdict:
    """Share of the off-diagonal pairs that lie across the pieces when a batch is split into `pieces` equal ones."""
    size = batch // pieces
    kept = pieces * size * (size - 1) / (batch * (batch - 1))
    mistakes = (
        (kept, "is the share that is left."),
        (1 - 1 / pieces, "counts the diagonal as well. A clip and itself are no pair."),
        (1 / pieces, "is the share of the matrix that is left, its diagonal included."),
        (100 * (1 - kept), "is the answer in per cent. Give a share between 0 and 1."),
        (pieces * size * (size - 1), "is the number of pairs that are left."),
        (batch * (batch - 1) * (1 - kept), "is the number of pairs that are lost. Divide by all."),
    )
    said = (
        f"{pieces} blocks of {size} × {size - 1} pairs stand for {batch} × {batch - 1}: {1 - kept:g} of them are lost."
    )
    return number(answer, 1 - kept, said, mistakes, "Count the pairs inside the pieces, and those of the whole batch.")
