"""Diagrams of the language model: what they say is what the model does."""

import torch

from minigen.display import diagrams
from minigen.lm import shift_right
from minigen.patterns import DelayPattern


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_transformer_has_its_parts_and_one_addition_for_each_block():
    said = texts(diagrams.transformer_diagram())
    for part in ("self-attention", "cross-attention", "feed-forward", "K heads", "residual stream"):
        assert any(part in text for text in said), part
    assert said.count("+") == 3 and said.count("norm") == 4


def test_the_input_of_the_drawing_is_the_shifted_target():
    sequence = DelayPattern((0, 1)).apply(torch.arange(6).view(1, 2, 3), fill=9)[0]
    cells = [text for text in texts(diagrams.shift_diagram(sequence, fill=9)) if text.isdigit() or text == "V"]
    drawn = [9 if text == "V" else int(text) for text in cells][:16]  # input, then target; column numbers follow
    expected = torch.cat([shift_right(sequence[None], 9)[0], sequence])
    assert drawn == expected.flatten().tolist()


def test_with_a_cache_only_the_last_column_is_computed():
    said = texts(diagrams.cache_diagram(4))
    assert [text for text in said if text.startswith("x")] == ["x0", "x1", "x2", "x3", "x4", "x4"]
    assert "computes 5" in said and "k0, v0" in said and "k4, v4" not in said
