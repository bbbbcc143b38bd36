"""Patterns step by step (notebook 03): move through the columns, and see what is known when a code is predicted.

    sequence [K, S]    a0 a1 a2 .. ..        blue    written before this column: the network reads it
      column 3         V  b0 b1 ?  ..        orange  predicted now
                       V  V  c0 .. ..        yellow  drawn at the same moment: not known
                                             white   later           grey V   a gap

Below the sequence stand the same codes where they belong in the clip, [K, T], in the same colours.
"""

from collections.abc import Iterable
from io import BytesIO

import ipywidgets
import torch
from torch import Tensor

from minigen.patterns import CoarseFirstPattern, DelayPattern, FlattenPattern, ParallelPattern

LATER, KNOWN, TOGETHER, TARGET = range(4)  # a code's state at the moment when one of them is predicted
FILLS = {LATER: "#ffffff", KNOWN: "#9ecae9", TOGETHER: "#f5d76e", TARGET: "#e66100"}
NAMES = {KNOWN: "known", TARGET: "predicted now", TOGETHER: "drawn at the same moment", LATER: "not yet written"}
GAP = "#e4e4e4"
PATTERNS = {
    "delay 0-1-2-3": DelayPattern((0, 1, 2, 3)),
    "delay 0-0-1-1": DelayPattern((0, 0, 1, 1)),
    "delay 0-2-4-6": DelayPattern((0, 2, 4, 6)),
    "parallel": ParallelPattern(4),
    "flatten": FlattenPattern(4),
    "coarse-first": CoarseFirstPattern(4),
}


def states(pattern, frames: int, column: int, stream: int) -> Tensor:
    """State of every code when cell (stream, column) is predicted: int64 [K, T] of LATER, KNOWN, TOGETHER, TARGET.

    Known is what stands in an earlier column. Where the cell is a gap, no code is the TARGET.
    """
    positions = pattern.positions(frames)
    known = torch.where(positions < column, KNOWN, LATER)
    now = torch.where(positions == column, TOGETHER, known)
    now[stream] = torch.where(positions[stream] == column, TARGET, now[stream])
    return now


def code_name(stream: int, frame: int) -> str:
    """Frame 3 of codebook 1 is b3."""
    return f"{chr(ord('a') + stream)}{frame}"


def describe(pattern, frames: int, column: int, stream: int) -> str:
    """Sentence on a cell: the code that is predicted, and what is known of its frame, of earlier and later ones."""
    now = states(pattern, frames, column, stream)
    if not (now == TARGET).any():
        return f"column {column}, codebook {stream}: a gap. V is written here and nothing is predicted."
    frame = int((now[stream] == TARGET).nonzero()[0])
    own = _names((k, frame) for k in range(pattern.num_codebooks) if now[k, frame] == KNOWN)
    missing = [(k, t) for t in range(frame) for k in range(pattern.num_codebooks) if now[k, t] != KNOWN]
    ahead = [(k, t) for t in range(frame + 1, frames) for k in range(pattern.num_codebooks) if now[k, t] == KNOWN]
    return (
        f"column {column}: {code_name(stream, frame)} is predicted. Known of its own frame: {own}. "
        f"Not known of earlier frames: {_names(missing)}."
        + (f" Known of later frames: {_names(ahead)}." if ahead else "")
    )


def picture(pattern, frames: int, column: int, stream: int, title: str = ""):
    """Matplotlib figure of the sequence [K, S] and, below it, the clip's codes [K, T], coloured by `states`."""
    from matplotlib.figure import Figure

    now, positions, steps = states(pattern, frames, column, stream), pattern.positions(frames), pattern.steps(frames)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1)
    _grid(above, steps, {(k, int(positions[k, t])): (k, t) for k, t in _cells(now)}, now)
    _grid(below, frames, {(k, t): (k, t) for k, t in _cells(now)}, now)
    above.axvspan(column - 0.5, column + 0.5, fill=False, edgecolor="black", linewidth=2)
    above.set(xlabel="column of the sequence", title=title)
    below.set(xlabel="frame of the clip", xlim=(-0.52, max(frames, 12) - 0.48))
    _legend(figure)
    return figure


class DelayExplorer(ipywidgets.VBox):
    """Widget that shows, for a pattern, a codebook and a column, which codes are known when one is predicted.

    frames: length of the toy clip, T.
    """

    def __init__(self, pattern: str = "delay 0-1-2-3", frames: int = 5, column: int = 3):
        self.frames = frames
        style = {"style": {"description_width": "90px"}}
        self.pattern = ipywidgets.Dropdown(options=list(PATTERNS), value=pattern, description="pattern", **style)
        last = PATTERNS[pattern].steps(frames) - 1
        wide = ipywidgets.Layout(width="520px")
        self.column = ipywidgets.IntSlider(column, min=0, max=last, description="column", layout=wide, **style)
        self.stream = ipywidgets.IntSlider(1, min=0, max=3, description="codebook", layout=wide, **style)
        self.said, self.image = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.image.layout = ipywidgets.Layout(width="900px")
        self.pattern.observe(self._fit, names="value")
        for control in (self.column, self.stream):
            control.observe(self.show, names="value")
        super().__init__((self.pattern, self.column, self.stream, self.said, self.image))
        self.show()

    def show(self, _change=None) -> None:
        """Draw the current settings."""
        cell = (PATTERNS[self.pattern.value], self.frames, self.column.value, self.stream.value)
        file = BytesIO()
        picture(*cell, title=self.pattern.value).savefig(file, format="png")
        self.image.value, self.said.value = file.getvalue(), describe(*cell)

    def _fit(self, _change) -> None:
        """A new pattern has another number of columns."""
        self.column.max = PATTERNS[self.pattern.value].steps(self.frames) - 1  # moves the slider where it is beyond
        self.show()


def _names(cells: Iterable[tuple[int, int]]) -> str:
    return ", ".join(code_name(*cell) for cell in cells) or "nothing"


def _cells(now: Tensor) -> list[tuple[int, int]]:
    return [(k, t) for k in range(now.shape[0]) for t in range(now.shape[1])]


def _grid(axes, width: int, codes: dict, now: Tensor) -> None:
    """Draw [K, width] cells; codes: place in the grid -> (codebook, frame); the other places are gaps."""
    from matplotlib.patches import Rectangle

    for k in range(len(now)):
        for x in range(width):
            code = codes.get((k, x))
            fill = GAP if code is None else FILLS[int(now[code])]
            axes.add_patch(Rectangle((x - 0.5, k - 0.5), 1, 1, facecolor=fill, edgecolor="#777777", linewidth=0.5))
            text = "V" if code is None else code_name(*code)
            axes.text(x, k, text, ha="center", va="center", fontsize=9, color="#888888" if code is None else "black")
    axes.set(ylabel="codebook", xlim=(-0.52, width - 0.48), ylim=(len(now) - 0.48, -0.52))
    axes.set(xticks=range(width), yticks=range(len(now)))
    axes.tick_params(length=0, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(figure) -> None:
    from matplotlib.patches import Patch

    boxes = [Patch(facecolor=FILLS[state], edgecolor="#777777", label=name) for state, name in NAMES.items()]
    boxes.append(Patch(facecolor=GAP, edgecolor="#777777", label="gap, holds V"))
    figure.legend(handles=boxes, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
