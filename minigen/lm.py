"""The language model: a Transformer decoder that reads a caption and writes K streams of codes, one column at a time.

    caption ─► text encoder ─► memory [B, N, M] ─► Linear ─► [B, N, D] ─┐ keys and values, the same at every step
                                                                        ▼
    sequence [B, K, S] ─► K embeddings, summed ─► + positions ─► { x + self_attention(norm(x))
      shifted right by a                                           x + cross_attention(norm(x), text)
      column of the token V                                        x + feed_forward(norm(x)) } × layers
                                                                        ▼
    logits [B, K, S, V] ◄────────── K heads ◄────────── norm ◄── hidden [B, S, D]

Attention, for one head of width d = D / heads (F.scaled_dot_product_attention):

    out_s = Σ_n softmax_n(q_s · k_n / √d) v_n        q = W_q x_s    k = W_k y_n    v = W_v y_n

y is x itself in self-attention, where only n ≤ s takes part (a column never sees the future), and the projected text in
cross-attention, where only the real words take part.

This is MusicGen's decoder (arXiv 2306.05284), hence AudioGen's (2209.15352): norm before each block, no biases in the
linear layers (the projection of the text has one), GELU, sinusoidal positions. Its weights fit one to one.

Without text, MusicGen attends to zeros. Keys, values and output have no biases, so zeros give v = 0 and an output of
zero, and x stays as it was. memory=None therefore skips cross-attention: the same numbers for less work.

Symbols: B batch · K codebooks · S steps · V codebook size, and the special token · N words · D width · M memory width.
"""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.engine.cuda_graphs import recording
from minigen.engine.errors import MinigenError
from minigen.engine.hub import HubModel, find_model
from minigen.engine.resources import check_config
from minigen.engine.weights import module_from_tensors, read_config, read_tensors, write_model

BEST = "mini-regularized"  # what "mini" stands for: the shipped model with the highest CLAP score on validation clips


@dataclass(frozen=True)
class AudioLMConfig:
    """Sizes of the model, by default the shipped one's. delays: the pattern it was trained with, a delay a stream.

    Raises:
        MinigenError: a size below 1, a width that the heads or the positions cannot share, other delays than codebooks.
    """

    num_codebooks: int = 4
    codebook_size: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 8
    ffn: int = 1024
    memory_width: int = 256
    delays: tuple[int, ...] = (0, 1, 2, 3)
    dropout: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "delays", tuple(self.delays))  # a list, when it comes from JSON
        for name in ("num_codebooks", "codebook_size", "width", "layers", "heads", "ffn", "memory_width"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise MinigenError(f"{name} is {value!r}. Give a whole number of at least 1.")
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise MinigenError(
                f"width {self.width} with {self.heads} heads. Give an even width of at least 4 that the heads divide."
            )
        if len(self.delays) != self.num_codebooks or any(not isinstance(d, int) or d < 0 for d in self.delays):
            raise MinigenError(f"delays {self.delays} for {self.num_codebooks} codebooks. Give one of 0 or more each.")
        if not 0 <= self.dropout < 1:
            raise MinigenError(f"dropout is {self.dropout}. Give a probability in [0, 1).")
        check_config(self)


def shift_right(sequence: Tensor, fill: int) -> Tensor:
    """What the model reads to predict each column [B, K, S]: a column of `fill` first, the last one gone."""
    return F.pad(sequence[..., :-1], (1, 0), value=fill)


def sinusoids(steps: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions [steps, width]: cos(s·f_i) in the first half, sin(s·f_i) in the second.

    f_i = 10000^(−i / (width/2 − 1)), in radians a step. Source: MusicGen's order and exponent.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=device).float() * (-math.log(10000) / (half - 1)))
    angle = torch.arange(steps, device=device).float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Attention(nn.Module):
    """Multi-head attention (formula above). Keys and values come from outside, so that a cache can keep them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, D] -> keys and values, each [B, heads, N, d]."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal=False) -> Tensor:
        """Ask with x [B, S, D], answer from keys and values [B, heads, N, d]: [B, S, D]. mask: bool, True = read."""
        query = self._split(self.query(x))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class KVCache:
    """What the columns so far left behind, so that a step computes one column and not all of them again.

    both: [2, layers, B, heads, steps, d], keys and values, the first `length` steps filled: it is written in place and
    never copied. text: keys and values of the words, one pair a layer, computed once; where it has fewer rows than B,
    only the first rows read it (see AudioLM.start).
    """

    def __init__(self, both: Tensor, positions: Tensor, text: list | None, text_mask: Tensor | None):
        self.both, self.keys, self.values = both, both[0], both[1]
        self.positions, self.text, self.text_mask = positions, text, text_mask
        self.rows, self.steps, self.length = both.shape[2], both.shape[4], 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [B, heads, n, d]; return those of all steps so far."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def slots(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Views for one more column, each by layer: its place [2, B, heads, d], and all keys and values with it.

        Keys are [B heads, d, n], values [B heads, n, d], as torch.bmm multiplies them; n = length + 1.
        """
        keys, values = self.both.flatten(2, 3).narrow(3, 0, self.length + 1)
        return self.both.select(4, self.length).unbind(1), keys.mT.unbind(), values.unbind()


class Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward: each normed before, each added to what came in."""

    def __init__(self, config: AudioLMConfig, index: int):
        super().__init__()
        self.index = index
        self.self_norm = nn.LayerNorm(config.width)
        self.self_attention = Attention(config.width, config.heads)
        self.cross_norm = nn.LayerNorm(config.width)
        self.cross_attention = Attention(config.width, config.heads)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.ffn_in = nn.Linear(config.width, config.ffn, bias=False)
        self.ffn_out = nn.Linear(config.ffn, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, text: tuple | None, text_mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """[B, S, D] -> [B, S, D]; text: this layer's keys and values of the words."""
        normed = self.self_norm(x)
        keys, values = self.self_attention.keys_values(normed)
        if cache is not None:
            keys, values = cache.extend(self.index, keys, values)
        x = x + self.dropout(self.self_attention(normed, keys, values, causal=x.shape[1] > 1))
        if text is not None:
            rows = text[0].shape[0]
            read = self.dropout(self.cross_attention(self.cross_norm(x[:rows]), *text, mask=text_mask))
            x = x + F.pad(read, (0, 0, 0, 0, 0, len(x) - rows))  # rows without text add zero
        return x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x)))))


class AudioLM(HubModel, nn.Module):
    """MusicGen's decoder: lm(sequence [B, K, S], memory [B, N, M], memory_mask [B, N]) -> logits [B, K, S, V].

    Column s of the logits predicts what follows column s of the sequence: train on lm(shift_right(sequence, V)).
    """

    def __init__(self, config: AudioLMConfig):
        super().__init__()
        self.config = config
        streams = range(config.num_codebooks)
        self.embeddings = nn.ModuleList(nn.Embedding(config.codebook_size + 1, config.width) for _ in streams)
        self.memory_projection = nn.Linear(config.memory_width, config.width)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleList(nn.Linear(config.width, config.codebook_size, bias=False) for _ in streams)
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def forward(self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """Logits [B, K, S, V] of the column after each one. memory=None: no text. memory_mask=None: every word is real.

        A row whose mask is all False reads nothing: it is unconditional, as with memory=None.

        Raises:
            MinigenError: shapes that do not fit the config, codes outside 0 ... V.
        """
        return self.head(self.hidden_states(sequence, memory, memory_mask))

    def hidden_states(
        self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """[B, S, D] after the last norm: what the heads read and the similarity regularizer pools. Else as forward."""
        self._check_sequence(sequence)
        if memory is not None and len(memory) != len(sequence):
            raise MinigenError(f"{len(sequence)} sequences with the text of {len(memory)}. Give one text for each.")
        positions = sinusoids(sequence.shape[-1], self.config.width, sequence.device)
        return self._run(sequence, *self._read(memory, memory_mask), positions)

    def head(self, hidden: Tensor) -> Tensor:
        """[B, S, D] -> logits [B, K, S, V]."""
        return torch.stack([head(hidden) for head in self.heads], dim=1)

    def start(self, batch: int, steps: int, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> KVCache:
        """An empty cache for `batch` rows of at most `steps` columns, the text read once.

        Only the first len(memory) rows read the text. Guidance needs every caption with and without its text:
        a batch of 2B with the memory of B runs both in one go.
        """
        if memory is not None and len(memory) > batch:
            raise MinigenError(f"{batch} sequences with the text of {len(memory)}. Give at most one text for each.")
        config = self.config
        shape = (2, config.layers, batch, config.heads, steps, config.width // config.heads)
        both = self.norm.weight.new_empty(shape)
        return KVCache(both, sinusoids(steps, config.width, both.device), *self._read(memory, memory_mask))

    def step(self, columns: Tensor, cache: KVCache) -> Tensor:
        """Feed the next column [B, K, 1]; return the logits [B, K, V] of the one after it.

        Into an empty cache any number of columns may go at once (a prompt): the logits are those after the last.

        Raises:
            MinigenError: several columns into a started cache, more columns than the cache has steps, shapes, codes.
        """
        self._check_sequence(columns)
        new, end = columns.shape[-1], cache.length + columns.shape[-1]
        if len(columns) != cache.rows or end > cache.steps or (new > 1 and cache.length > 0):
            raise MinigenError(
                f"{len(columns)} rows of {new} columns after {cache.length} do not fit a cache of {cache.rows} rows, "
                f"{cache.steps} steps. Feed one column a call; only the first call takes several."
            )
        hidden = self._run(columns, cache.text, cache.text_mask, cache.positions[cache.length : end], cache)
        cache.length = end
        return self.head(hidden[:, -1:]).squeeze(2)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: torch.dtype | None = torch.float32) -> "AudioLM":
        """Load a shipped model ("mini", "mini-dropout", ...), a folder or one of the hub, in eval mode.

        dtype: of the weights in memory; torch.float16 or bfloat16 take half of it, None takes them as stored.

        Raises:
            MinigenError: no such folder, unreadable files, unknown config keys, tensors that do not fit the config.
        """
        folder = find_lm(name_or_folder)
        config = _read_config(folder)
        return module_from_tensors(lambda: cls(config), read_tensors(folder, dtype), folder).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write folder/config.json and folder/model.safetensors; an interrupted save leaves the earlier file whole."""
        write_model(folder, asdict(self.config), self.state_dict(), dtype)

    def _run(self, sequence, text, text_mask, positions, cache=None) -> Tensor:
        x = sum(embedding(sequence[:, k]) for k, embedding in enumerate(self.embeddings))
        x = self.dropout(x + positions.to(x))
        for index, layer in enumerate(self.layers):
            x = layer(x, text and text[index], text_mask, cache)
        return self.norm(x)

    def _read(self, memory: Tensor | None, mask: Tensor | None) -> tuple[list | None, Tensor | None]:
        """Keys and values of the text, a pair a layer, and the mask as attention wants it, [B, 1, 1, N]."""
        if memory is None:
            return None, None
        if memory.ndim != 3 or memory.shape[-1] != self.config.memory_width:
            raise MinigenError(f"memory has shape {list(memory.shape)}. Give [B, N, {self.config.memory_width}].")
        text = self.memory_projection(memory.to(self.memory_projection.weight))  # states may be finer than the model
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != memory.shape[:2]:
                raise MinigenError(
                    f"memory_mask is {mask.dtype} {list(mask.shape)}. Give bool {list(memory.shape[:2])}, True = real."
                )
            text = text.masked_fill(~mask[..., None], 0.0)  # as MusicGen: an all-False row has values of zero
            mask = mask[:, None, None]
        return [layer.cross_attention.keys_values(text) for layer in self.layers], mask

    def _check_sequence(self, sequence: Tensor) -> None:
        streams, special = self.config.num_codebooks, self.config.codebook_size
        if sequence.dtype != torch.int64 or sequence.ndim != 3 or sequence.shape[1] != streams or not sequence.numel():
            raise MinigenError(f"sequence is {sequence.dtype} {list(sequence.shape)}. Give int64 [B, {streams}, S].")
        if recording():
            return
        low, high = sequence.aminmax()
        if low < 0 or high > special:
            raise MinigenError(f"codes run from {low} to {high}. Give 0 to {special - 1}, or {special} for a gap.")

    def _initialise(self) -> None:
        """Normal weights of std 0.02; those that add to the residual stream divided by √(number of additions).

        The K embeddings have std 1/√(2K), so that their sum is as strong as the positions (rms 1/√2). With 0.02 the
        codes are hardly heard beside the positions at first, and learning starts late.
        """
        config = self.config
        for name, parameter in self.named_parameters():
            if name.startswith("embeddings"):
                nn.init.normal_(parameter, std=1 / math.sqrt(2 * config.num_codebooks))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                adds = name.endswith(("attention.out.weight", "ffn_out.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(3 * config.layers) if adds else 0.02)


def find_lm(name_or_folder: str | Path) -> Path:
    """The folder of a language model, as `hub.find_model` finds it; "mini" is the best of the shipped ones."""
    return find_model("lm", BEST if name_or_folder == "mini" else name_or_folder)


def _read_config(folder: Path) -> AudioLMConfig:
    values, known = read_config(folder), [field.name for field in fields(AudioLMConfig)]
    if "model_type" in values:
        raise MinigenError(
            f"{folder} holds a model of transformers ({values['model_type']}). "
            "Load it with minigen.interop.lm_from_musicgen, or with TextToAudio.from_pretrained."
        )
    unknown = sorted(set(values) - set(known))
    if unknown:
        path = folder / "config.json"
        raise MinigenError(f"{path} has the unknown keys {unknown}. The known ones are {', '.join(known)}.")
    return AudioLMConfig(**values)
