"""Training loss: mean cross-entropy over the real codes, and its gradient.

    hidden [B, S, D] --K heads--> logits [B, K, S, V] --log softmax--> the log probability of each code in the sequence

    CE = -1/n Σ log softmax(logits_bks)[code_bks]                 over the n real codes (V = no code)
    ∂CE / ∂logits_bks = (softmax(logits_bks) - onehot(code_bks)) / n            0 where there is no code

`cross_entropy` is the first formula: the plain version. `heads_cross_entropy` is the fast version, which training uses;
it computes the same number from the hidden states. The logits are the largest tensor of a training step, B S K V
numbers, and the plain version holds several tensors of that size: the logits, their log softmax, and its gradient. The
second formula shows that the gradient of a few rows of logits needs these rows alone. So the fast version makes a piece
of the logits, turns it into its gradient in place, multiplies that back to hidden states and weights, and drops it. The
products are the same, and only one piece is in memory at a time. FusedLinearCrossEntropy of the Liger Kernel (arXiv
2410.10989) works in this way; so does `torch.nn.functional.linear_cross_entropy`, for one head and without autocast.

Symbols: B batch · K codebooks · S steps · V codebook size, and the special token · D width · n real codes · R rows, B S
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIECE = 2**21  # logits in one piece on a processor: 8 MB in float32, which fits into its cache
PIECE_GPU = 2**26  # on a GPU: 256 MB


def cross_entropy(logits: Tensor, sequence: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the real codes.

    Args:
        logits (Tensor): [B, K, S, V].
        sequence (Tensor): int64 [B, K, S]; V where there is no code.

    Returns:
        A scalar.
    """
    return F.cross_entropy(logits.flatten(0, 2), sequence.flatten(), ignore_index=logits.shape[-1])


def heads_cross_entropy(hidden: Tensor, heads: nn.ModuleList, sequence: Tensor, count: Tensor | None = None) -> Tensor:
    """`cross_entropy` of the heads' logits, computed piece by piece.

    Args:
        hidden (Tensor): [B, S, D] hidden states after the last norm.
        heads (ModuleList): K linear layers D -> V without bias.
        sequence (Tensor): int64 [B, K, S]; V where there is no code.
        count (Tensor): n, a number that the sum is divided by; None: the number of real codes in `sequence`.

    Returns:
        A scalar in float32 or finer. It can be differentiated once.
    """
    weight = torch.cat([head.get_parameter("weight") for head in heads])  # [K V, D]
    codes = sequence.transpose(1, 2).flatten(0, 1)  # [R, K]
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    if count is None:
        count = (codes < len(weight) // len(heads)).sum()
    return _InPieces.apply(hidden.flatten(0, 1), weight, codes, count)


class _InPieces(torch.autograd.Function):
    """hidden [R, D], weight [K V, D], codes [R, K], n -> loss. The forward pass also computes the gradients."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, codes: Tensor, count: Tensor) -> Tensor:
        by_hidden, by_weight = ctx.needs_input_grad[:2]  # frozen heads, as under LoRA, need no gradient
        size = len(weight) // codes.shape[1]
        rows = max(1, (PIECE_GPU if hidden.is_cuda else PIECE) // len(weight))
        cast_weight = weight.to(F.linear(hidden[:1], weight))  # in the type that autocast multiplies in
        losses = []
        gradients = [torch.empty_like(hidden) if by_hidden else None, torch.zeros_like(weight) if by_weight else None]
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            logits = at_least_float32(F.linear(hidden[piece], cast_weight)).view(-1, size)  # [rows K, V]
            loss, gradient = _loss_and_gradient(logits, codes[piece].flatten(), count)
            losses.append(loss)
            gradient = gradient.view(-1, len(weight)).to(cast_weight)  # [rows, K V]
            if gradients[0] is not None:
                gradients[0][piece] = gradient @ cast_weight  # [rows, D]
            if gradients[1] is not None:
                gradients[1].add_(gradient.T @ hidden[piece].to(cast_weight))  # [K V, D]
        ctx.save_for_backward(*gradients)
        return torch.stack(losses).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        by_hidden, by_weight = (None if gradient is None else gradient * above for gradient in ctx.saved_tensors)
        return by_hidden, by_weight, None, None


def _loss_and_gradient(logits: Tensor, codes: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Both formulas for logits [R, V] and codes [R] out of `count` real codes: share of the loss, gradient [R, V]."""
    real = (codes < logits.shape[1])[:, None]  # [R, 1]
    index = codes.clamp(max=logits.shape[1] - 1)[:, None]  # [R, 1]
    log_softmax = logits.log_softmax(1)  # [R, V]
    loss = -torch.where(real, log_softmax.gather(1, index), 0).sum() / count
    gradient = log_softmax.exp_()  # softmax, in place: the largest tensor is not held twice
    gradient.scatter_add_(1, index, -torch.ones_like(index, dtype=gradient.dtype))
    return loss, gradient.mul_(real.to(gradient) / count)


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or unchanged where their type is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
