"""Optimisation: the learning rate, Muon and AdamW, and the average of the weights.

    gradients --> Muon   matrices inside the layers            --.
              --> AdamW  embeddings, heads, projections, gains --+--> weights --Ema--> averaged weights: the result

The module holds, in this order:

    learning_rate      linear warm-up, then half a cosine down to a twentieth of the peak
    Muon               the optimiser for matrices
    make_optimizers    which parameter belongs to which optimiser, and which ones decay
    Ema                exponential moving average of the weights

MusicGen (arXiv 2306.05284, section 3) trains everything with AdamW, betas 0.9 and 0.95, weight decay 0.1, gradients
clipped at norm 1.0. audiocraft's AudioGen, a later training of AudioGen (2209.15352), does the same, with an average of
0.99 taken every ten steps and an inverse-square-root schedule. Here the matrices inside the layers go to Muon, which
needs fewer steps (docs/speed.md has the measurement), and the schedule is a cosine, because the trainings are short.
The rest is as in audiocraft.

Muon moves a matrix equally far in all directions:

    gradient g [R, C] --mean over steps--> n [R, C] --orthogonalize--> U V^T --times the rate--> subtracted from W

The singular value decomposition n = U S V^T of a gradient has a few large singular values. AdamW scales each entry by
itself and keeps that imbalance. Muon sets all singular values to about 1, so that directions with small gradients are
learnt as fast as those with large ones:

    m <- μ m + (1 - μ) g                     mean over about 1 / (1 - μ) steps
    n  = μ m + (1 - μ) g                     the mean one step ahead (Nesterov)
    W <- W - rate (0.2 √max(R, C) · orthogonalize(n) + λ W)

An orthogonal R x C matrix has entries of rms 1 / √max(R, C). With the factor 0.2 √max(R, C) an update has an rms of
about 0.2, as AdamW's updates have, so both optimisers take the same rate.

Sources: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), the method; Liu et al.,
"Muon is Scalable for LLM Training" (arXiv 2502.16982), equation 4, the factor and the decay. `torch.optim.Muon` with
adjust_lr_fn="match_rms_adamw" computes the same in bfloat16, one matrix at a time. On a processor without bfloat16 that
takes ten times as long as the rest of the step, so this version stacks matrices of one shape and keeps their type.

Symbols: W weights · g gradient · m mean · μ `momentum` · λ `weight_decay` · R rows · C columns · U, V singular vectors
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from minigen.engine.settings import TrainConfig

QUINTIC = (3.4445, -4.7750, 2.0315)  # K. Jordan's coefficients: small singular values rise fastest, all end near 1
ROUNDS = 5
LIKE_ADAMW = 0.2  # rms of AdamW's updates, as measured in arXiv 2502.16982


# the schedule


def cosine(share: float, floor: float = 0.0) -> float:
    """Half a cosine: 1 at `share` 0, `floor` from `share` 1 on."""
    return floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0)))


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then half a cosine down to a twentieth of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * cosine(share, floor=0.05)


def recipe_rate(share: float) -> float:
    """Learning rate of a recipe as a factor of its peak: rises over the first 5 % of the budget, then a cosine to 0."""
    return min(1, (share + 0.002) / 0.05) * cosine(share)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group; a group's "share", if it has one, is a factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


# Muon


def orthogonalize(matrices: Tensor) -> Tensor:
    """Set all singular values to about 1 and keep the singular vectors: U S V^T -> U S' V^T, matrices [..., R, C].

    No decomposition is computed. Each round maps X to a X + b (X X^T) X + c (X X^T)² X. This keeps U and V, and maps
    every singular value s to a s + b s³ + c s⁵. After five rounds, singular values above 0.002 of the matrix' norm lie
    between 0.68 and 1.21.
    """
    a, b, c = QUINTIC
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT  # X X^T is then the smaller product
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT  # [..., R, R]
        x = a * x + (b * square + c * (square @ square)) @ x
    return x if wide is matrices else x.mT


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (formulas above), for the matrices inside a network; the other parameters need AdamW.

    Args:
        matrices (list of Parameter): parameters of two dimensions. One without a gradient is not changed.
        lr (float): learning rate, as for AdamW.
        momentum (float): μ.
        weight_decay (float): λ.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        """Update n matrices of one shape [R, C] with batched products."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means = [self._mean(matrix) for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)  # m <- μ m + (1 - μ) g
        ahead = torch.stack(torch._foreach_lerp(gradients, means, momentum))  # [n, R, C], μ m + (1 - μ) g
        updates = orthogonalize(ahead).unbind()
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, updates, alpha=-lr * LIKE_ADAMW * max(matrices[0].shape) ** 0.5)

    def _mean(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(matrix)
        return state["mean"]


# both optimisers, and the average


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Two optimisers: Muon for the matrices in a list named `layers`, AdamW for all other parameters.

    The list is the model's own or that of a part of it. Of AdamW's parameters, embeddings, heads and projections decay;
    gains and biases do not. Frozen parameters have no optimiser. The narrow matrices of LoRA belong to AdamW, as in
    `peft`.
    """
    inner: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_inner = "layers" in name.split(".") and parameter.ndim == 2 and ".lora_" not in name
        (inner if is_inner else others).append(parameter)
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    if not inner:
        return [adamw]
    return [Muon(inner, config.learning_rate, weight_decay=config.weight_decay), adamw]


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The entries of `model.state_dict()` that a training changes: all but the frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


class Ema:
    """Exponential moving average of the weights: e <- d e + (1 - d) w, with d = min(decay, n / (9 + n)) at update n.

    d grows from 0.1 to `decay`, so that the average of a short run does not keep the random start.
    names: the entries of `model.state_dict()` that are averaged; None: all.
    weights: the average, by these names.
    """

    def __init__(self, model: nn.Module, decay: float, names: Iterable[str] | None = None):
        self.decay, self.updates = decay, 0
        values = model.state_dict()
        self.weights = {name: values[name].detach().clone() for name in (values if names is None else names)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's weights into the average."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        values = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [values[name] for name in self.weights], 1 - decay)
