"""Similarities before and after the regulariser (notebook 08): choose a model, a pooling and a pair of clips.

    text      audio     (text - audio)²        clip 3 with clip 7
    . # . .   . # . .   . . . .                two captions, their two sounds
    . . . .   . . . .   . . . .                cosine of the texts, of the sounds, and the squared difference

`before_after` is the static picture beside it. `directions` draws a few vectors of two channels as arrows.
"""

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import ipywidgets
import torch
from torch import Tensor
from torch.nn.functional import normalize

from minigen.display.players import audio_tag
from minigen.display.plots import COLOURS, similarity_matrices, standardised
from minigen.regularizer import pool, similarity_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def directions(panels: Mapping[str, Tensor]) -> "Figure":
    """Rows of [B, 2] as arrows of length 1, a panel for each set. The cosine of two rows is that of the angle between.

    panels: title -> rows. Row i has the same colour and number in every panel.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.7 * len(panels), 2.9), layout="constrained")
    for axis, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axis.plot(*torch.stack([torch.linspace(0, 6.2832, 100).cos(), torch.linspace(0, 6.2832, 100).sin()]).numpy(),
                  color="#ccc", linewidth=1)  # fmt: skip
        for i, (x, y) in enumerate(normalize(rows.detach().float(), dim=-1).tolist()):
            axis.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[i % 6], "linewidth": 2})
            axis.text(1.18 * x, 1.18 * y, str(i), color=COLOURS[i % 6], ha="center", va="center")
        axis.set(title=title, xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axis.set(xlabel="channel 0", ylabel="channel 1")
    return figure


def before_after(text: Tensor, audio: Mapping[str, Tensor]) -> "Figure":
    """Similarity matrices [B, B]: the text's, each model's by name, and below each its squared difference to the text.

    Each matrix of cosines is shown less its mean and in units of its spread, which stand in the title (mean ± spread
    off the diagonal), so that the pattern can be seen at any level. The number over a difference is its mean over the
    pairs of two clips, the regulariser's loss.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.1 * (len(audio) + 1), 5.6), layout="constrained")
    axes = figure.subplots(2, len(audio) + 1)
    squared = {name: (text - matrix).square().fill_diagonal_(0) for name, matrix in audio.items()}
    most = max(float(matrix.max()) for matrix in squared.values())
    for axis, (name, matrix) in zip(axes[0], {"text": text, **audio}.items(), strict=True):
        shown, mean, spread = standardised(matrix)
        cosines = axis.imshow(shown.numpy(), vmin=-3, vmax=3, cmap="RdBu_r")
        axis.set(title=f"{name}: {mean:.2f} ± {spread:.2f}", xlabel="clip", ylabel="clip")
    for axis, matrix in zip(axes[1, 1:], squared.values(), strict=True):
        differences = axis.imshow(matrix.numpy(), vmin=0, vmax=most, cmap="magma")
        loss = float(matrix.sum()) / (len(matrix) * (len(matrix) - 1))
        axis.set(title=f"(text − audio)², mean {loss:.3f}", xlabel="clip", ylabel="clip")
    axes[1, 0].axis("off")
    for axis in axes.flat:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(cosines, ax=axes[0].tolist(), label="(cosine − mean) / spread")
    figure.colorbar(differences, ax=axes[1].tolist(), label="squared difference")
    return figure


class SimilarityExplorer(ipywidgets.VBox):
    """Widget that shows both matrices for a model, a pooling and two clips, and what the pair adds to the loss.

    captions: B captions. states [B, N, D], mask bool [B, N]: the text encoder's answer. hidden: model -> hidden states
    [B, S, D] of the clips without text, nothing padded. wavs: [B, 1, samples] to play the pair, None for silence.
    """

    def __init__(
        self,
        captions: Sequence[str],
        states: Tensor,
        mask: Tensor,
        hidden: Mapping[str, Tensor],
        wavs: Tensor | None = None,
        sample_rate: int = 16000,
    ):
        self.captions, self.states, self.mask = list(captions), states, mask
        self.hidden, self.wavs, self.sample_rate = dict(hidden), wavs, sample_rate
        wide = {"style": {"description_width": "90px"}}
        self.model = ipywidgets.Dropdown(options=list(self.hidden), description="model", **wide)
        self.pooling = ipywidgets.RadioButtons(
            options=["max", "mean"], description="pooling", orientation="horizontal", **wide
        )
        clip = {"min": 0, "max": len(self.captions) - 1, "continuous_update": False, **wide}
        self.first = ipywidgets.IntSlider(0, description="clip i", **clip)
        self.second = ipywidgets.IntSlider(1, description="clip j", **clip)
        self.worst = ipywidgets.Button(description="pair that costs most", layout=ipywidgets.Layout(width="auto"))
        self.said, self.picture = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.picture.layout = ipywidgets.Layout(width="760px")
        for control in (self.model, self.pooling, self.first, self.second):
            control.observe(self.show, names="value")
        self.worst.on_click(self._to_the_worst)
        pair = ipywidgets.HBox((self.first, self.second, self.worst))
        super().__init__((ipywidgets.HBox((self.model, self.pooling)), pair, self.said, self.picture))
        self.show()

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Similarities [B, B] of the text and of the chosen model, pooled as chosen."""
        how, hidden = self.pooling.value, self.hidden[self.model.value]
        return similarity_matrix(pool(self.states, self.mask, how)), similarity_matrix(pool(hidden, None, how))

    def show(self, _change=None) -> None:
        """Draw the matrices of the current settings with the pair marked, and state what it adds."""
        text, audio = self.matrices()
        i, j = self.first.value, self.second.value
        figure, file = similarity_matrices(text, audio), BytesIO()
        for axes in figure.axes[:3]:
            axes.plot([j, i], [i, j], "s", markerfacecolor="none", markeredgecolor="#009e73", markeredgewidth=2)
        figure.savefig(file, format="png")
        self.picture.value = file.getvalue()
        self.said.value = self._clip("i", i) + self._clip("j", j) + self._sentence(text, audio, i, j)

    def _clip(self, letter: str, row: int) -> str:
        sound = "" if self.wavs is None else audio_tag(self.wavs[row], self.sample_rate)
        return f"<p>{letter} = {row}: {escape(self.captions[row])} {sound}</p>"

    def _sentence(self, text: Tensor, audio: Tensor, i: int, j: int) -> str:
        if i == j:
            return "<p>A clip and itself: both cosines are 1, and the loss leaves the diagonal out.</p>"
        one, other = text[i, j].item(), audio[i, j].item()
        pairs = ~torch.eye(len(text), dtype=torch.bool)
        loss = (text - audio)[pairs].square().mean().item()
        return (
            f"<p>cosine of the texts {one:.3f}, of the sounds {other:.3f}, squared difference "
            f"{(one - other) ** 2:.4f}; mean over all pairs, the loss: {loss:.4f}</p>"
        )

    def _to_the_worst(self, _button=None) -> None:
        text, audio = self.matrices()
        squared = (text - audio).square().fill_diagonal_(0)
        self.first.value, self.second.value = divmod(int(squared.argmax()), len(squared))
