"""One column on a processor, compiled: the steps of `minigen.decoding.torch_step` as loops that numba compiles.

    column [B, K] ─► gather ─► x [R, D] ─► { attend to the columns ─► attend to the text ─► feed forward } × layers
    logits [B, K, V] ◄── multiply, head by head ◄── combine the branches ◄── norm ◄────────────────────────┘

`NativeDecoder` replaces `Decoder` for models in float32; `make_decoder` decides when. The cost of a column of a few
rows is reading the weights: `multiply` reads them from the model's own tensors at the rate of memory, and the rest of a
layer stays in the processor's nearest caches.

numba compiles a function when it is first called with arguments of new types, and keeps the result on disk for later
processes. Sizes are no part of a type: code compiled for one model runs all of them.

Symbols: R rows of the cache, I and O inputs and outputs of a product, P = R heads, d width of a head, n columns or
text tokens; the rest as in `minigen.lm`.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from numpy import float32, ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.lm import AudioLM
from minigen.transformer import KVCache, Layer

compiled = njit(cache=True, fastmath=True)
MASKED = -1e30  # added to the score of a padding token: softmax makes it 0
EPSILON = nn.LayerNorm(1).eps  # of all layer norms of an AudioLM


@compiled
def multiply(x: ndarray, weight: ndarray, out: ndarray) -> None:
    """Write x [R, I] times weight [O, I], transposed, to out [R, O]: eight sums at once, of two rows and four outputs.

    The four outputs lie a quarter of the matrix apart. The processor then sees four sequential streams of memory and
    prefetches all of them; with four adjacent outputs it reads at half that rate. Each sum becomes a register of eight
    partial sums. Where the numbers of rows or outputs are not even, the last one is computed again.
    """
    last_row, last, quarter = len(x) - 1, len(weight) - 1, (len(weight) + 3) // 4
    for o in range(quarter):
        p, q, s = min(o + quarter, last), min(o + 2 * quarter, last), min(o + 3 * quarter, last)
        w0, w1, w2, w3 = weight[o], weight[p], weight[q], weight[s]
        for r in range(0, len(x), 2):
            t = min(r + 1, last_row)
            x0, x1 = x[r], x[t]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = float32(0)
            for i in range(x.shape[1]):
                a0 += x0[i] * w0[i]
                a1 += x0[i] * w1[i]
                a2 += x0[i] * w2[i]
                a3 += x0[i] * w3[i]
                b0 += x1[i] * w0[i]
                b1 += x1[i] * w1[i]
                b2 += x1[i] * w2[i]
                b3 += x1[i] * w3[i]
            out[r, o], out[r, p], out[r, q], out[r, s] = a0, a1, a2, a3
            out[t, o], out[t, p], out[t, q], out[t, s] = b0, b1, b2, b3


@compiled
def add(x: ndarray, more: ndarray, scale: float) -> None:
    """Add scale times more to x, both of one dimension."""
    for i in range(len(x)):
        x[i] += scale * more[i]


@compiled
def add_two(x: ndarray, first: ndarray, scale: float, second: ndarray, second_scale: float) -> None:
    """Add first and second, each scaled, to x."""
    for i in range(len(x)):
        x[i] += scale * first[i] + second_scale * second[i]


@compiled
def exponential(x: float) -> float:
    """e^x for x ≤ 0 as 2^k e^t, k whole, |t| ≤ ln 2 / 2: seven terms of the series, and k written into the exponent.

    Unlike math.exp it is plain arithmetic, so the compiler computes eight values at once. The relative error is below
    1e-6 where the value is above 1e-6, and below 4e-6 elsewhere.
    """
    y = max(x * float32(1 / math.log(2)), float32(-126))
    k = np.rint(y)
    t = (y - k) * float32(math.log(2))
    series = float32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * t + float32(coefficient)
    return series * np.int32((np.int32(k) + 127) << 23).view(float32)


@compiled
def gelu(x: ndarray) -> None:
    """x/2 (1 + erf(x/√2)) of x [R, I], in place. erf: Abramowitz and Stegun 7.1.26, as in PyTorch, error below 2e-7."""
    flat = x.reshape(-1)
    for i in range(len(flat)):
        value = flat[i]
        z = abs(value) * float32(math.sqrt(0.5))
        t = float32(1) / (float32(1) + float32(0.3275911) * z)
        series = float32(1.061405429)
        for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            series = series * t + float32(coefficient)
        tail = value * float32(0.5) * series * t * exponential(-z * z)  # value/2 (1 - erf |z|)
        flat[i] = tail if value < 0 else value - tail


@compiled
def normalise(x: ndarray, norm: ndarray, out: ndarray) -> None:
    """Write the layer norm of each row of x [R, D] to out. norm [2, D]: weight and bias."""
    width = float32(x.shape[1])
    for r in range(len(x)):
        total = square = float32(0)
        for i in range(x.shape[1]):
            total += x[r, i]
        mean = total / width
        for i in range(x.shape[1]):
            square += (x[r, i] - mean) * (x[r, i] - mean)
        scale = float32(1) / np.sqrt(square / width + float32(EPSILON))
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - mean) * scale * norm[0, i] + norm[1, i]


@compiled
def softmax(scores: ndarray, bias: ndarray, scale: float) -> None:
    """Turn the scores [n], scaled and with the bias added, into weights that sum to 1."""
    highest, total = float32(2 * MASKED), float32(0)
    for n in range(len(scores)):
        scores[n] = scores[n] * scale + bias[n]
        highest = max(highest, scores[n])
    for n in range(len(scores)):
        scores[n] = exponential(scores[n] - highest)
        total += scores[n]
    for n in range(len(scores)):
        scores[n] /= total


@compiled
def attention(query, keys, values, bias, count, scores, out) -> None:
    """Write to out [P, d] the attention of each query [P, d] over the first `count` of keys and values [P, n, d].

    Four queries at once, a quarter of them apart, for the reason given in `multiply`. bias [R, n] is added to the
    scores. scores: buffer [4, n].
    """
    last, quarter, d = len(query) - 1, (len(query) + 3) // 4, query.shape[1]
    out[:] = 0
    for p in range(quarter):
        q, r, s = min(p + quarter, last), min(p + 2 * quarter, last), min(p + 3 * quarter, last)
        q0, q1, q2, q3 = query[p], query[q], query[r], query[s]
        k0, k1, k2, k3 = keys[p], keys[q], keys[r], keys[s]
        for n in range(count):
            a0 = a1 = a2 = a3 = float32(0)
            for i in range(d):
                a0 += q0[i] * k0[n, i]
                a1 += q1[i] * k1[n, i]
                a2 += q2[i] * k2[n, i]
                a3 += q3[i] * k3[n, i]
            scores[0, n], scores[1, n], scores[2, n], scores[3, n] = a0, a1, a2, a3
        for turn, row in enumerate((p, q, r, s)):
            softmax(scores[turn, :count], bias[row * len(bias) // len(query)], float32(1 / math.sqrt(d)))
            if p + turn * quarter > last:  # the last query again: it must add nothing
                scores[turn, :count] = 0
        o0, o1, o2, o3 = out[p], out[q], out[r], out[s]
        v0, v1, v2, v3 = values[p], values[q], values[r], values[s]
        for n in range(0, count - 1, 2):  # two at a time: half the loads and stores of the sums
            add_two(o0, v0[n], scores[0, n], v0[n + 1], scores[0, n + 1])
            add_two(o1, v1[n], scores[1, n], v1[n + 1], scores[1, n + 1])
            add_two(o2, v2[n], scores[2, n], v2[n + 1], scores[2, n + 1])
            add_two(o3, v3[n], scores[3, n], v3[n + 1], scores[3, n + 1])
        if count % 2:
            for turn, row in enumerate((p, q, r, s)):
                add(out[row], values[row, count - 1], scores[turn, count - 1])


@compiled
def add_attention(buffers, query_weight, out_weight, keys, values, bias, count, scores) -> None:
    """Add to x the attention of its normed states, for the first rows, those of the bias [R', n].

    buffers: see `layer_step`; the normed states are in the second one.
    """
    rows = len(bias)
    x, normed, query, mixed = buffers[0][:rows], buffers[1][:rows], buffers[2][:rows], buffers[3][:rows]
    multiply(normed, query_weight, query)
    d = keys.shape[2]
    attention(query.reshape((-1, d)), keys, values, bias, count, scores, mixed.reshape((-1, d)))
    multiply(mixed, out_weight, query)
    add(x.reshape(-1), query.reshape(-1), float32(1))


@compiled
def layer_step(column, buffers, inner, scores, bias, text_bias, norms, q, k, v, out, cross_q, cross_out, ffn_in,
               ffn_out, keys, values, text_keys, text_values) -> None:  # fmt: skip
    """Run one layer for one column. The first rows, those of text_bias [R', N], have a text.

    column: its number in the cache. buffers [4, R, D]: x, changed in place, and three more; inner [R, ffn] and scores
    [4, n]: two more. norms [3, 2, D]. keys, values [P, n, d]: the cache, written here; text_keys, text_values: the
    text's. The rest are weights.
    """
    x, normed, mixed = buffers[0], buffers[1], buffers[3]
    normalise(x, norms[0], normed)
    for weight, kept in ((k, keys), (v, values)):
        multiply(normed, weight, mixed)
        parts = mixed.reshape((-1, keys.shape[2]))
        for p in range(len(parts)):
            for i in range(keys.shape[2]):
                kept[p, column, i] = parts[p, i]
    add_attention(buffers, q, out, keys, values, bias, column + 1, scores)
    if len(text_bias):
        normalise(x, norms[1], normed)
        add_attention(buffers, cross_q, cross_out, text_keys, text_values, text_bias, text_bias.shape[1], scores)
    normalise(x, norms[2], normed)
    multiply(normed, ffn_in, inner)
    gelu(inner)
    multiply(inner, ffn_out, mixed)
    add(x.reshape(-1), mixed.reshape(-1), float32(1))


class NativeDecoder:
    """`minigen.decoding.torch_step.Decoder` for a model in float32 on a processor: the same arguments and cache.

    It reads the matrices of the layers from the model's tensors, so do not change them while it is in use.
    """

    @torch.no_grad()
    def __init__(self, lm: AudioLM, cache: KVCache, branches: int = 1, combine: Callable[..., Tensor] | None = None):
        """Collect arrays of the weights and allocate the buffers. Arguments as of `Decoder`."""
        self.cache, self.branches, self.combine, config = cache, branches, combine, lm.config
        self.table = torch.cat([embedding.weight for embedding in lm.embeddings])  # [K (V + 1), D]
        self.offsets = torch.arange(config.num_codebooks) * (config.codebook_size + 1)  # [K]
        self.buffers, self.norm = torch.empty(4, cache.rows, config.width), _norms(lm.norm)[0]
        self.heads = [_array(head.weight) for head in lm.heads]
        text_bias = _text_bias(cache)
        inner, scores = torch.empty(cache.rows, config.ffn), torch.empty(4, max(cache.steps, text_bias.shape[1]))
        shared = (self.buffers, inner, scores, torch.zeros(cache.rows, cache.steps), text_bias)
        self.shared = [_array(part) for part in shared]
        self.layers = [_layer_arrays(layer, cache) for layer in lm.layers]

    @torch.no_grad()
    def step(self, column: Tensor) -> Tensor:
        """Feed the next column, int64 [B, K], to every branch: combined logits [B, K, V].

        The cache must have room for one more column.
        """
        cache, hidden, buffers = self.cache, self.buffers[1], self.shared[0]
        summed = F.embedding(column + self.offsets, self.table).sum(1) + cache.positions[cache.length]  # [B, D]
        self.buffers[0].view(-1, *summed.shape)[:] = summed  # [branches, B, D]: every branch reads the same codes
        for arrays in self.layers:
            layer_step(cache.length, *self.shared, *arrays)
        cache.length += 1
        normalise(buffers[0], self.norm, buffers[1])
        if self.combine is not None:
            hidden = self.combine(*hidden.chunk(self.branches))  # branches times [B, D] -> [B, D]
        logits = torch.empty(len(self.heads), len(column), len(self.heads[0]))  # [K, B, V]
        for head, out in zip(self.heads, logits.numpy(), strict=True):
            multiply(hidden.numpy(), head, out)
        return logits.transpose(0, 1)  # [B, K, V]


def _array(tensor: Tensor) -> ndarray:
    """The tensor's memory as an array for numba; a copy only where the tensor is not contiguous."""
    return tensor.detach().contiguous().numpy()


def _norms(*norms: nn.LayerNorm) -> ndarray:
    """Weights and biases [n, 2, D]."""
    return _array(torch.stack([torch.stack([norm.weight, norm.bias]) for norm in norms]))


def _layer_arrays(layer: Layer, cache: KVCache) -> list[ndarray]:
    """Arguments of `layer_step` that differ from layer to layer: all after text_bias."""
    own, cross = layer.self_attention, layer.cross_attention
    parts = (own.query, own.key, own.value, own.out, cross.query, cross.out, layer.ffn_in, layer.ffn_out)
    kept = cache.both[:, layer.index]
    text = kept[..., :0, :] if cache.text is None else cache.text[layer.index]
    norms = _norms(layer.self_norm, layer.cross_norm, layer.ffn_norm)
    return [norms, *(_array(part.weight) for part in parts), *(_array(part.flatten(0, 1)) for part in (*kept, *text))]


def _text_bias(cache: KVCache) -> Tensor:
    """Bias [R', N] on the scores of the text, for the rows that have one: MASKED for padding, else 0."""
    if cache.text is None:
        return torch.zeros(0, 0)
    rows, _, tokens, _ = cache.text[0][0].shape
    bias = torch.zeros(rows, tokens)
    return bias if cache.text_mask is None else bias.masked_fill_(~cache.text_mask[:, 0, 0], MASKED)
