"""The compiled column against single steps of the model: logits, cache, greedy codes, and when it is taken."""

from functools import partial

import pytest
import torch

import minigen.decoding.torch_step as decoding
import minigen.generate as generate
from minigen.decoding.numba_step import NativeDecoder, exponential, gelu, multiply
from minigen.decoding.torch_step import Decoder, make_decoder
from minigen.guidance import guide, guide_two
from minigen.lm import AudioLM, AudioLMConfig

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SIZES = [
    {"codebook_size": 20, "width": 32, "layers": 2, "heads": 4, "ffn": 48, "memory_width": 24},
    {"codebook_size": 19, "width": 30, "layers": 2, "heads": 3, "ffn": 41, "memory_width": 7},  # nothing comes out even
    {"codebook_size": 5, "width": 4, "layers": 1, "heads": 1, "ffn": 2, "memory_width": 3},  # fewer than four heads
]


@pytest.fixture(params=SIZES, ids=["even", "odd", "small"])
def lm(request):
    """A model whose weights are large enough for every part to matter, and whose logits are of order 1."""
    torch.manual_seed(0)
    lm = AudioLM(AudioLMConfig(**request.param)).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return lm


def inputs(lm, batch: int = 3, steps: int = 9, words: int = 5):
    sequence = torch.randint(0, lm.config.codebook_size + 1, (batch, lm.config.num_codebooks, steps))
    mask = torch.arange(words) < torch.arange(words - batch + 1, words + 1)[:, None]
    return sequence, torch.randn(batch, words, lm.config.memory_width), mask


@pytest.mark.parametrize("prompt", [0, 3])
@pytest.mark.parametrize("reading", ["nothing", "words", "words and padding", "a row of padding alone"])
@torch.no_grad()
def test_it_writes_what_single_steps_write(lm, reading, prompt):
    sequence, memory, mask = inputs(lm)
    mask[1] &= reading != "a row of padding alone"
    text = {"nothing": (), "words": (memory,)}.get(reading, (memory, mask))
    plain, fast = lm.start(3, 9, *text), lm.start(3, 9, *text)
    decoder, place = NativeDecoder(lm, fast), fast.both.data_ptr()
    for cache in (plain, fast) if prompt else ():
        lm.step(sequence[..., :prompt], cache)
    for s in range(prompt, 9):
        logits = lm.step(sequence[..., s : s + 1], plain)
        torch.testing.assert_close(decoder.step(sequence[..., s]), logits, **CLOSE)
    assert plain.length == fast.length == 9 and fast.both.data_ptr() == place
    torch.testing.assert_close(fast.both, plain.both, **CLOSE)


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_it_guides_as_guided_logits(lm, batch):
    sequence, memory, mask = inputs(lm, batch)
    plain, fast = (lm.start(2 * batch, 9, memory, mask) for _ in range(2))
    decoder = NativeDecoder(lm, fast, 2, partial(guide, scale=3.0))
    for s in range(9):
        cond, uncond = lm.step(sequence[..., s : s + 1].repeat(2, 1, 1), plain).chunk(2)
        torch.testing.assert_close(decoder.step(sequence[..., s]), guide(cond, uncond, 3.0), **CLOSE)
    torch.testing.assert_close(fast.both, plain.both, **CLOSE)


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_three_branches_are_three_caches_apart(lm, batch):
    sequence, both, mask = inputs(lm, batch)
    style = torch.randn_like(both)
    caches = [lm.start(batch, 9, both, mask), lm.start(batch, 9, style, mask), lm.start(batch, 9)]
    joined = lm.start(3 * batch, 9, torch.cat([both, style]), mask.repeat(2, 1))
    decoder = NativeDecoder(lm, joined, 3, partial(guide_two, scale=3.0, style_scale=2.0))
    for s in range(9):
        expected = guide_two(*(lm.step(sequence[..., s : s + 1], cache) for cache in caches), 3.0, 2.0)
        torch.testing.assert_close(decoder.step(sequence[..., s]), expected, **CLOSE)


@torch.no_grad()
def test_the_logits_of_a_step_stay_as_they_are(lm):
    sequence, _, _ = inputs(lm, 1)
    decoder = NativeDecoder(lm, lm.start(1, 9))
    first = decoder.step(sequence[..., 0])
    kept = first.clone()
    decoder.step(sequence[..., 1])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("prompted", [False, True])
def test_greedy_codes_are_those_of_the_plain_decoder(lm, monkeypatch, guidance, prompted):
    _, memory, mask = inputs(lm)
    prompt = torch.randint(0, lm.config.codebook_size, (3, 4, 4)) if prompted else None
    made = []
    for kind in (Decoder, NativeDecoder):
        monkeypatch.setattr(decoding, "make_decoder", kind)
        made.append(generate.generate_codes(lm, memory, mask, 20, guidance, temperature=0, prompt=prompt))
    assert torch.equal(*made)


def test_it_is_taken_once_enough_columns_were_asked_for(lm, monkeypatch):
    monkeypatch.setattr(decoding, "LOAD", 20)
    monkeypatch.setattr(decoding, "COMPILE", 20)
    monkeypatch.setattr(decoding, "_asked_for", 0)
    monkeypatch.delitem(decoding.sys.modules, "minigen.decoding.numba_step")
    assert type(make_decoder(lm, lm.start(1, 9))) is Decoder
    assert type(make_decoder(lm.double(), lm.start(1, 90))) is Decoder
    lm.float()
    assert type(make_decoder(lm, lm.start(1, 9))) is Decoder
    assert type(make_decoder(lm, lm.start(1, 9))).__name__ == "NativeDecoder"
    assert type(make_decoder(lm, lm.start(1, 1))).__name__ == "NativeDecoder"


def test_what_an_earlier_process_compiled_is_found(lm, monkeypatch):
    sequence, _, _ = inputs(lm, 1)
    NativeDecoder(lm, lm.start(1, 9)).step(sequence[..., 0])  # compiles, and keeps the result on disk
    monkeypatch.setattr(decoding, "LOAD", 20)
    monkeypatch.setattr(decoding, "COMPILE", 10**9)
    monkeypatch.setattr(decoding, "_asked_for", 0)
    monkeypatch.delitem(decoding.sys.modules, "minigen.decoding.numba_step")
    assert [decoding._loading_pays(19), decoding._loading_pays(1)] == [False, True]


def test_it_is_not_taken_without_numba(lm, monkeypatch):
    monkeypatch.delitem(decoding.sys.modules, "minigen.decoding.numba_step")
    monkeypatch.setitem(decoding.sys.modules, "numba", None)
    assert type(make_decoder(lm, lm.start(1, 5000))) is Decoder


def test_it_is_not_taken_where_what_is_compiled_cannot_be_kept(lm, monkeypatch):
    def no_place(*_, **__):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.delitem(decoding.sys.modules, "minigen.decoding.numba_step")
    monkeypatch.setattr("numba.njit", no_place)
    assert type(make_decoder(lm, lm.start(1, 5000))) is Decoder


@pytest.mark.parametrize("rows, inputs, outputs", [(1, 1, 1), (2, 3, 5), (3, 100, 6), (16, 64, 33)])
def test_a_product_is_that_of_pytorch(rows, inputs, outputs):
    x, weight, out = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.empty(rows, outputs)
    multiply(x.numpy(), weight.numpy(), out.numpy())
    torch.testing.assert_close(out, x @ weight.T, **CLOSE)


def test_gelu_and_the_exponential_are_close_to_the_exact_ones():
    x = torch.linspace(-12, 12, 10001)[None]
    exact, ours = torch.nn.functional.gelu(x.double()), x.clone()
    gelu(ours.numpy())
    assert (ours - exact).abs().max() < 1e-6
    for value in torch.linspace(-80, 0, 500):
        assert exponential(value.numpy()[()]) == pytest.approx(value.double().exp().item(), rel=4e-6)
