"""Bit rate by ear (notebook 02): choose a sound and a number of codebooks, and hear and see the decoded sound."""

from collections.abc import Mapping
from html import escape
from io import BytesIO

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from minigen.display.players import audio_tag
from minigen.display.plots import mel_db, spectrogram


def mel_distance_db(first: Tensor, second: Tensor, sample_rate: int) -> float:
    """Mean distance of two sounds' mel spectrograms in dB, |10 log10 mel(x) − 10 log10 mel(y)|.

    The longer sound is cut to the length of the shorter one.

    first, second: one clip each, [samples], [1, samples] or [1, 1, samples].
    """
    samples = min(first.shape[-1], second.shape[-1])
    pictures = [mel_db(wav[..., :samples], sample_rate) for wav in (first, second)]
    return float(np.abs(pictures[0] - pictures[1]).mean())


def bit_rate(codec, codebooks: int) -> float:
    """Bits a second of the first `codebooks` codebooks: frame rate · k · log2 V."""
    return codec.frame_rate * codebooks * float(np.log2(codec.codebook_size))


class BitrateExplorer(ipywidgets.VBox):
    """Widget to choose a sound and a number of codebooks, and to switch between decoded and original.

    codec: of `minigen.codec.load_codec`. sounds: name -> waveform [1, 1, samples] at the codec's rate. The sound is
    decoded from the sum of the first k entries of each frame.
    """

    def __init__(self, codec, sounds: Mapping[str, Tensor]):
        self.codec, self.sounds = codec, dict(sounds)
        self.codes = {name: codec.encode(wav) for name, wav in self.sounds.items()}
        wide = {"layout": ipywidgets.Layout(width="520px"), "style": {"description_width": "90px"}}
        most = codec.num_codebooks
        self.sound = ipywidgets.Dropdown(options=list(self.sounds), description="sound", **wide)
        self.codebooks = ipywidgets.IntSlider(
            most, min=1, max=most, description="codebooks", continuous_update=False, **wide
        )
        self.what = ipywidgets.RadioButtons(
            options=["decoded", "original"], description="hear", orientation="horizontal", **wide
        )
        self.said = ipywidgets.HTML("Choose a sound, or move the slider: it is decoded at once.")
        self.player, self.picture = ipywidgets.HTML(), ipywidgets.Image(format="png")
        self.picture.layout = ipywidgets.Layout(width="600px", display="none")
        for control in (self.sound, self.codebooks, self.what):
            control.observe(self.show, names="value")
        super().__init__((self.sound, self.codebooks, self.what, self.said, self.player, self.picture))

    @torch.no_grad()
    def show(self, _change=None) -> None:
        """Decode the current choice and show it."""
        name, k, codec = self.sound.value, self.codebooks.value, self.codec
        original = self.sounds[name]
        if self.what.value == "original":
            self._draw(original, name, f"{16 * codec.sample_rate / 1000:g} kb/s as 16-bit samples")
            return
        decoded = codec.decode(self.codes[name][:, :k])
        far = mel_distance_db(original, decoded, codec.sample_rate)
        plural = "s" if k > 1 else ""
        kbps = bit_rate(codec, k) / 1000
        self._draw(decoded, name, f"{k} codebook{plural}, {kbps:g} kb/s, {far:.1f} dB from the original")

    def _draw(self, wav: Tensor, name: str, words: str) -> None:
        rate, picture = self.codec.sample_rate, BytesIO()
        self.player.value = audio_tag(wav, rate, autoplay=True)
        spectrogram(wav, rate, f"{name}: {words.split(',')[0]}").savefig(picture, format="png")
        self.picture.value, self.picture.layout.display = picture.getvalue(), None
        self.said.value = escape(f"{name}: {words}")
