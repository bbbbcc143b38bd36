"""Masked generation step by step (notebook 11): move through the steps, see the grid fill, and hear it.

    step 3 of 16   codebook 0  ▒ ▓ ░ ▒ ░      ▓ orange   decided in this step
                   codebook 1  ░ ░ ▒ ░ ░      ▒ blue     decided in an earlier step, or given
                   codebook 2  ░ ░ ░ ▓ ░      ░ grey     hidden

The sound is that of the decided cells. Hidden cells are played as the codes of silence.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import ipywidgets
import torch
from torch import Tensor

from minigen.display.players import audio_tag
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN, BEFORE, NOW = range(3)
COLOURS = ("#e4e4e4", "#9ecae9", "#e66100")
NAMES = ("hidden", "given or decided before", "decided in this step")


def steps_of_decision(states: Sequence[Tensor], mask: int) -> Tensor:
    """Number of the step that decided each cell: int64 [K, T], 0 for given cells, `len(states)` for hidden ones.

    Args:
        states: codes [K, T] before the first step and after each step, in which `mask` marks hidden cells.
        mask: V.
    """
    return torch.stack([state == mask for state in states]).sum(0)


def status(states: Sequence[Tensor], step: int, mask: int) -> Tensor:
    """Status of each cell after a step: int64 [K, T] of HIDDEN, BEFORE, NOW."""
    decided = steps_of_decision(states, mask)
    now = torch.where(decided == step, NOW, BEFORE) if step else torch.full_like(decided, BEFORE)
    return torch.where(states[step] == mask, HIDDEN, now)


def describe(states: Sequence[Tensor], step: int, mask: int) -> str:
    """Sentence on a step: number of cells that it decided, and of those that are hidden after it."""
    hidden, cells = int((states[step] == mask).sum()), states[step].numel()
    decided = int((states[step - 1] == mask).sum()) - hidden if step else 0
    return f"step {step} of {len(states) - 1}: {decided} cells decided, {hidden} of {cells} hidden."


def with_silence(codes: Tensor, codec) -> Tensor:
    """Codes [1, K, T] in which the hidden cells of codes [K, T] have the codes of silence."""
    hop = round(codec.sample_rate / codec.frame_rate)
    silence = codec.encode(torch.zeros(1, 1, codes.shape[-1] * hop))  # [1, K, T]
    return torch.where(codes == codec.codebook_size, silence, codes)


def filmstrip(states: Sequence[Tensor], steps: Sequence[int], mask: int, frame_rate: float = 50.0) -> "Figure":
    """Matplotlib figure of the grid after some of the steps, one below the other."""
    titles = [describe(states, step, mask) for step in steps]
    return strip([status(states, step, mask) for step in steps], titles, COLOURS, NAMES, frame_rate)


def strip(
    grids: Sequence[Tensor], titles: Sequence[str], colours: Sequence[str], names: Sequence[str], frame_rate: float
) -> "Figure":
    """Matplotlib figure of grids of status, each int64 [K, T], one below the other, with a legend of the status."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 + 0.85 * len(grids)), layout="constrained")
    panels = figure.subplots(len(grids), 1, sharex=True, squeeze=False)[:, 0]
    for axis, grid, title in zip(panels, grids, titles, strict=True):
        draw_status(axis, grid, colours, frame_rate)
        axis.set_title(title, fontsize=8, loc="left")
    panels[-1].set_xlabel("time (s)")
    add_legend(figure, colours, names)
    return figure


class FillingExplorer(ipywidgets.VBox):
    """Widget with a slider of steps, which shows the cells that are decided and plays them.

    Args:
        runs: name of a run -> codes [K, T] before the first step and after each step.
        codec: the codec of these codes; its `codebook_size` marks hidden cells.

    Raises:
        MinigenError: no run, or a run of one state.
    """

    draw, describe = staticmethod(filmstrip), staticmethod(describe)  # an explorer of other states has its own

    def __init__(self, runs: Mapping[str, Sequence[Tensor]], codec):
        if not runs or min(map(len, runs.values())) < 2:
            raise MinigenError(
                "there is nothing to show. Give one run or more, each with the states of a step or more."
            )
        self.runs, self.codec = dict(runs), codec
        style = {"style": {"description_width": "60px"}, "layout": ipywidgets.Layout(width="520px")}
        slide = {"min": 0, "description": "step", "continuous_update": False, **style}
        self.run = ipywidgets.Dropdown(options=list(self.runs), description="run", **style)
        last = len(self.states) - 1
        self.step = ipywidgets.IntSlider(last // 2, max=last, **slide)
        self.said, self.sound = ipywidgets.HTML(), ipywidgets.HTML()
        self.image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="900px"))
        self.run.observe(self._fit, names="value")
        self.step.observe(self.show, names="value")
        super().__init__((self.run, self.step, self.said, self.image, self.sound))
        self.show()

    @property
    def states(self) -> Sequence[Tensor]:
        """States of the chosen run."""
        return self.runs[self.run.value]

    def show(self, _change=None) -> None:
        """Draw and play the chosen step."""
        step, mask, file = self.step.value, self.codec.codebook_size, BytesIO()
        self.draw(self.states, [step], mask, self.codec.frame_rate).savefig(file, format="png")
        self.image.value, self.said.value = file.getvalue(), self.describe(self.states, step, mask)
        wav = self.codec.decode(with_silence(self.states[step], self.codec))
        self.sound.value = audio_tag(wav, self.codec.sample_rate)

    def _fit(self, _change) -> None:
        """Another run may have another number of steps."""
        self.step.max = len(self.states) - 1  # moves the slider where it is beyond
        self.show()


def draw_status(axis, cells: Tensor, colours: Sequence[str], frame_rate: float) -> None:
    """Draw the status of cells, int64 [K, T], on a matplotlib axis: `colours[status]`, a row for each codebook."""
    from matplotlib.colors import ListedColormap

    streams, frames = cells.shape
    extent = (0, frames / frame_rate, streams - 0.5, -0.5)
    axis.imshow(cells.numpy(), cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1, aspect="auto",
                extent=extent, interpolation="nearest")  # fmt: skip
    axis.set(ylabel="codebook", yticks=range(streams))
    axis.tick_params(labelsize=8)


def add_legend(figure, colours: Sequence[str], names: Sequence[str]) -> None:
    """Add a line below a matplotlib figure that names the colours of a status."""
    from matplotlib.patches import Patch

    boxes = [
        Patch(facecolor=colour, edgecolor="#777777", label=name) for colour, name in zip(colours, names, strict=True)
    ]
    figure.legend(handles=boxes, loc="outside lower center", ncols=len(boxes), frameon=False, fontsize=8)
