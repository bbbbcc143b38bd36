"""The delay explorer: what it calls known is what the network sees, and every control changes what is shown."""

import pytest
import torch

from minigen.course.explorers.delay import (
    KNOWN,
    PATTERNS,
    TARGET,
    TOGETHER,
    DelayExplorer,
    code_name,
    describe,
    picture,
    states,
)
from minigen.lm import AudioLM, AudioLMConfig, shift_right


def test_the_drawing_in_its_module_is_what_it_shows():
    now = states(PATTERNS["delay 0-1-2-3"], 5, column=3, stream=1)
    known = {code_name(k, t) for k, t in (now == KNOWN).nonzero().tolist()}
    assert known == {"a0", "a1", "a2", "b0", "b1", "c0"}
    assert now[1, 2] == TARGET and now[0, 3] == TOGETHER and now[2, 1] == TOGETHER and now[3, 0] == TOGETHER


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_called_known_is_what_a_network_can_see(name):
    """Change one code at a time: exactly the known ones change the logits of the predicted cell."""
    torch.manual_seed(0)
    pattern, frames, special = PATTERNS[name], 2, 7
    lm = AudioLM(AudioLMConfig(4, special, 16, 2, 2, 32, 8)).double().eval()
    codes = torch.randint(special, (1, 4, frames))
    changed = codes.repeat(4 * frames, 1, 1)
    changed.flatten(1).fill_diagonal_(0).add_((torch.eye(4 * frames) * (codes.flatten() + 1) % special).long())
    with torch.no_grad():
        before, after = (lm(shift_right(pattern.apply(x, special), special)) for x in (codes, changed))
    moved = (after - before).abs().amax(-1) > 1e-9  # [code, K, S]
    for stream in range(4):
        for column in pattern.positions(frames)[stream].tolist():
            now = states(pattern, frames, column, stream)
            assert torch.equal(moved[:, stream, column].view(4, frames), now == KNOWN), (stream, column)


def test_the_sentence_names_what_is_known_and_what_is_missing():
    said = describe(PATTERNS["delay 0-1-2-3"], 5, 3, 1)
    assert said.startswith("column 3: b2 is predicted.") and "own frame: a2." in said
    assert "earlier frames: d0, c1, d1." in said
    assert "a gap" in describe(PATTERNS["flatten"], 5, 3, 1)
    assert describe(PATTERNS["coarse-first"], 3, 4, 1).endswith("Known of later frames: a2.")
    assert "own frame: nothing. Not known of earlier frames: nothing." in describe(PATTERNS["parallel"], 5, 3, 1)


def test_every_control_changes_the_picture_and_the_sentence():
    explorer = DelayExplorer()
    shown = [(bytes(explorer.image.value), explorer.said.value)]
    for control, value in ((explorer.column, 4), (explorer.stream, 2), (explorer.pattern, "parallel")):
        control.value = value
        shown.append((bytes(explorer.image.value), explorer.said.value))
    assert len(set(shown)) == len({png for png, _ in shown}) == len({text for _, text in shown}) == 4
    assert all(png.startswith(b"\x89PNG") for png, _ in shown)


def test_a_pattern_with_fewer_columns_moves_the_slider_back():
    explorer = DelayExplorer("flatten", frames=5, column=19)
    explorer.pattern.value = "parallel"
    assert explorer.column.max == explorer.column.value == 4
    explorer.pattern.value = "coarse-first"
    assert explorer.column.max == 9 and explorer.column.value == 4
    assert "column 4: b" not in explorer.said.value and "gap" in explorer.said.value


def test_the_picture_has_a_cell_for_every_place_and_its_axes_are_named():
    above, below = picture(PATTERNS["delay 0-1-2-3"], 5, 3, 1, "delay").axes
    assert above.get_xlabel() == "column of the sequence" and below.get_xlabel() == "frame of the clip"
    assert above.get_ylabel() == below.get_ylabel() == "codebook"
    words = [text.get_text() for text in above.texts]
    assert len(words) == 4 * 8 and words.count("V") == 12 and len(below.texts) == 20
