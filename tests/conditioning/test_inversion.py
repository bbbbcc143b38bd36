"""Textual inversion: the word beside plain captions, what does not change, files, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

import minigen.conditioning.inversion as inversion
from minigen.conditioning.inversion import (
    EncoderWithWords,
    LearntWord,
    clip_loss,
    describing_captions,
    first_vectors,
    held_out_frames,
    identity,
    invert,
    likeliest_caption,
    load_words,
    plain_captions,
    rank_captions,
)
from minigen.corpus.synthesis.captions import PHRASES
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import cross_entropy
from minigen.patterns import DelayPattern
from minigen.text import load_text_encoder

SIZES = AudioLMConfig(2, 16, width=16, layers=1, heads=2, ffn=24, memory_width=256, delays=(0, 1))
CAPTIONS = ["<x>", "<x> while rain falls", "rain falls, then <x> and <x>", "a dog barks"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("mini")


@pytest.fixture(scope="module")
def lm() -> AudioLM:
    torch.manual_seed(0)
    made = AudioLM(SIZES).eval()
    for parameter in made.parameters():  # larger than a training starts with: the text has an effect
        parameter.data.mul_(4) if parameter.ndim == 2 else None
    return made


CODES = torch.randint(0, 4, (1, 2, 60), generator=torch.Generator().manual_seed(2))


def word(vectors, space="word", name="<x>", models="none") -> LearntWord:
    return LearntWord(name, vectors, space, "a dog barks", models, (3.0, 2.0))


def learn(lm, encoder, **options) -> LearntWord:
    return invert(lm, encoder, CODES, "<x>", **{"like": "a dog barks", "steps": 12, "progress": False, **options})


# the encoder with words


def test_captions_without_learnt_words_have_the_states_of_the_plain_encoder_bit_for_bit(encoder):
    both = EncoderWithWords(encoder, [word(torch.randn(2, 256))])
    captions = ["a dog barks", "rain falls on a roof < x > while a bell rings"]
    for ours, theirs in zip(both(captions), encoder(captions), strict=True):
        assert torch.equal(ours, theirs)


def test_a_word_of_the_embeddings_of_a_caption_is_that_caption_anywhere(encoder):
    same = EncoderWithWords(encoder, [word(first_vectors(encoder, "a dog barks", "word"))])
    states, mask = same(CAPTIONS)
    expected, expected_mask = encoder([caption.replace("<x>", "a dog barks") for caption in CAPTIONS])
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


def test_a_word_of_the_memory_is_appended_to_the_states_of_the_caption(encoder):
    vectors = torch.randn(3, 256)
    states, mask = EncoderWithWords(encoder, [word(vectors, "memory")])(["rain falls <x>", "rain falls"])
    plain = encoder(["rain falls"])[0][0]
    torch.testing.assert_close(states[0], torch.cat([plain, vectors]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[1, : len(plain)], plain, atol=1e-5, rtol=1e-5)
    assert mask.sum(1).tolist() == [len(plain) + 3, len(plain)] and not states[1, len(plain) :].any()


def test_several_words_stand_side_by_side(encoder):
    first, second = (first_vectors(encoder, caption, "word") for caption in ("a dog", "rain"))
    both = EncoderWithWords(encoder, [word(first), word(second, name="<my-rain>")])
    torch.testing.assert_close(both(["<x> and <my-rain>"])[0], encoder(["a dog and rain"])[0], atol=1e-5, rtol=1e-5)
    assert both.tokens("<x> and <my-rain>").count("<my-rain>") == 1


def test_the_gradient_reaches_the_vectors_through_the_frozen_encoder(encoder):
    vectors = first_vectors(encoder, "a dog", "word").requires_grad_(True)
    plain = EncoderWithWords(encoder, [word(vectors.detach())])
    plain.states(["<x> while rain falls"], {"<x>": vectors})[0].square().sum().backward()
    assert vectors.grad.abs().sum(1).gt(0).all()
    assert encoder.model.shared.weight.grad is None


# the loss


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_on_the_chosen_frames(lm, encoder):
    memory, mask = encoder(["a dog barks"])
    sequence, frames = DelayPattern((0, 1)).apply(CODES, 16), torch.arange(60) % 3 == 0
    logits = lm(shift_right(sequence, 16), memory, mask)
    terms = []
    for k in range(2):
        for frame in range(0, 60, 3):
            terms.append(-logits[0, k, frame + k].log_softmax(-1)[CODES[0, k, frame]])
    torch.testing.assert_close(clip_loss(lm, memory, mask, CODES, frames), torch.stack(terms).mean())
    torch.testing.assert_close(clip_loss(lm, memory, mask, CODES), cross_entropy(logits, sequence))


def test_a_quarter_of_the_blocks_is_held_out():
    held_out = held_out_frames(200, seed=3)
    assert held_out.view(20, 10).all(1).sum() == 5 and held_out.sum() == 50
    assert not torch.equal(held_out, held_out_frames(200, seed=4))
    assert held_out_frames(25, seed=0).sum() in (5, 10)


@torch.no_grad()
def test_captions_are_ranked_by_the_loss_of_the_clip(lm, encoder):
    captions = ["rain falls", "a dog barks", "a bell rings"]
    ranked = rank_captions(lm, encoder, CODES, captions)
    assert sorted(caption for _, caption in ranked) == sorted(captions)
    assert [loss for loss, _ in ranked] == sorted(loss for loss, _ in ranked)
    for loss, caption in ranked:
        assert loss == pytest.approx(clip_loss(lm, *encoder([caption]), CODES).item())


def test_there_is_a_plain_caption_for_every_kind_of_sound():
    captions = plain_captions()
    assert captions.keys() == PHRASES.keys() and captions["dog_bark"] == "a dog barks"
    wanted = {"a dog barks", "a small dog barks", "the big dog barks", "a puppy barks"}
    assert wanted <= {*describing_captions("dog_bark")}
    everything = [caption for kind in captions for caption in (captions[kind], *describing_captions(kind))]
    assert not any("{" in caption or "|" in caption or "  " in caption for caption in everything)


@torch.no_grad()
def test_the_likeliest_caption_is_found_step_by_step(lm, encoder):
    def best(captions):
        return min(captions, key=lambda caption: clip_loss(lm, *encoder([caption]), CODES).item())

    kinds = {caption: kind for kind, caption in plain_captions().items()}
    described = best(describing_captions(kinds[best(kinds)]))
    assert likeliest_caption(lm, encoder, CODES) == best([described + ending for ending in inversion.ENDINGS])


# learning


@pytest.mark.parametrize("space", ["word", "memory"])
def test_a_word_begins_as_the_plain_caption_and_ends_closer_to_the_clip(lm, encoder, space):
    first = learn(lm, encoder, space=space, steps=0)
    assert torch.equal(first.vectors, first_vectors(encoder, "a dog barks", space))
    assert first.loss[0] == first.loss[1]
    later = learn(lm, encoder, space=space, steps=20)
    assert later.loss[0] == first.loss[0] and later.loss[1] < later.loss[0]
    assert later.like == "a dog barks" and later.space == space


def test_a_third_of_the_step_is_kept_because_guidance_multiplies_it(lm, encoder, monkeypatch):
    kept = learn(lm, encoder).vectors
    monkeypatch.setattr(inversion, "GUIDANCE", 1.0)
    start, whole = first_vectors(encoder, "a dog barks", "word"), learn(lm, encoder).vectors
    torch.testing.assert_close(kept - start, (whole - start) / 3, atol=1e-6, rtol=1e-4)
    assert (whole - start).abs().max() > 1e-3


def test_learning_a_word_changes_no_weight_and_repeats_for_a_seed(lm, encoder):
    before = identity(lm, encoder)
    lm.train()
    one, two = learn(lm, encoder), learn(lm, encoder)
    assert identity(lm, encoder) == before and lm.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in lm.parameters())
    assert torch.equal(one.vectors, two.vectors)
    lm.eval()


def test_it_stops_when_the_loss_on_the_held_out_frames_no_longer_falls(lm, encoder, monkeypatch):
    measured = []

    def spy(*arguments):
        measured.append(arguments[-1])
        return clip_loss(*arguments)

    monkeypatch.setattr(inversion, "clip_loss", spy)
    monkeypatch.setattr(inversion, "RATE", 0.0)  # nothing is learnt
    made = learn(lm, encoder, steps=500, seed=2)
    held_out = [frames for frames in measured if torch.equal(frames, held_out_frames(60, 2))]
    trained_on = [frames for frames in measured if torch.equal(frames, ~held_out_frames(60, 2))]
    assert made.loss[0] == made.loss[1] and len(held_out) == inversion.PATIENCE + 2
    assert len(trained_on) == inversion.EVERY * inversion.PATIENCE and len(measured) == len(held_out) + len(trained_on)


def test_the_closest_caption_is_that_of_the_highest_cosine_of_a_plain_loop():
    class Judge:
        """Embeds a caption by its length and its number of letters "o", a sound as (19, 3)."""

        def embed_text(self, captions):
            return torch.nn.functional.normalize(torch.tensor([[len(c), 9.0 * c.count("o")] for c in captions]), dim=1)

        def embed_audio(self, wav, sample_rate):
            return torch.nn.functional.normalize(torch.tensor([[19.0, 27.0]]), dim=1)

    judge, every = Judge(), [caption for kind in PHRASES for caption in inversion.describing_captions(kind)]
    cosines = {caption: float(judge.embed_text([caption])[0] @ judge.embed_audio(None, 1)[0]) for caption in every}
    found = inversion.closest_caption(judge, torch.zeros(1, 1, 9), 16000)
    assert cosines[found] == pytest.approx(max(cosines.values()), abs=1e-6)


def test_without_a_caption_it_begins_as_the_likeliest_one(lm, encoder, monkeypatch):
    monkeypatch.setattr(inversion, "likeliest_caption", lambda *models: "a bell rings")
    assert invert(lm, encoder, CODES, steps=0, progress=False).like == "a bell rings"


# files


def test_a_word_is_a_small_file_that_only_its_own_models_read(lm, encoder, tmp_path):
    made = learn(lm, encoder)
    made.save(tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_size < 10_000
    again = LearntWord.load(tmp_path / "x.safetensors")
    assert torch.equal(again.vectors, made.vectors)
    assert (again.word, again.space, again.like, again.loss) == (made.word, made.space, made.like, made.loss)
    read = load_words([tmp_path / "x.safetensors"], lm, encoder)
    assert torch.equal(read(["<x>"])[0], EncoderWithWords(encoder, [made])(["<x>"])[0])
    torch.manual_seed(9)
    with pytest.raises(MinigenError, match="was learnt with other models. Learn <x> again"):
        load_words([tmp_path / "x.safetensors"], AudioLM(SIZES), encoder)
    with pytest.raises(MinigenError, match="second file with the word <x>"):
        load_words([tmp_path / "x.safetensors"] * 2, lm, encoder)


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 40, {}, {"vectors": 1}, {"vectors": 3}])
def test_a_file_that_is_no_word_is_one_clear_line(tmp_path, content):
    path = tmp_path / "x.safetensors"
    if isinstance(content, dict):
        header = {"word": "<x>", "space": "word", "like": "a", "models": "b", "loss": "1 2"}
        tensors = {name: torch.zeros([2] * dims) for name, dims in content.items()}
        save_file(tensors, path, json.loads(json.dumps(header)))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(MinigenError, match="x.safetensors") as caught:
        LearntWord.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"word": "dog"}, "the word is 'dog'. Write letters, digits and hyphens in angle brackets"),
        ({"word": "<my dog>"}, "angle brackets"),
        ({"word": ""}, "angle brackets"),
        ({"word": "<extra_id_0>"}, "<extra_id_0> is in the vocabulary"),
        ({"space": "sound"}, "space is 'sound'. Choose one of word, memory"),
        ({"codes": CODES[..., :24]}, r"codes \[1, 2, 24\]. Give \[n, K, T\], T of at least 25"),
        ({"codes": CODES[0]}, r"codes \[2, 60\]"),
        ({"like": " "}, "the caption to begin from is ' '"),
    ],
)
def test_what_cannot_be_learnt_is_refused(lm, encoder, options, message):
    with pytest.raises(MinigenError, match=message):
        invert(lm, encoder, **{"codes": CODES, "progress": False, **options})


def test_vectors_of_another_width_are_refused(encoder):
    with pytest.raises(MinigenError, match="<x> has vectors of width 8, the text encoder 256"):
        EncoderWithWords(encoder, [word(torch.randn(2, 8))])


def test_captions_beside_a_learnt_word_are_checked_too(encoder):
    with pytest.raises(MinigenError, match="caption 1 is empty"):
        EncoderWithWords(encoder, [word(torch.randn(2, encoder.width))])(["<x>", ""])


def test_a_few_steps_are_measured_at_their_end(lm, encoder):
    assert not torch.equal(learn(lm, encoder, steps=3).vectors, learn(lm, encoder, steps=0).vectors)
