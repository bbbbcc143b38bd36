"""Checks of notebook 02: codebooks for a bit rate, a residual quantiser, dead entries, a codec's training step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, call, close, numbers, same, stopped
from minigen.quantizer import VectorQuantizer

STEPS, LEFT = 150, 0.2  # of the power that may be wrong after so many steps of a right training
RATES = ((2000, 50, 1024), (6000, 75, 1024), (2200, 50, 2048), (1500, 75, 1024), (4100, 50, 1024))


def codebooks(function: Callable[[float, float, int], int]) -> Verdict:
    """K: function(bits, frame_rate, entries) is how many codebooks fit into `bits` a second, rounded down."""
    given, failed = numbers("codebooks", function, RATES)
    if failed:
        return failed
    exact = [bits / (frames * math.log2(entries)) for bits, frames, entries in RATES]
    right = [math.floor(value) for value in exact]
    if same(given, right):
        return Verdict(True, "K = bits / (frames · log2 V), rounded down: a part of a codebook cannot be used.")
    return Verdict(False, _codebooks_mistake(given, exact, right))


def _codebooks_mistake(given: list, exact: list[float], right: list[int]) -> str:
    mistakes = (
        (exact, "the formula is right, but a part of a codebook cannot be used: round down."),
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


def quantise(function: Callable[[Tensor, list[Tensor]], tuple]) -> Verdict:
    """A residual quantiser: function(x [n, D], codebooks K x [V, D]) -> (output [n, D], codes [K, n], commitment loss).

    The output is the sum of the nearest entries, with gradient 1 with respect to x. The loss is the mean over the
    stages of mean (r_k - e_k)^2, and every stage's term reaches x. No gradient reaches the codebooks.
    """
    x, codebooks = _vectors_and_codebooks()
    given, failed = call("quantise", function, x, codebooks)
    if failed:
        return failed
    if not isinstance(given, tuple) or len(given) != 3 or not all(isinstance(one, Tensor) for one in given):
        return Verdict(False, "return three tensors: the output, the codes and the commitment loss.")
    output, codes, loss = given
    wanted_codes, total, terms = _by_stages(x, codebooks)
    fault = _codes_fault(codes, wanted_codes, x) or _output_fault(output, total, x, codebooks)
    fault = fault or _loss_fault(loss, terms, x)
    if fault:
        return Verdict(False, fault)
    return Verdict(True, "K codes a vector, one straight-through for their sum, and K commitment losses that reach x.")


def _vectors_and_codebooks() -> tuple[Tensor, list[Tensor]]:
    """12 vectors of width 3 and three codebooks of 5 entries, each smaller than the one before."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator).requires_grad_()
    sizes = (1.0, 0.5, 0.25)
    return x, [(size * torch.randn(5, 3, generator=generator)).requires_grad_() for size in sizes]


def _by_stages(x: Tensor, codebooks: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The right codes [K, n], the sum of entries [n, D], and the term of each stage."""
    residual, total, codes, terms = x, torch.zeros_like(x), [], []
    for entries in codebooks:
        codes.append(torch.cdist(residual.detach(), entries.detach()).argmin(1))
        entry = entries.detach()[codes[-1]]
        terms.append((residual - entry).square().mean())
        residual, total = residual - entry, total + entry
    return torch.stack(codes), total, terms


def _codes_fault(codes: Tensor, wanted: Tensor, x: Tensor) -> str:
    if codes.shape == wanted.T.shape != wanted.shape and torch.equal(codes.T, wanted):
        return "the codes are right, but [n, K]. Give [K, n]: a row for each codebook."
    if codes.shape != wanted.shape:
        return f"the codes have shape {list(codes.shape)} for {len(wanted)} codebooks and {len(x)} vectors: [K, n]."
    if not torch.equal(codes[0], wanted[0]):
        return "the codes of the first codebook are not the nearest entries."
    if not torch.equal(codes, wanted):
        return "the first codebook is right, a later one is not. Does it get what the stages before left over?"
    return ""


def _output_fault(output: Tensor, total: Tensor, x: Tensor, codebooks: list[Tensor]) -> str:
    if output.shape != total.shape:
        return f"the output has shape {list(output.shape)}, not that of x, {list(x.shape)}."
    if not torch.allclose(output, total, atol=1e-5):
        is_x = torch.allclose(output, x)
        return (
            f"the value of the output is {'x: the decoder would see no entries' if is_x else 'not the sum of entries'}."
        )
    to_x, *to_entries = _gradients(output.sum(), [x, *codebooks])
    if any(gradient.any() for gradient in to_entries):
        return "the output has a gradient to the codebooks. They learn by averages: detach the entries."
    if not to_x.any():
        return "no gradient passes from the output to x. Add x, and subtract it again as a constant."
    if not torch.allclose(to_x, torch.ones_like(x)):
        return f"the gradient of the output is {float(to_x.mean()):g} times that of x, not 1. Go straight through once."
    return ""


def _loss_fault(loss: Tensor, terms: list[Tensor], x: Tensor) -> str:
    wanted, value = torch.stack(terms).mean(), loss.detach().mean().item()
    for scale, text in (
        (len(terms), "the sum over the stages. Give their mean."),
        (len(x), "summed over the vectors."),
    ):
        if loss.numel() == 1 and math.isclose(value, scale * wanted.item(), rel_tol=1e-4):
            return f"the loss is {text}"
    if loss.numel() != 1 or not math.isclose(value, wanted.item(), rel_tol=1e-4):
        return f"the loss should be {wanted.item():.4f} here: mean (r − e)² of each stage, then their mean."
    (to_x,) = _gradients(loss.sum(), [x])
    (whole,), (first,) = (_gradients(one, [x]) for one in (wanted, terms[0] / len(terms)))
    if torch.allclose(to_x, whole, atol=1e-6):
        return ""
    if torch.allclose(to_x, first, atol=1e-6):
        return "only the first stage's loss reaches x: the residual subtracts a value that has x's gradient."
    if not to_x.any():
        return "the loss has the right value, but no gradient to x. Only the entry is a constant, not the residual."
    return "the loss has the right value and a wrong gradient. Detach the entries, and nothing else."


def _gradients(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a scalar, zeros where there are none."""
    if not value.requires_grad:
        return [torch.zeros_like(one) for one in inputs]
    found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(inputs, found, strict=True)
    ]


def revive(function: Callable[[Tensor, Tensor, Tensor, float, torch.Generator], tuple]) -> Verdict:
    """Dead entries: function(entries [V, D], counts [V], points [n, D], limit, generator) -> (entries, counts).

    Entries with a count below `limit` become points, each another draw; their counts become 1.
    """
    points = torch.arange(4000.0).view(2000, 2)
    entries, counts = -torch.arange(1.0, 17.0).view(8, 2), torch.tensor([3.0, 0.05, 1.0, 0.0, 0.5, 0.09, 2.0, 0.1])
    dead = counts < 0.1
    mine, tally = entries.clone(), counts.clone()
    given, failed = call("revive", function, mine, tally, points, 0.1, torch.Generator().manual_seed(0))
    if failed:
        return failed
    if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(one, Tensor) for one in given):
        return Verdict(False, "return two tensors: the new entries and the new counts.")
    if not torch.equal(mine, entries) or not torch.equal(tally, counts):
        return Verdict(False, "the arguments were changed. Clone them, and change the copies.")
    fault = _revived_fault(given[0], given[1], entries, counts, dead, points)
    return Verdict(not fault, fault or "dead entries start again where the vectors are, each at another one.")


def _revived_fault(new: Tensor, tally: Tensor, entries: Tensor, counts: Tensor, dead: Tensor, points: Tensor) -> str:
    if new.shape != entries.shape or tally.shape != counts.shape:
        return f"the shapes {list(new.shape)} and {list(tally.shape)} should be those of entries and counts."
    changed = (new != entries).any(1)
    if not changed.any():
        return "no entry has changed. Those with counts below the limit are dead."
    if torch.equal(changed, ~dead):
        return "the entries in use were replaced and the dead ones kept: mind the direction of <."
    if torch.equal(changed, counts <= 0.1):
        return "an entry whose count equals the limit is not below it."
    if not torch.equal(changed, dead):
        return f"entries {changed.nonzero().flatten().tolist()} changed; dead are {dead.nonzero().flatten().tolist()}."
    if not all((row == points).all(1).any() for row in new[dead]):
        return "a revived entry is not one of the points. Draw rows of the batch."
    if len(new[dead].unique(dim=0)) == 1:
        return "all dead entries became the same point. Only one of equal entries is ever chosen: draw for each."
    if torch.equal(new[dead], points[: int(dead.sum())]):
        return "these are the first points of the batch, not a random draw. Neighbouring frames are alike."
    if not torch.equal(tally, torch.where(dead, torch.ones_like(counts), counts)):
        return "the counts: 1 for a revived entry, unchanged for the others. With its old count it would die again."
    return ""


class WatchedQuantizer(VectorQuantizer):
    """A codebook that remembers the vectors of its last update."""

    seen: Tensor | None = None  # [n, D]

    def update(self, x: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """One update of the moving averages."""
        self.seen = x.detach().clone()
        super().update(x, codes, generator)


class SmallCodec(nn.Module):
    """What `training_step` trains: `down` and `up`, linear layers from 6 numbers to 2 and back, and two `stages`."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(6, 2), nn.Linear(2, 6)
        self.stages = nn.ModuleList(WatchedQuantizer(8, 2, decay=0.9) for _ in range(2))


def training_step(function: Callable) -> Verdict:
    """A codec's training step: function(codec, wav [n, D], optimizer, generator) -> loss. It is run STEPS times.

    Right is: the encoder learns from the decoder's loss and from the commitment loss, and each stage's codebook learns
    from the vectors that this stage quantised.
    """
    if function is ...:
        return UNANSWERED
    try:
        codec, first, batch, last = _train_small(function)
        commits = _commitment_reaches_the_encoder(function)
    except Exception as error:  # whatever a reader's function may raise
        return stopped("the step", error)
    fault = _training_fault(codec, first, batch, last)
    if not fault and not commits:
        fault = "the commitment loss does not reach the encoder. Is it detached?"
    said = "the encoder gets the decoder's gradient, and each codebook learns from its residual."
    return Verdict(not fault, fault or said)


def _commitment_reaches_the_encoder(step: Callable) -> bool:
    """Whether a step moves the encoder where the decoder's matrix is 0, so that only the commitment loss can do it."""
    torch.manual_seed(0)
    codec = SmallCodec()
    nn.init.zeros_(codec.up.weight)
    first = codec.down.weight.detach().clone()
    optimizer = torch.optim.SGD([*codec.down.parameters(), *codec.up.parameters()], lr=0.1)
    step(codec, torch.randn(64, 6), optimizer, torch.Generator().manual_seed(0))
    return not torch.equal(codec.down.weight, first)


def _train_small(step: Callable) -> tuple[SmallCodec, SmallCodec, Tensor, Tensor]:
    """Train a small codec: -> it, a copy as it began, its data, and what stage 0 left over before the last step."""
    torch.manual_seed(0)
    codec, first = SmallCodec(), SmallCodec()
    first.load_state_dict(codec.state_dict())
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(256, 6, generator=generator) * torch.tensor([0.1, 0.1, 1.0, 0.1, 1.0, 0.1])
    optimizer = torch.optim.Adam([*codec.down.parameters(), *codec.up.parameters()], lr=0.02)
    for _ in range(STEPS):
        latents = codec.down(batch).detach()
        last = latents - codec.stages[0].decode(codec.stages[0].encode(latents))
        step(codec, batch, optimizer, generator)
    return codec, first, batch, last


def _training_fault(codec: SmallCodec, first: SmallCodec, batch: Tensor, last: Tensor) -> str:
    if torch.equal(codec.up.weight, first.up.weight):
        return "the decoder did not learn. Does the step still call backward and the optimizer?"
    if torch.equal(codec.down.weight, first.down.weight):
        return "the encoder did not learn: no gradient passes the look-up. The decoder needs a straight-through sum."
    seen = codec.stages[1].seen
    if seen is None or seen.shape != last.shape:
        return "the codebook of the last stage was not updated with all its vectors."
    if (seen - last).square().mean() > 0.2 * last.square().mean():
        return "the last stage's codebook does not learn from what the first stage left over. What does it get?"
    with torch.no_grad():
        total, residual = 0.0, codec.down(batch)
        for stage in codec.stages:
            entry = stage.decode(stage.encode(residual))
            total, residual = total + entry, residual - entry
        error = float((batch - codec.up(total)).square().mean() / batch.square().mean())
    if error > LEFT:
        wrong = f"after {STEPS} steps {100 * error:.0f} % of the power is wrong"
        return f"it learns, but {wrong}; a right step gets below {100 * LEFT:.0f} %."
    return ""
