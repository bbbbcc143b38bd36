"""Checks of notebook 02: the codebooks that a bit rate pays for, perplexity, the straight-through gradient."""

import math
from collections.abc import Callable

import torch

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, close, numbers, same, stopped

RATES = ((2000, 50, 1024), (6000, 75, 1024), (2200, 50, 2048), (1500, 75, 1024), (4100, 50, 1024))
COUNTS = ([5, 5, 5, 5], [20, 0, 0, 0], [8, 4, 2, 1, 1], [3, 0, 1], [250] * 8)


def codebooks(function: Callable[[float, float, int], int]) -> Verdict:
    """K: function(bits, frame_rate, entries) is how many codebooks fit into `bits` a second, rounded down."""
    given, failed = numbers("codebooks", function, RATES)
    if failed:
        return failed
    exact = [bits / (frames * math.log2(entries)) for bits, frames, entries in RATES]
    right = [math.floor(value) for value in exact]
    if same(given, right):
        return Verdict(True, "K = bits / (frames · log2 V), rounded down: a part of a codebook is no use.")
    return Verdict(False, _codebooks_mistake(given, exact, right))


def _codebooks_mistake(given: list, exact: list[float], right: list[int]) -> str:
    mistakes = (
        (exact, "the formula is right, but a part of a codebook is no use: round down."),
        ([math.ceil(value) for value in exact], "rounding up spends more bits than there are. Round down."),
        ([bits // (frames * entries) for bits, frames, entries in RATES], "one of V entries takes log2 V bits, not V."),
        ([bits // frames for bits, frames, _ in RATES], "that is the bits of a frame. How many does one code take?"),
        ([bits // math.log2(entries) for bits, _, entries in RATES], "that is codes a second. How many frames?"),
        ([bits // (frames * math.log(entries)) for bits, frames, entries in RATES], "a bit is one of two: use log2."),
        ([math.floor(1000 * value) for value in exact], "bits are given in bit/s, not in kb/s."),
    )  # fmt: skip
    for wrong, text in mistakes:
        if same(given, wrong):
            return text
    i = next(i for i in range(len(RATES)) if not close(as_float(given[i]), right[i]))
    return f"codebooks{RATES[i]} gives {as_float(given[i]):g}, but {right[i]} fit. Start with the bits of one frame."


def perplexity(function: Callable[[torch.Tensor], float]) -> Verdict:
    """Perplexity of a codebook: function(counts) is exp of the entropy, in nats, of the shares of the entries."""
    given = []
    for counts in COUNTS:
        try:
            given.append(function(torch.tensor(counts)))
        except Exception as error:  # whatever a reader's function may raise
            return stopped(f"for counts {counts[:5]} it", error)
        if given[-1] is ...:
            return UNANSWERED
        if isinstance(given[-1], (float, torch.Tensor)) and math.isnan(float(torch.as_tensor(given[-1]).sum())):
            return Verdict(False, f"for counts {counts[:5]} it gives nan: 0 · log 0 counts as 0. Leave out share 0.")
        if as_float(given[-1]) is None:
            return Verdict(False, f"for counts {counts[:5]} it gives {given[-1]!r}, not one number. What is returned?")
    given = [as_float(value) for value in given]
    entropies = [_entropy(counts) for counts in COUNTS]
    if _near(given, [math.exp(entropy) for entropy in entropies]):
        return Verdict(True, "exp(−Σ p log p): the number of equally used entries that would be as hard to guess.")
    mistakes = (
        (entropies, "that is the entropy in nats. Its exponential is a number of entries."),
        ([entropy / math.log(2) for entropy in entropies], "that is the entropy in bits. Take 2 to the power of it."),
        ([math.exp(e / math.log(2)) for e in entropies], "log2 needs 2 to the power, exp needs the natural logarithm."),
        ([2**e for e in entropies], "2 to the power needs log2, the natural logarithm needs exp."),
        ([math.exp(-entropy) for entropy in entropies], "the sign: logarithms of shares are below 0, entropy is not."),
        ([sum(c > 0 for c in counts) for counts in COUNTS], "that counts an entry used once as one used all the time."),
        ([1 / max(c / sum(counts) for c in counts) for counts in COUNTS], "the commonest entry alone does not tell."),
        (
            [1 / sum((c / sum(counts)) ** 2 for c in counts) for counts in COUNTS],
            "Σ p² is another measure of spread (Simpson's). Here it is Σ p log p.",
        ),
    )
    for wrong, text in mistakes:
        if _near(given, wrong):
            return Verdict(False, text)
    return Verdict(
        False, f"four entries used equally often have perplexity 4, you give {given[0]:g}. Divide by Σ counts?"
    )


def _entropy(counts: list[int]) -> float:
    shares = [count / sum(counts) for count in counts if count]
    return -sum(share * math.log(share) for share in shares)


def _near(given: list[float], wanted: list[float]) -> bool:
    """Equal up to the noise of float32."""
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for a, b in zip(given, wanted, strict=True))


def straight_through(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Verdict:
    """function(x, entry) has the value of `entry`, and its gradient goes to x as it is, none of it to `entry`."""
    x = torch.tensor([[0.5, -1.0], [2.0, 0.25]], requires_grad=True)
    entry = torch.tensor([[1.0, -1.5], [2.5, 0.0]], requires_grad=True)
    try:
        out = function(x, entry)
    except Exception as error:  # whatever a reader's function may raise
        return stopped("it", error)
    if out is ...:
        return UNANSWERED
    if not isinstance(out, torch.Tensor) or out.shape != x.shape:
        return Verdict(False, f"it gives {type(out).__name__}, not a tensor of the shape of x. What is returned?")
    if not torch.allclose(out, entry, atol=1e-5):
        what = "x: the decoder would never see a quantised vector" if torch.allclose(out, x) else "not the entry"
        return Verdict(False, f"its value is {what}. Value: entry. Gradient: that of x.")
    return _gradient_verdict(out, x, entry)


def _gradient_verdict(out: torch.Tensor, x: torch.Tensor, entry: torch.Tensor) -> Verdict:
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    gradients = [None, None]
    if out.requires_grad:
        gradients = torch.autograd.grad((out * weights).sum(), (x, entry), allow_unused=True)
    to_x, to_entry = (torch.zeros_like(x) if grad is None else grad for grad in gradients)
    if torch.allclose(to_x, weights) and not to_entry.any():
        return Verdict(True, "forwards the entry, backwards as if there were no quantiser.")
    if torch.allclose(to_x, weights):
        return Verdict(False, "x gets its gradient, but the entry gets one, too: it learns by averages. Detach it.")
    if not to_x.any() and to_entry.any():
        return Verdict(
            False, "all of the gradient goes to the entry, none to x. x + (entry − x) is just entry: detach."
        )
    if not to_x.any():
        return Verdict(False, "the value is right, but no gradient reaches x: an encoder before it would never learn.")
    return Verdict(False, f"the gradient of x should come through unchanged, once; it is multiplied by "
                          f"{float((to_x / weights).mean()):g}.")  # fmt: skip
