"""Filling: generators that make the missing cells of given codes, in clips of any length.

    known [B, K, T]  cells that are given; V, the mask, in cells that are to be made
        │ windows: parts of at most `LONGEST` frames, each beginning `OVERLAP` frames before its first missing cell
        ▼
    make(known[..., window]) ─► the same part without a mask, written back ─► the next window

A model learns clips of 4 s (200 frames) and knows nothing of longer ones. A longer clip is therefore made window by
window. Each window sees the end of what is made already, so that the sound goes on. It goes from left to right, unless
only the end of the clip is given: then from right to left, from the given part outwards.

Everything that such a generator can do is one choice of the missing cells:

    generate    all of them                         inpaint   those of some frames (`minigen.generators.editing`)
    continue    those after, or before, a prompt    vary      a random share of them

Symbols: B batch · K codebooks · T frames · V codebook size, and the mask.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.generate import canvas, progress_bar
from minigen.generators.base import Sizes
from minigen.guidance import Condition

LONGEST = 200  # frames of the clips in training: 4 s
OVERLAP = 50  # frames that a window sees of what is made already: 1 s


def fill(known: Tensor, mask: int, make: Callable[[Tensor, bool], Tensor], progress: bool = False) -> Tensor:
    """Make the missing cells of codes, window by window: int64 [B, K, T] -> int64 [B, K, T]. Given cells stay.

    Args:
        known: codes, `mask` where one is missing.
        mask: V.
        make: function of a window [B, K, T'] and whether to show a bar; returns the window without missing cells.
        progress: whether to show a bar on stderr, of windows where there are several.
    """
    codes, places = known.clone(), windows((known == mask).any(0).any(0))
    several = len(places) > 1
    for place in progress_bar(places, "windows", progress and several):
        codes[..., place] = make(codes[..., place], progress and not several)
    return codes


def blank(text: Condition, frames: int, sizes: Sizes, device: torch.device, prompt: Tensor | None = None) -> Tensor:
    """Codes [B, K, frames] of which all cells are missing, V, but those of a prompt at their beginning.

    B is the number of texts, or that of the prompts where there is no text. prompt: codes [B, K, P] or [1, K, P].

    Raises:
        MinigenError: frames below 1, a prompt of another shape or as long as the clip, codes outside 0 … V - 1.
    """
    rows = next((len(given) for given in (text.memory, prompt) if given is not None), 1)
    return canvas(sizes, device, rows, frames, prompt, unknown=sizes.codebook_size)


def windows(missing: Tensor) -> list[slice]:
    """Parts of a clip to fill one after another: bool [T], True = cells of this frame are missing."""
    frames = len(missing)
    if missing.any() and missing[0] and not missing[-1]:  # from right to left: the mirror image
        return [slice(frames - place.stop, frames - place.start) for place in windows(missing.flip(0))]
    missing, places = missing.clone(), []
    while missing.any():
        first = int(missing.nonzero()[0])
        start = max(0, min(first - OVERLAP, frames - LONGEST))
        places.append(slice(start, min(frames, start + LONGEST)))
        missing[places[-1]] = False
    return places


def check_known(known: Tensor, sizes: Sizes, text: Condition) -> None:
    """Check codes with missing cells.

    Raises:
        MinigenError: not int64 [B, K, T] with B captions, no frame, or codes outside 0 … V.
    """
    streams, size = sizes.num_codebooks, sizes.codebook_size
    rows = len(known) if text.memory is None else len(text.memory)
    if known.dtype != torch.int64 or known.ndim != 3 or known.shape[:2] != (rows, streams) or not known.numel():
        raise MinigenError(f"codes are {known.dtype} {list(known.shape)}. Give int64 [{rows}, {streams}, T].")
    low, high = known.aminmax()
    if low < 0 or high > size:
        raise MinigenError(f"codes run from {low} to {high}. Give 0 to {size - 1}, or {size} for a missing cell.")


def missing_cells(known: Tensor, mask: int) -> int:
    """The largest number of missing cells in a clip of the batch."""
    return int((known == mask).flatten(1).sum(1).max())
