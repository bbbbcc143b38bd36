"""The revising explorer: the picture shows masked, new and revised cells, and the sound is that of the codes."""

import re

import pytest
import torch
from standins import tiny_codec

from minigen.course.explorers.revising import (
    COLOURS,
    MASKED,
    NEW,
    REVISED,
    SAME,
    RevisingExplorer,
    describe,
    filmstrip,
    revisions,
    status,
)
from minigen.engine.errors import MinigenError

V = 16
STATES = [  # cell (0, 0) begins with a code, as noise; cell (0, 1) is written, then revised
    torch.tensor([[3, V, V], [V, V, V]]),
    torch.tensor([[4, 5, V], [V, V, 7]]),
    torch.tensor([[3, 6, 1], [2, V, 7]]),
    torch.tensor([[3, 6, 1], [2, 9, 8]]),
]


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def run(codec, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """States of a run that writes a frame in each step, and changes all that is written."""
    chance = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, V, (codec.num_codebooks, 12), generator=chance) for _ in range(steps + 1)]
    return [torch.where(torch.arange(12) < step, codes[step], V) for step in range(steps + 1)]


def test_the_status_after_each_step():
    assert status(STATES, 0, V).tolist() == [[SAME, MASKED, MASKED], [MASKED] * 3]
    assert status(STATES, 1, V).tolist() == [[REVISED, NEW, MASKED], [MASKED, MASKED, NEW]]
    assert status(STATES, 2, V).tolist() == [[REVISED, REVISED, NEW], [NEW, MASKED, SAME]]
    assert status(STATES, 3, V).tolist() == [[SAME, SAME, SAME], [SAME, NEW, REVISED]]


def test_a_revision_is_a_code_that_becomes_another():
    assert revisions(STATES, V).tolist() == [[2, 1, 0], [0, 0, 1]]
    assert revisions(STATES[:1], V).tolist() == [[0] * 3] * 2


def test_the_sentence_counts_cells():
    assert describe(STATES, 0, V) == "step 0 of 3: 0 cells new, 0 revised, 5 masked."
    assert describe(STATES, 2, V) == "step 2 of 3: 2 cells new, 2 revised, 1 masked."


def test_the_filmstrip_has_a_panel_for_each_step_in_the_colours_of_the_status():
    figure = filmstrip(STATES, [0, 3], V)
    assert len(figure.axes) == 2 and figure.axes[1].get_xlabel() == "time (s)"
    for axis, step in zip(figure.axes, (0, 3), strict=True):
        (image,) = axis.images
        assert image.get_array().tolist() == status(STATES, step, V).tolist()
        assert image.get_clim() == (0, 3) and image.get_cmap().colors == COLOURS
        assert axis.get_title(loc="left") == describe(STATES, step, V)


def test_every_control_changes_picture_sentence_and_sound(codec):
    explorer = RevisingExplorer({"one": run(codec, 11), "other": run(codec, 6, seed=1)}, codec)
    shown = [(bytes(explorer.image.value), explorer.said.value, explorer.sound.value)]
    for control, value in ((explorer.step, 4), (explorer.run, "other")):
        control.value = value
        shown.append((bytes(explorer.image.value), explorer.said.value, explorer.sound.value))
    for column in zip(*shown, strict=True):
        assert len(set(column)) == 3
    assert shown[0][0].startswith(b"\x89PNG") and all(re.search("data:audio/flac", sound) for *_, sound in shown)
    assert "revised" in explorer.said.value


def test_nothing_to_show_is_refused(codec):
    with pytest.raises(MinigenError, match="nothing to show"):
        RevisingExplorer({"one": STATES[:1]}, codec)
