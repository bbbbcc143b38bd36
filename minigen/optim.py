"""How the weights move: the settings of a training, the rate over its steps, which weights decay, and their average.

    rate        .-""-.                     average   e <- d e + (1 - d) w    every few steps; what is kept is e
               /      "-._
      warm-up /           "-- a twentieth

The matrices of the layers are moved by Muon (`minigen.optim`), everything else (embeddings, heads, gains, biases) by
AdamW with betas 0.9 and 0.95. AudioGen (arXiv 2209.15352, section 4) has AdamW for all; the rest is as there: weight
decay 0.1, gradients clipped at 1.0, an average of 0.99 every ten steps. The schedule is shorter, a cosine instead of an
inverse root.

Muon: an optimiser for matrices, which moves all directions of a matrix equally far.

    gradient g [R, C] --mean over steps--> n [R, C] --orthogonalize--> U V^T --times the rate--> taken from W [R, C]

A gradient of a matrix is mostly a few directions: of its singular values n = U S V^T, a handful are large. AdamW scales
every entry by itself and keeps that. Muon sets all singular values to about 1, so that the rare directions, which hold
what is learnt late, move as far as the loud ones:

    m <- μ m + (1 - μ) g                     the mean, over about 1 / (1 - μ) steps
    n  = μ m + (1 - μ) g                     looked at one step ahead (Nesterov)
    W <- W - rate (0.2 √max(R, C) · orthogonalize(n) + λ W)

An orthogonal R x C matrix has entries of rms 1 / √max(R, C). With the factor in front, an update has an rms of about
0.2, as AdamW's have, so both take the same rate.

Sources: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), the method; Liu et al.,
"Muon is Scalable for LLM Training" (arXiv 2502.16982), equation 4, the factor and the decay. `torch.optim.Muon` is the
same with adjust_lr_fn="match_rms_adamw", in bfloat16 and one matrix at a time, which on a processor without bfloat16
takes ten times as long as the rest of the step; here matrices of one shape go together, in the type that they have.

Symbols: W weights · g gradient · m mean · μ `momentum` · λ `weight_decay` · R rows · C columns · U, V singular vectors
"""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from minigen.engine.settings import TrainConfig

QUINTIC = (3.4445, -4.7750, 2.0315)  # K. Jordan's: small singular values rise fastest, all end near 1
ROUNDS = 5
LIKE_ADAMW = 0.2  # rms of AdamW's updates, as measured in arXiv 2502.16982


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine from `learning_rate` down to a twentieth of it."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))))


def orthogonalize(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """The nearest matrix whose singular values are all about 1: U S V^T -> U S' V^T, matrices [..., R, C].

    No singular values are computed. Each round takes X to a X + b (X X^T) X + c (X X^T)² X, which leaves U and V alone
    and every singular value s at a s + b s³ + c s⁵; after five rounds those above 0.002 of the matrix' norm lie between
    0.68 and 1.21.
    """
    a, b, c = QUINTIC
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x if wide is matrices else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (formula above). For the matrices inside a network; the rest goes to AdamW.

    Args:
        matrices: parameters of two dimensions; one without a gradient keeps its value and its mean.
        lr: the rate, as for AdamW.
        momentum: μ.
        weight_decay: λ.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._move(matrices, **{name: group[name] for name in ("lr", "momentum", "weight_decay")})

    def _move(self, matrices: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """Matrices of one shape, in one product."""
        gradients = [matrix.grad for matrix in matrices]
        means = [self._mean(matrix) for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = orthogonalize(torch.stack(torch._foreach_lerp(gradients, means, momentum)))
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, updates.unbind(), alpha=-lr * LIKE_ADAMW * max(matrices[0].shape) ** 0.5)

    def _mean(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(matrix)
        return state["mean"]


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices in `layers`; AdamW for the rest, of which embeddings, heads and projections decay."""
    inner = [p for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("layers.") and p.ndim == 2)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)  # one pass over memory
    return [Muon(inner, config.learning_rate, weight_decay=config.weight_decay), adamw]


class Ema:
    """Moving average of the weights. The decay grows from 0.1 to `decay`, so that short runs forget their start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move every weight towards the model's."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        values = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [values[name] for name in self.weights], 1 - decay)
