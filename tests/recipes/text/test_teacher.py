"""The teacher of the text encoder, with a tiny stand-in: stored vectors, the view, the lessons, the training."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from minigen.engine.errors import MinigenError
from minigen.recipes.text import teacher as teaching
from minigen.recipes.text.lessons import SHARES, prepare
from minigen.recipes.text.retrieval import area, tf_idf
from minigen.recipes.text.teacher import Teacher, View
from minigen.recipes.text.tokenizer import embeddings_from_teacher
from minigen.recipes.text.train import TextRecipe, likeness_loss, train_text

CAPTIONS = ["a dog barks", "rain falls on a roof and a siren wails", "thunder", "a dog barks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher of two small layers and random weights, in the files that `transformers` writes."""
    place = tmp_path_factory.mktemp("teacher")
    letters = {letter: i for i, letter in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"])}
    whole = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    whole.post_processor = processors.TemplateProcessing(single="[UNK] $A", special_tokens=[("[UNK]", 1)])
    PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(letters), initializer_range=0.5, **sizes)).save_pretrained(place)
    return place


@pytest.fixture
def teacher(folder, tmp_path):
    return Teacher(folder, tmp_path / "kept", progress=False)


def test_what_the_teacher_said_is_kept_and_not_asked_again(teacher, monkeypatch):
    first = teacher.teach(CAPTIONS)
    monkeypatch.setattr(teaching, "embed", lambda *_: pytest.fail("asked again"))
    assert torch.equal(teacher.teach(CAPTIONS), first)
    assert first.dtype == torch.float32 and first.shape == (4, 16)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4), atol=1e-3, rtol=0)


def test_other_captions_or_another_teacher_are_asked_anew(teacher, folder, tmp_path):
    first = teacher.teach(CAPTIONS)
    assert not torch.equal(teacher.teach(CAPTIONS[::-1])[1], first[1])
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    torch.manual_seed(1)
    BertModel.from_pretrained(folder, hidden_dropout_prob=0).apply(
        lambda part: part.reset_parameters() if isinstance(part, torch.nn.Linear) else None
    ).save_pretrained(other)
    assert not torch.equal(Teacher(other, teacher.kept, False).teach(CAPTIONS), first)
    assert torch.equal(teacher.teach(CAPTIONS), first)
    assert len(list(teacher.kept.iterdir())) == 3


def test_a_caption_gets_its_own_vector_whatever_stands_beside_it(teacher):
    together = teacher.ask(CAPTIONS)
    for caption, row in zip(CAPTIONS, together, strict=True):
        torch.testing.assert_close(teacher.ask([caption])[0], row, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(teacher.ask(CAPTIONS, "max"), together, atol=0.1)


def test_a_folder_without_a_teacher_is_one_line_and_a_strange_teacher_a_warning(teacher, tmp_path, caplog):
    with pytest.raises(MinigenError, match=r"model\.safetensors"):
        Teacher(tmp_path, tmp_path, False).teach(CAPTIONS)
    teacher.teach(CAPTIONS)
    assert "53aa51172d14" in caplog.text and "all-MiniLM-L6-v2" in caplog.text


def test_the_view_takes_away_what_all_captions_share_and_keeps_every_other_cosine():
    vectors = F.normalize(torch.randn(50, 6, dtype=torch.float64) + 5, dim=1)
    seen, centred = View.of(vectors, 6)(vectors), F.normalize(vectors - vectors.mean(0), dim=1)
    torch.testing.assert_close(seen @ seen.T, centred @ centred.T)
    assert View.of(vectors, 9)(vectors).shape == (50, 9)  # more axes than there are: the rest is zero
    torch.testing.assert_close(View.of(vectors, 9)(vectors)[:, :6], seen)


def test_lessons_are_drawn_in_their_shares_and_scenes_lie_between_their_captions(teacher):
    lessons = prepare(CAPTIONS, 30, 0, teacher, 8)
    assert len(lessons.first) == len(lessons.second) == len(lessons.targets) == sum(lessons.sizes.values())
    assert lessons.sizes["captions"] == 3 and lessons.sizes["scenes"] == 30
    drawn = lessons.draw(4000, np.random.default_rng(0))
    assert np.mean(drawn < 3) == pytest.approx(SHARES["captions"], abs=0.03)
    one, two = (lessons.view(teacher.teach(side[-30:])) for side in (lessons.first, lessons.second))
    halfway = F.normalize(one + two, dim=1)
    assert (F.cosine_similarity(lessons.targets[-30:], halfway) > 0.9).float().mean() > 0.9


def test_pieces_start_as_what_the_teacher_makes_of_each(teacher):
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "▁dog": 1, "dog": 2, "▁rain": 3}, unk_token="<unk>"))
    start = embeddings_from_teacher(tokenizer, teacher, View.of(teacher.teach(CAPTIONS), 8))
    torch.testing.assert_close(start.square().mean(1), torch.ones(4))
    assert torch.equal(start[1], start[2]) and not torch.allclose(start[1], start[3])


def test_likeness_loss_is_its_formula_read_literally():
    ours, theirs = (F.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1) for _ in range(2))
    square = divergence = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        s, t = (np.array([float(rows[i] @ rows[j]) for j in others]) for rows in (ours, theirs))
        p, q = (np.exp(x / 0.2) / np.exp(x / 0.2).sum() for x in (t, s))
        square += ((s - t) ** 2).sum() / 20
        divergence += (p * np.log(p / q)).sum() / 5
    assert float(likeness_loss(3 * ours, theirs, 0.2)) == pytest.approx(10 * square + divergence, abs=1e-9)
    assert float(likeness_loss(theirs, theirs, 0.2)) == pytest.approx(0, abs=1e-9)


def test_words_in_common_make_likeness_and_rare_ones_make_more():
    rows = tf_idf(["a dog barks", "a dog", "a bell"], ["a dog barks"] * 3 + ["a dog", "a bell"])
    like = rows @ rows.T
    assert like[0, 1] > 0.3 > like[0, 2] and like[1, 2] == pytest.approx(0, abs=1e-6)
    assert area([("x", ""), ("x", ""), ("y", "")], rows) == 1


def test_a_student_of_a_teacher_comes_to_see_likenesses_as_the_teacher_does(folder, tmp_path):
    sizes = {"width": 32, "layers": 1, "heads": 2, "ffn": 64, "pieces": 400, "scenes": 100, "measured": 20}
    recipe = TextRecipe(**sizes, batch=32, learning_rate=5e-3)
    options = {"steps": 80, "recipe": recipe, "progress": False, "teacher": folder}
    figures = train_text(tmp_path / "out", **options)
    written = (tmp_path / "out" / "card.md").read_text()
    assert "--teacher FOLDER" in written and "Apache 2.0" in written and "teacher, mean, as shown" in written
    assert {"corpus, tf-idf", "corpus, teacher, max", "corpus, mean"} <= set(figures)
    curve = written.split("max- and mean-pooled:\n")[1].split(".\n")[0].split(", ")
    assert float(curve[-1].split(" / ")[1]) < 0.7 * float(curve[0].split(" / ")[1])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "card.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
