"""Denoiser: the bidirectional network that masked generation and both diffusions share.

It takes the place of the language model in the chain. It reads all frames of a corrupted clip at once, together with
the caption, and predicts the clean clip.

    state: codes [B, K, T] (V = masked) ─► K embeddings, summed ─┐
           latents [B, T, C] ─► Linear ─────────────────────────┴► + positions ─► layers, bidirectional ─► norm
                                                                                          ▲ text, time
    codes: K heads ─► logits [B, K, T, V]          latents: Linear, zero at the start ─► [B, T, C]

The layers are those of `minigen.transformer`; without the causal mask every frame sees the past and the future. For
codes the parameters have the names and shapes of `AudioLM`, so that a denoiser can start from a language model: the
text is then understood already (`Denoiser.from_language_model`).

Time. A diffusion model must know the noise level t in [0, 1]. One small network maps t to six vectors, and each layer
adds a learnt offset to them (adaLN-single, PixArt-α, arXiv 2310.00426, section 2.3):

    [shift1, scale1, gate1, shift2, scale2, gate2] = [0, 0, 1, 0, 0, 1] + MLP(t) + offset_layer         each [B, 1, D]
    x <- x + gate1 · self_attention(norm(x) · (1 + scale1) + shift1)
    x <- x + cross_attention(norm(x), text)
    x <- x + gate2 · feed_forward(norm(x) · (1 + scale2) + shift2)

At the start the MLP and the offsets are 0, so that the gates are 1: the layer without time. Masked generation
needs no time: the number of masked cells determines it.

Sources: MaskGIT (arXiv 2202.04200), VQ-Diffusion (2111.14822), DiT (2212.09748).
Symbols: B batch · K codebooks · T frames · V codebook size, and the mask · C components · D width · N text tokens.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from minigen.engine.errors import MinigenError
from minigen.engine.hub import HubModel, find_model
from minigen.engine.resources import check_config
from minigen.engine.weights import module_from_tensors, read_config, read_tensors, write_model
from minigen.lm import AudioLM
from minigen.transformer import Layer, sinusoids

KINDS = ("codes", "latents")
TIME_SCALE = 1000.0  # sinusoids are made for positions of hundreds; t lies in [0, 1]


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of a denoiser, by default those of the shipped language model.

    Attributes:
        kind: "codes" (predicts logits) or "latents" (predicts vectors).
        num_codebooks: K, of codes.
        codebook_size: V, of codes.
        components: C, of latents.
        width: D, a multiple of 2 · heads.
        layers: number of layers.
        heads: attention heads of a layer.
        ffn: inner width of the feed-forward block.
        memory_width: width of the text states.
        timed: whether forward takes the noise level.
        process: name of the noise that a timed model was trained with, such as "mask_uniform"; "" where it has none.
        dropout: probability of dropping a component of what a block adds, in training.

    Raises:
        MinigenError: an unknown kind, a size below 1, a width that the heads do not divide.
    """

    kind: str = "codes"
    num_codebooks: int = 4
    codebook_size: int = 1024
    components: int = 64
    width: int = 192
    layers: int = 6
    heads: int = 6
    ffn: int = 768
    memory_width: int = 256
    timed: bool = False
    process: str = ""
    dropout: float = 0.0

    def __post_init__(self):
        check_config(self)
        if self.kind not in KINDS:
            raise MinigenError(f"kind is {self.kind!r}. Choose one of {', '.join(KINDS)}.")
        if self.width % self.heads or self.width % 2:
            raise MinigenError(f"width {self.width} with {self.heads} heads. Give an even width that the heads divide.")


class TimeModulation(nn.Module):
    """Noise level t [B] -> six vectors for each layer, [layers, 6, B, 1, D] (adaLN-single, see the module)."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 6 * width)
        self.offsets = nn.Parameter(torch.zeros(layers, 6, width))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        gates = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])[:, None, None]  # [6, 1, 1]
        self.register_buffer("gates", gates, persistent=False)  # apart from offsets: weight decay keeps them at 1

    def forward(self, time: Tensor) -> Tensor:
        """Give the vectors of all layers, in the order shift1, scale1, gate1, shift2, scale2, gate2."""
        width = self.inner.in_features
        features = wave(time * TIME_SCALE, width).to(self.inner.weight)  # [B, D]
        six = self.outer(nn.functional.silu(self.inner(features))).unflatten(-1, (6, width))  # [B, 6, D]
        offsets = self.gates.to(six) + self.offsets[:, :, None]  # [layers, 6, 1, D]
        return (offsets + six.transpose(0, 1)).unsqueeze(3)  # [layers, 6, B, 1, D]


def wave(positions: Tensor, width: int) -> Tensor:
    """Sinusoids at any real positions: [B] -> [B, width], as `transformer.sinusoids` at whole ones."""
    half = width // 2
    exponent = torch.arange(half, device=positions.device).float() / (half - 1)  # [D/2]
    angle = positions.float()[:, None] * 10000.0**-exponent  # [B, D/2]
    return torch.cat([angle.cos(), angle.sin()], dim=1)  # [B, D]


class Denoiser(HubModel, nn.Module):
    """Predicts a clean clip from a corrupted one and its caption; see the module for the drawing."""

    Config: ClassVar = DenoiserConfig

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        self.config = config
        if config.kind == "codes":
            streams = range(config.num_codebooks)
            self.embeddings = nn.ModuleList(nn.Embedding(config.codebook_size + 1, config.width) for _ in streams)
            self.heads = nn.ModuleList(nn.Linear(config.width, config.codebook_size, bias=False) for _ in streams)
        else:
            self.input = nn.Linear(config.components, config.width)
            self.output = nn.Linear(config.width, config.components)
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
        self.memory_projection = nn.Linear(config.memory_width, config.width)
        self.layers = nn.ModuleList(
            Layer(config.width, config.heads, config.ffn, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.time = TimeModulation(config.width, config.layers) if config.timed else None

    @classmethod
    def from_language_model(cls, lm: AudioLM, timed: bool = False) -> "Denoiser":
        """Make a denoiser of codes with the weights of a language model; only the causal mask is gone.

        The state dicts agree by name. With `timed`, the time modulation starts as the identity.
        """
        sizes = lm.config
        config = DenoiserConfig(
            num_codebooks=sizes.num_codebooks, codebook_size=sizes.codebook_size, width=sizes.width,
            layers=sizes.layers, heads=sizes.heads, ffn=sizes.ffn, memory_width=sizes.memory_width, timed=timed,
            dropout=sizes.dropout,
        )  # fmt: skip
        denoiser = cls(config)
        denoiser.load_state_dict(lm.state_dict(), strict=not timed)
        return denoiser

    def for_diffusion(self, process: str) -> "Denoiser":
        """Make a timed denoiser of a process with these weights; the time modulation starts as the identity."""
        timed = type(self)(replace(self.config, timed=True, process=process))
        timed.load_state_dict(self.state_dict(), strict=self.config.timed)
        return timed

    def forward(
        self,
        state: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        time: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        """Predict the clean clip: logits [B, K, T, V] for codes, [B, T, C] for latents.

        Args:
            state: codes int64 [B, K, T] with V at masked cells, or latents [B, T, C].
            memory: text states [B, N, M]; None: no text. A row whose mask is all False has no text either.
            memory_mask: bool [B, N], True = a token; None: all are.
            time: noise level of each clip, [B] in [0, 1]; needed if the model is timed.
            attend: bool, broadcast to [B, heads, T, T], True = may be read; None: every frame reads every frame.

        Raises:
            MinigenError: shapes that do not fit the configuration, codes outside 0 … V, a missing or needless time.
        """
        return self.head(self.hidden_states(state, memory, memory_mask, time, attend))

    def hidden_states(
        self,
        state: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        time: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        """States after the last norm, [B, T, D]: the input of `head`. Arguments as in `forward`."""
        self._check(state, memory, memory_mask, time)
        x = self._embed(state)  # [B, T, D]
        x = x + sinusoids(x.shape[1], self.config.width, x.device).to(x)
        text, mask = self._project(memory), None if memory_mask is None else memory_mask[:, None, None]  # [B, 1, 1, N]
        modulation = None if self.time is None else self.time(time)  # [layers, 6, B, 1, D]
        for index, layer in enumerate(self.layers):
            keys = None if text is None else layer.cross_attention.keys_values(text)  # two of [B, heads, N, d]
            if modulation is None:
                x = layer(x, keys, mask, mask=attend)  # [B, T, D]
            else:
                x = _modulated(layer, x, keys, mask, attend, modulation[index])  # [B, T, D]
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Map hidden states [B, T, D] to logits [B, K, T, V], or to latents [B, T, C]."""
        if self.config.kind == "latents":
            return self.output(hidden)
        return torch.stack([head(hidden) for head in self.heads], dim=1)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: torch.dtype | None = torch.float32) -> "Denoiser":
        """Load a denoiser by name or folder, in eval mode. dtype: of the weights in memory, None as they are stored.

        Raises:
            MinigenError: no such folder, unreadable files, unknown config keys, tensors that do not fit.
        """
        folder = find_model("generator", name_or_folder)
        try:
            config = cls.Config(**read_config(folder))
        except TypeError as error:
            raise MinigenError(f"{folder / 'config.json'} is not the configuration of a denoiser ({error}).") from error
        return module_from_tensors(lambda: cls(config), read_tensors(folder, dtype), folder).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write folder/config.json and folder/model.safetensors; an interrupted save leaves the earlier file whole."""
        write_model(folder, asdict(self.config), self.state_dict(), dtype)

    def _embed(self, state: Tensor) -> Tensor:
        if self.config.kind == "latents":
            return self.input(state.to(self.input.weight))  # [B, T, C] -> [B, T, D], in the type of the weights
        return sum(embedding(state[:, k]) for k, embedding in enumerate(self.embeddings))  # [B, T, D]

    def _project(self, memory: Tensor | None) -> Tensor | None:
        if memory is None:
            return None
        return self.memory_projection(memory.to(self.memory_projection.weight))  # [B, N, M] -> [B, N, D]

    def _check(self, state: Tensor, memory: Tensor | None, mask: Tensor | None, time: Tensor | None) -> None:
        config = self.config
        if config.kind == "codes":
            fits = state.ndim == 3 and state.shape[1] == config.num_codebooks and not state.is_floating_point()
            wanted = f"integer codes [B, {config.num_codebooks}, T]"
        else:
            fits = state.ndim == 3 and state.shape[2] == config.components and state.is_floating_point()
            wanted = f"latents [B, T, {config.components}]"
        if not fits or state.shape[0] == 0:
            raise MinigenError(f"state is {state.dtype} {list(state.shape)}. Give {wanted}.")
        if config.kind == "codes" and (state.min() < 0 or state.max() > config.codebook_size):
            raise MinigenError(f"codes lie in {state.min()}..{state.max()}. Give 0 to {config.codebook_size} (masked).")
        if memory is not None:
            _check_memory(memory, mask, len(state), config.memory_width)
        if (time is None) == config.timed:
            advice = "Give time [B] in 0..1." if config.timed else "Leave time out: the model is not timed."
            raise MinigenError(f"time is {'missing' if config.timed else 'given'}. {advice}")


def _check_memory(memory: Tensor, mask: Tensor | None, clips: int, width: int) -> None:
    """Raise MinigenError unless memory is [clips, N, width] and mask is None or bool [clips, N]."""
    if memory.ndim != 3 or len(memory) != clips or memory.shape[2] != width:
        raise MinigenError(f"memory has shape {list(memory.shape)} for {clips} clips. Give [{clips}, N, {width}].")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != memory.shape[:2]):
        wanted = list(memory.shape[:2])
        raise MinigenError(f"memory_mask is {mask.dtype} {list(mask.shape)}. Give bool {wanted}, True for real tokens.")


def _modulated(layer: Layer, x: Tensor, text, text_mask, attend: Tensor | None, six: Tensor) -> Tensor:
    """A layer with time: [B, T, D] -> [B, T, D]; six [6, B, 1, D]. The formula is in the module's docstring."""
    shift1, scale1, gate1, shift2, scale2, gate2 = six  # each [B, 1, D]
    normed = layer.self_norm(x) * (1 + scale1) + shift1  # [B, T, D]
    x = x + gate1 * layer.dropout(layer.attend_self(normed, False, attend, None))
    if text is not None:
        x = x + layer.attend_text(x, text, text_mask)
    normed = layer.ffn_norm(x) * (1 + scale2) + shift2  # [B, T, D]
    return x + gate2 * layer.dropout(layer.feed_forward(normed))
