"""Guidance, temperature and top-k by ear (notebooks 00 and 07): type a caption, move a slider, hear and see the result.

`plots.spectrograms` of a few settings is the static picture beside it.
"""

import time
from html import escape
from io import BytesIO

import ipywidgets
from torch import Tensor

from minigen.display.players import audio_tag
from minigen.display.plots import spectrogram
from minigen.engine.errors import MinigenError

TOP_K = (("1, always the likeliest", 1), ("5", 5), ("25", 25), ("100", 100), ("250", 250), ("all codes", 0))


class GuidanceExplorer(ipywidgets.VBox):
    """Widget for a caption, guidance, temperature and top-k, which plays and draws the sound after each change.

    tta: a `minigen.generate.TextToAudio`. seconds: length of each sound; making it takes about as long on two cores.
    A mistake, such as an empty caption, is reported below the controls.
    """

    def __init__(self, tta, caption: str = "A dog barks twice", seconds: float = 2.0, seed: int = 0):
        self.tta, self.seconds = tta, seconds
        name = {"description_width": "90px"}  # holds "temperature"
        wide = {"layout": ipywidgets.Layout(width="520px"), "style": name, "continuous_update": False}
        self.caption = ipywidgets.Text(caption, description="caption", **wide)
        self.guidance = ipywidgets.FloatSlider(3.0, min=0, max=10, step=0.5, description="guidance", **wide)
        self.temperature = ipywidgets.FloatSlider(1.0, min=0, max=1.5, step=0.1, description="temperature", **wide)
        self.top_k = ipywidgets.SelectionSlider(options=TOP_K, value=250, description="top-k", **wide)
        self.seed = ipywidgets.BoundedIntText(seed, min=0, max=9999, description="seed", style=name)
        self.again = ipywidgets.Button(description="next seed")
        self.said = ipywidgets.HTML("Move a slider, or end the caption with Enter: the sound follows.")
        self.sound, self.picture = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.picture.layout = ipywidgets.Layout(width="600px", display="none")
        controls = (self.caption, self.guidance, self.temperature, self.top_k, self.seed)
        for control in controls:
            control.observe(self.make, names="value")
        self.again.on_click(self._next)
        row = ipywidgets.HBox((self.seed, self.again))
        super().__init__((*controls[:4], row, self.said, self.sound, self.picture))

    def make(self, _change=None) -> None:
        """Make the sound of the current settings and show it."""
        started = time.perf_counter()
        self.said.value = f"making {self.seconds:g} s of sound …"
        names = ("guidance", "temperature", "top_k", "seed")
        settings = {name: getattr(self, name).value for name in names}
        try:
            wav = self.tta.generate(self.caption.value, self.seconds, **settings)
        except MinigenError as error:
            self.said.value = escape(str(error))
            return
        self._show(wav, ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in settings.items()))
        self.said.value += f" (made in {time.perf_counter() - started:.1f} s)"

    def _show(self, wav: Tensor, settings: str) -> None:
        rate, picture = self.tta.codec.sample_rate, BytesIO()
        self.sound.value = audio_tag(wav, rate, autoplay=True)
        spectrogram(wav, rate, self.caption.value).savefig(picture, format="png")
        self.picture.value, self.picture.layout.display = picture.getvalue(), None
        self.said.value = escape(f"{self.caption.value}: {settings}")

    def _next(self, _button=None) -> None:
        self.seed.value = (self.seed.value + 1) % (self.seed.max + 1)  # the change of seed makes the sound
