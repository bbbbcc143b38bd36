"""One column, fast: what `AudioLM.step` computes, in as few and as cheap operations as PyTorch offers.

    column [B, K] ─► one gather ─► x [R, D] ─► { one product for q, k and v ─► attention over the filled cache ─► += x
                                                 one for the text's q       ─► attention over the text         ─► += x
                                                 two for the feed-forward                                      ─► += x }
    logits [B, K, V] ◄─ one product for the K heads ◄─ combine the branches ◄─ norm ◄──────────────────────── × layers

A step of a few rows is a handful of small products. Their cost is reading the weights; around them come checks,
reshapes and memory allocation. `AudioLM.step` is the plain version. This one computes the same with weights laid out
once, buffers that are used again, and the same cache, written in place. docs/speed.md lists what each of these gives.
There are three decoders: in PyTorch's operations (`Decoder`), replayed on a GPU (`FixedDecoder`), and compiled for a
processor (`minigen.decoding.numba_step`). `make_decoder` chooses one.

The rows of a batch are the branches of guidance, one after the other: R = B · branches. Guidance is linear, and so are
the heads. Guided hidden states therefore give guided logits, for a fraction of the work of the heads:

    W (u + w (c - u)) = W u + w (W c - W u)

Symbols: R rows of the cache, d width of an attention head, n columns so far; the rest as in `minigen.lm`.
"""

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.engine.cuda_graphs import Replay
from minigen.lm import AudioLM
from minigen.transformer import KVCache, Layer

if TYPE_CHECKING:
    from minigen.decoding.numba_step import NativeDecoder

LOAD, COMPILE = 300, 2000  # numbers of columns that save the time to load numba_step, and to compile it
_asked_for = 0  # number of columns that this process has generated or is about to


class Decoder:
    """The single steps of one generation, on the model's cache and a laid-out copy of its weights.

    The weights are copied when it is made, so make one for each generation.
    """

    @torch.no_grad()
    def __init__(self, lm: AudioLM, cache: KVCache, branches: int = 1, combine: Callable[..., Tensor] | None = None):
        """Lay out the weights.

        Args:
            lm: the language model, in eval mode.
            cache: made by `lm.start`; R rows, the branches of guidance one after the other.
            branches: number of branches of guidance; R = B · branches.
            combine: linear function of the branches' outputs, see `minigen.guidance.Branches`; None for one branch.
        """
        self.cache, self.norm, config = cache, lm.norm, lm.config
        self.branches, self.combine = branches, combine
        self.heads, self.codes = config.heads, (-1, config.num_codebooks, config.codebook_size)
        self.table = torch.cat([embedding.weight.detach() for embedding in lm.embeddings])  # [K (V + 1), D]
        self.offsets = torch.arange(config.num_codebooks, device=self.table.device) * (config.codebook_size + 1)  # [K]
        self.positions, self.out = cache.positions.to(self.table), _laid_out(*(head.weight for head in lm.heads))
        self.x = self.table.new_empty(cache.rows, config.width)  # [R, D]
        parts = self.x.view(branches, -1, config.width)  # [branches, B, D]
        self.first, self.others = parts[0], parts[1:]
        self.scores = self.table.new_empty(cache.rows * config.heads * cache.steps)
        texts = cache.text or [None] * config.layers
        self.layers = [
            _LayerStep(layer, self.x, text, cache.text_mask) for layer, text in zip(lm.layers, texts, strict=True)
        ]

    @torch.no_grad()
    def step(self, column: Tensor) -> Tensor:
        """Feed the next column, int64 [B, K], to every branch: combined logits [B, K, V].

        The cache must have room for one more column.
        """
        cache = self.cache
        slots, keys, values = cache.slots()
        scores = self.scores[: len(keys[0]) * (cache.length + 1)].view(len(keys[0]), 1, -1)  # [R heads, 1, n]
        parts = zip(self.layers, slots, keys, values, strict=True)
        logits = self._column(column, self.positions[cache.length], parts, scores)
        cache.length += 1
        return logits

    def _column(self, column: Tensor, position: Tensor, parts: Iterable, scores: Tensor, *fixed: Tensor) -> Tensor:
        summed = F.embedding(column + self.offsets, self.table).sum(1)  # [B, K, D] -> [B, D]
        torch.add(summed, position, out=self.first)
        if self.branches > 1:
            self.others.copy_(self.first)  # every branch reads the same codes
        for layer, *own in parts:
            layer.run(self.x, *own, scores, *fixed)
        hidden = self.norm(self.x)  # [R, D]
        if self.combine is not None:
            hidden = self.combine(*hidden.chunk(self.branches))  # branches times [B, D] -> [B, D]
        return torch.mm(hidden, self.out).view(self.codes)  # [B, K V] -> [B, K, V]


class FixedDecoder(Decoder):
    """The same steps with fixed shapes and addresses, so that a GPU can replay them (`engine.cuda_graphs`).

    Attention reads the whole cache at every step, and a bias hides the columns that are not there yet. The number of
    the column is a tensor on the GPU. On a processor it computes the same, more slowly than a `Decoder`.
    """

    @torch.no_grad()
    def __init__(self, lm: AudioLM, cache: KVCache, branches: int = 1, combine: Callable[..., Tensor] | None = None):
        """Lay out the weights; on a GPU, record a step. Arguments as of `Decoder`."""
        super().__init__(lm, cache, branches, combine)
        cache.both[..., cache.length :, :] = 0  # a hidden column has weight 0, and 0 times NaN would be NaN
        self.order = torch.arange(cache.steps, device=self.table.device)
        self.place, self.bias = self.order[:1].clone(), self.table.new_zeros(1, 1, cache.steps)
        self.scores = self.scores.view(-1, 1, cache.steps)  # [R heads, 1, steps]
        keys, values = cache.both.flatten(2, 3)  # each [layers, R heads, steps, d]
        self.parts = list(zip(self.layers, cache.both.unbind(1), keys.mT.unbind(), values.unbind(), strict=True))
        self.again = self._next
        if self.table.is_cuda:
            column = self.order.new_zeros(len(self.first), len(self.offsets))  # [B, K]
            self.place.fill_(cache.length)
            self.again = Replay(self._next, column, warm=1)

    @torch.no_grad()
    def step(self, column: Tensor) -> Tensor:
        """As `Decoder.step`; on a GPU the next step overwrites the logits."""
        self.place.fill_(self.cache.length)
        self.cache.length += 1
        return self.again(column)

    def _next(self, column: Tensor) -> Tensor:
        self.bias.zero_().masked_fill_(self.order > self.place, torch.finfo(self.bias.dtype).min / 2)
        position = self.positions.index_select(0, self.place)  # [1, D]
        return self._column(column, position, self.parts, self.scores, self.place, self.bias)


def make_decoder(
    lm: AudioLM, cache: KVCache, branches: int = 1, combine: Callable[..., Tensor] | None = None
) -> "Decoder | NativeDecoder":
    """Make the fastest decoder for the model's device and for how much this process generates.

    Arguments as of `Decoder`.
    """
    weight = lm.norm.weight
    if weight.is_cuda:
        return FixedDecoder(lm, cache, branches, combine)
    if weight.dtype == torch.float32 and weight.device.type == "cpu" and _loading_pays(cache.steps - cache.length):
        return (_native() or Decoder)(lm, cache, branches, combine)
    return Decoder(lm, cache, branches, combine)


def _native() -> "type[NativeDecoder] | None":
    try:
        from minigen.decoding.numba_step import NativeDecoder
    except (ImportError, RuntimeError):  # no numba that fits the NumPy at hand, or no folder for compiled code
        return None
    return NativeDecoder


def _loading_pays(columns: int) -> bool:
    """Whether this process generates enough columns for `numba_step` to save more time than loading it takes.

    Code compiled by an earlier process lies in __pycache__ under the name of the function, `layer_step`.
    """
    global _asked_for
    _asked_for += columns
    compiled = any((Path(__file__).parent / "__pycache__").glob("numba_step.layer_step-*.nbi"))
    return "minigen.decoding.numba_step" in sys.modules or _asked_for >= (LOAD if compiled else COMPILE)


class _LayerStep:
    """One layer's weights, laid out, with the buffers that every step uses again and views of them."""

    def __init__(self, layer: Layer, x: Tensor, text: tuple | None, text_mask: Tensor | None):
        own, (rows, width) = layer.self_attention, x.shape
        heads, d = own.heads, width // own.heads
        self.norms = [
            ((width,), norm.weight, norm.bias, norm.eps) for norm in (layer.self_norm, layer.cross_norm, layer.ffn_norm)
        ]
        scaled = own.query.weight / math.sqrt(d)  # so that the scores need no scaling
        self.qkv_weight = _laid_out(scaled, own.key.weight, own.value.weight)
        self.out = _laid_out(own.out.weight)
        self.ffn_in, self.ffn_out = _laid_out(layer.ffn_in.weight), _laid_out(layer.ffn_out.weight)
        self.qkv, self.inner = x.new_empty(rows, 3 * width), x.new_empty(rows, layer.ffn_in.out_features)
        parts = self.qkv.view(rows, 3, heads, d)
        self.new_query, self.new_pair = parts[:, 0], parts[:, 1:].transpose(0, 1)  # [R, heads, d], [2, R, heads, d]
        self.query, self.mixed = x.new_empty(rows, heads, d), x.new_empty(rows * heads, 1, d)
        self.query_rows, self.mixed_rows = self.query.view(-1, 1, d), self.mixed.view(rows, width)
        self.text = None if text is None else _TextAttention(layer.cross_attention, *text, text_mask, x)

    def run(self, x: Tensor, slot: Tensor, keys: Tensor, values: Tensor, scores: Tensor, *fixed: Tensor) -> None:
        """Change x [R, D] in place.

        slot, keys and values: see KVCache.slots. scores: buffer [R heads, 1, n]. fixed: for a FixedDecoder, the number
        of the column and the bias that hides later ones; slot is then the place of all columns.
        """
        own_norm, cross_norm, ffn_norm = self.norms
        torch.mm(torch.layer_norm(x, *own_norm), self.qkv_weight, out=self.qkv)  # [R, D] -> [R, 3 D]
        self.query.copy_(self.new_query)
        if fixed:
            place, bias = fixed
            slot.index_copy_(3, place, self.new_pair.unsqueeze(3))
            torch.baddbmm(bias, self.query_rows, keys, out=scores)  # [R heads, 1, steps]
        else:
            slot.copy_(self.new_pair)
            torch.bmm(self.query_rows, keys, out=scores)  # [R heads, 1, n]
        torch.bmm(torch.softmax(scores, -1, out=scores), values, out=self.mixed)  # [R heads, 1, d]
        x.addmm_(self.mixed_rows, self.out)  # [R, D]
        if self.text is not None:
            self.text.read(cross_norm)
        torch.mm(torch.layer_norm(x, *ffn_norm), self.ffn_in, out=self.inner)  # [R, ffn]
        x.addmm_(F.gelu(self.inner), self.ffn_out)  # [R, D]


class _TextAttention:
    """Cross-attention of one layer, for the first R' rows, those that have a text."""

    def __init__(self, cross, keys: Tensor, values: Tensor, mask: Tensor | None, x: Tensor):
        rows, heads, tokens, d = keys.shape  # [R', heads, N, d]
        self.x = x[:rows]
        self.query_weight, self.out = _laid_out(cross.query.weight / math.sqrt(d)), _laid_out(cross.out.weight)
        self.keys, self.values = keys.flatten(0, 1).mT, values.flatten(0, 1)  # [R' heads, d, N], [R' heads, N, d]
        bias = x.new_zeros(rows, 1, 1, tokens)
        if mask is not None:  # finite, so that a row of padding alone gives no NaN; its values are all zero
            bias.masked_fill_(~mask, torch.finfo(x.dtype).min / 2)
        self.bias = bias.expand(-1, heads, -1, -1).flatten(0, 1)  # [R' heads, 1, N]
        self.query, self.mixed = x.new_empty(rows, heads * d), x.new_empty(rows * heads, 1, d)
        self.query_rows, self.mixed_rows = self.query.view(-1, 1, d), self.mixed.view(rows, -1)
        self.scores = torch.empty_like(self.bias)

    def read(self, norm: tuple) -> None:
        """Add to the first rows of x what they read in their text."""
        torch.mm(torch.layer_norm(self.x, *norm), self.query_weight, out=self.query)  # [R', D]
        torch.baddbmm(self.bias, self.query_rows, self.keys, out=self.scores)  # [R' heads, 1, N]
        torch.bmm(torch.softmax(self.scores, -1, out=self.scores), self.values, out=self.mixed)  # [R' heads, 1, d]
        self.x.addmm_(self.mixed_rows, self.out)  # [R', D]


def _laid_out(*weights: Tensor) -> Tensor:
    """Matrices [out, in], stacked along out, as [in, out] with the longer side contiguous.

    A product of few rows is fastest in this layout.
    """
    weight = torch.cat([weight.detach() for weight in weights]).t()
    return weight.contiguous() if weight.shape[1] > weight.shape[0] else weight
