"""Audio players for notebooks and pages.

    player(wav, rate)      one sound
    players(wavs, rate)    several sounds in a table, each with its spectrogram

Sounds are embedded as 16-bit FLAC, so that a saved notebook plays them without files, network or kernel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from minigen.audio import SAMPLE_RATE, check_floats
from minigen.display.plots import spectrogram_png
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from IPython.display import HTML


def player(wav: Tensor, sample_rate: int = SAMPLE_RATE, title: str = "") -> HTML:
    """A player for one sound: wav [samples], [1, samples] or [1, 1, samples].

    Raises:
        MinigenError: several sounds in one tensor, no samples, NaN or infinity.
    """
    from IPython.display import HTML

    return HTML(f"<p>{escape(title)}</p>{audio_tag(wav, sample_rate)}")


def players(wavs: Mapping[str, Tensor], sample_rate: int = SAMPLE_RATE) -> HTML:
    """A table of sounds to compare: title, spectrogram (0 Hz at the bottom, one colour scale) and player of each.

    wavs: title -> wav, each of a shape that `player` takes.

    Raises:
        MinigenError: as `player`.
    """
    from IPython.display import HTML

    rows = []
    for title, wav in wavs.items():
        audio = audio_tag(wav, sample_rate)
        picture = data_uri(spectrogram_png(wav, sample_rate), "image/png")
        alt = escape(f"spectrogram: {title}", quote=True)
        rows.append(
            f'<tr><th style="text-align:left">{escape(title)}</th><td><img alt="{alt}" src="{picture}" '
            f'style="width:280px;height:90px"></td><td>{audio}</td></tr>'
        )
    return HTML(f"<table>{''.join(rows)}</table>")


def audio_tag(wav: Tensor, sample_rate: int, autoplay: bool = False) -> str:
    """HTML of a player for one sound.

    Raises:
        MinigenError: as `player`.
    """
    if wav.ndim == 0 or wav.numel() == 0 or wav.numel() != wav.shape[-1]:
        raise MinigenError(f"a player plays one sound, got shape {list(wav.shape)}. Give one row, such as wav[0].")
    check_floats(wav)
    if not wav.isfinite().all():
        raise MinigenError("the sound holds NaN or infinity. Check the model that made it.")
    source = data_uri(flac(wav, sample_rate), "audio/flac")
    return f'<audio controls {"autoplay " if autoplay else ""}preload="metadata" src="{source}"></audio>'


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def flac(wav: Tensor, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A waveform [..., samples] as a 16-bit FLAC file, which all current browsers play."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wav.detach().cpu().flatten().clamp(-1, 1).numpy(), sample_rate, "PCM_16", format="FLAC")
    return file.getvalue()
