"""Diagrams of the language model (notebook 05): a layer, the shift by one, and the key-value cache.

    transformer_diagram   embeddings, the residual stream through one layer, the heads
    shift_diagram         input and target of a training step, column by column
    cache_diagram         what a step with a cache reads, computes and stores

Each function returns a matplotlib `Figure`.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigen.display.plots import COLOURS, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STREAM, TEXT, PART, GAP, CODE = COLOURS[0], COLOURS[2], "#f4f4f4", "#dddddd", "#cfe3f1"
BLOCKS = (
    (2.2, "self-attention", "reads columns 0 … s"),
    (4.4, "cross-attention", "reads the words"),
    (6.6, "feed-forward", "column by column"),
)  # bottom of each block, its name, what it reads


def transformer_diagram() -> "Figure":
    """The whole language model: one layer drawn out, the residual stream as the thick line that all parts add to."""
    figure, axes = _figure(8, 6.6)
    axes.set(xlim=(0, 12), ylim=(-0.9, 12.2))
    axes.axis("off")
    axes.annotate("", (3, 9.6), (3, 0.9), arrowprops={"arrowstyle": "-|>", "color": STREAM, "linewidth": 4})
    axes.text(2.75, 5.2, "residual stream x  [B, S, D]", rotation=90, ha="right", va="center", color=STREAM)
    _box(axes, 1.2, 0.1, 3.6, 0.8, "sum of K embeddings + position")
    axes.text(3, -0.5, "sequence [B, K, S], shifted right by one column", ha="center", va="center")
    for bottom, name, note in BLOCKS:
        _block(axes, bottom, name, note)
    axes.text(9.9, 8.35, "× layers", ha="right", va="top")
    axes.add_patch(_frame(1.6, 1.45, 8.4, 7.0))
    _box(axes, 2.2, 9.6, 1.6, 0.7, "norm")
    _box(axes, 1.2, 10.8, 3.6, 0.7, "K heads")
    _arrow(axes, (3, 10.3), (3, 10.8))
    axes.text(3, 11.85, "logits [B, K, S, V]", ha="center", va="center")
    axes.text(11.9, 4.85, "words\n[B, N, D]\nkeys, values", ha="right", va="center", color=TEXT)
    _arrow(axes, (10.3, 4.85), (8.9, 4.85), TEXT)
    return figure


def _block(axes: "Axes", bottom: float, name: str, note: str) -> None:
    """One block beside the stream: it reads a normed copy of x, and its result is added to x."""
    _box(axes, 3.9, bottom - 0.25, 1.1, 0.5, "norm")
    _box(axes, 5.7, bottom - 0.35, 3.2, 1.5, f"{name}\n{note}")
    _arrow(axes, (3, bottom), (3.9, bottom))
    _arrow(axes, (5.0, bottom), (5.7, bottom))
    _arrow(axes, (5.7, bottom + 0.9), (3.22, bottom + 0.9))
    axes.text(3, bottom + 0.9, "+", ha="center", va="center", color="white", zorder=4)
    axes.plot(3, bottom + 0.9, "o", color=STREAM, markersize=16, zorder=3)


def shift_diagram(codes: Tensor, fill: int) -> "Figure":
    """Target [K, S] and input of a training step, cell by cell; column s of the input is column s - 1 of the target.

    codes: int64 [K, S], a sequence after the delay pattern. fill: the special token, drawn as V.
    """
    shifted = torch.nn.functional.pad(codes[:, :-1], (1, 0), value=fill)
    streams, steps = codes.shape
    figure, axes = _figure(0.62 * steps + 2.2, 0.62 * streams + 1.9)
    axes.set(xlim=(-2.6, steps), ylim=(2 * streams + 1.6, -1.2))
    axes.axis("off")
    _cells(axes, shifted, fill, 0, "input")
    _cells(axes, codes, fill, streams + 1.4, "target")
    for step in range(steps):
        axes.text(step + 0.5, -0.4, str(step), ha="center", va="center", color="#555555")
        _arrow(axes, (step + 0.5, streams + 0.1), (step + 0.5, streams + 1.3), STREAM)
    axes.text(-0.2, -0.4, "column s", ha="right", va="center", color="#555555")
    axes.text(-0.2, streams + 0.7, "model", ha="right", va="center", color=STREAM)
    return figure


def _cells(axes: "Axes", codes: Tensor, fill: int, top: float, name: str) -> None:
    for k, row in enumerate(codes.tolist()):
        axes.text(-0.2, top + k + 0.5, f"{name} k = {k}" if k == 0 else f"k = {k}", ha="right", va="center")
        for step, code in enumerate(row):
            colour = GAP if code == fill else CODE
            _box(axes, step + 0.05, top + k + 0.05, 0.9, 0.9, "V" if code == fill else str(code), colour, size=8)


def cache_diagram(step: int) -> "Figure":
    """Column `step` of a generation, without a cache and with one: which columns are computed, and which are read."""
    figure, axes = _figure(8, 3.4)
    axes.set(xlim=(-3.4, step + 4.2), ylim=(5.4, -0.9))
    axes.axis("off")
    titles = ("without a cache", "with a cache")
    for row, title in enumerate(titles):
        top = 3 * row
        axes.text(-0.3, top + 0.5, title, ha="right", va="center", weight="bold")
        for column in range(step + 1):
            computed = row == 0 or column == step
            text = f"x{column}" if computed else f"k{column}, v{column}"
            _box(axes, column + 0.05, top, 0.9, 1.0, text, COLOURS[5] if computed else PART, size=8)
        reads = f"reads {step + 1} columns"
        axes.annotate(
            "", (0.5, top + 1.05), (step + 0.5, top + 1.05),
            arrowprops={"arrowstyle": "-|>", "color": STREAM, "connectionstyle": "arc3,rad=-0.12"},
        )  # fmt: skip
        axes.text(step / 2 + 0.5, top + 1.75, f"column {step} {reads}", ha="center", va="center", color=STREAM)
        work = f"computes {step + 1}" if row == 0 else "computes 1, stores its k and v"
        axes.text(step + 1.2, top + 0.5, work, ha="left", va="center")
    return figure


def _box(axes: "Axes", x: float, y: float, width: float, height: float, text: str, colour: str = PART, size: int = 10):
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="#555555", linewidth=0.8, zorder=2))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, zorder=3)


def _frame(x: float, y: float, width: float, height: float):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fill=False, edgecolor="#999999", linestyle="--", linewidth=1)


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], colour: str = "#555555") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.2}, zorder=3)
