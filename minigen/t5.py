"""Encoder of T5: token ids in, one vector for each token out. `minigen.text` puts a tokenizer in front of it.

    ids [B, N] ─► embeddings ─► num_layers blocks ─► RMS norm ─► states [B, N, D]

    a block:       h ← h + Attention(RMS(h)),    h ← h + FeedForward(RMS(h))
    RMS(h)         = g · h / sqrt(mean(h²) + ε)                                           no mean, no bias
    Attention(x)   = W_o softmax(q kᵀ + b) v,    q, k, v = W_q x, W_k x, W_v x            not divided by sqrt(d)
    b[head, i, j]  = table[bucket(j - i), head]                                           the only trace of position
    FeedForward(x) = W_wo relu(W_wi x)                                                    T5
                   = W_wo (gelu(W_wi0 x) · W_wi1 x)                                       T5 v1.1, Flan-T5

    D  d_model    d  d_kv, width of a head    H  num_heads    F  d_ff    N  tokens    B  batch

The settings and the names of the weights are those of `transformers.T5EncoderModel`, so that the files interchange.
Sources: T5 (arXiv 1910.10683, section 2.1); RMS norm (1910.07467); gated GELU (2002.05202), used by T5 v1.1 and
Flan-T5 (2210.11416).
"""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.engine.errors import MinigenError
from minigen.engine.weights import module_from_tensors, read_config, read_tensors, write_model

__all__ = ["T5Config", "T5Encoder", "load_t5", "position_buckets"]


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder; names and defaults are those of the official config.json.

    feed_forward_proj: "relu" or "gated-gelu". dropout_rate: used in training only.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self):
        if self.feed_forward_proj not in ("relu", "gated-gelu"):
            raise MinigenError(
                f"feed_forward_proj is {self.feed_forward_proj!r}. T5 has 'relu', T5 v1.1 and Flan-T5 'gated-gelu'."
            )

    @classmethod
    def of(cls, settings: dict) -> "T5Config":
        """The settings of a config.json; those of the decoder are left out."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})


class RMSNorm(nn.Module):
    """Divide each vector by its root mean square: weight · h / sqrt(mean(h²) + ε), the mean in float32."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, h: Tensor) -> Tensor:
        """Normalised h [..., D], in the dtype of the weight."""
        scale = torch.rsqrt(h.float().pow(2).mean(-1, keepdim=True) + self.epsilon)  # [..., 1]
        h = h * scale
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            h = h.to(self.weight.dtype)
        return self.weight * h


def position_buckets(length: int, buckets: int = 32, max_distance: int = 128) -> Tensor:
    """Bucket of the distance j - i for all pairs of positions, int64 [length, length], from 0 to buckets - 1.

    The upper half of the buckets is for j > i, the lower half for j ≤ i. In each half, with m = buckets / 4: distances
    below m have a bucket each; larger ones share buckets that grow with the distance, and the last one takes all from
    max_distance on:

        bucket(n) = m + floor( m · log(n / m) / log(max_distance / m) ),  at most buckets / 2 - 1

    Source: T5, section 2.1; mesh_tensorflow, transformer_layers.py.
    """
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]  # [i, j]: j - i
    half, n = buckets // 2, distance.abs()
    m = half // 2
    growth = torch.log(n.float() / m) / math.log(max_distance / m) * (half - m)
    far = (m + growth.clamp(min=0).long()).clamp(max=half - 1)
    return half * (distance > 0) + torch.where(n < m, n, far)


class Attention(nn.Module):
    """Self-attention in H heads, whose scores are not scaled; the bias is the only information about positions."""

    def __init__(self, config: T5Config, has_bias_table: bool):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.config = config
        if has_bias_table:  # the first block has the table for all of them
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """X [B, N, D] and bias [1 or B, H, N, N], added to the scores: [B, N, D]."""
        q, k, v = (self._heads(linear(x)) for linear in (self.q, self.k, self.v))  # [B, H, N, d] each
        dropout = self.config.dropout_rate if self.training else 0.0
        # softmax(q kᵀ + bias) v; scale=1.0, because PyTorch would divide the scores by sqrt(d)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))  # [B, H, N, d] -> [B, N, H d] -> [B, N, D]

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.num_heads, self.config.d_kv)).transpose(1, 2)  # [B, N, H d] -> [B, H, N, d]

    def bias(self, length: int) -> Tensor:
        """The position bias b, [1, H, N, N]."""
        sizes = self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance
        buckets = position_buckets(length, *sizes).to(self.q.weight.device)  # [N, N]
        return self.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0)  # [N, N, H] -> [1, H, N, N]


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them, or three with a gated GELU."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.gated, self.dropout = config.feed_forward_proj == "gated-gelu", config.dropout_rate
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            self.add_module(name, nn.Linear(config.d_model, config.d_ff, bias=False))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, F] -> [B, N, D]."""
        inner = F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x) if self.gated else F.relu(self.wi(x))
        inner = F.dropout(inner, self.dropout, self.training)
        return self.wo(inner.to(self.wo.weight.dtype))  # wo stays in float32 in a float16 model, see `load_t5`


class Block(nn.Module):
    """One block: attention, then the feed-forward layer; each reads the normalised states and adds to them."""

    def __init__(self, config: T5Config, has_bias_table: bool):
        super().__init__()
        norms = [RMSNorm(config.d_model, config.layer_norm_epsilon) for _ in range(2)]
        attention = {"SelfAttention": Attention(config, has_bias_table), "layer_norm": norms[0]}
        feed_forward = {"DenseReluDense": FeedForward(config), "layer_norm": norms[1]}
        self.layer = nn.ModuleList([nn.ModuleDict(attention), nn.ModuleDict(feed_forward)])  # the official names
        self.dropout = config.dropout_rate

    def forward(self, h: Tensor, bias: Tensor) -> Tensor:
        """H [B, N, D] and bias [1 or B, H, N, N]: [B, N, D]."""
        first, second = self.layer
        attended = first.SelfAttention(first.layer_norm(h), bias)
        h = h + F.dropout(attended, self.dropout, self.training)
        forwarded = second.DenseReluDense(second.layer_norm(h))
        return h + F.dropout(forwarded, self.dropout, self.training)


class T5Encoder(nn.Module):
    """T5's encoder: `states = model(ids, mask)`.

    config: its sizes. The initial weights are random, see `reset_parameters`.
    """

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)  # T5's decoder shares it, hence the name
        blocks = nn.ModuleList(Block(config, has_bias_table=i == 0) for i in range(config.num_layers))
        norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.encoder = nn.ModuleDict({"embed_tokens": self.shared, "block": blocks, "final_layer_norm": norm})
        self.reset_parameters()

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode ids, int64 [B, N]; mask [B, N] is true for tokens and false for padding (None: no padding).

        Returns states [B, N, D]. States of padding are meaningless.
        """
        return self.run(self.shared(ids), mask)

    def run(self, embedded: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `forward`, from the embeddings [B, N, D] of the tokens."""
        drop, training = self.config.dropout_rate, self.training
        h = F.dropout(embedded, drop, training)  # [B, N, D]
        bias = self.encoder.block[0].layer[0].SelfAttention.bias(h.shape[1])  # [1, H, N, N], the same in every block
        if mask is not None:  # a score of nearly -infinity: softmax gives padding no weight
            bias = torch.where(mask.bool()[:, None, None, :], bias, torch.finfo(bias.dtype).min)  # [B, H, N, N]
        for block in self.encoder.block:
            h = block(h, bias)  # [B, N, D]
        return F.dropout(self.encoder.final_layer_norm(h), drop, training)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw T5's initial weights: normal, with a standard deviation of 1 / sqrt(width of the input).

        That of q is smaller by the factor 1 / sqrt(d), since the scores are not divided by sqrt(d). Embeddings: 1.
        """
        sizes = self.config
        inner = sizes.num_heads * sizes.d_kv
        deviation = {"q": (sizes.d_model * sizes.d_kv) ** -0.5, "o": inner**-0.5, "wo": sizes.d_ff**-0.5}
        self.shared.weight.normal_()
        for name, weight in self.encoder.block.named_parameters():
            if "layer_norm" not in name:
                weight.normal_(std=deviation.get(name.split(".")[-2], sizes.d_model**-0.5))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.shared.weight.device

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, which `load_t5` and `transformers` read.

        dtype: of the weights in the file (default: as they are).
        """
        weights = self.state_dict()
        del weights["encoder.embed_tokens.weight"]  # it is shared.weight
        stored = str(dtype or self.shared.weight.dtype).removeprefix("torch.")
        names = {"model_type": "t5", "architectures": ["T5EncoderModel"], "dtype": stored}
        special = {"pad_token_id": 0, "eos_token_id": 1, "is_encoder_decoder": False, "use_cache": False}
        write_model(folder, {**names, **asdict(self.config), **special}, weights, dtype)


def load_t5(
    folder: Path, dtype: torch.dtype = torch.float32, prefix: str = "", settings: dict | None = None
) -> T5Encoder:
    """Load a `T5Encoder` from a folder with a T5, in eval mode. The decoder of a whole T5 is not read.

    With float16 the weights wo stay in float32, as in `transformers`: the sums of the feed-forward layer exceed
    float16's range in large T5s.

    Args:
        folder: with config.json and safetensors, in one file or in shards.
        dtype: of the weights in memory.
        prefix: prefix of the names of the weights, if the T5 is part of a larger model.
        settings: T5's settings, if they are only a part of folder/config.json.

    Raises:
        MinigenError: a file is missing or damaged, or does not fit the settings.
    """
    config = T5Config.of(settings or read_config(folder))
    weights = {f"encoder.{name}": w for name, w in read_tensors(folder, dtype, f"{prefix}encoder.").items()}
    weights |= {f"shared.{name}": w for name, w in read_tensors(folder, dtype, f"{prefix}shared.").items()}
    for name in ("shared.weight", "encoder.embed_tokens.weight"):  # one tensor, and a file may have it by either name
        if name in weights:
            weights["shared.weight"] = weights["encoder.embed_tokens.weight"] = weights[name]
            break
    if dtype == torch.float16:
        weights |= {name: weight.float() for name, weight in weights.items() if name.endswith(".wo.weight")}
    return module_from_tensors(lambda: T5Encoder(config), weights, folder).eval()
