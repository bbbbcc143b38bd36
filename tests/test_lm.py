"""The language model against a naive loop, against transformers' MusicGen with the same weights, and its properties."""

import dataclasses
import json
import math
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigen.decoding.torch_step import Decoder, FixedDecoder
from minigen.engine.errors import MinigenError
from minigen.guidance import guide, guide_two
from minigen.lm import BEST, AudioLM, AudioLMConfig, shift_right

TINY = AudioLMConfig(codebook_size=20, width=32, layers=2, heads=4, ffn=48, memory_width=24)


def tiny_lm(config: AudioLMConfig = TINY) -> AudioLM:
    """A model whose weights are large enough for every part to matter."""
    lm = AudioLM(config).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm


def inputs(batch: int = 3, steps: int = 9, words: int = 5):
    """A sequence with special tokens in it, and texts of different lengths, the last one all real."""
    sequence = torch.randint(0, TINY.codebook_size + 1, (batch, TINY.num_codebooks, steps))
    memory = torch.randn(batch, words, TINY.memory_width)
    mask = torch.arange(words) < torch.arange(words - batch + 1, words + 1)[:, None]
    return sequence, memory, mask


def musicgen_with_the_weights_of(lm: AudioLM):
    """transformers' decoder with the same numbers in it. MusicgenForCausalLM has no projection of the text."""
    from transformers import MusicgenForCausalLM
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    config = MusicgenDecoderConfig(
        vocab_size=TINY.codebook_size, hidden_size=TINY.width, num_hidden_layers=TINY.layers, ffn_dim=TINY.ffn,
        num_attention_heads=TINY.heads, num_codebooks=TINY.num_codebooks, dropout=0.0,
        pad_token_id=TINY.codebook_size, bos_token_id=TINY.codebook_size,
    )  # fmt: skip
    words = {
        "embeddings.": "model.decoder.embed_tokens.",
        "layers.": "model.decoder.layers.",
        "heads.": "lm_heads.",
        "norm.": "model.decoder.layer_norm.",
    }
    inner = {
        "self_attention": "self_attn", "cross_attention": "encoder_attn", "self_norm": "self_attn_layer_norm",
        "cross_norm": "encoder_attn_layer_norm", "ffn_norm": "final_layer_norm", "ffn_in": "fc1", "ffn_out": "fc2",
        ".query": ".q_proj", ".key": ".k_proj", ".value": ".v_proj", ".out.": ".out_proj.",
    }  # fmt: skip
    theirs = {}
    for name, tensor in lm.state_dict().items():
        if name.startswith("memory_projection"):
            continue
        start = next(word for word in words if name.startswith(word))
        name = words[start] + name.removeprefix(start)
        for ours, other in inner.items():
            name = name.replace(ours, other)
        theirs[name] = tensor
    model = MusicgenForCausalLM(config).eval()
    model.load_state_dict(theirs)
    return model


@pytest.mark.parametrize("padded", [False, True])
def test_logits_equal_musicgen_with_the_same_weights(padded):
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    mask = mask if padded else torch.ones_like(mask)
    projected = lm.memory_projection(memory) * mask[..., None]
    theirs = musicgen_with_the_weights_of(lm)(
        input_ids=sequence.flatten(0, 1), encoder_hidden_states=projected, encoder_attention_mask=mask.long()
    ).logits
    torch.testing.assert_close(lm(sequence, memory, mask).flatten(0, 1), theirs, atol=1e-4, rtol=1e-4)


def test_no_text_equals_the_zeros_that_musicgen_reads_without_text():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    musicgen = musicgen_with_the_weights_of(lm)
    nothing = torch.zeros(3, 5, TINY.width)
    with_zeros = musicgen(input_ids=sequence.flatten(0, 1), encoder_hidden_states=nothing).logits
    without = lm(sequence)
    torch.testing.assert_close(without.flatten(0, 1), with_zeros, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(without, lm(sequence, memory, torch.zeros_like(mask)))  # a mask of False says the same
    assert (without - lm(sequence, memory, mask)).abs().max() > 0.1  # and the text does matter


def test_a_column_never_sees_the_future():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    embedded = []
    lm.embeddings[2].register_forward_hook(lambda module, args, output: embedded.append(output) or output)
    logits = lm(sequence, memory, mask)
    for step in range(sequence.shape[-1]):
        (slope,) = torch.autograd.grad(logits[:, :, step].square().sum(), embedded[0], retain_graph=True)
        assert (slope[:, step + 1 :] == 0).all()
        assert (slope[:, : step + 1].abs().sum(-1) > 0).all()


def test_padding_words_never_change_a_logit():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    other = torch.where(mask[..., None], memory, torch.full_like(memory, torch.nan))
    longer = torch.cat([memory, torch.randn(3, 4, TINY.memory_width)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    expected = lm(sequence, memory, mask)
    assert torch.equal(lm(sequence, other, mask), expected)
    torch.testing.assert_close(lm(sequence, longer, longer_mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [1, 4])
@torch.no_grad()
def test_cached_steps_equal_the_whole_sequence_at_once(prompt):
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    whole = lm(sequence, memory, mask)
    cache = lm.start(3, sequence.shape[-1], memory, mask)
    logits = [lm.step(sequence[..., :prompt], cache)]
    logits += [lm.step(sequence[..., s : s + 1], cache) for s in range(prompt, sequence.shape[-1])]
    torch.testing.assert_close(torch.stack(logits, dim=2), whole[:, :, prompt - 1 :], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_batch_runs_rows_with_text_and_rows_without():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    cache = lm.start(6, 4, memory, mask)
    for s in range(4):
        both = lm.step(sequence[..., s : s + 1].repeat(2, 1, 1), cache)
    torch.testing.assert_close(both[:3], lm(sequence[..., :4], memory, mask)[:, :, -1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[3:], lm(sequence[..., :4])[:, :, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [Decoder, FixedDecoder])
@pytest.mark.parametrize("prompt", [0, 3])
@pytest.mark.parametrize("reading", ["nothing", "words", "words and padding", "a row of padding alone"])
@torch.no_grad()
def test_the_decoder_writes_what_single_steps_write(reading, prompt, kind):
    lm = tiny_lm().double()
    sequence, memory, mask = inputs()
    mask[1] &= reading != "a row of padding alone"
    text = {"nothing": (), "words": (memory.double(),)}.get(reading, (memory.double(), mask))
    plain, fast = lm.start(3, 9, *text), lm.start(3, 9, *text)
    fast.both.fill_(math.nan)  # memory that nobody has written may hold anything
    for cache in (plain, fast) if prompt else ():
        lm.step(sequence[..., :prompt], cache)
    decoder = kind(lm, fast)
    for s in range(prompt, 9):
        logits = lm.step(sequence[..., s : s + 1], plain)
        torch.testing.assert_close(decoder.step(sequence[..., s]), logits, atol=1e-9, rtol=1e-9)
    assert plain.length == fast.length == 9
    torch.testing.assert_close(fast.both, plain.both, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_decoder_runs_in_half_precision(dtype):
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    expected = lm(sequence[..., :1], memory, mask)[:, :, 0]
    half = lm.to(dtype)
    decoder = Decoder(half, half.start(3, 2, memory, mask))
    logits = decoder.step(sequence[..., 0])
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=0.2 * expected.std().item(), rtol=0)


@pytest.mark.parametrize("kind", [Decoder, FixedDecoder])
@torch.no_grad()
def test_guided_hidden_states_give_guided_logits(kind):
    lm = tiny_lm().double()
    sequence, memory, mask = inputs()
    plain, fast = (lm.start(6, 9, memory.double(), mask) for _ in range(2))
    decoder = kind(lm, fast, 2, partial(guide, scale=3.0))
    for s in range(9):
        cond, uncond = lm.step(sequence[..., s : s + 1].repeat(2, 1, 1), plain).chunk(2)
        torch.testing.assert_close(decoder.step(sequence[..., s]), guide(cond, uncond, 3.0), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", [Decoder, FixedDecoder])
@torch.no_grad()
def test_three_branches_in_one_batch_are_three_caches_apart(kind):
    lm = tiny_lm().double()
    sequence, memory, mask = inputs()
    both, style = memory.double(), torch.randn_like(memory).double()
    caches = [lm.start(3, 9, both, mask), lm.start(3, 9, style, mask), lm.start(3, 9)]
    joined = lm.start(9, 9, torch.cat([both, style]), mask.repeat(2, 1))
    decoder = kind(lm, joined, 3, partial(guide_two, scale=3.0, style_scale=6.0))
    for s in range(9):
        expected = guide_two(*(lm.step(sequence[..., s : s + 1], cache) for cache in caches), 3.0, 6.0)
        torch.testing.assert_close(decoder.step(sequence[..., s]), expected, atol=1e-8, rtol=1e-8)


@torch.no_grad()
def test_the_cache_stays_in_its_place_while_it_fills():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    cache = lm.start(3, 9, memory, mask)
    decoder, place = Decoder(lm, cache), cache.both.data_ptr()
    lm.step(sequence[..., :2], cache)
    before = cache.both[..., :2, :].clone()
    for s in range(2, 9):
        decoder.step(sequence[..., s])
    assert cache.both.data_ptr() == cache.keys.data_ptr() == place
    assert torch.equal(cache.both[..., :2, :], before)  # nor are the columns before it written again


def test_logits_are_the_heads_on_the_hidden_states():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    hidden = lm.hidden_states(sequence, memory, mask)
    assert hidden.shape == (3, 9, 32)
    expected = torch.stack([hidden @ head.weight.T for head in lm.heads], dim=1)
    torch.testing.assert_close(lm(sequence, memory, mask), expected)
    assert expected.shape == (3, 4, 9, 20)


def test_the_model_reads_the_special_token_first_and_never_the_last_column():
    sequence = torch.arange(8).view(1, 2, 4)
    assert shift_right(sequence, 9).tolist() == [[[9, 0, 1, 2], [9, 4, 5, 6]]]


def test_every_weight_learns_and_none_is_left_at_a_constant():
    lm = AudioLM(TINY)
    sequence, memory, mask = inputs()
    lm(sequence, memory, mask).square().sum().backward()
    for name, parameter in lm.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        assert parameter.ndim == 1 or parameter.std() > 0, name


def test_dropout_acts_in_training_only():
    lm = AudioLM(dataclasses.replace(TINY, dropout=0.5))
    sequence, memory, mask = inputs()
    assert not torch.equal(lm(sequence, memory, mask), lm(sequence, memory, mask))
    assert torch.equal(lm.eval()(sequence, memory, mask), lm(sequence, memory, mask))


def test_saved_and_loaded_it_gives_the_same_logits(tmp_path):
    lm = tiny_lm(dataclasses.replace(TINY, delays=(0, 0, 1, 5)))
    sequence, memory, mask = inputs()
    lm.save_pretrained(tmp_path / "full", dtype=torch.float32)
    lm.save_pretrained(tmp_path / "half")
    full, half = AudioLM.from_pretrained(tmp_path / "full"), AudioLM.from_pretrained(str(tmp_path / "half"))
    assert full.config == lm.config and not full.training
    assert torch.equal(full(sequence, memory, mask), lm(sequence, memory, mask))
    assert all(tensor.dtype == torch.float16 for tensor in load_file(tmp_path / "half" / "model.safetensors").values())
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
    rounded = {name: tensor.half().float() for name, tensor in lm.state_dict().items()}
    assert all(torch.equal(tensor, rounded[name]) for name, tensor in half.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "half").iterdir()) == ["config.json", "model.safetensors"]


def test_mini_means_the_best_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path)
    tiny_lm().save_pretrained(tmp_path / "lm" / BEST)
    assert AudioLM.from_pretrained("mini").config == TINY
    with pytest.raises(MinigenError, match="no lm weights named 'mini-other'"):
        AudioLM.from_pretrained("mini-other")


def test_a_checkpoint_that_does_not_fit_is_one_clear_error(tmp_path):
    tiny_lm().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())

    def error_with(tensors=tensors, **changes) -> str:
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(MinigenError) as caught:
            AudioLM.from_pretrained(tmp_path)
        return str(caught.value)

    assert "memory_projection.weight is [32, 24] in the file, [32, 99] in the model" in error_with(memory_width=99)
    assert "norm.bias is missing" in error_with({k: v for k, v in tensors.items() if k != "norm.bias"})
    assert "extra is [1] in the file, no such tensor" in error_with({**tensors, "extra": torch.zeros(1)})
    assert "unknown keys ['depth', 'size']" in error_with(size=1, depth=2)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(MinigenError, match=r"model.safetensors cannot be read"):
        AudioLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MinigenError, match="is not JSON"):
        AudioLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layers": 0}, "layers is 0"),
        ({"width": 2.5}, "width is 2.5"),
        ({"width": 33, "heads": 3}, "width 33 with 3 heads"),
        ({"heads": 5}, "width 256 with 5 heads"),
        ({"delays": (0, 1, 2)}, r"delays \(0, 1, 2\) for 4 codebooks"),
        ({"delays": (0, 1, 2, -1)}, "delays .*-1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(MinigenError, match=message):
        AudioLMConfig(**changes)


def test_what_does_not_fit_is_refused_at_the_entry():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    for wrong, message in [
        ((sequence[:, :3],), r"sequence is torch.int64 \[3, 3, 9\]. Give int64 \[B, 4, S\]"),
        ((sequence[0],), r"sequence is torch.int64 \[4, 9\]"),
        ((sequence.float(),), "sequence is torch.float32"),
        ((sequence[..., :0],), r"\[3, 4, 0\]"),
        ((sequence + 1,), "to 21. Give 0 to 19, or 20"),
        ((sequence - 1,), "codes run from -1"),
        ((sequence, memory[..., :7]), r"memory has shape \[3, 5, 7\]. Give \[B, N, 24\]"),
        ((sequence, memory[:2]), "3 sequences with the text of 2"),
        ((sequence, memory, mask.long()), "memory_mask is torch.int64"),
        ((sequence, memory, mask[:, :4]), r"memory_mask is torch.bool \[3, 4\]. Give bool \[3, 5\]"),
    ]:
        with pytest.raises(MinigenError, match=message):
            lm(*wrong)


def test_a_cache_takes_what_it_was_made_for():
    lm = tiny_lm()
    sequence, memory, mask = inputs()
    with pytest.raises(MinigenError, match="2 sequences with the text of 3"):
        lm.start(2, 4, memory, mask)
    cache = lm.start(3, 3, memory, mask)
    with pytest.raises(MinigenError, match="3 rows of 4 columns after 0 do not fit a cache of 3 rows, 3 steps"):
        lm.step(sequence[..., :4], cache)
    lm.step(sequence[..., :1], cache)
    for wrong in (sequence[..., 1:3], sequence[:2, :, 1:2]):
        with pytest.raises(MinigenError, match="do not fit a cache"):
            lm.step(wrong, cache)
