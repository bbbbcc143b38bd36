"""Transformer: attention, positions, the key-value cache, and the layer that every generator stacks.

It stands between the text encoder and the generators. The language model (`minigen.lm`) uses its layers with a causal
mask, one column after another; a denoiser uses them bidirectionally, on all frames at once.

    x [B, S, D] ─► { x + self_attention(norm(x))         causal, masked or over all positions
                     x + cross_attention(norm(x), text)  keys and values of the text, computed once
                     x + feed_forward(norm(x)) } ─► [B, S, D]

Attention, for one head of width d = D / heads (`F.scaled_dot_product_attention`; `plain_attention` spells it out):

    out_s = Σ_n softmax_n(q_s · k_n / √d) v_n        q = W_q x_s    k = W_k y_n    v = W_v y_n

y is x itself in self-attention, and the projected text in cross-attention. A mask removes positions n from the sum.

Layer norm comes before each block, the linear layers have no biases, and the activation is GELU, as in MusicGen.
Sources: attention: Vaswani et al. (arXiv 1706.03762), section 3.2; the layer: MusicGen (arXiv 2306.05284).

Symbols: B batch · S positions · D width · d width of a head · N text tokens (in attention: keys).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(steps: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Sinusoidal positions [steps, width], float32: cos(s·f_i) in the first half, sin(s·f_i) in the second.

    f_i = 10000^(−i / (width/2 − 1)), in radians a step. Source: MusicGen's order of the halves and exponent.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=device).float() * (-math.log(10000) / (half - 1)))  # [D/2]
    angle = torch.arange(steps, device=device).float()[:, None] * frequency  # [S, D/2]
    return torch.cat([angle.cos(), angle.sin()], dim=1)  # [S, D]


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as the formula has it: the plain version of `F.scaled_dot_product_attention`, which `Attention` calls.

    The fast version gives the same numbers and never stores the weights [B, heads, S, N].

    Args:
        query: [B, heads, S, d].
        keys: [B, heads, N, d].
        values: [B, heads, N, d].
        mask: bool, broadcast to [B, heads, S, N]; True = may be read. At least one key must be left for each query.
    """
    scores = query @ keys.mT / math.sqrt(query.shape[-1])  # [B, heads, S, N]
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ values  # [B, heads, S, d]


class Attention(nn.Module):
    """Multi-head attention (formula above). Keys and values are arguments, so that a cache can keep them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, heads, N, d], of a source [B, N, D]."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Read keys and values with queries from x: [B, S, D] -> [B, S, D].

        Args:
            x: [B, S, D], the source of the queries.
            keys: [B, heads, N, d], see `keys_values`.
            values: [B, heads, N, d].
            mask: bool, broadcast to [B, heads, S, N]; True = may be read. Not together with causal.
            causal: query s reads the keys 0 ... s only (S = N). A single query is at the last position, as in a step
                with a cache, and reads all N keys.
        """
        query = self._split(self.query(x))  # [B, heads, S, d]
        causal = causal and x.shape[1] > 1  # a single query needs no mask, and PyTorch would show it the first key only
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B, heads, S, d] -> [B, S, heads, d] -> [B, S, D]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, S, D] -> [B, S, heads, d] -> [B, heads, S, d]


class KVCache:
    """Keys and values of the columns so far, so that a step computes one column instead of all of them again.

    Attributes:
        both: [2, layers, R, heads, steps, d], keys and values of self-attention. It is allocated once and written in
            place; the first `length` steps are filled.
        keys, values: views of both, each [layers, R, heads, steps, d].
        positions: [steps, D], the sinusoids.
        text: keys and values of the text, a pair [R', heads, N, d] for each layer, computed once; None without text.
            Only the first R' of the R rows read it (see AudioLM.start).
        text_mask: bool [R', 1, 1, N], True = a token; None where all are.
        rows, steps, length: R, the columns it has room for, and the columns it holds.
    """

    def __init__(self, both: Tensor, positions: Tensor, text: list | None, text_mask: Tensor | None):
        self.both, self.keys, self.values = both, both[0], both[1]
        self.positions, self.text, self.text_mask = positions, text, text_mask
        self.rows, self.steps, self.length = both.shape[2], both.shape[4], 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [R, heads, n, d]; return those of all steps so far.

        `length` does not change: the caller increases it after the last layer.
        """
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]  # [R, heads, end, d]

    def slots(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Views for one more column, each by layer: its place [2, R, heads, d], and all keys and values with it.

        Keys are [R heads, d, n], values [R heads, n, d], the layouts that torch.bmm multiplies; n = length + 1.
        """
        keys, values = self.both.flatten(2, 3).narrow(3, 0, self.length + 1)  # each [layers, R heads, n, d]
        return self.both.select(4, self.length).unbind(1), keys.mT.unbind(), values.unbind()


class Layer(nn.Module):
    """One Transformer layer: self-attention, cross-attention and feed-forward, each normed before and added after."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float = 0.0, index: int = 0):
        """Make a layer with PyTorch's initial weights.

        Args:
            width: D, a multiple of heads.
            heads: attention heads of both attentions.
            ffn: inner width of the feed-forward block.
            dropout: probability of dropping a component of what each block adds, in training.
            index: number of the layer in its stack, which selects its part of a KVCache.
        """
        super().__init__()
        self.index = index
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn, bias=False)
        self.ffn_out = nn.Linear(ffn, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        text: tuple[Tensor, Tensor] | None = None,
        text_mask: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Run the three blocks: [B, S, D] -> [B, S, D].

        Args:
            x: [B, S, D].
            text: keys and values of the text for this layer, `cross_attention.keys_values(projected text)`, each
                [B', heads, N, d]. Where B' < B, only the first B' rows read it. None: no cross-attention.
            text_mask: bool [B', 1, 1, N], True = a token. None: all are.
            causal: position s reads the positions 0 ... s only.
            mask: bool, broadcast to [B, heads, S, S], of self-attention; True = may be read. Not together with causal.
            cache: keys and values of earlier columns, which this call extends. x holds the new columns only.
        """
        x = x + self.dropout(self.attend_self(self.self_norm(x), causal, mask, cache))  # [B, S, D]
        if text is not None:
            x = x + self.attend_text(x, text, text_mask)  # [B, S, D]
        return x + self.dropout(self.feed_forward(self.ffn_norm(x)))  # [B, S, D]

    def attend_self(self, normed: Tensor, causal: bool, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """Self-attention of normed states [B, S, D]; arguments as in `forward`."""
        keys, values = self.self_attention.keys_values(normed)  # each [B, heads, S, d]
        if cache is not None:
            keys, values = cache.extend(self.index, keys, values)  # each [B, heads, length + S, d]
        return self.self_attention(normed, keys, values, mask, causal)  # [B, S, D]

    def attend_text(self, x: Tensor, text: tuple[Tensor, Tensor], text_mask: Tensor | None) -> Tensor:
        """Output of cross-attention, to be added to x [B, S, D]; zeros, not computed, for the rows without text."""
        rows = text[0].shape[0]  # B'
        read = self.dropout(self.cross_attention(self.cross_norm(x[:rows]), *text, mask=text_mask))  # [B', S, D]
        return F.pad(read, (0, 0, 0, 0, 0, len(x) - rows))  # [B, S, D]

    def feed_forward(self, normed: Tensor) -> Tensor:
        """Two linear layers with a GELU between them, on normed states [B, S, D]."""
        return self.ffn_out(F.gelu(self.ffn_in(normed)))  # [B, S, ffn] -> [B, S, D]
