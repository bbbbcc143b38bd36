"""The guidance explorer makes what its controls say, plays and shows it, and survives a mistake."""

import base64
import io
import re
from types import SimpleNamespace

import soundfile
import torch

from minigen.course.explorers.guidance import GuidanceExplorer
from minigen.engine.errors import MinigenError

SINE = torch.sin(torch.arange(1600) * 0.1).view(1, 1, -1) * 0.5


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


def sound_in(html: str):
    """Samples of the first sound in a page."""
    source = re.search(r'src="data:audio/flac;base64,([^"]+)"', html)[1]
    return soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")[0]


def test_the_explorer_asks_for_what_its_controls_say():
    tta = FakeTextToAudio()
    explorer = GuidanceExplorer(tta, "rain", seconds=0.5)
    assert tta.asked == []  # nothing is made before the reader moves something
    explorer.guidance.value = 7.0
    explorer.temperature.value = 0.5
    explorer.top_k.value = 25
    explorer.caption.value = "a dog barks"
    explorer.again.click()
    assert len(tta.asked) == 5
    settings = {"guidance": 7.0, "temperature": 0.5, "top_k": 25, "seed": 1}
    assert tta.asked[-1] == ("a dog barks", 0.5, settings)


def test_every_place_of_the_top_k_slider_is_a_number_that_sampling_takes():
    from minigen.generate import sample

    explorer = GuidanceExplorer(FakeTextToAudio())
    for _, top_k in explorer.top_k.options:
        explorer.top_k.value = top_k
        assert len(sample(torch.zeros(2, 1024), top_k=explorer.tta.asked[-1][2]["top_k"])) == 2
    assert [asked[2]["top_k"] for asked in explorer.tta.asked] == [1, 5, 25, 100, 250, 0]


def test_every_control_is_on_the_screen():
    explorer = GuidanceExplorer(FakeTextToAudio())
    shown = {*explorer.children, *explorer.children[4].children}
    for name in ("caption", "guidance", "temperature", "top_k", "seed", "again", "said", "sound", "picture"):
        assert getattr(explorer, name) in shown, name


def test_the_explorer_plays_and_shows_what_was_made():
    explorer = GuidanceExplorer(FakeTextToAudio())
    assert explorer.picture.layout.display == "none"
    explorer.guidance.value = 1.0
    assert len(sound_in(explorer.sound.value)) == 1600
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert explorer.picture.layout.display is None
    assert "guidance 1, temperature 1, top-k 250, seed 0" in explorer.said.value


def test_the_last_seed_is_followed_by_the_first():
    explorer = GuidanceExplorer(FakeTextToAudio(), seed=9999)
    explorer.again.click()
    assert explorer.seed.value == 0


def test_the_explorer_says_a_mistake_and_goes_on():
    explorer = GuidanceExplorer(FakeTextToAudio())
    explorer.caption.value = "  "
    assert "Give one." in explorer.said.value
    assert "<>" not in explorer.said.value
    explorer.caption.value = "rain"
    assert "rain: guidance 3" in explorer.said.value
