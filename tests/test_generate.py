"""Sampling against naive loops and transformers, generation against an uncached loop, and the pipeline's promises."""

import json
import zlib
from functools import partial

import numpy as np
import pytest
import torch

from minigen.decoding.numba_step import NativeDecoder
from minigen.decoding.torch_step import Decoder, FixedDecoder
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio, generate_codes, generate_guided, keep_top_k, keep_top_p, sample
from minigen.guidance import Condition, guide, guide_two, style_branches, text_branches
from minigen.lm import BEST, AudioLM, AudioLMConfig
from minigen.patterns import DelayPattern

TINY = AudioLMConfig(codebook_size=20, width=32, layers=2, heads=4, ffn=48, memory_width=24)


@pytest.fixture
def lm() -> AudioLM:
    lm = AudioLM(TINY).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm


def texts(batch: int = 3, words: int = 5):
    mask = torch.arange(words) < torch.arange(words - batch + 1, words + 1)[:, None]
    return torch.randn(batch, words, TINY.memory_width), mask


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


# Sampling


def test_top_k_keeps_the_k_most_likely_as_a_loop_and_as_transformers_do():
    from transformers import TopKLogitsWarper

    logits = torch.randn(6, 30)
    kept = keep_top_k(logits.softmax(-1), 7)
    expected = TopKLogitsWarper(7)(None, logits).softmax(-1)
    torch.testing.assert_close(kept, expected)
    for row, probs in zip(kept, logits.softmax(-1), strict=True):
        best = sorted(range(30), key=lambda code, probs=probs: -probs[code])[:7]
        assert sorted(row.nonzero().flatten().tolist()) == sorted(best)
    torch.testing.assert_close(keep_top_k(logits.softmax(-1), 99), logits.softmax(-1))  # more than there are: all


def test_top_k_keeps_all_that_are_as_likely_as_the_last_one():
    probs = torch.tensor([0.3, 0.2, 0.2, 0.2, 0.1])
    assert (keep_top_k(probs, 2) > 0).tolist() == [True, True, True, True, False]


def test_the_smallest_nucleus_and_the_lowest_temperature_are_the_most_likely_code():
    logits = torch.randn(50, 30)
    assert torch.equal(sample(logits, temperature=1e-320, generator=seed(1)), logits.argmax(-1))
    assert torch.equal(sample(logits, top_p=1e-320, generator=seed(1)), logits.argmax(-1))


def test_a_single_row_and_whole_numbers_of_numpy_will_do(lm):
    logits = torch.randn(30)
    assert sample(logits, top_k=np.int64(1), generator=seed(1)) == logits.argmax()
    assert generate_codes(lm, frames=np.int64(3), generator=seed(1)).shape == (1, 4, 3)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 1.0])
def test_top_p_keeps_the_nucleus_as_a_loop_and_as_transformers_do(p):
    from transformers import TopPLogitsWarper

    logits = 3 * torch.randn(6, 30)
    kept = keep_top_p(logits.softmax(-1), p)
    torch.testing.assert_close(kept, TopPLogitsWarper(p)(None, logits).softmax(-1))
    for row, probs in zip(kept, logits.softmax(-1).tolist(), strict=True):
        nucleus, total = [], 0.0
        for code in sorted(range(30), key=lambda code, probs=probs: -probs[code]):
            if total >= p:
                break
            nucleus.append(code)
            total += probs[code]
        assert sorted(row.nonzero().flatten().tolist()) == sorted(nucleus)


def test_codes_are_drawn_as_often_as_the_softmax_of_the_heated_logits_says():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    drawn = sample(logits.expand(200, 100, 4), temperature=2.0, top_k=0, generator=seed(1))
    assert drawn.shape == (200, 100)
    often = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    torch.testing.assert_close(often, (logits / 2).softmax(-1), atol=0.015, rtol=0)


def test_temperature_zero_is_greedy_and_so_are_the_narrowest_choices():
    logits = torch.randn(2, 4, 20)
    for options in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert torch.equal(sample(logits, **options), logits.argmax(-1))


def test_top_p_rules_over_top_k_and_zero_switches_both_off():
    logits = torch.zeros(2000, 20)
    logits[:, 3] = 9.0
    assert set(sample(logits, top_k=20, top_p=0.5, generator=seed(1)).tolist()) == {3}
    assert len(set(sample(logits / 9, top_k=0, top_p=0.0, generator=seed(1)).tolist())) == 20
    assert len(set(sample(torch.randn(20).expand(2000, 20), top_k=5, generator=seed(1)).tolist())) == 5


# Codes


def branches_apart(lm, texts, combine, frames, generator, prompt=None, **options):
    """Generation as plainly as can be: the whole sequence again at every step, one branch after the other.

    texts: (memory, mask) of each branch, () for one without.
    """
    special, delays, rows = TINY.codebook_size, TINY.delays, len(texts[0][0])
    sequence = torch.full((rows, 4, frames + max(delays) + 1), special)  # a column of V, then the delayed codes
    known = 0 if prompt is None else prompt.shape[-1]
    for s in range(known, frames + max(delays)):
        for k in range(4):
            for t in range(known):
                sequence[:, k, 1 + t + delays[k]] = prompt[:, k, t]
        logits = combine(*(lm(sequence[..., : s + 1], *text)[:, :, -1] for text in texts))
        drawn = sample(logits, generator=generator, **options)
        for k in range(4):
            if known <= s - delays[k] < frames:
                sequence[:, k, s + 1] = drawn[:, k]
    return torch.stack([sequence[:, k, 1 + d : 1 + d + frames] for k, d in enumerate(delays)], dim=1)


def without_cache(lm, memory, mask, frames, guidance, generator, prompt=None, **options):
    """Two branches apart: the text, and nothing."""
    combine = partial(guide, scale=guidance)
    return branches_apart(lm, [(memory, mask), ()], combine, frames, generator, prompt, **options)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 9}, {"top_p": 0.9}])
@torch.no_grad()
def test_the_cache_and_the_joint_batch_give_the_tokens_of_a_plain_loop(lm, guidance, options):
    memory, mask = texts()
    codes = generate_codes(lm, memory, mask, 7, guidance, generator=seed(5), **options)
    assert codes.shape == (3, 4, 7) and codes.dtype == torch.int64
    assert torch.equal(codes, without_cache(lm, memory, mask, 7, guidance, seed(5), **options))


def text_and_style(apart: bool):
    """Conditions [both, style]: the style's states alone, or those of both with the text masked."""
    memory, mask = texts()
    style = torch.randn(3, 2, TINY.memory_width)
    states = torch.cat([memory, style], dim=1)  # [B, 5 + 2, M]
    both = Condition(states, torch.cat([mask, torch.ones(3, 2, dtype=torch.bool)], dim=1))
    if apart:
        return both, Condition(style)
    return both, Condition(states, torch.cat([torch.zeros_like(mask), both.memory_mask[:, 5:]], dim=1))


@pytest.mark.parametrize("kind", [Decoder, FixedDecoder, NativeDecoder])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 9}])
@pytest.mark.parametrize("apart", [True, False], ids=["style apart", "text masked"])
@pytest.mark.parametrize("length", [0, 3])
@torch.no_grad()
def test_guidance_by_text_and_style_gives_the_tokens_of_three_branches_apart(
    lm, monkeypatch, kind, options, apart, length
):
    monkeypatch.setattr("minigen.decoding.torch_step.make_decoder", kind)
    both, style = text_and_style(apart)
    prompt = torch.randint(0, 20, (3, 4, length))
    found = generate_guided(
        lm, style_branches(both, style, 3.0, 2.0), 3, 8, prompt=prompt, generator=seed(5), **options
    )
    read = [(text.memory, text.memory_mask) for text in (both, style)]
    combine = partial(guide_two, scale=3.0, style_scale=2.0)
    assert torch.equal(found, branches_apart(lm, [*read, ()], combine, 8, seed(5), prompt, **options))
    plain = generate_codes(lm, *read[0], 8, 3.0, prompt=prompt, generator=seed(5), **options)
    assert not torch.equal(found, plain)  # the style scale matters


@torch.no_grad()
def test_three_branches_share_a_batch_in_which_the_last_one_reads_nothing(lm, monkeypatch):
    caches, start = [], lm.start
    monkeypatch.setattr(lm, "start", lambda *inputs: caches.append(start(*inputs)) or caches[0])
    generate_guided(lm, style_branches(*text_and_style(True)), 3, 2)
    assert caches[0].rows == 9 and len(caches[0].text[0][0]) == 6


def test_conditions_of_another_batch_are_refused_and_the_mode_is_left_as_it_was(lm):
    with pytest.raises(MinigenError, match="memories of 3 clips for a batch of 2"):
        generate_guided(lm.train(), text_branches(Condition(*texts())), 2)
    with pytest.raises(MinigenError, match="memory has shape"):
        generate_guided(lm, text_branches(Condition(torch.randn(3, 5, 9))), 3)
    assert lm.training


@pytest.mark.parametrize("length", [1, 3, 6])
@torch.no_grad()
def test_a_prompt_is_kept_and_gone_on_from_as_in_a_plain_loop(lm, length):
    memory, mask = texts()
    prompt = torch.randint(0, 20, (3, 4, length))
    codes = generate_codes(lm, memory, mask, 7, prompt=prompt, generator=seed(5))
    assert torch.equal(codes[..., :length], prompt)
    assert torch.equal(codes, without_cache(lm, memory, mask, 7, 3.0, seed(5), prompt))
    one_for_all = generate_codes(lm, memory, mask, 7, prompt=prompt[:1], generator=seed(5))
    assert torch.equal(one_for_all[..., :length], prompt[:1].expand(3, -1, -1))


@pytest.mark.parametrize("length", [0, 3])
def test_a_decoder_whose_steps_are_fixed_goes_on_from_a_prompt_as_any_other(lm, monkeypatch, length):
    memory, mask = texts()
    prompt, made = torch.randint(0, 20, (3, 4, length)), []
    for kind in (FixedDecoder, Decoder):
        monkeypatch.setattr("minigen.decoding.torch_step.make_decoder", kind)
        made.append(generate_codes(lm, memory, mask, 9, temperature=0, prompt=prompt))
    assert torch.equal(*made)


def test_going_on_from_its_own_beginning_gives_the_same_clip(lm):
    memory, mask = texts()
    whole = generate_codes(lm, memory, mask, 9, temperature=0)
    assert torch.equal(generate_codes(lm, memory, mask, 9, temperature=0, prompt=whole[..., :4]), whole)


def test_guidance_of_zero_is_the_model_without_text_and_of_one_the_conditional_model(lm):
    memory, mask = texts()
    make = {"frames": 7, "temperature": 0.0}
    plain = generate_codes(lm, **make)
    assert plain.shape == (1, 4, 7)
    assert torch.equal(generate_codes(lm, memory, mask, guidance=0, **make), plain.expand(3, -1, -1))
    conditional = generate_codes(lm, memory, mask, guidance=1, **make)
    assert torch.equal(conditional, generate_codes(lm, memory, mask, guidance=1 + 1e-9, **make))  # by two branches
    assert not torch.equal(conditional, generate_codes(lm, memory, mask, guidance=3, **make))


@pytest.mark.parametrize("guidance, rows, reading", [(0, 3, 0), (1, 3, 3), (3, 6, 3)])
def test_only_the_branches_that_count_are_run(lm, monkeypatch, guidance, rows, reading):
    caches, start = [], lm.start
    monkeypatch.setattr(lm, "start", lambda *inputs: caches.append(start(*inputs)) or caches[0])
    generate_codes(lm, *texts(), frames=2, guidance=guidance)
    assert caches[0].rows == rows
    assert (len(caches[0].text[0][0]) if caches[0].text else 0) == reading


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_makes_what_each_caption_makes_alone(lm, guidance):
    memory, mask = texts()
    together = generate_codes(lm, memory, mask, 12, guidance, temperature=0)
    for row in range(3):
        one = slice(row, row + 1)
        words = mask[row].sum()
        alone = generate_codes(lm, memory[one, :words], mask[one, :words], 12, guidance, temperature=0)
        assert torch.equal(together[one], alone)


def test_the_same_seed_draws_the_same_codes_and_another_draws_others(lm):
    first, again, other = (generate_codes(lm, frames=9, generator=seed(number)) for number in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_special_token_is_never_drawn_whatever_the_delays():
    for delays in ((0, 1, 2, 3), (0, 0, 0, 0), (2, 0, 5, 1)):
        lm = AudioLM(AudioLMConfig(codebook_size=3, width=8, layers=1, heads=1, ffn=8, memory_width=4, delays=delays))
        codes = generate_codes(lm, frames=40, prompt=torch.ones(2, 4, 2, dtype=torch.int64), generator=seed(1))
        assert codes.shape == (2, 4, 40)
        assert codes.min() == 0 and codes.max() == 2
        assert (DelayPattern(delays).apply(codes, fill=9) != 9).sum() == codes.numel()


def test_dropout_is_off_while_generating_and_the_mode_is_left_as_it_was():
    lm = AudioLM(AudioLMConfig(codebook_size=20, width=8, layers=1, heads=1, ffn=8, memory_width=4, dropout=0.9))
    first, again = (generate_codes(lm, frames=9, generator=seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert lm.training and not generate_codes(lm.eval(), frames=1).requires_grad and not lm.training


def test_progress_goes_to_the_error_stream_only_when_asked(lm, capsys):
    generate_codes(lm, frames=2)
    assert capsys.readouterr() == ("", "")
    generate_codes(lm, frames=2, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "5/5" in err


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"guidance": 1e38}, r"at least -1,000,000 and at most 1,000,000"),
        ({"guidance": None}, "guidance is None"),
        ({"top_k": None}, "top_k is None"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"frames": 2.5}, "frames is 2.5"),
        ({"prompt": np.zeros((1, 4, 2), np.int64)}, r"prompt is a ndarray. Give a tensor: torch.as_tensor\(prompt\)"),
        ({"memory": torch.zeros(0, 3, 24)}, "no texts"),
        ({"frames": 0}, "frames is 0"),
        ({"prompt": torch.zeros(1, 4, 7, dtype=torch.int64)}, r"\[1, 4, 7\]. Give \[1, 4, P\], P below the 7 frames"),
        ({"prompt": torch.zeros(1, 3, 2, dtype=torch.int64)}, r"prompt has shape \[1, 3, 2\]"),
        ({"prompt": torch.full((1, 4, 2), 20)}, "prompt has codes from 20 to 20. Give 0 to 19"),
        ({"memory": torch.zeros(2, 3, 24), "prompt": torch.zeros(3, 4, 2, dtype=torch.int64)}, r"Give \[2, 4, P\]"),
        ({"memory": torch.zeros(2, 3, 9)}, r"memory has shape \[2, 3, 9\]"),
    ],
)
def test_what_cannot_be_generated_is_refused(lm, options, message):
    with pytest.raises(MinigenError, match=message):
        generate_codes(lm, **{"frames": 7, **options})
    assert not lm.training


# The pipeline, with a codec whose codes can be read off the waveform


class PlainCodec:
    """Four codes of 0 ... 19 a frame, written as the first four of its 16 samples."""

    sample_rate, frame_rate, num_codebooks, codebook_size = 800, 50, 4, 20

    def encode(self, wav):
        return (wav[:, 0].unflatten(-1, (-1, 16))[..., :4] * 20).round().long().transpose(1, 2)

    def decode(self, codes):
        frames = torch.zeros(len(codes), codes.shape[-1], 16)
        frames[..., :4] = codes.transpose(1, 2) / 20
        return frames.flatten(1)[:, None]


class PlainEncoder:
    """A fixed vector for each word."""

    width = 24

    def __call__(self, captions):
        words = [caption.split() for caption in captions]
        longest = max(map(len, words))
        vectors = [[torch.randn(24, generator=seed(zlib.crc32(word.encode()))) for word in row] for row in words]
        states = torch.stack([torch.stack(row + [torch.zeros(24)] * (longest - len(row))) for row in vectors])
        return states, torch.arange(longest) < torch.tensor([len(row) for row in words])[:, None]


@pytest.fixture
def pipeline(lm) -> TextToAudio:
    return TextToAudio(PlainCodec(), PlainEncoder(), lm)


CAPTIONS = ["a dog barks twice", "rain", "a siren wails"]


def test_captions_become_sound_of_the_asked_length(pipeline):
    wav = pipeline.generate(CAPTIONS, seconds=0.2, seed=1)
    assert wav.shape == (3, 1, 160) and wav.dtype == torch.float32
    assert torch.equal(wav, pipeline.generate(CAPTIONS, seconds=0.2, seed=1))
    assert not torch.equal(wav, pipeline.generate(CAPTIONS, seconds=0.2, seed=2))
    assert pipeline.generate("rain", seconds=0.211).shape == (1, 1, 11 * 16)  # to the nearest frame
    assert pipeline.generate("rain", seconds=0.001).shape == (1, 1, 16)


def test_the_pipeline_is_the_encoder_the_codes_and_the_codec_in_a_row(pipeline):
    states, mask = pipeline.encoder(CAPTIONS)
    codes = generate_codes(pipeline.lm, states, mask, 10, 2.0, 0.9, 5, 0.0, generator=seed(3))
    wav = pipeline.generate(CAPTIONS, seconds=0.2, guidance=2.0, temperature=0.9, top_k=5, seed=3)
    assert torch.equal(pipeline.codec.encode(wav), codes)


def test_greedy_captions_sound_the_same_alone_and_in_company(pipeline):
    together = pipeline.generate(CAPTIONS, seconds=0.2, temperature=0)
    alone = [pipeline.generate(caption, seconds=0.2, temperature=0) for caption in CAPTIONS]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[1])


def test_a_waveform_prompt_begins_the_answer(pipeline):
    prompt = PlainCodec().decode(torch.randint(0, 20, (1, 4, 3)))
    wav = pipeline.generate(CAPTIONS, seconds=0.2, prompt=prompt)
    assert torch.equal(wav[..., :48], prompt.expand(3, -1, -1))
    longer = torch.cat([prompt, torch.ones(1, 1, 9)], dim=-1)  # a started frame is left out
    assert torch.equal(pipeline.generate("rain", seconds=0.2, prompt=longer)[..., :48], prompt)


@pytest.mark.parametrize(
    "captions, options, message",
    [
        ("", {}, r"captions are \[''\]"),
        ([], {}, r"captions are \[\]"),
        (["rain", "  "], {}, "each with at least a word"),
        ("rain", {"seconds": 0}, "seconds is 0. Give a number above 0 and at most 30"),
        ("rain", {"seconds": 31}, "seconds is 31"),
        ("rain", {"seconds": float("nan")}, "seconds is nan"),
        ("rain", {"seconds": "4"}, "seconds is '4'"),
        ("rain", {"seed": 2**64}, "seed is 18446744073709551616"),
        ("rain", {"seed": 3.7}, "seed is 3.7. Give a whole number"),
        ("rain", {"guidance": None}, "guidance is None"),
        ("rain", {"prompt": [[[0.0] * 100]]}, "prompt is a list. Give a tensor"),
        ("rain", {"temperature": -1}, "temperature is -1"),
        ("rain", {"prompt": torch.zeros(1, 1, 160)}, "lasts 0.2 s. Give at least 0.02 s, less than the clip's 0.2 s"),
        ("rain", {"prompt": torch.zeros(1, 1, 15)}, "prompt lasts 0.01875 s"),
        ("rain", {"prompt": torch.zeros(160)}, r"prompt has shape \[160\]"),
        (["rain"] * 3, {"prompt": torch.zeros(2, 1, 32)}, r"prompt has shape \[2, 4, 2\]"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(pipeline, captions, options, message):
    with pytest.raises(MinigenError, match=message):
        pipeline.generate(captions, **{"seconds": 0.2, **options})


def test_parts_that_do_not_belong_together_are_refused(lm):
    codec, encoder = PlainCodec(), PlainEncoder()
    codec.codebook_size = 1024
    with pytest.raises(MinigenError, match=r"entries in a codebook \(codec\): 1024, .* made for 20"):
        TextToAudio(codec, encoder, lm)
    encoder.width = 768
    with pytest.raises(MinigenError, match=r"width of the text states \(encoder\): 768, .* made for 24"):
        TextToAudio(PlainCodec(), encoder, lm)


def test_a_folder_names_its_codec_and_its_text_encoder(lm, tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.generate.load_codec", {"a codec": PlainCodec()}.get)
    monkeypatch.setattr("minigen.generate.load_text_encoder", {"a text": PlainEncoder()}.get)
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path)
    folder = tmp_path / "lm" / BEST
    lm.save_pretrained(folder, dtype=torch.float32)
    with pytest.raises(MinigenError, match="pipeline.json does not name"):
        TextToAudio.from_pretrained(folder)
    (folder / "pipeline.json").write_text(json.dumps({"codec": "a codec", "text": "a text"}))
    expected = TextToAudio(PlainCodec(), PlainEncoder(), lm).generate(CAPTIONS, seconds=0.1, seed=1)
    for name in ("mini", BEST, folder):
        assert torch.equal(TextToAudio.from_pretrained(name).generate(CAPTIONS, seconds=0.1, seed=1), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r" \(No such file or directory\)"), (b"{", r" \(not JSON\)"), (b"\xff\xfe", r" \(not JSON\)"),
        (b"null", ""), (b"[]", ""), (b"{}", ""), (b'{"codec": "a codec"}', ""), (b'{"codec": 3, "text": "a text"}', ""),
        (b'{"codec": "a codec", "text": ["a text"]}', ""),
    ],
)  # fmt: skip
def test_a_broken_pipeline_file_is_one_line_in_plain_words(lm, tmp_path, content, reason):
    lm.save_pretrained(tmp_path)
    if content is not None:
        (tmp_path / "pipeline.json").write_bytes(content)
    with pytest.raises(MinigenError, match=rf"pipeline.json does not name the codec and the text encoder{reason}\. W"):
        TextToAudio.from_pretrained(tmp_path)
