"""The Transformer layer against loops, against PyTorch's decoder layer with the same weights, and its properties."""

import math

import pytest
import torch

from minigen.transformer import Attention, KVCache, Layer, plain_attention, sinusoids

WIDTH, HEADS, FFN = 8, 2, 12


def large_layer(dropout: float = 0.0, index: int = 0) -> Layer:
    """A layer in float64 whose weights are large enough for every part to matter."""
    layer = Layer(WIDTH, HEADS, FFN, dropout, index).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def states(batch: int = 2, steps: int = 5) -> torch.Tensor:
    return torch.randn(batch, steps, WIDTH, dtype=torch.float64)


def slope(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Whether output position s depends on input position n: bool [S, N]."""
    rows = [torch.autograd.grad(output[:, s].square().sum(), x, retain_graph=True)[0] for s in range(output.shape[1])]
    return torch.stack([row.abs().sum((0, 2)) > 0 for row in rows])


@torch.no_grad()
def test_attention_equals_a_loop_over_rows_heads_and_steps():
    attention = Attention(width=8, heads=2)
    x, words = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    expected = torch.zeros(2, 4, 8)
    for row in range(2):
        for step in range(4):
            for head in range(2):
                part = slice(head * 4, head * 4 + 4)
                query = (attention.query.weight @ x[row, step])[part]
                real = [words[row, n] for n in range(3) if mask[row, n]]
                scores = [float(query @ (attention.key.weight @ word)[part]) / math.sqrt(4) for word in real]
                total = sum(math.exp(score) for score in scores)
                for score, word in zip(scores, real, strict=True):
                    expected[row, step, part] += math.exp(score) / total * (attention.value.weight @ word)[part]
    out = attention(x, *attention.keys_values(words), mask=mask[:, None, None])
    torch.testing.assert_close(out, expected @ attention.out.weight.T)


def test_positions_are_those_of_musicgen():
    from transformers.models.musicgen.modeling_musicgen import MusicgenSinusoidalPositionalEmbedding as Positions

    torch.testing.assert_close(sinusoids(50, 32), Positions.get_embedding(50, 32))


@pytest.mark.parametrize("masked", [False, True])
def test_the_plain_attention_is_the_fast_one(masked):
    query, keys, values = torch.randn(3, 2, HEADS, 6, 4, dtype=torch.float64).unbind()
    mask = torch.rand(2, 1, 6, 6) < 0.5 if masked else None
    if masked:
        mask[..., 0] = True  # every query has something to read
    fast = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    torch.testing.assert_close(plain_attention(query, keys, values, mask), fast)


@torch.no_grad()
def test_causal_is_the_mask_of_the_lower_triangle():
    layer, x = large_layer(), states()
    triangle = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(layer(x, causal=True), layer(x, mask=triangle))
    assert not torch.allclose(layer(x, causal=True), layer(x))


def test_each_position_reads_what_causal_or_the_mask_lets_it_read():
    layer, x = large_layer(), states().requires_grad_()
    near = (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 1
    assert slope(layer(x), x).all()
    assert torch.equal(slope(layer(x, causal=True), x), torch.ones(5, 5, dtype=torch.bool).tril())
    assert torch.equal(slope(layer(x, mask=near), x), near)


@torch.no_grad()
def test_a_mask_may_differ_from_row_to_row():
    layer, x = large_layer(), states()
    mask = torch.rand(2, 5, 5) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    together = layer(x, mask=mask[:, None])  # [B, 1, S, S]
    alone = torch.cat([layer(x[row : row + 1], mask=mask[row]) for row in range(2)])
    torch.testing.assert_close(together, alone)


@torch.no_grad()
def test_a_layer_over_all_positions_is_pytorchs_decoder_layer():
    layer, x, text = large_layer(), states(), states(steps=3)
    official = torch.nn.TransformerDecoderLayer(
        WIDTH, HEADS, FFN, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    ).double()
    weights = {name: torch.zeros_like(tensor) for name, tensor in official.state_dict().items()}
    for theirs, ours in (("self_attn", layer.self_attention), ("multihead_attn", layer.cross_attention)):
        weights[f"{theirs}.in_proj_weight"] = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
        weights[f"{theirs}.out_proj.weight"] = ours.out.weight
    for theirs, ours in (("norm1", layer.self_norm), ("norm2", layer.cross_norm), ("norm3", layer.ffn_norm)):
        weights[f"{theirs}.weight"], weights[f"{theirs}.bias"] = ours.weight, ours.bias
    weights["linear1.weight"], weights["linear2.weight"] = layer.ffn_in.weight, layer.ffn_out.weight
    official.load_state_dict(weights)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    pair = layer.cross_attention.keys_values(text)
    torch.testing.assert_close(
        layer(x, pair, mask[:, None, None]), official.eval()(x, text, memory_key_padding_mask=~mask)
    )


@torch.no_grad()
def test_rows_without_a_text_skip_cross_attention():
    layer, x = large_layer(), states(batch=3)
    pair = layer.cross_attention.keys_values(states(batch=2, steps=3))
    mixed = layer(x, pair)
    torch.testing.assert_close(mixed[:2], layer(x[:2], pair))
    torch.testing.assert_close(mixed[2:], layer(x[2:]))


@pytest.mark.parametrize("prompt", [1, 3])
@torch.no_grad()
def test_a_cache_gives_the_states_of_the_whole_sequence(prompt):
    layer, x = large_layer(index=1), states()
    cache = KVCache(x.new_zeros(2, 2, 2, HEADS, 5, WIDTH // HEADS), sinusoids(5, WIDTH), None, None)
    parts = []
    for start, end in [(0, prompt), *((s, s + 1) for s in range(prompt, 5))]:
        parts.append(layer(x[:, start:end], causal=True, cache=cache))
        cache.length = end
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x, causal=True))
    assert not cache.both[:, 0].any()  # the part of the other layer


def test_dropout_acts_in_training_only():
    layer, x = large_layer(dropout=0.5), states()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
