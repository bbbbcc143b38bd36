"""Discrete diffusion step by step (notebook 12): move through the steps, see which cells change, and hear it.

    step 3 of 25   codebook 0  ▒ ▓ ░ ▒ ░      ▓ orange   revised: another code than before this step
                   codebook 1  ░ █ ░ ▒ ░      █ dark     new: masked before this step
                   codebook 2  ░ ░ ░ ▓ █      ▒ blue     the same code as before
                                              ░ grey     masked

The sound is that of the cells with a code. Masked cells are played as the codes of silence.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigen.course.explorers.filling import FillingExplorer, strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASKED, SAME, NEW, REVISED = range(4)
COLOURS = ("#e4e4e4", "#9ecae9", "#1f4e79", "#e66100")
NAMES = ("masked", "the same code as before", "new: masked before", "revised: another code than before")


def status(states: Sequence[Tensor], step: int, mask: int) -> Tensor:
    """Status of each cell after a step: int64 [K, T] of MASKED, SAME, NEW, REVISED.

    Args:
        states: codes [K, T] before the first step and after each step, in which `mask` marks masked cells.
        step: number of the step; 0 is the state before the first.
        mask: V.
    """
    before, after = states[max(0, step - 1)], states[step]
    changed = torch.where(before == mask, NEW, REVISED)
    return torch.where(after == mask, MASKED, torch.where(after == before, SAME, changed))


def revisions(states: Sequence[Tensor], mask: int) -> Tensor:
    """Number of steps that replaced the code of a cell by another code: int64 [K, T]. Arguments as in `status`."""
    return torch.stack([status(states, step, mask) == REVISED for step in range(len(states))]).sum(0)


def describe(states: Sequence[Tensor], step: int, mask: int) -> str:
    """Sentence on a step: number of masked, new and revised cells."""
    masked, _, new, revised = torch.bincount(status(states, step, mask).flatten(), minlength=4).tolist()
    return f"step {step} of {len(states) - 1}: {new} cells new, {revised} revised, {masked} masked."


def filmstrip(states: Sequence[Tensor], steps: Sequence[int], mask: int, frame_rate: float = 50.0) -> "Figure":
    """Matplotlib figure of the grid after some of the steps, one below the other."""
    titles = [describe(states, step, mask) for step in steps]
    return strip([status(states, step, mask) for step in steps], titles, COLOURS, NAMES, frame_rate)


class RevisingExplorer(FillingExplorer):
    """Widget with a slider of steps, which shows the new and the revised cells and plays the clip so far.

    Args:
        runs: name of a run -> codes [K, T] before the first step and after each step.
        codec: the codec of these codes; its `codebook_size` marks masked cells.

    Raises:
        MinigenError: no run, or a run of one state.
    """

    draw, describe = staticmethod(filmstrip), staticmethod(describe)
