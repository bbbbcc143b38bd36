"""A style and a text that disagree (notebook 14): two sliders of guidance, and the number of codebooks that pass.

    guidance α          away from the model without conditions, towards text and style together
    style guidance β    from the style alone towards style and text: above 1 the text gains, at 0 it is ignored

`conflict` draws what the tagger hears over one of the two, as the static picture beside the widget.
"""

import time
from collections.abc import Mapping
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import ipywidgets
from torch import Tensor

from minigen.display.players import audio_tag
from minigen.display.plots import lines, spectrogram
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_STYLE = "no style"


class StyleExplorer(ipywidgets.VBox):
    """Widget for a caption, an excerpt, two guidance scales and the codebooks, which plays and draws the sound.

    A mistake, such as an empty caption, is reported below the controls. Without a style the caption alone is used, and
    style guidance and codebooks have no effect.

    Args:
        tta: a `minigen.generate.TextToAudio` with a style conditioner.
        excerpts: name -> waveform [1, 1, samples] of at least 0.5 s and at most `seconds`.
        caption: at the beginning.
        seconds: length of each sound; making it takes about as long on two cores.
        seed: at the beginning.

    Raises:
        MinigenError: no excerpts.
    """

    def __init__(
        self, tta, excerpts: Mapping[str, Tensor], caption: str = "A dog barks", seconds: float = 2.0, seed: int = 0
    ):
        if not excerpts:
            raise MinigenError("there are no excerpts. Give one or more, by name.")
        self.tta, self.excerpts, self.seconds = tta, dict(excerpts), seconds
        name = {"description_width": "110px"}  # holds "style guidance"
        wide = {"layout": ipywidgets.Layout(width="520px"), "style": name}
        slide = {"min": 0, "max": 10, "step": 0.5, "continuous_update": False, **wide}
        self.caption = ipywidgets.Text(caption, description="caption", continuous_update=False, **wide)
        self.excerpt = ipywidgets.Dropdown(options=[*self.excerpts, NO_STYLE], description="excerpt", **wide)
        self.guidance = ipywidgets.FloatSlider(3.0, description="guidance α", **slide)
        self.style_guidance = ipywidgets.FloatSlider(5.0, description="style guidance β", **slide)
        self.codebooks = ipywidgets.Dropdown(options=range(1, 7), value=3, description="codebooks q", **wide)
        self.seed = ipywidgets.BoundedIntText(seed, min=0, max=9999, description="seed", style=name)
        self.again = ipywidgets.Button(description="next seed")
        self.said = ipywidgets.HTML("Move a slider, or end the caption with Enter: the sound follows.")
        self.sound, self.picture = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.picture.layout = ipywidgets.Layout(width="600px", display="none")
        controls = (self.caption, self.excerpt, self.guidance, self.style_guidance, self.codebooks, self.seed)
        for control in controls:
            control.observe(self.make, names="value")
        self.again.on_click(self._next)
        row = ipywidgets.HBox((self.seed, self.again))
        super().__init__((*controls[:5], row, self.said, self.sound, self.picture))

    def make(self, _change=None) -> None:
        """Make the sound of the current settings and show it."""
        started = time.perf_counter()
        self.said.value = f"making {self.seconds:g} s of sound …"
        try:
            wav = self.tta.generate(
                self.caption.value, self.seconds, guidance=self.guidance.value, seed=self.seed.value, **self._style()
            )
        except MinigenError as error:
            self.said.value = escape(str(error))
            return
        self._show(wav)
        self.said.value += f" (made in {time.perf_counter() - started:.1f} s)"

    def _style(self) -> dict[str, object]:
        """Options of the generation that belong to the excerpt; none without one."""
        if self.excerpt.value == NO_STYLE:
            return {}
        scale, codebooks = self.style_guidance.value, self.codebooks.value
        return {"style": self.excerpts[self.excerpt.value], "style_guidance": scale, "codebooks": codebooks}

    def _show(self, wav: Tensor) -> None:
        rate, picture = self.tta.codec.sample_rate, BytesIO()
        self.sound.value = audio_tag(wav, rate, autoplay=True)
        spectrogram(wav, rate, f"{self.caption.value} | {self.excerpt.value}").savefig(picture, format="png")
        self.picture.value, self.picture.layout.display = picture.getvalue(), None
        settings = f"{self.caption.value}; {self.excerpt.value}; α {self.guidance.value:g}"
        if self.excerpt.value != NO_STYLE:
            settings += f", β {self.style_guidance.value:g}, q {self.codebooks.value}"
        self.said.value = escape(f"{settings}, seed {self.seed.value}")

    def _next(self, _button=None) -> None:
        self.seed.value = (self.seed.value + 1) % (self.seed.max + 1)  # the change of seed makes the sound


def conflict(heard: Mapping[str, Mapping[float, float]], scale: str = "style guidance β") -> "Figure":
    """Figure of what is heard over one guidance scale: name of an event -> (value of the scale -> share of sounds).

    Raises:
        MinigenError: no event.
    """
    if not heard:
        raise MinigenError("there is nothing to draw. Give one event or more, each with its shares.")
    return lines(
        {name: (list(shares), list(shares.values())) for name, shares in heard.items()}, scale, "share of sounds"
    )
