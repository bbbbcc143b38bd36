"""Order of sounds: labels of the pieces by rule, the training on them, and what the shipped states contain."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from minigen.corpus.synthesis.captions import split_of
from minigen.engine import loop
from minigen.engine.errors import MinigenError
from minigen.recipes.text.order import OrderRecipe, look_for_order, teach_order, unlikeness
from minigen.recipes.text.order_labels import (
    FIRST,
    NEITHER,
    SECOND,
    UNASKED,
    label,
    order_accuracy,
    ordered_captions,
    places,
    turn,
)
from minigen.text import load_text_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("mini")


def place_of(caption: str, word: str) -> int:
    start = caption.index(word)
    found = set(places(caption)[start : start + len(word)].tolist())
    assert len(found) == 1
    return found.pop()


# places by rule


@pytest.mark.parametrize(
    "caption, first, second, neither",
    [
        ("A dog barks, then a bell rings", ["dog barks"], ["bell rings"], []),
        ("a cow moos followed by wind in the distance", ["cow"], ["wind in the distance"], []),
        ("a bell rings after a dog barks", ["dog barks"], ["bell rings"], []),
        ("a dog barks before a bell rings", ["dog"], ["bell"], []),
        ("As a bird chirps, a fire crackles and then an engine rumbles", ["fire"], ["engine"], ["bird chirps"]),
        ("a cat meows followed by a bird with an engine running", ["cat"], ["bird"], ["engine running"]),
        ("rain falls while a dog barks", [], [], ["rain falls", "dog barks"]),
    ],
)
def test_the_rules_know_what_sounds_first_and_what_has_no_place(caption, first, second, neither):
    for words, place in ((first, FIRST), (second, SECOND), (neither, NEITHER)):
        assert all(place_of(caption, word) == place for word in words)


@pytest.mark.parametrize("caption", ["After a dog barks, a bell rings", "a bell following a dog"])
def test_an_order_that_the_rules_do_not_understand_is_not_asked(caption):
    assert set(places(caption).tolist()) == {UNASKED}


def test_an_order_told_backwards_is_the_same_order():
    assert turn("a dog barks, then a bell rings") == "a bell rings after a dog barks"
    assert place_of(turn("a dog barks, then a bell rings"), "dog") == FIRST
    assert turn("a dog barks while a bell rings") == "a dog barks while a bell rings"


def test_pieces_take_the_place_of_their_letters(encoder):
    caption = "a dog barks, then a bell rings"
    tokens = encoder.tokens(caption)
    found = label(encoder.tokenizer, [caption])[0]
    at = {token: place for token, place in zip(tokens, found, strict=True)}
    assert (at["▁dog"], at["▁bell"], at["▁then"], at["</s>"]) == (FIRST, SECOND, UNASKED, UNASKED)


def test_captions_with_an_order_are_those_of_their_split():
    captions = ordered_captions(np.random.default_rng(0), 40, "train")
    assert len(captions) == 40 and sum(" after " in caption for caption in captions) >= 10
    assert all(split_of(caption) == "train" for caption in captions if " after " not in caption)
    assert all({FIRST, SECOND} <= set(places(caption).tolist()) for caption in captions)


# teaching


def test_unlikeness_is_its_formula_and_zero_for_equals():
    torch.manual_seed(0)
    new, old = torch.randn(5, 8), torch.randn(5, 8)
    cosine = torch.nn.functional.cosine_similarity
    pairs = [cosine(new[i], new[j], 0) - cosine(old[i], old[j], 0) for i in range(5) for j in range(5)]
    expected = 10 * torch.stack(pairs).square().mean() + 1 - cosine(new, old).mean()
    assert unlikeness(new, old) == pytest.approx(float(expected), abs=1e-5)
    assert unlikeness(new, new) == pytest.approx(0, abs=1e-6)


def test_two_heads_look_for_the_words_of_order_one_behind_and_one_ahead(encoder):
    model, tokenizer = load_text_encoder("mini").model, encoder.tokenizer
    captions = ordered_captions(np.random.default_rng(0), 200, "train")
    look_for_order(model, tokenizer, [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(captions)])
    layer = model.encoder.block[0].layer[0]
    attention = layer.SelfAttention
    ids = torch.tensor(tokenizer.encode("a dog barks then a bell rings").ids)
    joint = int((ids == tokenizer.token_to_id("▁then")).nonzero()[0])
    x = layer.layer_norm(model.shared(ids))
    heads = [part(x).view(len(ids), model.config.num_heads, -1).transpose(0, 1) for part in (attention.q, attention.k)]
    weights = (heads[0] @ heads[1].transpose(1, 2) + attention.bias(len(ids))[0]).softmax(-1)
    after, before = weights[0, joint + 1 : -1, joint], weights[1, :joint, joint]
    assert after.mean() > 0.5 and before.mean() > 0.5
    inner = slice(joint + 1, -1)  # the first piece has nothing behind it, the last nothing ahead
    assert weights[0, 1:joint, joint].max() < 0.2 and weights[1, inner, joint].max() < 0.2


def test_a_tokenizer_without_words_of_order_is_told():
    other = Tokenizer(models.WordLevel({"<unk>": 0, "dog": 1}, unk_token="<unk>"))
    with pytest.raises(MinigenError, match="none of .*then"):
        look_for_order(None, other, [])


def test_an_interrupted_lesson_ends_where_the_whole_one_does(tmp_path, monkeypatch):
    from minigen.recipes.text import order as order_lessons

    recipe = OrderRecipe(scenes=30, ordered=4, others=4, measured=8)
    monkeypatch.setattr(loop, "SAVE_MINUTES", 0.0)
    monkeypatch.setattr(order_lessons, "order_accuracy", lambda *_: 0.5)
    whole = teach_order(tmp_path / "whole", recipe=recipe, steps=3, progress=False)
    step, seen = order_lessons.OrderTraining.one_step, []

    def stop_at_two(run, done):
        if run.step == 2 and not seen:
            seen.append(True)
            raise KeyboardInterrupt
        return step(run, done)

    monkeypatch.setattr(order_lessons.OrderTraining, "one_step", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        teach_order(tmp_path / "broken", recipe=recipe, steps=3, progress=False)
    with pytest.raises(MinigenError, match="other settings"):
        teach_order(tmp_path / "broken", recipe=recipe, seed=1, steps=3, progress=False)
    teach_order(tmp_path / "broken", recipe=recipe, steps=3, progress=False)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert one == other
    assert "corpus, max" in whole and "trained on order" in (tmp_path / "whole/card.md").read_text()


# what the shipped states tell


def test_single_states_tell_which_sound_comes_first(encoder):
    assert order_accuracy(encoder, seed=1, count=150) > 0.85
