"""What a training makes small: the mean cross-entropy over the real codes, and how it changes with the logits.

    hidden [B, S, D] --K heads--> logits [B, K, S, V] --log softmax--> the log probability of each code in the sequence

    CE = -1/n Σ log softmax(logits_bks)[code_bks]                 over the n real codes (V = no code)
    ∂CE / ∂logits_bks = (softmax(logits_bks) - onehot(code_bks)) / n            0 where there is no code

`cross_entropy` is the first line. A step takes `heads_cross_entropy`, the same number from the hidden states. Logits
are the largest thing of a step, B S K V numbers, and the usual way holds them several times over: themselves, their log
softmax, its gradient. By the second line, though, the gradient of a piece of them needs that piece alone. So a piece is
made, turned into its gradient in its place, multiplied back to hidden states and weights, and forgotten: the same
products, with room for one piece. So do FusedLinearCrossEntropy of the Liger Kernel (arXiv 2410.10989) and, a head a
call and without autocast, `torch.nn.functional.linear_cross_entropy`.

Symbols: B batch · K codebooks · S steps · V codebook size, and the special token · D width · n real codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIECE, PIECE_GPU = 2**21, 2**26  # logits at once: 8 MB in float32, which a processor keeps at hand; 256 MB on a GPU


def cross_entropy(logits: Tensor, sequence: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the real codes: logits [B, K, S, V], sequence int64 [B, K, S] (V = no code)."""
    return F.cross_entropy(logits.flatten(0, 2), sequence.flatten(), ignore_index=logits.shape[-1])


def heads_cross_entropy(hidden: Tensor, heads: nn.ModuleList, sequence: Tensor) -> Tensor:
    """`cross_entropy` of the heads' logits, which are made a piece at a time.

    hidden [B, S, D], heads K times D -> V, sequence int64 [B, K, S]. Returns a scalar, in float32 or finer, that can be
    differentiated once.
    """
    weight, codes = torch.cat([head.weight for head in heads]), sequence.transpose(1, 2).flatten(0, 1)
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return _InPieces.apply(hidden.flatten(0, 1), weight, codes)


class _InPieces(torch.autograd.Function):
    """hidden [R, D], weight [K V, D], codes [R, K] -> the loss; its gradients are made with it, on the way there."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, codes: Tensor) -> Tensor:
        wanted, size = any(ctx.needs_input_grad), len(weight) // codes.shape[1]
        rows = max(1, (PIECE_GPU if hidden.is_cuda else PIECE) // len(weight))
        coded, losses, count = weight.to(F.linear(hidden[:1], weight)), [], (codes < size).sum()  # as autocast has it
        slopes = (torch.empty_like(hidden), torch.zeros_like(weight)) if wanted else ()
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            logits = at_least_float32(F.linear(hidden[piece], coded)).view(-1, size)
            loss, slope = _loss_and_slope(logits, codes[piece].flatten(), count)
            losses.append(loss)
            if wanted:
                slope = slope.view(-1, len(weight)).to(coded)
                slopes[0][piece] = slope @ coded
                slopes[1].add_(slope.T @ hidden[piece].to(coded))
        ctx.save_for_backward(*slopes)
        return torch.stack(losses).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above: Tensor) -> tuple[Tensor, Tensor, None]:
        by_hidden, by_weight = ctx.saved_tensors
        return by_hidden * above, by_weight * above, None


def _loss_and_slope(logits: Tensor, codes: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Both formulas for logits [R, V] and codes [R]: what they add to the loss, and its gradient [R, V]."""
    real, index = (codes < logits.shape[1])[:, None], codes.clamp(max=logits.shape[1] - 1)[:, None]
    shares = logits.log_softmax(1)
    loss = -torch.where(real, shares.gather(1, index), 0).sum() / count
    slope = shares.exp_().scatter_add_(1, index, -torch.ones_like(index, dtype=shares.dtype))
    return loss, slope.mul_(real.to(slope) / count)


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or as they are where that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
