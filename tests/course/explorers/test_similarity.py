"""The similarity explorer shows the matrices of the chosen model and pooling, and what the chosen pair adds."""

import re

import pytest
import torch

from minigen.course.explorers.similarity import SimilarityExplorer, before_after, directions
from minigen.regularizer import pool, similarity_loss, similarity_matrix

CAPTIONS = ["a dog barks", "rain", "a <b>bell</b>", "wind"]


@pytest.fixture
def parts():
    states, mask = torch.randn(4, 3, 6), torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    return states, mask, {"before": torch.randn(4, 7, 5), "after": torch.randn(4, 7, 5)}


@pytest.fixture
def explorer(parts):
    return SimilarityExplorer(CAPTIONS, *parts, wavs=0.1 * torch.randn(4, 1, 800))


def numbers(explorer):
    """Cosine of the texts, of the sounds, squared difference, loss, as they are said."""
    return [float(found) for found in re.findall(r"-?\d+\.\d+", explorer.said.value.split("cosine")[1])]


def test_the_first_picture_is_there_before_anything_is_moved(explorer):
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert "a dog barks" in explorer.said.value and "rain" in explorer.said.value
    assert explorer.said.value.count("<audio") == 2


@pytest.mark.parametrize("model", ["before", "after"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_what_is_said_is_what_the_regulariser_computes(explorer, parts, model, pooling):
    states, mask, hidden = parts
    explorer.model.value, explorer.pooling.value = model, pooling
    explorer.first.value, explorer.second.value = 3, 1
    text, audio = (similarity_matrix(pool(x, m, pooling)) for x, m in ((states, mask), (hidden[model], None)))
    one, other, squared, loss = numbers(explorer)
    assert one == pytest.approx(text[3, 1].item(), abs=6e-4)
    assert other == pytest.approx(audio[3, 1].item(), abs=6e-4)
    assert squared == pytest.approx((text - audio)[3, 1].item() ** 2, abs=6e-5)
    assert loss == pytest.approx(similarity_loss(states, hidden[model], mask, None, pooling).item(), abs=6e-5)


@pytest.mark.parametrize(
    "move",
    [
        lambda x: setattr(x.model, "value", "after"),
        lambda x: setattr(x.pooling, "value", "mean"),
        lambda x: setattr(x.first, "value", 2),
        lambda x: setattr(x.second, "value", 3),
    ],
)
def test_every_control_draws_anew(explorer, move):
    picture, said = bytes(explorer.picture.value), explorer.said.value
    move(explorer)
    assert bytes(explorer.picture.value) != picture and explorer.said.value != said


def test_the_button_finds_the_pair_that_costs_most(explorer):
    explorer.worst.click()
    text, audio = explorer.matrices()
    squared = (text - audio).square().fill_diagonal_(0)
    assert numbers(explorer)[2] == pytest.approx(squared.max().item(), abs=6e-5)
    assert explorer.first.value != explorer.second.value


def test_a_clip_and_itself_are_no_pair(explorer):
    explorer.second.value = 0
    assert "leaves the diagonal out" in explorer.said.value


def test_a_caption_cannot_break_the_page(explorer):
    explorer.first.value = 2
    assert "<b>" not in explorer.said.value and "&lt;b&gt;" in explorer.said.value


def test_without_sounds_nothing_plays(parts):
    assert "<audio" not in SimilarityExplorer(CAPTIONS, *parts).said.value


def test_the_static_picture_holds_the_loss_of_every_model(parts):
    states, mask, hidden = parts
    text = similarity_matrix(pool(states, mask))
    figure = before_after(text, {name: similarity_matrix(pool(x)) for name, x in hidden.items()})
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split(":")[0] for title in titles[:3]] == ["text", "before", "after"]
    for title, x in zip(titles[4:6], hidden.values(), strict=True):
        assert title.endswith(f"mean {similarity_loss(states, x, mask).item():.3f}")
    assert all(axes.get_xlabel() == "clip" for axes in figure.axes[:3])


def test_the_level_is_in_the_title_and_the_colours_show_the_pattern(parts):
    states, mask, hidden = parts
    text = similarity_matrix(pool(states, mask))
    audio = similarity_matrix(pool(hidden["before"]))
    off = ~torch.eye(4, dtype=torch.bool)
    figure = before_after(text, {"model": audio, "higher": 0.5 * audio + 0.5})
    shown = [torch.as_tensor(axes.images[0].get_array().filled(0)) for axes in figure.axes[:3]]
    mean, spread = audio[off].mean(), audio[off].std(correction=0)
    assert torch.allclose(shown[1][off], (audio[off] - mean) / spread, atol=1e-5)
    assert torch.allclose(shown[1], shown[2], atol=1e-4), "another level and scale change no colour"
    assert figure.axes[2].get_title() == f"higher: {0.5 * mean + 0.5:.2f} ± {0.5 * spread:.2f}"


def test_directions_are_arrows_of_length_one_with_the_clips_number():
    axes = directions({"text": torch.tensor([[3.0, 0.0], [0.0, 2.0]]), "audio": torch.ones(2, 2)}).axes
    assert [one.get_title() for one in axes] == ["text", "audio"]
    numbers = [text for text in axes[0].texts if text.get_text() in "01" and text.get_text()]
    assert [text.get_position() for text in numbers] == [pytest.approx((1.18, 0)), pytest.approx((0, 1.18))]
