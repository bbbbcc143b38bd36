"""Continuous diffusion step by step (notebook 13): move through the steps, see noise become a spectrogram, hear both.

    step 3 of 25, t = 0.88     state x_t            predicted clip x_0
                               ░▒▓▒░▓▒░▒▓           ▁▂▃▅▃▂▁▁▂▃
                               [player]             [player]

The pictures are the log spectra that belong to the latents, f ≈ Wᵀ (z - b) with the weight W and the bias b of the
codec's encoder. The sounds are what the codec's decoder makes of the same latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from minigen.codec import Codec
from minigen.display.players import audio_tag
from minigen.engine.errors import MinigenError
from minigen.generators.latent_diffusion import LatentDenoiser, LatentSampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUIET, LOUD = -70.0, 40.0  # dB, ends of the colour scale


@dataclass(frozen=True)
class Moment:
    """One clip at noise level t: its state x_t and the x_0 that the model predicts for it, both [1, T, C]."""

    t: float
    state: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Recorder:
    """A sampler for `iterate` that also keeps the first clip of the batch at every step.

    Attributes:
        sampler: the sampler that moves the states.
        moments: filled while the loop runs, one for each step; `finish` adds the last state.
    """

    sampler: LatentSampler
    moments: list[Moment] = field(default_factory=list)

    def __getattr__(self, name: str):
        """Start, times, noise_level and attend are those of the sampler."""
        return getattr(self.sampler, name)

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """As `LatentSampler.step`."""
        x0 = self.sampler.clean(self.sampler.process.to_x0(predicted, state, t), known)
        self.moments.append(Moment(t, state[:1].clone(), x0[:1].clone()))
        return self.sampler.step(state, known, t, s, predicted, generator)

    def finish(self, state: Tensor) -> list[Moment]:
        """The moments, with the last state [B, T, C], which is its own prediction."""
        return [*self.moments, Moment(0.0, state[:1], state[:1])]


@torch.no_grad()
def log_spectrum(codec: Codec, latents: Tensor) -> Tensor:
    """Spectrogram in dB that belongs to latents: [1, T, D] -> [bins, T], bins from 0 Hz to half the sample rate."""
    features = (latents[0] - codec.encoder.bias) @ codec.encoder.weight  # [T, F], log10 of weighted magnitudes
    bins = len(codec.features.weight)
    return (20 * features[:, :bins] / codec.features.weight).T


def filmstrip(pictures: Mapping[str, Tensor], codec: Codec, columns: int = 5) -> "Figure":
    """Matplotlib figure of spectrograms in a row, with one colour scale. pictures: title -> dB [bins, T]."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(0.9 + 2.0 * min(columns, len(pictures)), 0.3 + 2.0 * rows), layout="constrained")
    panels = figure.subplots(rows, min(columns, len(pictures)), sharex=True, sharey=True, squeeze=False)
    top = codec.sample_rate / 2000
    for place, axis in enumerate(panels.flat):
        if place >= len(pictures):
            axis.remove()
            continue
        title, picture = list(pictures.items())[place]
        image = axis.imshow(
            picture.numpy(), origin="lower", aspect="auto", cmap="magma", vmin=QUIET, vmax=LOUD,
            extent=(0, picture.shape[1] / codec.frame_rate, 0, top), interpolation="nearest",
        )  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="time (s)", ylabel="frequency (kHz)" if place % columns == 0 else "")
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=3)
    figure.colorbar(image, ax=figure.axes, label="level (dB)")
    return figure


def describe(moments: Sequence[Moment], step: int) -> str:
    """Sentence on a step: its noise level, and the deviation of what the model predicts there."""
    moment = moments[step]
    return (
        f"step {step} of {len(moments) - 1}: t = {moment.t:.2f}, deviation of the state {moment.state.std():.2f}, "
        f"of the predicted clip {moment.x0.std():.2f}."
    )


class DenoisingExplorer(ipywidgets.VBox):
    """Widget with a slider of steps, which shows and plays the state and the predicted clip.

    Args:
        runs: name of a run -> its moments, see `Recorder`.
        model: the model, for its scale.
        codec: the codec of the latents.

    Raises:
        MinigenError: no run, or a run of one moment.
    """

    def __init__(self, runs: Mapping[str, Sequence[Moment]], model: LatentDenoiser, codec: Codec):
        if not runs or min(map(len, runs.values())) < 2:
            raise MinigenError("there is nothing to show. Give one run or more, each with two moments or more.")
        self.runs, self.model, self.codec = dict(runs), model, codec
        style = {"style": {"description_width": "60px"}, "layout": ipywidgets.Layout(width="520px")}
        self.run = ipywidgets.Dropdown(options=list(self.runs), description="run", **style)
        last = len(self.moments) - 1
        self.step = ipywidgets.IntSlider(
            last // 2, min=0, max=last, description="step", continuous_update=False, **style
        )
        self.said, self.sounds = ipywidgets.HTML(), (ipywidgets.HTML(), ipywidgets.HTML())
        self.image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="560px"))
        self.run.observe(self._fit, names="value")
        self.step.observe(self.show, names="value")
        super().__init__((self.run, self.step, self.said, self.image, ipywidgets.HBox(self.sounds)))
        self.show()

    @property
    def moments(self) -> Sequence[Moment]:
        """Moments of the chosen run."""
        return self.runs[self.run.value]

    @torch.no_grad()
    def show(self, _change=None) -> None:
        """Draw and play the chosen step."""
        moment, file = self.moments[self.step.value], BytesIO()
        shown = {"state": moment.state, "predicted clip": moment.x0}
        latents = {name: self.model.to_latents(x) for name, x in shown.items()}
        pictures = {name: log_spectrum(self.codec, z) for name, z in latents.items()}
        filmstrip(pictures, self.codec).savefig(file, format="png")
        self.image.value, self.said.value = file.getvalue(), describe(self.moments, self.step.value)
        for sound, z in zip(self.sounds, latents.values(), strict=True):
            sound.value = audio_tag(self.codec.synthesize(z).clamp(-1, 1), self.codec.sample_rate)

    def _fit(self, _change) -> None:
        """Another run may have another number of steps."""
        self.step.max = len(self.moments) - 1  # moves the slider where it is beyond
        self.show()


def some_steps(moments: Sequence[Moment], count: int = 5) -> list[int]:
    """Numbers of `count` steps, evenly spaced from the first to the last."""
    return np.linspace(0, len(moments) - 1, count).round().astype(int).tolist()
