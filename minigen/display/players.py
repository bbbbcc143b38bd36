"""What a notebook plays and draws around its text: players, and the chain. What moves is in `minigen.course.explorers`.

    player(wav, rate)      one sound                            chain(*lit)          the whole system, today's piece lit
    players(wavs, rate)    several, with their spectrograms

Sounds are 16-bit FLAC inside the page, so that a saved notebook plays them without files, network or kernel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from minigen.audio import SAMPLE_RATE
from minigen.display.plots import spectrogram_png
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from IPython.display import HTML

# piece, notebook, left, top, width, height, what it is, what it does
BOXES = (
    ("corpus", "01", 10, 92, 90, 130, "recording", "and caption"),
    ("text", "04", 140, 92, 150, 50, "text encoder", "frozen T5"),
    ("codec", "02", 140, 172, 150, 50, "codec encoder", "sound → codes"),
    ("pattern", "03", 320, 172, 110, 50, "delay pattern", ""),
    ("lm", "05", 460, 92, 140, 130, "language model", "Transformer"),
    ("training", "06", 460, 12, 140, 50, "training", "cross-entropy"),
    ("regularizer", "08", 650, 12, 150, 50, "regulariser", "text like sound"),
    ("sampling", "07", 650, 92, 150, 50, "guidance", "with and without text"),
    ("sampling", "07", 650, 172, 150, 50, "sampling", "one code a stream"),
    ("pattern", "03", 650, 262, 150, 50, "undo the delay", ""),
    ("codec", "02", 460, 262, 140, 50, "codec decoder", "codes → sound"),
    ("metrics", "09", 140, 262, 150, 50, "metrics", "is it good?"),
)
PIECES = tuple(dict.fromkeys(box[0] for box in BOXES))
ARROWS = "M100 117H137M290 117H457M600 117H647M725 142V169M650 197H603M725 222V259M650 287H603M460 287H413M340 287H293"
TRAINING_ARROWS = "M100 197H137M290 197H317M430 197H457M530 92V65M600 37H647"  # dashed: in training only
LABELS = ((374, 109, "states [B, N, D]"), (624, 109, "logits"), (626, 189, "again"), (377, 291, "sound"))


def chain(*lit: str) -> HTML:
    """The system as a picture, the pieces named in `lit` filled; the number on a box is its notebook's.

    lit: names out of `PIECES`: corpus, text, codec, pattern, lm, training, regularizer, sampling, metrics.

    Raises:
        MinigenError: a piece that does not exist.
    """
    from IPython.display import HTML

    unknown = sorted(set(lit) - set(PIECES))
    if unknown:
        raise MinigenError(f"no piece of the chain is called {', '.join(unknown)}. The pieces: {', '.join(PIECES)}.")
    picture = data_uri(chain_svg(lit).encode(), "image/svg+xml")
    return HTML(f'<img src="{picture}" width="810" alt="From a caption to a sound; lit: {", ".join(lit)}">')


def chain_svg(lit: Collection[str] = ()) -> str:
    """The picture of `chain` as SVG text; a notebook shows bare SVG only once it is trusted, an image always."""
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    arrow = '<path fill="none" stroke="#555" stroke-width="1.5" marker-end="url(#tip)"'
    lines = [f'{arrow} d="M{line}"/>' for line in ARROWS.split("M")[1:]]
    lines += [f'{arrow} stroke-dasharray="4 3" d="M{line}"/>' for line in TRAINING_ARROWS.split("M")[1:]]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 810 324" width="810" height="324" '
        'font-family="sans-serif" text-anchor="middle">'
        f'<defs>{tip}<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>'
        '<rect width="810" height="324" fill="#fff"/>'
        + "".join(lines + [_label(*label) for label in LABELS] + [_box(*box, box[0] in lit) for box in BOXES])
        + "</svg>"
    )


def _box(piece, notebook, x, y, width, height, name, note, lit) -> str:
    fill, ink = ("#0072b2", "#fff") if lit else ("#f4f4f4", "#555")
    middle, centre = x + width / 2, y + height / 2 + (0 if note else 10)
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{ink}"/>'
        f'<text x="{x + width - 12}" y="{y + 13}" font-size="10" fill="{ink}">{notebook}</text>'
        f'<text x="{middle}" y="{centre}" font-size="14" font-weight="bold" fill="{ink}">{name}</text>'
        f'<text x="{middle}" y="{centre + 17}" font-size="11" fill="{ink}">{note}</text>'
    )


def _label(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="11" fill="#333">{text}</text>'


def player(wav: Tensor, sample_rate: int = SAMPLE_RATE, title: str = "") -> HTML:
    """A player for one sound: wav [samples], [1, samples] or [1, 1, samples].

    Raises:
        MinigenError: several sounds in one tensor, no samples, NaN or infinity.
    """
    from IPython.display import HTML

    return HTML(f"<p>{escape(title)}</p>{audio_tag(wav, sample_rate)}")


def players(wavs: Mapping[str, Tensor], sample_rate: int = SAMPLE_RATE) -> HTML:
    """A table of sounds to compare, title -> wav: a player each, and its spectrogram (0 Hz below, one scale for all).

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
    """The HTML of a player: one sound of any of the shapes of `player`, or a MinigenError."""
    if wav.ndim == 0 or wav.numel() == 0 or wav.numel() != wav.shape[-1]:
        raise MinigenError(f"a player plays one sound, got shape {list(wav.shape)}. Give one row, such as wav[0].")
    if not wav.isfinite().all():
        raise MinigenError("the sound holds NaN or infinity. Check the model that made it.")
    source = data_uri(flac(wav, sample_rate), "audio/flac")
    return f'<audio controls {"autoplay " if autoplay else ""}preload="metadata" src="{source}"></audio>'


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def flac(wav: Tensor, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A waveform [..., samples] as a 16-bit FLAC file: lossless, and played by every current browser."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wav.detach().cpu().flatten().clamp(-1, 1).numpy(), sample_rate, "PCM_16", format="FLAC")
    return file.getvalue()
