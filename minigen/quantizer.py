"""Residual vector quantisation: each codebook replaces a vector by its nearest entry, the next one codes the residual.

    x -> nearest of e_0 -> c_0,   r_1 = x - e_0[c_0]   -> nearest of e_1 -> c_1,   r_2 = r_1 - e_1[c_1]   -> ...

It is the centre of the codec (`codec.py`). It is EnCodec's quantiser (Défossez et al., arXiv 2210.13438, section 3.2),
with the same weights; the codebooks are learnt as moving averages, as in VQ-VAE (arXiv 1711.00937, appendix A.1).

    B batch, K codebooks, T codec frames, V codebook size, D latent width
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.engine.errors import MinigenError

ROWS = 8192  # vectors compared with all entries at once; the distances of many more would fill gigabytes


class VectorQuantizer(nn.Module):
    """One codebook: a vector becomes the index of its nearest entry.

    Learning, as in EnCodec: each entry starts from k-means and becomes the moving average of the vectors nearest to it,
    without a gradient. An entry that is rarely chosen is replaced by a vector of the current batch.
    """

    codebook: Tensor  # [V, D]
    counts: Tensor  # [V] moving average of the number of vectors that chose each entry
    sums: Tensor  # [V, D] moving average of their sums

    def __init__(
        self, size: int, width: int, decay: float = 0.99, dead_below: float = 0.1, resumable: bool = False
    ):  # fmt: skip
        """resumable: the moving averages are part of the state dict, so that a training can continue from it."""
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codebook", torch.randn(size, width))
        self.register_buffer("counts", torch.ones(size), persistent=resumable)
        self.register_buffer("sums", self.codebook.clone(), persistent=resumable)

    def encode(self, x: Tensor) -> Tensor:
        """Nearest entries: [..., D] -> int64 [...], argmin over v of ||x - e_v||²."""
        flat = x.reshape(-1, x.shape[-1]).to(self.codebook.dtype)  # [n, D]
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would choose other entries
            square = self.codebook.square().sum(1)  # [V]; ||x||² is left out, it is the same for every entry
            nearest = [(square - 2 * rows @ self.codebook.T).argmin(1) for rows in flat.split(ROWS)]
        return torch.cat(nearest).view(x.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Entries of the codes: int64 [...] -> [..., D]."""
        return F.embedding(codes, self.codebook)

    def settle(self) -> None:
        """Start the moving averages at the current codebook, for example after loading it."""
        self.counts.fill_(1.0)
        self.sums.copy_(self.codebook)

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator, rounds: int = 15) -> None:
        """Initialise the codebook with k-means on vectors [n, D], n at least V."""
        if len(x) < len(self.codebook):
            raise MinigenError(f"k-means needs at least {len(self.codebook)} vectors, got {len(x)}. Give more audio.")
        order = torch.randperm(len(x), generator=generator)[: len(self.codebook)]
        self.codebook.copy_(x[order])
        for _ in range(rounds):
            counts, sums = self._tally(x, self.encode(x))
            self.codebook.copy_(torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], self.codebook))
        self.settle()

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """One update of the moving averages from vectors [n, D] and their codes [n]."""
        counts, sums = self._tally(x, codes)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = self.counts < self.dead_below
        if dead.any():
            chosen = torch.randint(len(x), (int(dead.sum()),), generator=generator)
            self.sums[dead], self.counts[dead] = x[chosen], 1.0
        self.codebook.copy_(self.sums / self.counts[:, None])

    def _tally(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(codes, minlength=len(self.codebook)).to(x.dtype)
        sums = torch.zeros_like(self.codebook).index_add_(0, codes, x.to(self.codebook.dtype))
        return counts, sums


class ResidualVectorQuantizer(nn.Module):
    """K codebooks in sequence; each quantises the residual of the ones before.

        r_0 = x,   c_k = nearest(r_k),   r_{k+1} = r_k - e_k[c_k],   x ≈ Σ_k e_k[c_k]

    Gradients: the gradient of the output passes straight through to x. The commitment loss ||r_k - sg(e_k)||² of every
    stage also reaches x, because the residual subtracts the *detached* entry. The published EnCodec subtracts the
    straight-through value, which cancels that gradient for all stages but the first (encodec issue 25, fixed in
    audiocraft).
    """

    def __init__(self, num_codebooks: int = 4, codebook_size: int = 1024, width: int = 128, resumable: bool = False):
        """resumable: see `VectorQuantizer`."""
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.stages = nn.ModuleList(
            VectorQuantizer(codebook_size, width, resumable=resumable) for _ in range(num_codebooks)
        )

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise latents [B, T, D]; with a generator (in training) the codebooks are updated, too.

        Returns:
            quantised [B, T, D] (straight through), codes int64 [B, K, T], commitment loss (scalar, mean over stages).
        """
        residual, total, codes, losses = x, torch.zeros_like(x), [], []
        for stage in self.stages:
            index = stage.encode(residual.detach())
            entry = stage.decode(index)
            losses.append(F.mse_loss(residual, entry))
            if generator is not None:
                stage.update(residual.detach().flatten(0, 1), index.flatten(), generator)
            residual, total = residual - entry, total + entry
            codes.append(index)
        return x + (total - x).detach(), torch.stack(codes, 1), torch.stack(losses).mean()

    def encode(self, x: Tensor) -> Tensor:
        """Latents [B, T, D] -> codes int64 [B, K, T]."""
        return self(x)[1]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K', T] -> sum of entries [B, T, D]; fewer codebooks than K give a coarser sum."""
        entries = (stage.decode(index) for stage, index in zip(self.stages, codes.unbind(1), strict=False))
        return sum(entries)

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """Initialise all codebooks with k-means, stage by stage on the residuals of vectors [n, D]."""
        for stage in self.stages:
            stage.start(x, generator)
            x = x - stage.decode(stage.encode(x))


def check_codes(codes: Tensor, most: int, size: int) -> None:
    """Raise a MinigenError unless codes are integers [B, K, T], not empty, K at most `most`, each in 0..size-1."""
    if codes.ndim != 3 or codes.numel() == 0 or codes.shape[1] > most:
        raise MinigenError(f"codes are [B, K, T] with up to {most} codebooks, got {list(codes.shape)}.")
    if codes.dtype == torch.bool or codes.is_floating_point():
        raise MinigenError(f"codes are int64, got {codes.dtype}. Give codes.long().")
    low, high = int(codes.min()), int(codes.max())  # Python's numbers: 8 bits would take `size` modulo 256
    if low < 0 or high >= size:
        raise MinigenError(f"codes lie in 0..{size - 1}, got {low}..{high}.")
