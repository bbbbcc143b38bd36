"""Retrieval: nearest clips beside a plain loop, the memory's file, and the excerpt that is taken."""

import math

import numpy as np
import pytest
import torch
from standins import BandJudge, tiny_codec
from torch.nn.functional import normalize

from minigen.conditioning.retrieval import ClipMemory, loudest, retrieve_styles, shared_words
from minigen.corpus.tokens import TokenSet
from minigen.engine.errors import MinigenError

CAPTIONS = ["a dog barks", "rain falls", "an engine runs", "a siren wails", "rain on a roof"]


@pytest.fixture
def tokens() -> TokenSet:
    codes = np.random.default_rng(0).integers(16, size=(5, 2, 60)).astype(np.int16)
    return TokenSet(codes, CAPTIONS, [()] * 5, [[]] * 5, 50.0, 16)


def memory(clips: int = 9, width: int = 4) -> ClipMemory:
    return ClipMemory(normalize(torch.randn(clips, width), dim=1), normalize(torch.randn(clips, width), dim=1))


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("by", ["texts", "sounds"])
def test_the_nearest_clips_are_those_of_a_plain_loop(k, by):
    kept, queries = memory(), normalize(torch.randn(5, 4), dim=1)
    rows, similarities = kept.nearest(queries, k, by)
    for b, query in enumerate(queries):
        scores = [float(query @ vector) for vector in getattr(kept, by)]
        assert rows[b].tolist() == sorted(range(9), key=lambda i, scores=scores: -scores[i])[:k]
        assert similarities[b].tolist() == pytest.approx(sorted(scores, reverse=True)[:k], abs=1e-6)


@torch.no_grad()
def test_the_memory_holds_the_judges_vectors_of_every_clip_and_caption(tokens, tmp_path):
    codec, judge = tiny_codec(), BandJudge()
    kept = ClipMemory.build(tokens, codec, judge, progress=False)
    torch.testing.assert_close(kept.sounds, judge.embed_audio(codec.decode(tokens.batch(range(5))[0])))
    assert torch.equal(kept.texts, judge.embed_text(CAPTIONS))
    kept.save(tmp_path / "memory.safetensors")
    again = ClipMemory.load(tmp_path / "memory.safetensors")
    assert torch.equal(again.sounds, kept.sounds) and torch.equal(again.texts, kept.texts)


@torch.no_grad()
def test_a_caption_finds_the_sound_of_a_caption_like_it(tokens):
    codec, judge = tiny_codec(), BandJudge()
    kept = ClipMemory(torch.zeros(5, 4), judge.embed_text(CAPTIONS))
    found = retrieve_styles(["a siren in the distance", "a dog"], kept, tokens, codec, judge)
    expected = loudest(codec.decode(tokens.batch([3, 0])[0]), 16000)
    assert torch.equal(found, expected)
    second = retrieve_styles(["rain"], kept, tokens, codec, judge, k=2)
    assert any(torch.equal(second, loudest(codec.decode(tokens.batch([row])[0]), 16000)) for row in (1, 4))


def test_shared_words_weigh_by_rarity():
    captions = ["a dog barks", "a dog and a cat", "a zither", "rain"]
    (row,) = shared_words(["A zither and an unheard kazoo"], captions).tolist()
    rarity = {"a": math.log(5 / 3), "zither": math.log(5), "and": math.log(5)}  # "an", "unheard", "kazoo" are nowhere
    shares = [rarity["a"], rarity["a"] + rarity["and"], rarity["a"] + rarity["zither"], 0]
    assert row == pytest.approx([share / sum(rarity.values()) for share in shares])
    assert shared_words(["kazoo"], captions).tolist() == [[0, 0, 0, 0]]


class Deaf:
    """A judge that hears no difference between captions."""

    def embed_text(self, captions):
        return torch.ones(len(captions), 1)


@torch.no_grad()
def test_a_word_that_the_judge_has_never_read_is_found(tokens):
    codec, kept = tiny_codec(), ClipMemory(torch.zeros(5, 1), torch.ones(5, 1))
    found = retrieve_styles(["somewhere a siren"], kept, tokens, codec, Deaf())
    assert torch.equal(found, loudest(codec.decode(tokens.batch([3])[0]), 16000))


def test_the_excerpt_is_the_loudest_part():
    wav = torch.zeros(2, 1, 1000)
    wav[0, 0, 400:500] = 0.5
    wav[1, 0, 130:140] = -0.9
    found = loudest(wav, 100, seconds=1.0)
    assert found.shape == (2, 1, 100)
    assert torch.equal(found[0], wav[0, :, 400:500]) and (found[1] == -0.9).sum() == 10
    assert torch.equal(loudest(wav[..., :90], 100, seconds=1.0), wav[..., :90])


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda tokens: memory().nearest(torch.ones(1, 4), 0), "k is 0 for a memory of 9 clips"),
        (lambda tokens: memory().nearest(torch.ones(1, 4), 10), "k is 10"),
        (lambda tokens: memory().nearest(torch.ones(1, 4), by="ear"), "by is 'ear'"),
        (lambda tokens: memory().nearest(torch.ones(1, 3)), r"queries are \[1, 3\]. Give \[B, 4\]"),
        (lambda tokens: retrieve_styles(["rain"], memory(), tokens, None, None), "a memory of 9 clips for 5"),
        (lambda tokens: retrieve_styles(["rain"], memory(5), tokens, None, None, 6), "k is 6 for 5 clips"),
        (lambda tokens: ClipMemory.load("nowhere.safetensors"), "nowhere.safetensors holds no memory"),
    ],
)
def test_what_cannot_be_retrieved_is_one_clear_line(tokens, ask, message):
    with pytest.raises(MinigenError, match=message) as caught:
        ask(tokens)
    assert "\n" not in str(caught.value)
