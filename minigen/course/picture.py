"""The picture at the top of the README: one caption on its way through the chain.

Written by `python -m minigen.course.picture`.

    caption ─► text states [N, D] ─► language model ─► codes under the delay pattern [K, S] ─► codes [K, T] ─► sound

Four panels: the similarity of the caption's words as the text encoder sees them, the sequence that the language model
writes column by column, the same codes with the delay undone, and the spectrogram of the decoded sound.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from minigen.audio import SAMPLE_RATE
from minigen.display.plots import entry_colours, mel_db
from minigen.engine.hub import ROOT
from minigen.generate import TextToAudio, generate_codes
from minigen.patterns import DelayPattern
from minigen.regularizer import similarity_matrix

CAPTION, SECONDS, SEED = "a rooster crows followed by thunder", 4.0, 0
SHOWN = 24  # columns of the sequence, of which four seconds have 203


@torch.no_grad()
def draw(tta: TextToAudio, caption: str = CAPTION, seconds: float = SECONDS, seed: int = SEED) -> Figure:
    """Figure with the four panels for one caption; the same seed draws the same codes."""
    states, mask = tta.encoder([caption])  # [1, N, D]
    frames = round(seconds * tta.codec.frame_rate)
    codes = generate_codes(tta.lm, states, mask, frames, generator=torch.Generator().manual_seed(seed))  # [1, K, T]
    special = tta.codec.codebook_size
    sequence = DelayPattern(tta.lm.config.delays).apply(codes, fill=special)  # [1, K, S]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    words, columns, grid, sound = figure.subplots(1, 4, width_ratios=(1, 1.4, 1.4, 1.8))
    _show_words(words, similarity_matrix(states[0]), caption)
    _show_codes(columns, sequence[0, :, :SHOWN], special, f"2  sequence: first {SHOWN} columns", "column")
    _show_codes(grid, codes[0, :, :SHOWN], special, "3  codes: the delay undone", "frame (20 ms)")
    _show_sound(sound, tta.codec.decode(codes), seconds)
    return figure


def _show_words(axes, similarity: torch.Tensor, caption: str) -> None:
    axes.imshow(similarity.numpy(), vmin=0, vmax=1, cmap="viridis")
    axes.set(title=f"1  text states: {len(similarity)} tokens", xlabel="token", ylabel="token")
    axes.set_xticks(range(0, len(similarity), 4))
    axes.set_yticks(range(0, len(similarity), 4))
    axes.text(0.5, -0.36, f"“{caption}”", transform=axes.transAxes, ha="center", style="italic", wrap=True)


def _show_codes(axes, codes: torch.Tensor, special: int, title: str, across: str) -> None:
    shown = np.ma.masked_equal(codes.numpy(), special)  # the special token stays white
    colours = entry_colours(special)  # the numbers are names: neighbours get different colours
    axes.imshow(shown, aspect="auto", cmap=colours, vmin=-0.5, vmax=special - 0.5, interpolation="nearest")
    axes.set(title=title, xlabel=across, ylabel="codebook", yticks=range(len(codes)))


def _show_sound(axes, wav: torch.Tensor, seconds: float) -> None:
    axes.imshow(mel_db(wav, SAMPLE_RATE), origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, 64))
    axes.set(title="4  sound: log-mel spectrogram", xlabel="time (s)", ylabel="mel band")


def main() -> None:
    """Write docs/chain.png."""
    path = Path(ROOT) / "docs" / "chain.png"
    draw(TextToAudio.from_pretrained("mini")).savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
