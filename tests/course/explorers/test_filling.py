"""The filling explorer: the picture shows which step decided each cell, and the sound is that of the decided cells."""

import re

import pytest
import torch
from standins import tiny_codec

from minigen.course.explorers.filling import (
    BEFORE,
    HIDDEN,
    NOW,
    FillingExplorer,
    describe,
    filmstrip,
    status,
    steps_of_decision,
    with_silence,
)
from minigen.engine.errors import MinigenError

V = 16
STATES = [  # cell (0, 0) is given; two steps
    torch.tensor([[3, V, V], [V, V, V]]),
    torch.tensor([[3, 5, V], [V, V, 7]]),
    torch.tensor([[3, 5, 1], [2, 9, 7]]),
]


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def run(codec, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """States of a run that decides one frame in each step."""
    codes = torch.randint(0, V, (codec.num_codebooks, 12), generator=torch.Generator().manual_seed(seed))
    return [torch.where(torch.arange(12) < step, codes, V) for step in range(steps + 1)]


def test_every_cell_has_the_step_that_decided_it():
    assert steps_of_decision(STATES, V).tolist() == [[0, 1, 2], [2, 2, 1]]
    assert steps_of_decision(STATES[:2], V).tolist() == [[0, 1, 2], [2, 2, 1]], "hidden cells have len(states)"


def test_the_status_after_each_step():
    assert status(STATES, 0, V).tolist() == [[BEFORE, HIDDEN, HIDDEN], [HIDDEN] * 3]
    assert status(STATES, 1, V).tolist() == [[BEFORE, NOW, HIDDEN], [HIDDEN, HIDDEN, NOW]]
    assert status(STATES, 2, V).tolist() == [[BEFORE, BEFORE, NOW], [NOW, NOW, BEFORE]]


def test_the_sentence_counts_cells():
    assert describe(STATES, 0, V) == "step 0 of 2: 0 cells decided, 5 of 6 hidden."
    assert describe(STATES, 1, V) == "step 1 of 2: 2 cells decided, 3 of 6 hidden."
    assert describe(STATES, 2, V) == "step 2 of 2: 3 cells decided, 0 of 6 hidden."


def test_hidden_cells_are_played_as_silence(codec):
    silence = codec.encode(torch.zeros(1, 1, 3 * 320))
    played = with_silence(STATES[1], codec)
    assert played.shape == (1, 2, 3) and played.max() < V
    assert torch.equal(played[0] == STATES[1], (STATES[1] != V) | (silence[0] == STATES[1]))
    assert torch.equal(played[0][STATES[1] == V], silence[0][STATES[1] == V])
    assert torch.equal(with_silence(STATES[2], codec)[0], STATES[2])


def test_the_filmstrip_has_a_panel_for_each_step_in_the_colours_of_the_status():
    figure = filmstrip(STATES, [0, 2], V)
    assert len(figure.axes) == 2 and figure.axes[1].get_xlabel() == "time (s)"
    for axis, step in zip(figure.axes, (0, 2), strict=True):
        assert axis.images[0].get_array().tolist() == status(STATES, step, V).tolist()
        assert axis.get_title(loc="left") == describe(STATES, step, V)


def test_every_control_changes_picture_sentence_and_sound(codec):
    explorer = FillingExplorer({"one": run(codec, 12), "other": run(codec, 6, seed=1)}, codec)
    shown = [(bytes(explorer.image.value), explorer.said.value, explorer.sound.value)]
    for control, value in ((explorer.step, 4), (explorer.run, "other")):
        control.value = value
        shown.append((bytes(explorer.image.value), explorer.said.value, explorer.sound.value))
    for column in zip(*shown, strict=True):
        assert len(set(column)) == 3
    assert shown[0][0].startswith(b"\x89PNG") and all(re.search("data:audio/flac", sound) for *_, sound in shown)


def test_a_run_with_fewer_steps_moves_the_slider_back(codec):
    explorer = FillingExplorer({"one": run(codec, 12), "other": run(codec, 6)}, codec)
    explorer.step.value = 12
    explorer.run.value = "other"
    assert explorer.step.max == explorer.step.value == 6 and explorer.said.value.startswith("step 6 of 6")


@pytest.mark.parametrize("runs", [{}, {"one": STATES[:1]}])
def test_nothing_to_show_is_refused(runs, codec):
    with pytest.raises(MinigenError, match="nothing to show"):
        FillingExplorer(runs, codec)
