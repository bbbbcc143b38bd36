"""Players hold the sound itself, the chain lights what it is told to, the explorer follows its controls."""

import base64
import io
import re
from types import SimpleNamespace
from xml.dom import minidom

import pytest
import soundfile
import torch

from minigen.errors import MinigenError
from minigen.explorers.guidance import GuidanceExplorer
from minigen.widgets import BOXES, PIECES, chain, chain_svg, player, players

SINE = torch.sin(torch.arange(1600) * 0.1).view(1, 1, -1) * 0.5


def sound_in(html: str) -> tuple:
    """Samples and rate of the first sound in a page."""
    source = re.search(r'src="data:audio/flac;base64,([^"]+)"', html)[1]
    return soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")


class FakeTextToAudio:
    """Notes what it is asked for; refuses an empty caption as the real one does."""

    codec = SimpleNamespace(sample_rate=16000)

    def __init__(self):
        self.asked = []

    def generate(self, caption, seconds, **settings):
        if not caption.strip():
            raise MinigenError("captions are ['<>']. Give one.")
        self.asked.append((caption, seconds, settings))
        return SINE


def test_a_player_holds_the_sound_to_sixteen_bits_at_its_rate():
    samples, rate = sound_in(player(SINE, 8000).data)
    assert rate == 8000
    assert (torch.from_numpy(samples) - SINE.flatten()).abs().max() < 1 / 32000


def test_a_title_cannot_break_the_page():
    assert "<b>" not in player(SINE, title="<b>").data
    assert "<b>" not in players({"<b>": SINE}).data


def test_players_show_a_picture_beside_every_sound():
    html = players({"one": SINE, "two": -SINE}).data
    assert html.count("<audio") == html.count("data:image/png") == 2
    assert 'alt="spectrogram: two"' in html


@pytest.mark.parametrize("wav", [torch.zeros(2, 1, 100), torch.zeros(1, 1, 0), torch.tensor(0.5), SINE / 0])
def test_what_is_no_single_sound_is_refused(wav):
    with pytest.raises(MinigenError):
        player(wav)


def test_the_chain_lights_exactly_the_pieces_named():
    dark, lit = chain_svg(), chain_svg(("codec", "text"))
    assert dark.count("#0072b2") == 0
    assert lit.count("#0072b2") == 3  # the codec has two boxes
    minidom.parseString(lit)
    assert base64.b64encode(lit.encode()).decode() in chain("codec", "text").data


def test_no_two_boxes_of_the_chain_overlap():
    places = [box[2:6] for box in BOXES]
    for i, (x, y, width, height) in enumerate(places):
        for left, top, wide, high in places[:i]:
            assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height


def test_an_unknown_piece_is_named_with_the_known_ones():
    with pytest.raises(MinigenError, match="decoder.*" + PIECES[0]):
        chain("decoder")


def test_the_explorer_asks_for_what_its_controls_say():
    tta = FakeTextToAudio()
    explorer = GuidanceExplorer(tta, "rain", seconds=0.5)
    assert tta.asked == []  # nothing is made before the reader moves something
    explorer.guidance.value = 7.0
    explorer.temperature.value = 0.5
    explorer.caption.value = "a dog barks"
    explorer.again.click()
    assert len(tta.asked) == 4
    assert tta.asked[-1] == ("a dog barks", 0.5, {"guidance": 7.0, "temperature": 0.5, "seed": 1})


def test_the_explorer_plays_and_shows_what_was_made():
    explorer = GuidanceExplorer(FakeTextToAudio())
    assert explorer.picture.layout.display == "none"
    explorer.guidance.value = 1.0
    assert len(sound_in(explorer.sound.value)[0]) == 1600
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert explorer.picture.layout.display is None
    assert "guidance 1, temperature 1, seed 0" in explorer.said.value


def test_the_explorer_says_a_mistake_and_goes_on():
    explorer = GuidanceExplorer(FakeTextToAudio())
    explorer.caption.value = "  "
    assert "Give one." in explorer.said.value
    assert "<>" not in explorer.said.value
    explorer.caption.value = "rain"
    assert "rain: guidance 3" in explorer.said.value
