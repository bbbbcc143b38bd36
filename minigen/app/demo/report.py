"""The report: one HTML page that needs nothing but itself, to hear and see what the demo did.

    Results (captions, sounds, losses, measurements, facts) --page--> HTML text --write_report--> report.html

Sounds are 16-bit FLAC, pictures PNG and SVG, all of them data URIs; styles and the few lines of script are in the page.
Whatever the page says in words about the run is computed from `Results` in `findings`: no number is typed in.
"""

import math
from collections.abc import Callable
from html import escape
from pathlib import Path

from minigen.app.demo.page import FRAME, SCRIPT, STYLE
from minigen.app.demo.sentences import MISMATCHED, Example, Facts, Results, findings
from minigen.audio import write_atomically
from minigen.display.chain import chain_svg
from minigen.display.players import data_uri, flac
from minigen.display.plots import guidance_sweep, loss_curves, spectrogram_png, svg
from minigen.evaluation.measure import COLUMNS, CONTROLS, Measurement, cells

ARROWS = {"low": " ↓", "high": " ↑", "": ""}


def write_report(path: str | Path, results: Results) -> Path:
    """Write the page aside and rename it; returns its path.

    Raises:
        MinigenError: the place cannot be written.
    """
    write_atomically(path, page(results))
    return Path(path)


def page(results: Results) -> str:
    """The whole page as HTML text."""
    parts = {
        "summary": _summary(results.facts, results.rows),
        "chain": data_uri(chain_svg().encode(), "image/svg+xml"),
        "seconds": f"{results.facts.seconds:g}",
        "examples": "".join(map(_example, results.examples)),
        "losses": _picture(lambda: loss_curves(curves(results)), _loss_words(results)),
        "sweep": _picture(lambda: guidance_sweep(results.sweep), _sweep_words(results)),
        "table": _table(results.rows),
        "readings": "".join(f"<dt>{c.title}{ARROWS[c.better]}</dt><dd>{escape(c.reading)}</dd>" for c in COLUMNS),
        "samples": _samples(results),
        "findings": "".join(f"<p>{escape(text)}</p>" for text in findings(results)),
        "times": _times(results.facts),
        "style": STYLE,
        "script": SCRIPT,
    }
    text = FRAME
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part)
    return text


def curves(results: Results) -> dict[str, tuple[list, list]]:
    """The three loss curves of the live training, for `minigen.display.plots.loss_curves`."""

    def curve(history: list[dict], name: str) -> tuple[list, list]:
        return [row["step"] for row in history], [row.get(name, math.nan) for row in history]

    return {
        "training": curve(results.live, "loss"),
        "validation, with its captions": curve(results.live, "valid"),
        "validation, twin without text": curve(results.blind, "valid_no_text"),
    }


def _summary(facts: Facts, rows: list[Measurement]) -> str:
    clips = max((row.clips for row in rows), default=0)
    return (
        f"<p>In {facts.minutes:g} minutes of training, half of them for a twin that never sees a caption, a "
        f"text-to-audio language model of {facts.parameters / 1e6:.1f} million weights took {facts.steps:,} steps over "
        f"{facts.train_clips:,} clips of {escape(facts.source)}. It and two shipped models of "
        f"{facts.shipped_parameters / 1e6:.1f} million weights, trained for longer, then made {facts.seconds:g} s of "
        f"sound for the captions of {clips} held-out clips, and all were measured beside their controls.</p>"
    )


def _loss_words(results: Results) -> str:
    last, twin = results.live[-1], results.blind[-1]
    return (
        f"Loss over {last['step']} steps: validation from {results.live[0]['valid']:.2f} to {last['valid']:.2f} nats "
        f"per code with captions, {twin['valid_no_text']:.2f} for the twin without. A blind guess among "
        f"{results.facts.codebook_size:,} entries costs {math.log(results.facts.codebook_size):.2f} nats."
    )


def _sweep_words(results: Results) -> str:
    parts = []
    for name, scales in results.sweep.items():
        best = max(scales, key=lambda scale: scales[scale].clap)
        parts.append(f"{name} has its highest CLAP score, {scales[best].clap:.2f}, at guidance {best:g}")
    return "; ".join(parts) + f" ({_sweep_clips(results)} captions, 95% intervals)." if parts else ""


def _sweep_clips(results: Results) -> int:
    return max((row.clips for scales in results.sweep.values() for row in scales.values()), default=0)


def _samples(results: Results) -> str:
    facts, rows = results.facts, results.rows
    return escape(
        f"{max((row.clips for row in rows), default=0)} held-out clips a row. Features for FAD and kernel distance, "
        f"and the events: {facts.embedder} ({facts.embedding_width} numbers a clip), against {facts.reference_clips} "
        f"real clips of the validation split. CLAP and diversity: {facts.judge}. Guidance: scale {facts.guidance:g}. "
        f"The sweep: {_sweep_clips(results)} clips a point. Seed {facts.seed}."
    )


# pieces of HTML


def _example(example: Example) -> str:
    asked = f'<p class="asked">asked for: {escape(_kinds(example.asked))}</p>' if example.asked else ""
    clips = "".join(_clip(example, label) for label in example.sounds)
    return f'<article><h3>“{escape(example.caption)}”</h3>{asked}<div class="clips">{clips}</div></article>'


def _clip(example: Example, label: str) -> str:
    wav = example.sounds[label]
    play = escape(f"“{example.caption}”, {label}", quote=True)
    alt = f"Spectrogram of {play}"
    signs = [("✓" if kind in example.asked else "+", kind) for kind in example.heard.get(label, ())]
    marks = [f"{sign}\u00a0{kind.replace('_', ' ')}" for sign, kind in signs]
    heard = ", ".join(marks) or "nothing"
    return (
        f'<figure class="clip"><figcaption>{escape(label)}</figcaption>'
        f'<div class="picture"><img src="{data_uri(spectrogram_png(wav), "image/png")}" alt="{alt}"><i></i></div>'
        f'<audio controls preload="metadata" aria-label="{play}" src="{data_uri(flac(wav), "audio/flac")}"></audio>'
        f'<div class="bar" hidden><button type="button" class="play" aria-label="Play or pause {play}"></button>'
        '<span class="time"></span></div>'
        f'<p class="heard">heard: {escape(heard)}</p></figure>'
    )


def _kinds(kinds: list[str]) -> str:
    return ", ".join(kind.replace("_", " ") for kind in kinds)


def _picture(draw: Callable, words: str) -> str:
    """A figure drawn twice, for light and for dark screens, with its caption."""
    light, dark = (data_uri(svg(draw(), ink).encode(), "image/svg+xml") for ink in ("#222222", "#dddddd"))
    words = escape(words, quote=True)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{words}"></picture><figcaption>{words}</figcaption></figure>'
    )


def _table(rows: list[Measurement]) -> str:
    head = "".join(f'<th scope="col">{c.title}{ARROWS[c.better]}</th>' for c in COLUMNS)
    lines = []
    for name, *values in cells(rows):
        mark = ' class="control"' if name in (*CONTROLS, MISMATCHED) else ""
        lines.append(
            f'<tr{mark}><th scope="row">{escape(name)}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'
        )
    return f'<table><thead><tr><th scope="col">what</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _times(facts: Facts) -> str:
    parts = ", ".join(f"{escape(name)} {seconds:.0f} s" for name, seconds in facts.times)
    return (
        f"Measured on this machine: {parts}; {sum(s for _, s in facts.times) / 60:.1f} minutes up to this page."
        if parts
        else ""
    )
