"""The style explorer makes what its controls say, plays and shows it, and survives a mistake."""

import base64
import io
import re
from types import SimpleNamespace

import pytest
import soundfile
import torch
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.conditioning.styled_lm import StyledLM
from minigen.course.explorers.style import NO_STYLE, StyleExplorer, conflict
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.generators.styled import StyleGenerator

SINE = torch.sin(torch.arange(1600) * 0.1).view(1, 1, -1) * 0.5
EXCERPTS = {"rain": 0.5 * SINE, "a dog": 0.25 * SINE}


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


def test_the_explorer_asks_for_what_its_controls_say():
    tta = FakeTextToAudio()
    explorer = StyleExplorer(tta, EXCERPTS, "rain", seconds=0.5)
    assert tta.asked == []  # nothing is made before the reader moves something
    explorer.guidance.value = 7.0
    explorer.style_guidance.value = 1.5
    explorer.codebooks.value = 6
    explorer.excerpt.value = "a dog"
    explorer.caption.value = "a dog barks"
    explorer.again.click()
    assert len(tta.asked) == 6
    caption, seconds, settings = tta.asked[-1]
    assert (caption, seconds) == ("a dog barks", 0.5)
    assert torch.equal(settings.pop("style"), EXCERPTS["a dog"])
    assert settings == {"guidance": 7.0, "style_guidance": 1.5, "codebooks": 6, "seed": 1}


def test_without_a_style_only_the_caption_is_asked_for():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS)
    explorer.excerpt.value = NO_STYLE
    assert explorer.tta.asked == [("A dog barks", 2.0, {"guidance": 3.0, "seed": 0})]
    assert "β" not in explorer.said.value and "α 3, seed 0" in explorer.said.value


def test_both_sliders_begin_at_the_defaults_and_reach_plain_conditioning_and_nothing():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS)
    assert (explorer.guidance.value, explorer.style_guidance.value, explorer.codebooks.value) == (3, 5, 3)
    for slider in (explorer.guidance, explorer.style_guidance):
        assert slider.min == 0 and slider.max >= 7 and (1 - slider.min) % slider.step == 0
    assert explorer.codebooks.options == (1, 2, 3, 4, 5, 6)


def test_every_control_is_on_the_screen():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS)
    shown = {*explorer.children, *explorer.children[5].children}
    names = (
        "caption",
        "excerpt",
        "guidance",
        "style_guidance",
        "codebooks",
        "seed",
        "again",
        "said",
        "sound",
        "picture",
    )
    for name in names:
        assert getattr(explorer, name) in shown, name


def test_the_explorer_plays_and_shows_what_was_made():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS)
    assert explorer.picture.layout.display == "none"
    explorer.style_guidance.value = 1.0
    source = re.search(r'src="data:audio/flac;base64,([^"]+)"', explorer.sound.value)[1]
    assert len(soundfile.read(io.BytesIO(base64.b64decode(source)))[0]) == 1600
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert explorer.picture.layout.display is None
    assert "A dog barks; rain; α 3, β 1, q 3, seed 0" in explorer.said.value


def test_the_explorer_says_a_mistake_and_goes_on():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS)
    explorer.caption.value = "  "
    assert "Give one." in explorer.said.value and "<>" not in explorer.said.value
    explorer.caption.value = "rain & wind"
    assert "rain &amp; wind; rain" in explorer.said.value
    with pytest.raises(MinigenError, match="no excerpts"):
        StyleExplorer(FakeTextToAudio(), {})


def test_the_last_seed_is_followed_by_the_first():
    explorer = StyleExplorer(FakeTextToAudio(), EXCERPTS, seed=9999)
    explorer.again.click()
    assert explorer.seed.value == 0


def test_a_real_generator_takes_all_that_the_explorer_asks_for():
    codes = torch.randint(0, 16, (4, 2, 60), generator=torch.Generator().manual_seed(1))
    model = StyledLM.from_language_model(tiny_lm(1), codes).eval()
    tta = TextToAudio(tiny_codec(), WordEncoder(), StyleGenerator(model))
    noise = 0.1 * torch.randn(1, 1, 9600, generator=torch.Generator().manual_seed(2))
    explorer = StyleExplorer(tta, {"noise": noise}, "rain", seconds=0.6)
    for control, value in ((explorer.style_guidance, 2.0), (explorer.codebooks, 1), (explorer.excerpt, NO_STYLE)):
        control.value = value
        assert "made in" in explorer.said.value


def test_the_static_picture_has_a_line_for_each_event():
    figure = conflict({"a dog": {1.0: 0.25, 5.0: 0.75}, "rain": {1.0: 1.0, 5.0: 0.5}})
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}
    assert drawn == {"a dog": ([1.0, 5.0], [0.25, 0.75]), "rain": ([1.0, 5.0], [1.0, 0.5])}
    assert figure.axes[0].get_xlabel() == "style guidance β"
    with pytest.raises(MinigenError, match="nothing to draw"):
        conflict({})
