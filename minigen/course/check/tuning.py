"""Checks of notebook 15: a LoRA layer, the log-likelihood of clips, the DPO loss, pairs ranked by a score."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from minigen.course.check.verdict import UNANSWERED, Verdict, call, stopped

RANK, ALPHA, INPUTS, OUTPUTS = 3, 12.0, 5, 4
CODES = 6  # V of the toy logits


# a LoRA layer


def lora(layer: Callable) -> Verdict:
    """layer(weight [out, in], rank, alpha) must be a module with down [r, in], up [out, r], forward(x) and merged()."""
    weight = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0))
    x = torch.randn(7, INPUTS, generator=torch.Generator().manual_seed(1))
    try:
        module = layer(weight.clone(), RANK, ALPHA)
        down, up = module.down, module.up
        if down is ... or up is ...:
            return UNANSWERED
        if found := _wrong_matrices(down, up):
            return Verdict(False, found)
        if sum(part.numel() for part in module.parameters() if part.requires_grad) > down.numel() + up.numel():
            return Verdict(False, "W is trained as well. Keep it a plain tensor: only down and up are parameters.")
        begins = module(x)
        if begins is ...:
            return UNANSWERED
        if not _alike(begins, x @ weight.T):
            return Verdict(
                False, "a new layer must give x Wᵀ, as without the adapter. What is added to x Wᵀ at the start?"
            )
        with torch.no_grad():
            down.copy_(torch.randn(down.shape, generator=torch.Generator().manual_seed(2)))
            up.copy_(torch.randn(up.shape, generator=torch.Generator().manual_seed(3)))
        return _lora_verdict(module(x), module.merged(), x, weight, up.detach() @ down.detach())
    except Exception as error:  # a reader's class may raise anything
        return stopped("the layer", error)


def _wrong_matrices(down: object, up: object) -> str:
    """What is wrong with the two matrices of a new layer; "" if nothing is."""
    for name, matrix, shape in (("down", down, (RANK, INPUTS)), ("up", up, (OUTPUTS, RANK))):
        if not isinstance(matrix, torch.nn.Parameter):
            return f"{name} is no torch.nn.Parameter, so no optimiser would train it."
        if tuple(matrix.shape) != shape:
            return (
                f"{name} is {list(matrix.shape)}, not {list(shape)}, for rank {RANK}, {INPUTS} inputs and {OUTPUTS} "
                "outputs."
            )
    if isinstance(down, Tensor) and isinstance(up, Tensor):
        if not down.any():
            return "down is zero. If both matrices are zero, neither gets a gradient: draw down at random."
        if up.any():
            return "up is not zero, so that a new adapter changes the model. Begin with zeros."
    return ""


def _lora_verdict(given: object, merged: object, x: Tensor, weight: Tensor, product: Tensor) -> Verdict:
    if given is ... or merged is ...:
        return UNANSWERED
    scale = ALPHA / RANK
    whole = weight + scale * product
    mistakes = (
        (x @ (weight + product).T, "α / r is missing before the product."),
        (x @ (weight + ALPHA * product).T, "the product is multiplied by α. Multiply by α / r."),
        (x @ (weight + product / scale).T, "the product is multiplied by r / α. Multiply by α / r."),
        (x @ (scale * product).T, "x Wᵀ is missing: the frozen matrix still works."),
        (x @ weight.T, "the two matrices have no effect."),
    )
    if not _alike(given, x @ whole.T):
        return _diagnose(given, mistakes, "forward", "It must give x Wᵀ + (α / r) (x downᵀ) upᵀ.")
    wrong = (
        (weight + product, "α / r is missing before the product."),
        (scale * product, "W is missing: merged() gives the sum."),
        (weight, "the product is missing: merged() gives the sum."),
        (whole.T, "this is its transpose. W is [out, in]."),
    )
    if not _alike(merged, whole):
        return _diagnose(merged, wrong, "merged()", "It must give W + (α / r) up · down, [out, in].")
    return Verdict(
        True, "two thin products beside a frozen matrix, and one matrix after merging, with the same outputs."
    )


# the log-likelihood of clips


def log_probability(function: Callable[[Tensor, Tensor], object]) -> Verdict:
    """function(logits [B, K, S, V], sequence [B, K, S]) must sum the log probabilities of the real codes: [B]."""
    logits, sequence = _toy_clips()
    value, failed = call("log_probability(logits, sequence)", function, logits.clone(), sequence.clone())
    if failed:
        return failed
    every = logits.log_softmax(-1).gather(-1, sequence.clamp(max=CODES - 1)[..., None])[..., 0]  # [B, K, S]
    real = sequence < CODES
    sums, score = (every * real).sum((1, 2)), logits.gather(-1, sequence.clamp(max=CODES - 1)[..., None])[..., 0]
    if _alike(value, sums):
        return Verdict(True, "the sum over the real cells: one number in nats for each clip.")
    mistakes = (
        (-sums, "the sign is wrong: this is the negative log-likelihood. A log probability is at most 0."),
        (every.sum((1, 2)), "the gaps of the pattern are counted as codes. Leave out the cells that hold V."),
        (sums / real.sum((1, 2)), "this is the mean over the codes. The probability of a clip is the product of all."),
        ((score * real).sum((1, 2)), "these are sums of logits. Take log_softmax over V first."),
        (((every * real).exp() * real).sum((1, 2)), "these are sums of probabilities. Add their logarithms."),
        (sums.sum(), "this is one number for the batch. Give one for each clip: [B]."),
        (sums / math.log(2), "this is in bits. Use the natural logarithm."),
    )
    return _diagnose(value, mistakes, "", "Log softmax over V, the code of each cell by gather, real cells only, sum.")


def _toy_clips() -> tuple[Tensor, Tensor]:
    """Random logits [2, 2, 5, V], and sequences [2, 2, 5] of delayed codes with gaps, of which one clip has more."""
    chance = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(2, 2, 5, CODES, generator=chance)
    sequence = torch.randint(0, CODES, (2, 2, 5), generator=chance)
    sequence[:, 0, 4], sequence[:, 1, 0], sequence[1, :, 3:] = CODES, CODES, CODES
    return logits, sequence


# the DPO loss


def preference(function: Callable[..., object]) -> Verdict:
    """function(chosen, rejected, ref_chosen, ref_rejected, beta), log-likelihoods [B], must be the mean DPO loss."""
    ordinary = (
        torch.tensor([-900.0, -700.0, -801.0]), torch.tensor([-905.0, -710.0, -800.0]),
        torch.tensor([-910.0, -702.0, -804.0]), torch.tensor([-903.0, -707.0, -809.0]), 0.25,
    )  # fmt: skip
    extreme = [torch.tensor([value]) for value in (-5000.0, -3000.0, -4000.0, -4000.0)]
    value, failed = call("preference(...)", function, *ordinary)
    if failed:
        return failed
    if not _alike(value, _dpo(*ordinary).mean()):
        return _diagnose(value, _dpo_mistakes(*ordinary), "", "The margin is β times a difference of two differences.")
    value, failed = call("preference(...)", function, *extreme, 0.25)
    if failed:
        return failed
    if not _alike(value, torch.tensor(500.0)):
        return Verdict(False, f"right for usual margins, but {value} for a margin of −500, where the loss is 500: the "
                              "sigmoid is 0 in float32, and log 0 = −∞. Use logsigmoid.")  # fmt: skip
    return Verdict(True, "−log σ of the margin, the mean over the pairs; log 2 where policy and reference agree.")


def _dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Loss of each pair, [B]."""
    return -logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def _dpo_mistakes(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> tuple:
    losses, zero = _dpo(c, r, rc, rr, beta), torch.zeros_like(c)
    margin = beta * ((c - rc) - (r - rr))
    return (
        (losses.sum(), "this is the sum over the pairs. Take the mean."),
        (losses, "one number for each pair. Take the mean."),
        (-losses.mean(), "the sign is wrong: a loss falls as the margin grows."),
        (_dpo(c, r, rc, rr, 1.0).mean(), "β is missing before the difference."),
        (_dpo(c, r, rc, rr, 1 / beta).mean(), "this divides by β. Multiply."),
        (_dpo(c, r, zero, zero, beta).mean(), "the reference is missing: the loss compares with the model before."),
        (
            _dpo(r, c, rr, rc, beta).mean(),
            "the margin has the wrong sign: chosen and rejected are exchanged, or policy and reference.",
        ),
        (_dpo(c, r, rr, rc, beta).mean(), "the references are exchanged: each belongs to its own clip."),
        (-margin.mean(), "this is the margin itself. Take −log σ of it."),
        (-margin.sigmoid().mean(), "this is −σ. Take −log σ."),
        (-logsigmoid(margin.mean()), "the mean is taken before the logarithm. Take the loss of each pair first."),
    )


# pairs


def ranked_pairs(function: Callable[[Tensor, float], object]) -> Verdict:
    """function(scores [captions, samples], least) must give (caption, best, worst) where best − worst ≥ least."""
    scores = torch.tensor([[0.5, 0.75, 0.25], [0.5, 0.625, 0.5625], [-0.25, 0.0, 0.5], [0.75, 0.25, 0.5]])
    value, failed = call("ranked_pairs(scores, 0.5)", function, scores.clone(), 0.5)
    if failed:
        return failed
    try:
        given = [tuple(int(number) for number in row) for row in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        return stopped("the list of pairs (caption, best, worst)", error)
    every = [(row, int(line.argmax()), int(line.argmin())) for row, line in enumerate(scores)]
    wanted = [every[row] for row in (0, 2, 3)]
    if given == wanted:
        return Verdict(True, "best and worst of each caption, and no pair where the judge hardly sees a difference.")
    mistakes = (
        (every, "`least` is ignored: caption 1 differs by 0.125 only."),
        ([(row, worst, best) for row, best, worst in wanted], "best and worst are exchanged."),
        ([every[2]], "a difference of exactly `least` counts: ≥, not >."),
        ([every[1]], "these are the captions to leave out."),
        ([(best, worst) for _, best, worst in wanted], "the row of the caption is missing: (caption, best, worst)."),
        ([(row, best, worst) for row, (_, best, worst) in enumerate(wanted)],
         "the captions are numbered after the selection. Keep the row of `scores`."),
    )  # fmt: skip
    for pairs, hint in mistakes:
        if given == pairs:
            return Verdict(False, hint)
    return Verdict(False, f"{given} for the scores {scores.tolist()} and least 0.5. Rank within each row.")


# comparison


def _alike(given: object, wanted: Tensor) -> bool:
    try:
        given = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError):
        return False
    return given.shape == wanted.shape and torch.allclose(given.double(), wanted.double(), rtol=1e-5, atol=1e-4)


def _diagnose(given: object, mistakes: tuple, where: str, hint: str) -> Verdict:
    """The text of the mistake that leads to `given`, or the hint."""
    begun = f"{where}: " if where else ""
    for value, text in mistakes:
        if _alike(given, value):
            return Verdict(False, begun + text)
    shape = f"the shape is {list(given.shape)}. " if isinstance(given, Tensor) and given.numel() > 1 else ""
    return Verdict(False, f"{begun}not right for the values tried. {shape}{hint}")
