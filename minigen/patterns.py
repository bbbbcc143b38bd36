"""Delay pattern: K codebooks in one sequence, each stream starting later than the one before.

    codes [B, 4, 5]            sequence [B, 4, 8]        . = the special token V
    k0  a0 a1 a2 a3 a4         a0 a1 a2 a3 a4 .  .  .
    k1  b0 b1 b2 b3 b4    ->   .  b0 b1 b2 b3 b4 .  .
    k2  c0 c1 c2 c3 c4         .  .  c0 c1 c2 c3 c4 .
    k3  d0 d1 d2 d3 d4         .  .  .  d0 d1 d2 d3 d4

Column s holds frame s of codebook 0 and frame s - 1 of codebook 1: when b1 is predicted, a1 is already known.

The input is the codec's codes, the output is the sequence that the language model learns. The model predicts one column
at a time, all K cells of it at once, so a cell depends on the columns before it and not on the other cells of its own
column. A pattern assigns a column to frame t of codebook k. It trades the number of columns against the codes that a
prediction can depend on:

    pattern         columns S        when codebook k of frame t is predicted, the model already knows
    parallel        T                all earlier frames, but no codebook of this one
    delay           T + max(delays)  codebooks 0 .. k - 1 of this frame, but not yet the finer ones of the last frames
    flatten         K * T            all earlier frames, and codebooks 0 .. k - 1 of this one
    coarse-first    2 * T            k = 0: earlier codes of codebook 0; k > 0: all of codebook 0, all earlier frames

`Pattern` is the interface of the four classes.

Sources: the patterns are MusicGen's (arXiv 2306.05284, section 2.2; section 4 compares them). AudioGen's paper (arXiv
2209.15352) predicts its streams in parallel; the AudioGen released in audiocraft uses MusicGen's delay pattern.

    B batch, K codebooks, T codec frames, S columns (sequence steps), V codebook size
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError


class Pattern:
    """The operations of all patterns. A pattern defines its table of positions, and the operations follow from it."""

    num_codebooks: int  # K

    def steps(self, frames: int) -> int:
        """Number of columns S for T = `frames`."""
        raise NotImplementedError

    def frames(self, steps: int) -> int:
        """Number of frames T for S = `steps`; MinigenError if no whole number of frames fills them."""
        raise NotImplementedError

    def positions(self, frames: int) -> Tensor:
        """Column of every code: int64 [K, T]."""
        raise NotImplementedError

    def apply(self, codes: Tensor, fill: int) -> Tensor:
        """Codes [B, K, T] -> sequence [B, K, S]; cells without a code hold `fill`.

        sequence[b, k, positions[k, t]] = codes[b, k, t]
        """
        self._check(codes)
        frames, limits = codes.shape[-1], torch.iinfo(codes.dtype)
        if not limits.min <= fill <= limits.max:  # V = 1024 does not fit into the 8 bits that hold small codes
            codes = codes.long()
        sequence = codes.new_full((*codes.shape[:2], self.steps(frames)), fill)  # [B, K, S]
        positions = self.positions(frames).to(codes.device)  # [K, T]
        return sequence.scatter(2, positions.expand(codes.shape), codes)  # [B, K, S]

    def revert(self, sequence: Tensor) -> Tensor:
        """Sequence [B, K, S] -> codes [B, K, T], the exact inverse of `apply`."""
        self._check(sequence)
        positions = self.positions(self.frames(sequence.shape[-1])).to(sequence.device)  # [K, T]
        return sequence.gather(2, positions.expand(sequence.shape[0], -1, -1))  # [B, K, T]

    def mask(self, frames: int) -> Tensor:
        """Bool [K, S], True for the cells that hold a code."""
        empty = torch.zeros(self.num_codebooks, self.steps(frames), dtype=torch.bool)  # [K, S]
        return empty.scatter(1, self.positions(frames), True)

    def _check(self, codes: Tensor) -> None:
        if codes.dim() != 3 or codes.shape[1] != self.num_codebooks:
            raise MinigenError(f"codes of shape {list(codes.shape)} do not fit {self}. Give [B, K, T].")
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise MinigenError(f"codes are {codes.dtype}, but codebook entries are integers. Give int64.")


@dataclass(frozen=True)
class DelayPattern(Pattern):
    """Stream k starts `delays[k]` columns late. Delays 0-1-2-3 are those of MusicGen and of audiocraft's AudioGen.

    delays: K non-negative integers, in columns, in any order (0-0-1-1 delays the streams in pairs).

    Raises:
        MinigenError: no delays, or one that is negative or not an integer.
    """

    delays: tuple[int, ...] = (0, 1, 2, 3)

    def __post_init__(self):
        object.__setattr__(self, "delays", tuple(self.delays))  # config.json gives a list
        _check_count("num_codebooks", self.num_codebooks)
        if any(not isinstance(delay, int) or delay < 0 for delay in self.delays):
            raise MinigenError(f"delays {self.delays} must be integers of 0 or more, one for each codebook.")

    @property
    def num_codebooks(self) -> int:  # type: ignore[override]  # computed here, a field in the other patterns
        """K."""
        return len(self.delays)

    def steps(self, frames: int) -> int:
        """Number of columns S = T + max(delays) for T = `frames`."""
        return _check_count("frames", frames) + max(self.delays)

    def frames(self, steps: int) -> int:
        """Number of frames T = S - max(delays) for S = `steps`; MinigenError if that is less than 1."""
        if steps <= max(self.delays):
            raise MinigenError(f"{steps} steps are too few for delays {self.delays}: at least {max(self.delays) + 1}.")
        return steps - max(self.delays)

    def positions(self, frames: int) -> Tensor:
        """Column of every code, t + delays[k]: int64 [K, T]."""
        delays = torch.tensor(self.delays)[:, None]  # [K, 1]
        return torch.arange(frames) + delays  # [K, T]


class ParallelPattern(DelayPattern):
    """All K codes of a frame in one column: the delay pattern with delays 0. It is the shortest pattern.

    The K codes of a frame are predicted independently of each other.
    """

    def __init__(self, num_codebooks: int):
        super().__init__(delays=(0,) * _check_count("num_codebooks", num_codebooks))


@dataclass(frozen=True)
class FlattenPattern(Pattern):
    """One code a column, frame after frame: every code depends on all codes before it, in K times as many columns.

    a0 .  a1 .        column t * K + k holds codebook k of frame t (K = 2 here); the other cells are filled
    .  b0 .  b1

    Raises:
        MinigenError: num_codebooks is not a positive integer.
    """

    num_codebooks: int

    def __post_init__(self):
        _check_count("num_codebooks", self.num_codebooks)

    def steps(self, frames: int) -> int:
        """Number of columns S = K * T for T = `frames`."""
        return _check_count("frames", frames) * self.num_codebooks

    def frames(self, steps: int) -> int:
        """Number of frames T = S / K for S = `steps`; MinigenError if K does not divide S."""
        return _divide(steps, self.num_codebooks)

    def positions(self, frames: int) -> Tensor:
        """Column of every code, t * K + k: int64 [K, T]."""
        first = torch.arange(frames) * self.num_codebooks  # [T], the column of codebook 0
        return first + torch.arange(self.num_codebooks)[:, None]  # [K, T]


@dataclass(frozen=True)
class CoarseFirstPattern(Pattern):
    """Codebook 0 of the whole clip, then the other K - 1 codebooks in parallel.

    a0 a1 a2 .  .  .        VALL-E's order (arXiv 2301.02111: coarse codes first) in one causal model. The K - 1 finer
    .  .  .  b0 b1 b2       codebooks are parallel, as in audiocraft's `CoarseFirstPattern` with its default delays 0.
    .  .  .  c0 c1 c2       The second half starts at column T, so a model generates only clips of its training length.

    Raises:
        MinigenError: num_codebooks is not an integer of 2 or more.
    """

    num_codebooks: int

    def __post_init__(self):
        if _check_count("num_codebooks", self.num_codebooks) < 2:
            raise MinigenError("coarse-first needs at least 2 codebooks, not 1. Use ParallelPattern for one.")

    def steps(self, frames: int) -> int:
        """Number of columns S = 2 T for T = `frames`."""
        return _check_count("frames", frames) * 2

    def frames(self, steps: int) -> int:
        """Number of frames T = S / 2 for S = `steps`; MinigenError if S is odd."""
        return _divide(steps, 2)

    def positions(self, frames: int) -> Tensor:
        """Column of every code, t for codebook 0 and T + t for the others: int64 [K, T]."""
        second_half = torch.arange(self.num_codebooks) > 0  # [K]: False for codebook 0
        return torch.arange(frames) + frames * second_half[:, None]  # [K, T]


def _check_count(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise MinigenError(f"{name} is {value!r}. Give an integer of 1 or more.")
    return value


def _divide(steps: int, columns_per_frame: int) -> int:
    if steps < 1 or steps % columns_per_frame:
        raise MinigenError(f"{steps} steps are not whole frames. Give a positive multiple of {columns_per_frame}.")
    return steps // columns_per_frame
