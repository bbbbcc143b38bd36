"""Discrete diffusion step by step (notebook 12): move through the steps, see which cells change, and hear it.

    step 3 of 25   codebook 0  ▒ ▓ ░ ▒ ░      ▓ orange   revised: another code than before this step
                   codebook 1  ░ █ ░ ▒ ░      █ dark     new: masked before this step
                   codebook 2  ░ ░ ░ ▓ █      ▒ blue     the same code as before
                                              ░ grey     masked

The sound is that of the cells with a code. Masked cells are played as the codes of silence.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigen.course.explorers.filling import FillingExplorer, add_legend, draw_status, with_silence
from minigen.display.players import audio_tag

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 + 0.85 * len(steps)), layout="constrained")
    panels = figure.subplots(len(steps), 1, sharex=True, squeeze=False)[:, 0]
    for axis, step in zip(panels, steps, strict=True):
        draw_status(axis, status(states, step, mask), COLOURS, frame_rate)
        axis.set_title(describe(states, step, mask), fontsize=8, loc="left")
    panels[-1].set_xlabel("time (s)")
    add_legend(figure, COLOURS, NAMES)
    return figure


class RevisingExplorer(FillingExplorer):
    """Widget with a slider of steps, which shows the new and the revised cells and plays the clip so far.

    Args:
        runs: name of a run -> codes [K, T] before the first step and after each step.
        codec: the codec of these codes; its `codebook_size` marks masked cells.

    Raises:
        MinigenError: no run, or a run of one state.
    """

    def show(self, _change=None) -> None:
        """Draw and play the chosen step."""
        step, mask, file = self.step.value, self.codec.codebook_size, BytesIO()
        filmstrip(self.states, [step], mask, self.codec.frame_rate).savefig(file, format="png")
        self.image.value, self.said.value = file.getvalue(), describe(self.states, step, mask)
        wav = self.codec.decode(with_silence(self.states[step], self.codec))
        self.sound.value = audio_tag(wav, self.codec.sample_rate)
