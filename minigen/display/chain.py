"""Drawing of the chain: the whole system as an SVG, with some pieces highlighted.

Notebooks and the page of the demo show it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from minigen.display.players import data_uri
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from IPython.display import HTML


class Box(NamedTuple):
    """A box of the drawing, in pixels from the upper left corner. notebook: its number, in the corner of the box."""

    piece: str
    notebook: str
    x: int
    y: int
    width: int
    height: int
    name: str
    note: str


BOXES = (
    Box("corpus", "01", 10, 92, 90, 130, "recording", "and caption"),
    Box("text", "04", 140, 92, 150, 50, "text encoder", "frozen T5"),
    Box("codec", "02", 140, 172, 150, 50, "codec encoder", "sound → codes"),
    Box("pattern", "03", 320, 172, 110, 50, "delay pattern", ""),
    Box("lm", "05", 460, 92, 140, 130, "language model", "Transformer"),
    Box("training", "06", 460, 12, 140, 50, "training", "cross-entropy"),
    Box("regularizer", "08", 650, 12, 150, 50, "regulariser", "text like sound"),
    Box("sampling", "07", 650, 92, 150, 50, "guidance", "with and without text"),
    Box("sampling", "07", 650, 172, 150, 50, "sampling", "one code a stream"),
    Box("pattern", "03", 650, 262, 150, 50, "undo the delay", ""),
    Box("codec", "02", 460, 262, 140, 50, "codec decoder", "codes → sound"),
    Box("metrics", "09", 140, 262, 150, 50, "metrics", "is it good?"),
)
PIECES = tuple(dict.fromkeys(box.piece for box in BOXES))
ARROWS = ("100 117H137", "290 117H457", "600 117H647", "725 142V169", "650 197H603", "725 222V259", "650 287H603",
          "460 287H413", "340 287H293")  # fmt: skip
TRAINING_ARROWS = ("100 197H137", "290 197H317", "430 197H457", "530 92V65", "600 37H647")  # dashed
LABELS = ((374, 109, "states [B, N, D]"), (624, 109, "logits"), (626, 189, "again"), (377, 291, "sound"))


def chain(*lit: str) -> HTML:
    """The drawing for a notebook, with the pieces named in `lit` highlighted.

    lit: names from `PIECES`: corpus, text, codec, pattern, lm, training, regularizer, sampling, metrics.

    Raises:
        MinigenError: a piece that does not exist.
    """
    from IPython.display import HTML

    unknown = sorted(set(lit) - set(PIECES))
    if unknown:
        raise MinigenError(f"no piece of the chain is called {', '.join(unknown)}. The pieces: {', '.join(PIECES)}.")
    picture = data_uri(chain_svg(lit).encode(), "image/svg+xml")  # an <svg> element is hidden in untrusted notebooks
    return HTML(f'<img src="{picture}" width="810" alt="From a caption to a sound; lit: {", ".join(lit)}">')


def chain_svg(lit: Collection[str] = ()) -> str:
    """The drawing as SVG text. Dashed arrows are used in training only; the number on a box is its notebook's."""
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    arrow = '<path fill="none" stroke="#555" stroke-width="1.5" marker-end="url(#tip)"'
    parts = [f'{arrow} d="M{line}"/>' for line in ARROWS]
    parts += [f'{arrow} stroke-dasharray="4 3" d="M{line}"/>' for line in TRAINING_ARROWS]
    parts += [f'<text x="{x}" y="{y}" font-size="11" fill="#333">{text}</text>' for x, y, text in LABELS]
    parts += [_draw(box, box.piece in lit) for box in BOXES]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 810 324" width="810" height="324" '
        'font-family="sans-serif" text-anchor="middle">'
        f'<defs>{tip}<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>'
        f'<rect width="810" height="324" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _draw(box: Box, lit: bool) -> str:
    fill, ink = ("#0072b2", "#fff") if lit else ("#f4f4f4", "#555")
    middle, baseline = box.x + box.width / 2, box.y + box.height / 2
    if not box.note:
        baseline += 10
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6" fill="{fill}" '
        f'stroke="{ink}"/>'
        f'<text x="{box.x + box.width - 12}" y="{box.y + 13}" font-size="10" fill="{ink}">{box.notebook}</text>'
        f'<text x="{middle}" y="{baseline}" font-size="14" font-weight="bold" fill="{ink}">{box.name}</text>'
        f'<text x="{middle}" y="{baseline + 17}" font-size="11" fill="{ink}">{box.note}</text>'
    )
