"""The language model: a Transformer decoder that reads a caption and writes K streams of codes, one column at a time.

    caption ─► text encoder ─► memory [B, N, M] ─► Linear ─► [B, N, D] ─┐ keys and values, the same at every step
                                                                        ▼
    sequence [B, K, S] ─► K embeddings, summed ─► + positions ─► { x + self_attention(norm(x))
      shifted right by a                                           x + cross_attention(norm(x), text)
      column of the token V                                        x + feed_forward(norm(x)) } × layers
                                                                        ▼
    logits [B, K, S, V] ◄────────── K heads ◄────────── norm ◄── hidden [B, S, D]

The layers are those of `minigen.transformer`, with causal self-attention: a column never sees the future.

This is MusicGen's decoder (arXiv 2306.05284), which audiocraft's AudioGen also uses: norm before each block, no biases
in the linear layers (the projection of the text has one), GELU, sinusoidal positions. Its weights fit one to one.
AudioGen's paper (arXiv 2209.15352) has no delay pattern: it predicts its streams in parallel.

Without text, MusicGen attends to zeros. Keys, values and output have no biases, so zeros give v = 0 and an output of
zero, and x stays as it was. memory=None therefore skips cross-attention: the same numbers for less work.

Symbols: B batch · K codebooks · S steps · V codebook size, and the special token · N text tokens · D width · M width of
the text states.
"""

import math
from collections.abc import Callable
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
from minigen.transformer import KVCache, Layer, sinusoids

BEST = "mini-regularized"  # what "mini" stands for: the shipped model with the highest CLAP score on validation clips


@dataclass(frozen=True)
class AudioLMConfig:
    """Sizes of the language model.

    Attributes:
        num_codebooks, codebook_size: K and V of the codec.
        width: D, even, and a multiple of heads.
        layers, heads, ffn: number of layers, heads of each attention, inner width of the feed-forward blocks.
        memory_width: M, width of the text encoder's states.
        delays: the delay pattern that the model was trained with, in steps, one for each codebook.
        dropout: probability in [0, 1), for the embeddings and for what each block adds; in training only.

    Raises:
        MinigenError: a size below 1, a width that is odd or that the heads do not divide, a number of delays other
            than num_codebooks, a dropout outside [0, 1).
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
    """Input from which the model predicts each column of a sequence [B, K, S].

    It is the sequence shifted right by one step: a column of `fill` comes first and the last column is dropped.
    """
    return F.pad(sequence[..., :-1], (1, 0), value=fill)


class AudioLM(HubModel, nn.Module):
    """MusicGen's decoder: lm(sequence [B, K, S], memory [B, N, M], memory_mask [B, N]) -> logits [B, K, S, V].

    Column s of the logits predicts the column that follows column s of the sequence. Training therefore compares
    lm(shift_right(sequence, V)) with the sequence.
    """

    def __init__(self, config: AudioLMConfig):
        super().__init__()
        self.config = config
        streams = range(config.num_codebooks)
        self.embeddings = nn.ModuleList(nn.Embedding(config.codebook_size + 1, config.width) for _ in streams)
        self.memory_projection = nn.Linear(config.memory_width, config.width)
        sizes = (config.width, config.heads, config.ffn, config.dropout)
        self.layers = nn.ModuleList(Layer(*sizes, index) for index in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleList(nn.Linear(config.width, config.codebook_size, bias=False) for _ in streams)
        self.dropout = nn.Dropout(config.dropout)
        self.row_parts, self.checkpointing = 1, False  # how a training saves memory, see `hidden_states`
        self._initialise()

    def forward(self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """Logits [B, K, S, V] of the column after each column of the sequence.

        Args:
            sequence: int64 [B, K, S], codes 0 ... V - 1 and the special token V.
            memory: text states [B, N, M]; None: no text.
            memory_mask: bool [B, N], True = a token; None: all are. A row that is all False reads no text: it is
                unconditional, as with memory=None.

        Raises:
            MinigenError: shapes that do not fit the config, codes outside 0 ... V.
        """
        return self.head(self.hidden_states(sequence, memory, memory_mask))

    def hidden_states(
        self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states [B, S, D] after the last norm; arguments and errors as in `forward`.

        The heads read them, and the similarity regularizer pools them.

        In training two attributes save memory, at the cost of computing the layers again in the backward pass. With
        `row_parts` above 1 the rows are computed in so many parts, one after the other, and only the results are kept:
        gradients accumulate over the parts, while the loss still sees all rows, as the regulariser must. With
        `checkpointing` only the input of each layer is kept (Chen et al., arXiv 1604.06174).
        """
        self._check_sequence(sequence)
        if memory is not None and len(memory) != len(sequence):
            raise MinigenError(f"{len(sequence)} sequences with the text of {len(memory)}. Give one text for each.")
        if not self.training or self.row_parts == 1:
            return self._states(sequence, memory, memory_mask)
        size = -(-len(sequence) // self.row_parts)  # rows of a part, rounded up
        done = []
        for start in range(0, len(sequence), size):
            rows = slice(start, start + size)
            part = [None if each is None else each[rows] for each in (sequence, memory, memory_mask)]
            done.append(self._again(self._states, *part))
        return torch.cat(done)  # [B, S, D]

    def _states(self, sequence: Tensor, memory: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        """`hidden_states` of some rows, without checks."""
        positions = sinusoids(sequence.shape[-1], self.config.width, sequence.device)
        return self._run_layers(sequence, positions, *self._project_text(memory, memory_mask))

    def embed(self, sequence: Tensor, positions: Tensor) -> Tensor:
        """Input of the first layer, [B, S, D], of what is read [B, K, S] at sinusoids [S, D]."""
        x = sum(embedding(sequence[:, k]) for k, embedding in enumerate(self.embeddings))  # K times [B, S] -> [B, S, D]
        return self.dropout(x + positions.to(x))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [B, K, S, V] of hidden states [B, S, D]."""
        return torch.stack([head(hidden) for head in self.heads], dim=1)  # K times [B, S, V] -> [B, K, S, V]

    def start(self, batch: int, steps: int, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> KVCache:
        """Empty cache for `batch` rows of at most `steps` columns, with the keys and values of the text.

        Only the first len(memory) rows read the text; the others skip cross-attention. Guidance runs every caption
        with and without its text: a batch of 2B rows with the memory of B captions runs both in one batch.

        Raises:
            MinigenError: more texts than rows, a memory or a mask that does not fit the config.
        """
        if memory is not None and len(memory) > batch:
            raise MinigenError(f"{batch} sequences with the text of {len(memory)}. Give at most one text for each.")
        config = self.config
        shape = (2, config.layers, batch, config.heads, steps, config.width // config.heads)
        both = self.norm.weight.new_empty(shape)
        positions = sinusoids(steps, config.width, both.device)
        return KVCache(both, positions, *self._project_text(memory, memory_mask))

    def step(self, columns: Tensor, cache: KVCache) -> Tensor:
        """Feed the next column [B, K, 1]; return the logits [B, K, V] of the column after it.

        An empty cache takes several columns at once (a prompt); the logits are those after the last of them.
        This is the plain step. `minigen.decoding` holds faster ones, which give the same logits.

        Raises:
            MinigenError: several columns into a cache that is not empty, more columns than the cache has steps, shapes
                or codes that do not fit.
        """
        self._check_sequence(columns)
        new, end = columns.shape[-1], cache.length + columns.shape[-1]
        if len(columns) != cache.rows or end > cache.steps or (new > 1 and cache.length > 0):
            raise MinigenError(
                f"{len(columns)} rows of {new} columns after {cache.length} do not fit a cache of {cache.rows} rows, "
                f"{cache.steps} steps. Feed one column a call; only the first call takes several."
            )
        positions = cache.positions[cache.length : end]  # [n, D]
        hidden = self._run_layers(columns, positions, cache.text, cache.text_mask, cache)  # [B, n, D]
        cache.length = end
        return self.head(hidden[:, -1:]).squeeze(2)  # [B, K, 1, V] -> [B, K, V]

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: torch.dtype | None = torch.float32) -> "AudioLM":
        """Load a language model, in eval mode.

        Args:
            name_or_folder: a shipped model ("mini", "mini-dropout", ...), a folder, or a name on the hub.
            dtype: of the weights in memory; float16 and bfloat16 take half of it. None: as stored.

        Raises:
            MinigenError: no such folder, unreadable files, unknown config keys, tensors that do not fit the config.
        """
        folder = find_lm(name_or_folder)
        config = _read_config(folder)
        return module_from_tensors(lambda: cls(config), read_tensors(folder, dtype), folder).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write config.json and model.safetensors, floats in `dtype`. An interrupted save keeps the earlier files."""
        write_model(folder, asdict(self.config), self.state_dict(), dtype)

    def _run_layers(
        self,
        sequence: Tensor,
        positions: Tensor,
        text: list | None,
        text_mask: Tensor | None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Embeddings, layers and the last norm: [B, K, S] -> [B, S, D]. text: see `_project_text`."""
        x = self.embed(sequence, positions)  # [B, S, D]
        texts = text or [None] * len(self.layers)
        for layer, layer_text in zip(self.layers, texts, strict=True):
            if self.training and self.checkpointing:
                x = self._again(layer, x, layer_text, text_mask, True)  # [B, S, D]
            else:
                x = layer(x, layer_text, text_mask, causal=True, cache=cache)  # [B, S, D]
        return self.norm(x)

    def _again(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        """The function's result, of which nothing else is kept: the backward pass calls the function again."""
        from torch.utils.checkpoint import checkpoint

        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=self.config.dropout > 0)

    def _project_text(self, memory: Tensor | None, mask: Tensor | None) -> tuple[list | None, Tensor | None]:
        """Keys and values of the text for each layer, and the mask in the shape of attention scores, [B, 1, 1, N]."""
        if memory is None:
            return None, None
        if memory.ndim != 3 or memory.shape[-1] != self.config.memory_width:
            raise MinigenError(f"memory has shape {list(memory.shape)}. Give [B, N, {self.config.memory_width}].")
        memory = memory.to(self.memory_projection.weight)  # the states may have another precision than the model
        text = self.memory_projection(memory)  # [B, N, M] -> [B, N, D]
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != memory.shape[:2]:
                raise MinigenError(
                    f"memory_mask is {mask.dtype} {list(mask.shape)}. Give bool {list(memory.shape[:2])}, True = real."
                )
            text = text.masked_fill(~mask[..., None], 0.0)  # as in MusicGen: an all-False row has values of zero
            mask = mask[:, None, None]  # [B, N] -> [B, 1, 1, N]
        return [layer.cross_attention.keys_values(text) for layer in self.layers], mask

    def _check_sequence(self, sequence: Tensor) -> None:
        streams, special = self.config.num_codebooks, self.config.codebook_size
        if sequence.dtype != torch.int64 or sequence.ndim != 3 or sequence.shape[1] != streams or not sequence.numel():
            raise MinigenError(f"sequence is {sequence.dtype} {list(sequence.shape)}. Give int64 [B, {streams}, S].")
        if recording():  # the check below would make the GPU wait for the processor
            return
        low, high = sequence.aminmax()
        if low < 0 or high > special:
            raise MinigenError(f"codes run from {low} to {high}. Give 0 to {special - 1}, or {special} for a gap.")

    def _initialise(self) -> None:
        """Draw normal weights of std 0.02, divided by √(3 layers) where a block adds to the residual stream.

        The K embeddings have std 1/√(2K), so that their sum is as large as the positions (rms 1/√2). With 0.02 the
        positions would outweigh the codes at first, and learning would start late.
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
    """Folder of a language model, see `hub.find_model`. "mini" stands for the best of the shipped models."""
    return _find("lm", name_or_folder)


def find_generator_folder(name_or_folder: str | Path) -> Path:
    """Folder of a language model or of another generator (`minigen.generators`), found as in `find_lm`."""
    return _find("generator", name_or_folder)


def _find(part: str, name_or_folder: str | Path) -> Path:
    return find_model(part, BEST if name_or_folder == "mini" else name_or_folder)


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
