"""Attention of audio on words (notebook 04): which words each column of codes reads, by layer and head.

    sequence ─► layer ─► cross_norm(x) ─► W_q ─► q [B, heads, S, d] ─┐
                                                                     ├─► softmax_n(q_s · k_n / √d) [B, heads, S, N]
    caption ─► states ─► projection ─► W_k ─► k [B, heads, N, d] ────┘

The language model does not keep these weights, because fused attention never stores them. They are computed here again
from the input and the matrices of each layer, so that the model itself need not change.
"""

from collections.abc import Mapping
from html import escape
from io import BytesIO

import ipywidgets
import torch
from torch import Tensor

from minigen.display.plots import LOUD_DB, QUIET_DB, mel, mel_db
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern

MEAN = -1  # in the place of a head's number


@torch.no_grad()
def attention_weights(lm: AudioLM, sequence: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
    """Cross-attention weights [layers, B, heads, S, N]: how much each column reads of each word; they sum to 1 over N.

    sequence: [B, K, S] as the model reads it (shifted right). memory: [B, N, M] text states. memory_mask: bool [B, N].
    Padding gets exactly 0. A row whose mask is all False has no weights (NaN): it reads nothing.
    """
    text = lm.memory_projection(memory.to(lm.memory_projection.weight))
    scores = [
        _scores(layer.cross_attention, normed, text)
        for layer, normed in zip(lm.layers, _normed_inputs(lm, sequence, memory, memory_mask), strict=True)
    ]
    weights = torch.stack(scores)
    if memory_mask is not None:
        weights = weights.masked_fill(~memory_mask[:, None, None], -torch.inf)
    return weights.softmax(-1)


def clip_weights(tta, caption: str, wav: Tensor) -> tuple[Tensor, list[str]]:
    """Weights [layers, heads, T, N] of one clip with its caption, and the N tokens.

    Row t belongs to the column in which frame t of codebook 0 is predicted.
    tta: a `minigen.generate.TextToAudio`. wav: [1, 1, samples] at the codec's rate.
    """
    config, codes = tta.lm.config, tta.codec.encode(wav)
    sequence = DelayPattern(config.delays).apply(codes, config.codebook_size)
    states, mask = tta.encoder([caption])
    weights = attention_weights(tta.lm, shift_right(sequence, config.codebook_size), states, mask)
    return weights[:, 0, :, : codes.shape[-1]], tta.encoder.tokens(caption)


def attention_map(weights: Tensor, tokens: list[str], wav: Tensor, sample_rate: int, title: str = ""):
    """Matplotlib figure of a clip's spectrogram, and below it the attention [T, N] of its frames on the tokens."""
    from matplotlib.figure import Figure

    if weights.ndim != 2 or weights.shape[1] != len(tokens):
        raise MinigenError(f"weights {list(weights.shape)} for {len(tokens)} tokens. Give [T, {len(tokens)}].")
    figure = Figure(figsize=(8, 2.4 + 0.24 * len(tokens)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 0.2 * len(tokens)))
    seconds = wav.shape[-1] / sample_rate
    _spectrogram(above, wav, sample_rate, seconds)
    image = below.imshow(
        weights.T.numpy(), aspect="auto", cmap="viridis", vmin=0, interpolation="nearest",
        extent=(0, seconds, len(tokens) - 0.5, -0.5),
    )  # fmt: skip
    below.set(xlabel="time of the frame that is predicted (s)", ylabel="token")
    below.set_yticks(range(len(tokens)), tokens)
    figure.colorbar(image, ax=below, label="attention weight")
    above.set_title(title)
    return figure


class AttentionExplorer(ipywidgets.VBox):
    """Widget that shows which words the frames of a clip read, for a chosen layer and head.

    tta: a `minigen.generate.TextToAudio`. clips: caption -> waveform [1, 1, samples] at the codec's rate.
    """

    def __init__(self, tta, clips: Mapping[str, Tensor], layer: int = 0, head: int = 0):
        self.tta, self.clips, config = tta, dict(clips), tta.lm.config
        if not self.clips:
            raise MinigenError("no clips to look at. Give one or more, caption -> waveform.")
        shared = {"style": {"description_width": "60px"}, "layout": ipywidgets.Layout(width="520px")}
        heads = {f"head {i}": i for i in range(config.heads)} | {"mean of all heads": MEAN}
        self.clip = ipywidgets.Dropdown(options=list(self.clips), description="clip", **shared)
        self.layer = ipywidgets.IntSlider(layer, min=0, max=config.layers - 1, description="layer", **shared)
        self.head = ipywidgets.Dropdown(options=heads, value=head, description="head", **shared)
        self.said, self.image = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.image.layout = ipywidgets.Layout(width="800px")
        self.clip.observe(self._read, names="value")
        for control in (self.layer, self.head):
            control.observe(self.show, names="value")
        super().__init__((self.clip, self.layer, self.head, self.said, self.image))
        self._read()

    def show(self, _change=None) -> None:
        """Draw the current settings."""
        caption, wav = self.clip.value, self.clips[self.clip.value]
        of_layer = self.weights[self.layer.value]
        weights = of_layer.mean(0) if self.head.value == MEAN else of_layer[self.head.value]
        file = BytesIO()
        attention_map(weights, self.tokens, wav, self.tta.codec.sample_rate, caption).savefig(file, format="png")
        self.image.value = file.getvalue()
        best = int(weights.mean(0).argmax())
        self.said.value = escape(
            f"layer {self.layer.value}, {self.head.label}: over the clip, {self.tokens[best]} gets most, "
            f"{weights.mean(0)[best]:.2f} on average (equal shares would be {1 / len(self.tokens):.2f})"
        )

    def _read(self, _change=None) -> None:
        """Run the model once on the chosen clip. Another layer or head then needs no computation."""
        self.weights, self.tokens = clip_weights(self.tta, self.clip.value, self.clips[self.clip.value])
        self.show()


def _normed_inputs(lm: AudioLM, sequence: Tensor, memory: Tensor, memory_mask: Tensor | None) -> list[Tensor]:
    """cross_norm(x) [B, S, D] of every layer, recorded while the model runs."""
    noted: list[Tensor] = []
    hooks = [layer.cross_norm.register_forward_hook(lambda _m, _x, out: noted.append(out)) for layer in lm.layers]
    try:
        lm.hidden_states(sequence, memory, memory_mask)
    finally:
        for hook in hooks:
            hook.remove()
    return noted


def _scores(attention, normed: Tensor, text: Tensor) -> Tensor:
    """q_s · k_n / √d: [B, heads, S, N]."""
    query, key = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in
                  (attention.query(normed), attention.key(text)))  # fmt: skip
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def _spectrogram(axes, wav: Tensor, sample_rate: int, seconds: float) -> None:
    top = mel(sample_rate / 2)
    axes.imshow(
        mel_db(wav, sample_rate), origin="lower", aspect="auto", cmap="magma", vmin=QUIET_DB, vmax=LOUD_DB,
        extent=(0, seconds, 0, top), interpolation="nearest",
    )  # fmt: skip
    ticks = [hz for hz in (0, 1000, 4000, 8000) if hz <= sample_rate / 2]
    axes.set(ylabel="frequency (Hz)", yticks=[mel(hz) for hz in ticks], yticklabels=ticks)
