"""T5's encoder: against a naive reference, against `transformers`, and what has to hold for any weights."""

import json
import math

import pytest
import torch
import transformers

from minigen.engine.errors import MinigenError
from minigen.interop.random_models import randomise
from minigen.t5 import T5Config, T5Encoder, load_t5, position_buckets

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def settings(**changes):
    sizes = {"vocab_size": 60, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 3, "num_heads": 4}
    return {**sizes, "dropout_rate": 0.1, **changes}


def both(seed=0, scale=0.2, **changes):
    """The same random weights in `transformers` and here."""
    torch.manual_seed(seed)
    theirs = randomise(transformers.T5EncoderModel(transformers.T5Config(**settings(**changes))), scale)
    ours = T5Encoder(T5Config(**settings(**changes))).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def words(lengths):
    """Random ids [B, N] and their mask."""
    ids = torch.randint(2, 60, (len(lengths), max(lengths)))
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# against a naive reference


def naive_bucket(distance, buckets, max_distance):
    """T5, section 2.1, for one distance j - i."""
    half = buckets // 2
    exact, n = half // 2, abs(distance)
    if n >= exact:
        n = exact + int(math.log(n / exact) / math.log(max_distance / exact) * (half - exact))
    return min(n, half - 1) + half * (distance > 0)


@pytest.mark.parametrize("buckets, most", [(32, 128), (8, 20), (16, 40)])
def test_buckets_are_the_formula_for_one_distance_at_a_time(buckets, most):
    found = position_buckets(200, buckets, most)
    odd = [(i, j) for i in range(0, 200, 7) for j in range(200)
           if abs(int(found[i, j]) - naive_bucket(j - i, buckets, most)) > 0]  # fmt: skip
    # at a power of the base the logarithm is a whole number, and falls to either side of it by rounding
    edges = {buckets // 4 * round((4 * most / buckets) ** (k / (buckets // 4))) for k in range(buckets)}
    assert all(min(abs(abs(j - i) - edge) for edge in edges) <= buckets // 4 for i, j in odd) and len(odd) < 60
    assert found.min() == 0 and found.max() == buckets - 1


def naive_states(model, ids):
    """The encoder read literally: one caption [N], one head at a time, no padding."""
    weights, sizes = model.state_dict(), model.config
    h = weights["shared.weight"][ids]

    def norm(x, name):
        return weights[name] * x / (x.pow(2).mean(-1, keepdim=True) + sizes.layer_norm_epsilon).sqrt()

    table = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    for i in range(sizes.num_layers):
        at = f"encoder.block.{i}.layer"
        x = norm(h, f"{at}.0.layer_norm.weight")
        q, k, v = (x @ weights[f"{at}.0.SelfAttention.{name}.weight"].T for name in "qkv")
        heads = []
        for head in range(sizes.num_heads):
            part = slice(head * sizes.d_kv, (head + 1) * sizes.d_kv)
            bias = torch.tensor([[table[naive_bucket(b - a, 32, 128), head] for b in range(len(ids))]
                                 for a in range(len(ids))])  # fmt: skip
            heads.append((q[:, part] @ k[:, part].T + bias).softmax(-1) @ v[:, part])
        h = h + torch.cat(heads, -1) @ weights[f"{at}.0.SelfAttention.o.weight"].T
        x = norm(h, f"{at}.1.layer_norm.weight")
        inner = {name: x @ weights[f"{at}.1.DenseReluDense.{name}.weight"].T
                 for name in ("wi", "wi_0", "wi_1") if f"{at}.1.DenseReluDense.{name}.weight" in weights}  # fmt: skip
        if "wi" in inner:
            inner = inner["wi"].clamp(min=0)
        else:
            a = inner["wi_0"]
            inner = a / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) * inner["wi_1"]
        h = h + inner @ weights[f"{at}.1.DenseReluDense.wo.weight"].T
    return norm(h, "encoder.final_layer_norm.weight")


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
@torch.no_grad()
def test_the_encoder_is_its_formulas_read_literally(kind):
    _, model = both(feed_forward_proj=kind)
    ids, _ = words([12])
    torch.testing.assert_close(model(ids)[0], naive_states(model, ids[0]), **CLOSE)


# against transformers


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
@pytest.mark.parametrize("buckets, most", [(32, 128), (8, 20), (16, 17)])
@pytest.mark.parametrize("sizes", [{}, {"num_heads": 1, "d_kv": 24, "num_layers": 1}, {"d_model": 64, "num_heads": 6}])
@torch.no_grad()
def test_states_are_those_of_transformers_with_padding_and_without(kind, buckets, most, sizes):
    spacing = {"relative_attention_num_buckets": buckets, "relative_attention_max_distance": most}
    theirs, ours = both(feed_forward_proj=kind, **spacing, **sizes)
    ids, mask = words([150, 3, 71])
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[mask], expected[mask], **CLOSE)
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_dropout_and_gradients_are_those_of_transformers(kind):
    theirs, ours = both(feed_forward_proj=kind)
    ids, mask = words([9, 5])
    found = []
    for model, states in ((theirs.train(), lambda: theirs(ids, attention_mask=mask.long()).last_hidden_state),
                          (ours.train(), lambda: ours(ids, mask))):  # fmt: skip
        torch.manual_seed(1)
        states()[mask].pow(2).mean().backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_weights_begin_as_spread_as_those_of_transformers():
    torch.manual_seed(0)
    sizes = settings(d_model=64, d_ff=96, d_kv=8, vocab_size=500, feed_forward_proj="gated-gelu")
    theirs = transformers.T5EncoderModel(transformers.T5Config(**sizes)).state_dict()
    ours = T5Encoder(T5Config(**sizes)).state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if "norm" in name:
            assert torch.equal(weight, theirs[name])
        else:
            assert float(weight.std() / theirs[name].std()) == pytest.approx(1, abs=0.2), name


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@torch.no_grad()
def test_a_whole_t5_in_shards_is_read_without_its_decoder_in_any_precision(kind, dtype, tmp_path):
    torch.manual_seed(2)
    config = transformers.T5Config(**settings(feed_forward_proj=kind))
    whole = randomise(transformers.T5ForConditionalGeneration(config), 0.2)
    whole.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    theirs = transformers.T5EncoderModel.from_pretrained(tmp_path, dtype=dtype).eval()
    ours = load_t5(tmp_path, dtype)
    assert not ours.training
    assert {name: w.dtype for name, w in ours.state_dict().items()} == {
        name: w.dtype for name, w in theirs.state_dict().items()
    }
    ids, mask = words([20, 6])
    found, expected = ours(ids, mask)[mask], theirs(ids, attention_mask=mask.long()).last_hidden_state[mask]
    if dtype == torch.float32:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    else:  # rounded in another order, but not more: compared with the states in float32
        exact = load_t5(tmp_path, torch.float32)(ids, mask)[mask]
        error, their_error = ((states.float() - exact).square().mean().sqrt() for states in (found, expected))
        assert error < 1.3 * their_error < 0.06 * exact.square().mean().sqrt()


@torch.no_grad()
def test_what_is_saved_loads_here_and_in_transformers(tmp_path):
    _, ours = both(feed_forward_proj="gated-gelu", relative_attention_num_buckets=8)
    ours.save_pretrained(tmp_path)
    again, theirs = load_t5(tmp_path), transformers.T5EncoderModel.from_pretrained(tmp_path)
    ids, _ = words([10])
    assert again.config == ours.config and torch.equal(again(ids), ours(ids))
    torch.testing.assert_close(theirs(ids).last_hidden_state, ours(ids), **CLOSE)


# what holds for any weights


@torch.no_grad()
def test_padding_has_no_say_in_any_state():
    _, model = both()
    ids, mask = words([9, 4])
    others = torch.where(mask, ids, (ids + 7) % 60)
    assert torch.equal(model(ids, mask)[mask], model(others, mask)[mask])
    torch.testing.assert_close(model(ids, mask)[1, :4], model(ids[1:, :4])[0], **CLOSE)


def test_every_state_reads_every_token():
    _, model = both()
    ids, _ = words([6])
    vectors = model.shared(ids).detach().requires_grad_()
    hook = model.shared.register_forward_hook(lambda *_: vectors)
    states = model(ids)
    hook.remove()
    for i in range(6):
        (gradient,) = torch.autograd.grad(states[0, i].sum(), vectors, retain_graph=True)
        assert (gradient[0].abs().sum(-1) > 0).all()


@torch.no_grad()
def test_only_the_bias_knows_the_positions():
    """Without it, tokens in another order have the same states in that order."""
    _, model = both()
    ids, _ = words([8])
    order = torch.randperm(8)
    assert not torch.allclose(model(ids[:, order])[0], model(ids)[0, order], atol=1e-3)
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
    torch.testing.assert_close(model(ids[:, order])[0], model(ids)[0, order], **CLOSE)


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(MinigenError, match="gated-silu"):
        T5Config(feed_forward_proj="gated-silu")


def test_weights_that_do_not_fit_the_settings_are_refused(tmp_path):
    _, ours = both()
    ours.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, word in (({"num_layers": 4}, "missing"), ({"d_ff": 41}, "41"), ({"num_layers": 2}, "no such tensor")):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(MinigenError, match=word):
            load_t5(tmp_path)
