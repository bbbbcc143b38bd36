"""One column, fast: what `AudioLM.step` computes, in as few and as cheap operations as PyTorch offers.

    column [B, K] ─► one gather ─► x [R, D] ─► { one product for q, k and v ─► attention over the filled cache ─► += x
                                                 one for the words' q       ─► attention over the words        ─► += x
                                                 two for the feed-forward                                      ─► += x }
    logits [B, K, V] ◄─ one product for the K heads ◄─ guide ◄─ norm ◄──────────────────────────────────────── × layers

A step of a few rows is a handful of small products. What they cost is the reading of the weights, and what surrounds
them: checks, reshapes, memory asked for anew. `AudioLM.step` is the page to read; this one does the same with weights
laid out once, buffers that stay, and the same cache, written in place. docs/speed.md says what each of these gave.
There are three of them: in PyTorch's operations (`Decoder`), replayed on a GPU (`FixedDecoder`), and compiled for a
processor (`minigen.decoding.numba_step`), which `make_decoder` chooses from.

Guidance is linear, and so are the heads: guided hidden states give guided logits, for half the work of the heads.

    W (u + w (c - u)) = W u + w (W c - W u)

Symbols: R rows of the cache, d width of an attention head, n columns so far; the rest as in `minigen.lm`.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.engine.cuda_graphs import Replay
from minigen.guidance import guide
from minigen.lm import AudioLM
from minigen.transformer import KVCache, Layer

if TYPE_CHECKING:
    from minigen.decoding.numba_step import NativeDecoder

LOAD, COMPILE = (
    300,
    2000,
)  # columns that save what loading and compiling numba_step takes
_asked_for = 0  # columns of this process so far


class Decoder:
    """The single steps of one generation: they share the model's cache and a copy of its weights, laid out.

    The weights are those at the time of making it, so make one for each generation.
    """

    @torch.no_grad()
    def __init__(self, lm: AudioLM, cache: KVCache, guidance: float | None = None):
        """guidance: scale with which the first half of the cache's rows is guided by the second; None: no guidance."""
        self.cache, self.guidance, self.norm, config = cache, guidance, lm.norm, lm.config
        self.heads, self.codes = config.heads, (-1, config.num_codebooks, config.codebook_size)
        self.table = torch.cat([embedding.weight.detach() for embedding in lm.embeddings])
        self.offsets = torch.arange(config.num_codebooks, device=self.table.device) * (config.codebook_size + 1)
        self.positions, self.out = cache.positions.to(self.table), _laid_out(*(head.weight for head in lm.heads))
        self.x = self.table.new_empty(cache.rows, config.width)
        self.scores = self.table.new_empty(cache.rows * config.heads * cache.steps)
        texts = cache.text or [None] * config.layers
        self.layers = [
            _Layer(layer, self.x, text, cache.text_mask) for layer, text in zip(lm.layers, texts, strict=True)
        ]

    @torch.no_grad()
    def step(self, column: Tensor) -> Tensor:
        """Feed the next column, int64 [B, K], into a cache that has room for it: logits [B, K, V], guided where asked.

        With guidance B is half of the cache's rows: both halves are fed the same column.
        """
        cache = self.cache
        slots, keys, values = cache.slots()
        scores = self.scores[: len(keys[0]) * (cache.length + 1)].view(len(keys[0]), 1, -1)
        parts = zip(self.layers, slots, keys, values, strict=True)
        logits = self._column(column, self.positions[cache.length], parts, scores)
        cache.length += 1
        return logits

    def _column(self, column: Tensor, position: Tensor, parts: Iterable, scores: Tensor, *fixed: Tensor) -> Tensor:
        x, batch = self.x, len(column)
        summed = F.embedding(column + self.offsets, self.table).sum(1)
        torch.add(summed, position, out=x[:batch])
        if batch < len(x):
            x[batch:] = x[:batch]
        for layer, *own in parts:
            layer.run(x, *own, scores, *fixed)
        x = self.norm(x)
        if self.guidance is not None:
            x = guide(x[:batch], x[batch:], self.guidance)
        return torch.mm(x, self.out).view(self.codes)


class FixedDecoder(Decoder):
    """The same steps with nothing that changes but numbers, so that a GPU can replay them (`engine.cuda_graphs`).

    Attention reads the whole cache at every step, and a bias hides the columns that are not there yet; which column it
    is, the GPU is told in a tensor. Elsewhere it computes the same, more slowly than a `Decoder`.
    """

    @torch.no_grad()
    def __init__(self, lm: AudioLM, cache: KVCache, guidance: float | None = None):
        super().__init__(lm, cache, guidance)
        cache.both[..., cache.length :, :] = 0  # what is hidden counts nothing, if it is a number
        self.order = torch.arange(cache.steps, device=self.table.device)
        self.place, self.bias = self.order[:1].clone(), self.table.new_zeros(1, 1, cache.steps)
        self.scores = self.scores.view(-1, 1, cache.steps)
        keys, values = cache.both.flatten(2, 3)
        self.parts = list(zip(self.layers, cache.both.unbind(1), keys.mT.unbind(), values.unbind(), strict=True))
        self.again = self._next
        if self.table.is_cuda:
            column = self.order.new_zeros(cache.rows // (1 if guidance is None else 2), len(self.offsets))
            self.place.fill_(cache.length)
            self.again = Replay(self._next, column, warm=1)

    @torch.no_grad()
    def step(self, column: Tensor) -> Tensor:
        """As `Decoder.step`; on a GPU the next step writes over the logits."""
        self.place.fill_(self.cache.length)
        self.cache.length += 1
        return self.again(column)

    def _next(self, column: Tensor) -> Tensor:
        self.bias.zero_().masked_fill_(self.order > self.place, torch.finfo(self.bias.dtype).min / 2)
        position = self.positions.index_select(0, self.place)
        return self._column(column, position, self.parts, self.scores, self.place, self.bias)


def make_decoder(lm: AudioLM, cache: KVCache, guidance: float | None = None) -> "Decoder | NativeDecoder":
    """The fastest one for where the model is, and for how much this process generates."""
    weight = lm.norm.weight
    if weight.is_cuda:
        return FixedDecoder(lm, cache, guidance)
    if weight.dtype == torch.float32 and weight.device.type == "cpu" and _loading_pays(cache.steps - cache.length):
        return (_native() or Decoder)(lm, cache, guidance)
    return Decoder(lm, cache, guidance)


def _native() -> "type[NativeDecoder] | None":
    try:
        from minigen.decoding.numba_step import NativeDecoder
    except (ImportError, RuntimeError):  # no numba that fits the NumPy at hand, or no place to keep what it compiled
        return None
    return NativeDecoder


def _loading_pays(columns: int) -> bool:
    """Whether `numba_step` saves more than loading it takes: so it does once a process asked for enough columns."""
    global _asked_for
    _asked_for += columns
    compiled = any((Path(__file__).parent / "__pycache__").glob("numba_step.run-*.nbi"))  # by an earlier process
    return "minigen.decoding.numba_step" in sys.modules or _asked_for >= (LOAD if compiled else COMPILE)


class _Layer:
    """One layer's weights, and the buffers and views of them that every step uses again."""

    def __init__(self, layer: Layer, x: Tensor, text: tuple | None, text_mask: Tensor | None):
        own, cross, (rows, width) = layer.self_attention, layer.cross_attention, x.shape
        heads, d = own.heads, width // own.heads
        self.norms = [
            ((width,), norm.weight, norm.bias, norm.eps) for norm in (layer.self_norm, layer.cross_norm, layer.ffn_norm)
        ]
        scaled = own.query.weight / math.sqrt(d)
        self.qkv_weight = _laid_out(scaled, own.key.weight, own.value.weight)
        self.out, self.ffn_in, self.ffn_out = map(
            _laid_out, (own.out.weight, layer.ffn_in.weight, layer.ffn_out.weight)
        )
        self.qkv, self.inner = x.new_empty(rows, 3 * width), x.new_empty(rows, layer.ffn_in.out_features)
        parts = self.qkv.view(rows, 3, heads, d)
        self.new_query, self.new_pair = parts[:, 0], parts[:, 1:].transpose(0, 1)
        self.query, self.mixed = x.new_empty(rows, heads, d), x.new_empty(rows * heads, 1, d)
        self.query_rows, self.mixed_rows = self.query.view(-1, 1, d), self.mixed.view(rows, width)
        self.words = None if text is None else _Words(cross, *text, text_mask, x)

    def run(self, x: Tensor, slot: Tensor, keys: Tensor, values: Tensor, scores: Tensor, *fixed: Tensor) -> None:
        """Change x [R, D] in place. slot, keys and values: see KVCache.slots; scores: room for [R heads, 1, n].

        fixed: of a FixedDecoder, the number of the column and what hides later ones; slot is then all columns' place.
        """
        own_norm, cross_norm, ffn_norm = self.norms
        torch.mm(torch.layer_norm(x, *own_norm), self.qkv_weight, out=self.qkv)
        self.query.copy_(self.new_query)
        if fixed:
            place, bias = fixed
            slot.index_copy_(3, place, self.new_pair.unsqueeze(3))
            torch.baddbmm(bias, self.query_rows, keys, out=scores)
        else:
            slot.copy_(self.new_pair)
            torch.bmm(self.query_rows, keys, out=scores)
        torch.bmm(torch.softmax(scores, -1, out=scores), values, out=self.mixed)
        x.addmm_(self.mixed_rows, self.out)
        if self.words is not None:
            self.words.read(cross_norm)
        torch.mm(torch.layer_norm(x, *ffn_norm), self.ffn_in, out=self.inner)
        x.addmm_(F.gelu(self.inner), self.ffn_out)


class _Words:
    """Cross-attention of one layer, for the rows that have a text."""

    def __init__(self, cross, keys: Tensor, values: Tensor, mask: Tensor | None, x: Tensor):
        rows, heads, words, d = keys.shape
        self.x = x[:rows]
        self.query_weight, self.out = _laid_out(cross.query.weight / math.sqrt(d)), _laid_out(cross.out.weight)
        self.keys, self.values = keys.flatten(0, 1).mT, values.flatten(0, 1)
        bias = x.new_zeros(rows, 1, 1, words)
        if mask is not None:  # what softmax makes 0; finite, so that a row of padding alone reads its values, all zero
            bias.masked_fill_(~mask, torch.finfo(x.dtype).min / 2)
        self.bias = bias.expand(-1, heads, -1, -1).flatten(0, 1)
        self.query, self.mixed = x.new_empty(rows, heads * d), x.new_empty(rows * heads, 1, d)
        self.query_rows, self.mixed_rows = self.query.view(-1, 1, d), self.mixed.view(rows, -1)
        self.scores = torch.empty_like(self.bias)

    def read(self, norm: tuple) -> None:
        """Add to the first rows of x what they read in their text."""
        torch.mm(torch.layer_norm(self.x, *norm), self.query_weight, out=self.query)
        torch.baddbmm(self.bias, self.query_rows, self.keys, out=self.scores)
        torch.bmm(torch.softmax(self.scores, -1, out=self.scores), self.values, out=self.mixed)
        self.x.addmm_(self.mixed_rows, self.out)


def _laid_out(*weights: Tensor) -> Tensor:
    """Matrices [out, in], one below the other, as [in, out], the longer side in a row: so few rows multiply fastest."""
    weight = torch.cat([weight.detach() for weight in weights]).t()
    return weight.contiguous() if weight.shape[1] > weight.shape[0] else weight
