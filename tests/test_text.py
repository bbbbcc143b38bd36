"""The text encoder: shapes, masks, padding, what is refused, that it is T5, and the recipe that made the mini one."""

import csv
import io
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, T5EncoderModel, T5ForConditionalGeneration

from minigen.engine import loop
from minigen.engine.errors import MinigenError
from minigen.engine.hub import find_model
from minigen.recipes.text.paraphrase import (
    families,
    parts,
    prompt_words,
    read_captions,
    reword,
    scene_groups,
    scene_pair,
    turn_round,
)
from minigen.recipes.text.retrieval import area, encode_pooled, paraphrase_auc
from minigen.recipes.text.tokenizer import embeddings_from_counts, train_tokenizer
from minigen.recipes.text.train import TextRecipe, info_nce, train_text
from minigen.regularizer import pool
from minigen.t5 import T5Config, T5Encoder
from minigen.text import MAX_TOKENS, load_text_encoder

CAPTIONS = ["a dog barks", "rain falls on a roof while a siren wails far away", "thunder", "a baby cries, then a bell"]
TINY = TextRecipe(width=32, layers=1, heads=2, ffn=64, pieces=400, scenes=100, batch=16, learning_rate=5e-3)


@pytest.fixture(scope="module")
def encoder():
    try:
        return load_text_encoder("mini")
    except MinigenError as error:
        pytest.skip(f"the shipped text encoder is absent: {error}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny encoder made by the recipe, with a tiny AudioCaps beside the corpus: (its folder, its figures)."""
    data, folder = tmp_path_factory.mktemp("captions"), tmp_path_factory.mktemp("text")
    _write_captions(data / "train.csv", [(f"y{i}", caption) for i, caption in enumerate(CAPTIONS * 5)])
    _write_captions(data / "val.csv", [(f"y{i % 4}", CAPTIONS[i % 4] + " again" * (i // 4)) for i in range(8)])
    return folder, train_text(folder, steps=12, recipe=TINY, audiocaps=data, progress=False)


def _write_captions(path, rows):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        table.writerows((i, clip, 0, caption) for i, (clip, caption) in enumerate(rows))


@pytest.fixture(scope="module")
def official(tmp_path_factory, trained):
    """A folder as `transformers` itself writes one: a whole random T5, decoder and all, and a tokenizer."""
    folder = tmp_path_factory.mktemp("official")
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 700}
    T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(trained[0]).save_pretrained(folder)
    return folder


# what comes out


def test_states_and_mask_have_the_shapes_the_chain_expects(encoder):
    states, mask = encoder(CAPTIONS)
    assert states.shape == (4, mask.shape[1], encoder.width) and states.dtype == torch.float32
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == [len(encoder.tokens(c)) for c in CAPTIONS]
    assert all(encoder.tokens(c)[-1] == "</s>" for c in CAPTIONS)


def test_padding_changes_no_state_and_is_itself_zero(encoder):
    together, mask = encoder(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone, _ = encoder([caption])
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=2e-5, rtol=1e-4)
    assert (together[~mask] == 0).all() and (together[mask].abs().sum(-1) > 0).all()


def test_the_same_caption_always_gives_the_same_bits(encoder):
    assert torch.equal(encoder(CAPTIONS)[0], encoder(CAPTIONS)[0])
    assert torch.equal(encoder(CAPTIONS)[0], load_text_encoder("mini")(CAPTIONS)[0])


def test_the_encoder_is_frozen(encoder):
    states, _ = encoder(["a dog barks"])
    assert not states.requires_grad and not encoder.model.training
    assert not any(weight.requires_grad for weight in encoder.model.parameters())


def test_words_in_another_order_are_other_states(encoder):
    first, second = encoder(["a dog barks followed by a bell", "a bell followed by a dog barks"])[0]
    assert (first.mean(0) - second.mean(0)).abs().max() > 1e-3


# it is T5


def test_mini_is_the_t5_encoder_of_transformers(encoder):
    folder = find_model("text", "mini")
    official = T5EncoderModel.from_pretrained(folder, dtype=torch.float32)
    batch = AutoTokenizer.from_pretrained(folder)(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = official(**batch).last_hidden_state * batch["attention_mask"][..., None]
    torch.testing.assert_close(encoder(CAPTIONS)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_whole_official_t5_loads_by_folder_and_gives_its_encoder_states(official):
    encoder = load_text_encoder(official)
    whole = T5ForConditionalGeneration.from_pretrained(official, dtype=torch.float32)
    batch = AutoTokenizer.from_pretrained(official)(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = whole.encoder.eval()(**batch).last_hidden_state * batch["attention_mask"][..., None]
    assert encoder.width == 32
    torch.testing.assert_close(encoder(CAPTIONS)[0], expected, atol=1e-5, rtol=1e-5)


def test_weights_stored_in_half_precision_are_read_as_float32(trained):
    encoder = load_text_encoder(trained[0])
    assert encoder.model.config.d_model == 32
    assert {weight.dtype for weight in encoder.model.parameters()} == {torch.float32}


# what is refused


@pytest.mark.parametrize(
    "captions, word",
    [
        ([""], "empty"), (["a dog", " \n"], "caption 1 is empty"), ([], "no captions"), ("a dog", "list of texts"),
        ([None], "list of texts"), (None, "list of texts"), (iter(["a dog"]), "list of texts"),
        (["a \udcff dog"], "Unicode"), (["dog " * 10000], f"at most {MAX_TOKENS}"),
    ],
)  # fmt: skip
def test_captions_that_mean_nothing_are_refused_in_one_line(trained, captions, word, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with pytest.raises(MinigenError, match=word) as caught:
        load_text_encoder(trained[0])(captions)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    assert "sequence length" not in caplog.text  # nor a warning of another library beside it


def test_a_caption_of_exactly_the_limit_is_read(trained):
    encoder = load_text_encoder(trained[0])
    comma = len(encoder.tokens("," * 9)) - len(encoder.tokens("," * 8))
    spare = MAX_TOKENS - len(encoder.tokens("dog"))
    assert comma == 1
    assert encoder(["dog" + "," * spare])[0].shape[1] == MAX_TOKENS
    with pytest.raises(MinigenError, match=f"{MAX_TOKENS + 1} tokens"):
        encoder(["dog" + "," * (spare + 1)])


@pytest.mark.parametrize("name", ["google/flan-t5-base", "t5-small"])
def test_a_name_that_cannot_be_fetched_is_one_line_that_says_how_to_place_it(name):
    with pytest.raises(MinigenError, match=r"model\.safetensors") as caught:
        load_text_encoder(name)
    assert name in str(caught.value) and "By hand" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_or_foreign_folders_are_one_line(trained, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(trained[0], cut)
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:999])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "empty").mkdir()
    for folder, word in (
        (cut, "cannot load"), (foreign, "'bert'"), (tmp_path / "empty", r"config\.json"),
        (tmp_path / "none", r"config\.json"), ("./no/such/folder", r"config\.json"), ("mini-other", "shipped"),
    ):  # fmt: skip
        with pytest.raises(MinigenError, match=word) as caught:
            load_text_encoder(folder)
        assert "\n" not in str(caught.value)


# the tokenizer


@pytest.mark.parametrize("caption", ["A DOG barks!", "🐕 in a café", "naïve ½ 雨 здесь", "tab\there", "e\u0301t\u00e9"])
def test_no_caption_is_lost(encoder, caption):
    ids = encoder.tokenizer.encode(caption).ids
    assert encoder.tokenizer.token_to_id("<unk>") not in ids and ids[-1] == encoder.tokenizer.token_to_id("</s>") == 1
    expected = caption.lower().replace("\t", " ").replace("e\u0301", "é")
    assert encoder.tokenizer.decode(ids) == expected


def test_the_tokens_are_those_of_transformers(encoder):
    official = AutoTokenizer.from_pretrained(find_model("text", "mini"))
    for caption in [*CAPTIONS, "🐕 in a café", "A DOG barks!", "</s> <extra_id_0> a bell"]:
        assert encoder.tokenizer.encode(caption).ids == official(caption)["input_ids"]


@pytest.fixture
def with_spiece(tmp_path):
    """A folder with a T5 whose tokenizer is a spiece.model, as older T5s have; an empty file here."""
    T5Encoder(T5Config.of({"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2})).save_pretrained(
        tmp_path
    )
    (tmp_path / "spiece.model").touch()
    return tmp_path


def test_a_spiece_model_is_converted(with_spiece):
    sentencepiece, _ = pytest.importorskip("sentencepiece"), pytest.importorskip("google.protobuf")
    file = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 20), model_writer=file, vocab_size=30, minloglevel=2, **ids
    )
    (with_spiece / "spiece.model").write_bytes(file.getvalue())
    encoder = load_text_encoder(with_spiece)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue()).encode(CAPTIONS[0], out_type=str)
    assert encoder.tokens(CAPTIONS[0]) == [*pieces, "</s>"]
    assert encoder(CAPTIONS)[0].shape[-1] == 8


def test_a_spiece_model_without_its_packages_is_one_line_that_names_them(with_spiece, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MinigenError, match="sentencepiece, protobuf"):
        load_text_encoder(with_spiece)


def test_a_saved_tokenizer_is_read_by_transformers(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("a dog barks")["input_ids"] == encoder.tokenizer.encode("a dog barks").ids
    assert (again.pad_token_id, again.eos_token_id, again.unk_token_id) == (0, 1, 2)


def test_case_does_not_matter(encoder):
    assert torch.equal(encoder(["A DOG Barks"])[0], encoder(["a dog barks"])[0])


def test_the_same_captions_make_the_same_tokenizer():
    captions = [f"{one} and {two}" for one in CAPTIONS for two in CAPTIONS] * 3
    one, two = (train_tokenizer(captions, 350).to_str() for _ in range(2))
    assert one == two


def test_start_vectors_of_words_in_like_company_are_alike():
    rng = np.random.default_rng(0)
    beasts, tools = ("dog", "puppy"), ("drill", "saw")
    captions = [f"a {rng.choice(beasts)} barks in a yard" for _ in range(200)]
    captions += [f"the {rng.choice(tools)} whirs at work" for _ in range(200)]
    words = sorted({word for caption in captions for word in caption.split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vectors = embeddings_from_counts(tokenizer, captions, 8)
    dog, puppy, drill = (vectors[tokenizer.token_to_id(word)] for word in ("dog", "puppy", "drill"))
    assert torch.cosine_similarity(dog, puppy, 0) > 0.9 > 0.5 > torch.cosine_similarity(dog, drill, 0)
    torch.testing.assert_close(vectors.square().mean(1), torch.ones(tokenizer.get_vocab_size()))


# the recipe


def test_the_parts_around_a_joint_change_places_and_keep_their_order_in_time():
    rng = np.random.default_rng(0)
    assert turn_round("A dog barks followed by rain", rng) == "rain after A dog barks"
    assert turn_round("A dog barks while rain falls", rng) == "rain falls while A dog barks"
    assert turn_round("A dog barks", rng) == "A dog barks"


def test_rewording_stays_in_the_family_and_never_comes_out_empty():
    kin = families(["a dog barks", "puppies barking", "a puppy and dogs barked"] * 3)
    assert {"barks", "barking", "barked", "yap", "woof"} <= set(kin["barks"]) and "meow" not in kin["barks"]
    assert {"dog", "dogs", "puppy", "hound"} <= set(kin["dog"]) and not families([])
    rng = np.random.default_rng(0)
    words = {w for _ in range(50) for w in reword("dog barks", kin, rng).split()}
    assert words <= set(kin["dog"]) | set(kin["barks"]) and len(words) > 3
    assert all(reword("dog", kin, rng, drop=0.99) for _ in range(20))


def test_parts_are_what_several_captions_have_between_their_joints():
    captions = ["A dog barks while rain falls", "Rain falls, followed by a dog barks", "A bell rings and thunder"]
    assert parts(captions) == ["a dog barks", "rain falls"]
    assert {"yap", "yapping", "drone", "droning", "downpour", "trombone"} <= set(prompt_words())


def test_contrastive_loss_is_its_formula_read_literally():
    rows = torch.randn(6, 5, dtype=torch.float64)
    unit = rows / rows.norm(dim=1, keepdim=True)
    expected = 0.0
    for i in range(6):
        against = [float(unit[i] @ unit[j]) / 0.1 for j in range(6) if j != i]
        expected += (np.log(np.exp(against).sum()) - float(unit[i] @ unit[(i + 3) % 6]) / 0.1) / 6
    assert float(info_nce(rows, 0.1)) == pytest.approx(expected, abs=1e-9)


def test_area_is_the_share_of_pairs_in_the_right_order(trained):
    encoder = load_text_encoder(trained[0])
    groups = [("a", "a dog barks"), ("a", "rain"), ("b", "a bell"), ("b", "thunder"), ("c", "wind")]
    pooled = torch.nn.functional.normalize(pool(*encoder([caption for _, caption in groups])), dim=1)
    cosine = {(i, j): float(pooled[i] @ pooled[j]) for j in range(5) for i in range(j)}
    same = [value for (i, j), value in cosine.items() if groups[i][0] == groups[j][0]]
    other = [value for (i, j), value in cosine.items() if groups[i][0] != groups[j][0]]
    expected = np.mean([(s > o) + 0.5 * (s == o) for s in same for o in other])
    assert paraphrase_auc(encoder, groups, "max") == pytest.approx(expected)
    assert area(groups, torch.ones(5, 3)) == 0.5  # ties count half


def test_the_recipe_runs_end_to_end_and_writes_what_loads(trained):
    folder, figures = trained
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
    assert set(figures) >= {"corpus, max", "corpus, mean", "AudioCaps val, max", "AudioCaps val, mean"}
    assert "seed 0" in (folder / "card.md").read_text() and "academic" in (folder / "card.md").read_text()


def test_training_lowers_both_losses(tmp_path):
    train_text(tmp_path, steps=60, recipe=TINY, progress=False)
    curve = (tmp_path / "card.md").read_text().split("max- and mean-pooled:\n")[1].split(".\n")[0]
    first, *_, last = [[float(loss) for loss in pair.split(" / ")] for pair in curve.split(", ")]
    assert last[0] < first[0] - 0.5 and last[1] < first[1] - 0.5


def test_an_interrupted_training_ends_where_the_whole_one_does(tmp_path, monkeypatch):
    from minigen.recipes.text import train as text

    def stop(run, share):
        if run.step == 4:
            raise KeyboardInterrupt
        return one_step(run, share)

    monkeypatch.setattr(loop, "SAVE_MINUTES", 0.0)
    train_text(tmp_path / "one", steps=8, recipe=TINY, progress=False)
    one_step = text.TextTraining.one_step
    monkeypatch.setattr(text.TextTraining, "one_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_text(tmp_path / "two", steps=8, recipe=TINY, progress=False)
    with pytest.raises(MinigenError, match="other settings"):
        train_text(tmp_path / "two", steps=8, seed=1, recipe=TINY, progress=False)
    monkeypatch.setattr(text.TextTraining, "one_step", one_step)
    train_text(tmp_path / "two", steps=8, recipe=TINY, progress=False)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_training_without_its_captions_is_one_clear_line(tmp_path):
    with pytest.raises(MinigenError, match=r"train\.csv"):
        train_text(tmp_path / "out", audiocaps=tmp_path)
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MinigenError, match="no column"):
        train_text(tmp_path / "out", audiocaps=tmp_path)


# what the shipped weights know


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("combos", ["seen", "held_out"])
def test_paraphrases_of_a_scene_are_nearer_than_other_scenes(encoder, pooling, combos):
    groups = scene_groups(np.random.default_rng(123), 80, combos)
    assert paraphrase_auc(encoder, groups, pooling) > 0.98


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_captions_of_one_real_clip_are_nearer_than_those_of_two(encoder, pooling, audiocaps):
    assert paraphrase_auc(encoder, read_captions(audiocaps, "val"), pooling) > 0.94


PROMPTS = [
    ("puppy yapping in a downpour", "a dog barks while rain falls"),
    ("an infant is weeping", "a baby cries"),
    ("the click-clack of somebody writing on a computer", "fingers type on a keyboard"),
    ("a feline mews", "a cat meows"),
    ("an emergency vehicle blares past", "a siren wails"),
    ("chopper hovering overhead", "a helicopter flies by"),
    ("surf breaking on the shore", "waves crash on a beach"),
]
OTHERS = [
    "a church bell rings", "a car engine idles", "wind blows hard", "a clock ticks", "a rooster crows", "a man coughs",
    "someone knocks on a door twice", "footsteps on gravel", "birds chirp in the distance", "an audience claps",
    "a dog barks followed by a bell", "rain falls on a roof",
]  # fmt: skip


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("prompt, answer", PROMPTS)
def test_a_free_prompt_is_nearest_to_what_it_means(encoder, prompt, answer, pooling):
    choices = [*(caption for _, caption in PROMPTS), *OTHERS]
    rows = torch.nn.functional.normalize(encode_pooled(encoder, [prompt, *choices], pooling), dim=1)
    assert choices[int((rows[0] @ rows[1:].T).argmax())] == answer


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_word_that_no_caption_holds_is_nearest_to_its_synonym(encoder, pooling):
    for prompt, answer, other in (("downpour", "rain", "wind"), ("hound", "dog", "cat"), ("toddler", "child", "man")):
        word, near, far = torch.nn.functional.normalize(encode_pooled(encoder, [prompt, answer, other], pooling), dim=1)
        assert word @ near > word @ far


def test_training_pairs_are_two_wordings_of_the_training_split():
    from minigen.corpus.synthesis.captions import split_of

    first, second = scene_pair(np.random.default_rng(0))
    assert first != second and split_of(first) == split_of(second) == "train"
