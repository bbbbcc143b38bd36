"""The report of the demo: one HTML page without links, with sounds, spectrograms, curves and the table.

    Results (captions, sounds, losses, measurements, facts) --page--> HTML text --write_report--> report.html

`page.html.j2` is the page, with `page.css` and `page.js` inside it. Sounds are 16-bit FLAC, pictures PNG and SVG, all
of them data URIs. Every sentence about the run is computed from `Results`.
"""

import math
from pathlib import Path

from torch import Tensor

from minigen.app.demo.sentences import LIVE_MISMATCHED, MISMATCHED, Example, Facts, Results, findings
from minigen.display.chain import chain_svg
from minigen.display.players import data_uri, flac
from minigen.display.plots import guidance_sweep, loss_curves, spectrogram_png, svg
from minigen.display.templates import render
from minigen.engine.files import write_atomically
from minigen.evaluation.measure import COLUMNS, CONTROLS, Measurement, cells

ARROWS = {"low": " ↓", "high": " ↑", "": ""}
TEMPLATE = Path(__file__).with_name("page.html.j2")
DARK, LIGHT = "#dddddd", "#222222"  # ink of a figure on a dark and on a light page


def write_report(path: str | Path, results: Results) -> Path:
    """Write the page to a file, whole or not at all; returns its path.

    Raises:
        MinigenError: the place cannot be written.
    """
    write_atomically(path, page(results))
    return Path(path)


def page(results: Results) -> str:
    """The whole page as HTML text."""
    return render(
        TEMPLATE,
        summary=_summary(results.facts, results.rows),
        chain=data_uri(chain_svg().encode(), "image/svg+xml"),
        seconds=f"{results.facts.seconds:g}",
        examples=[_example(example) for example in results.examples],
        losses=_figure(loss_curves, curves(results), _loss_words(results)),
        sweep=_figure(guidance_sweep, results.sweep, _sweep_words(results)),
        columns=[{"title": column.title + ARROWS[column.better], "reading": column.reading} for column in COLUMNS],
        rows=_rows(results.rows),
        samples=_samples(results),
        findings=findings(results),
        times=_times(results.facts),
    )


def curves(results: Results) -> dict[str, tuple[list, list]]:
    """The loss curves of the live training, for `minigen.display.plots.loss_curves`."""
    steps = [row["step"] for row in results.live]
    names = {"training": "loss", "validation, with captions": "valid"}
    return {title: (steps, [row.get(name, math.nan) for row in results.live]) for title, name in names.items()}


# sentences


def _summary(facts: Facts, rows: list[Measurement]) -> str:
    live, shipped = facts.parameters / 1e6, facts.shipped_parameters / 1e6
    return (
        f"In {facts.minutes:g} minutes a text-to-audio language model of {live:.1f} million weights was trained for "
        f"{facts.steps:,} steps on {facts.train_clips:,} clips of {facts.source}. This live model and two shipped "
        f"models of {shipped:.1f} million weights, which were trained for longer, then made {facts.seconds:g} s "
        f"of sound for the captions of {_clips(rows)} held-out clips. All were measured beside their controls."
    )


def _loss_words(results: Results) -> str:
    first, last, entries = results.live[0], results.live[-1], results.facts.codebook_size
    return (
        f"Loss over {last['step']} steps: validation from {first['valid']:.2f} to {last['valid']:.2f} nats per code. "
        f"A guess among {entries:,} entries of equal probability costs {math.log(entries):.2f} nats."
    )


def _sweep_words(results: Results) -> str:
    parts = []
    for name, scales in results.sweep.items():
        best = max(scales, key=lambda scale: scales[scale].clap)
        parts.append(f"{name} has its highest CLAP score, {scales[best].clap:.2f}, at guidance {best:g}")
    return "; ".join(parts) + f" ({_sweep_clips(results)} captions, 95% intervals)." if parts else ""


def _sweep_clips(results: Results) -> int:
    return _clips([row for scales in results.sweep.values() for row in scales.values()])


def _clips(rows: list[Measurement]) -> int:
    return max((row.clips for row in rows), default=0)


def _samples(results: Results) -> str:
    facts = results.facts
    return (
        f"{_clips(results.rows)} held-out clips a row. Features for FAD and kernel distance, and the events: "
        f"{facts.embedder} ({facts.embedding_width} numbers a clip), against {facts.reference_clips} real clips of the "
        f"validation split. CLAP and diversity: {facts.judge}. Guidance: scale {facts.guidance:g}, and "
        f"{facts.live_guidance:g} for the live model. The sweep: "
        f"{_sweep_clips(results)} clips a point. Seed {facts.seed}."
    )


def _times(facts: Facts) -> str:
    if not facts.times:
        return ""
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in facts.times)
    minutes = sum(seconds for _, seconds in facts.times) / 60
    return f"Measured on this machine: {stages}; {minutes:.1f} minutes up to this page."


# values of the template


def _example(example: Example) -> dict:
    clips = [_clip(example, label, wav) for label, wav in example.sounds.items()]
    return {"caption": example.caption, "asked": _kinds(example.asked), "clips": clips}


def _clip(example: Example, label: str, wav: Tensor) -> dict[str, str]:
    marks = []
    for kind in example.heard.get(label, ()):
        sign = "✓" if kind in example.asked else "+"
        marks.append(f"{sign}\u00a0{_kinds([kind])}")
    return {
        "label": label,
        "title": f"“{example.caption}”, {label}",
        "spectrogram": data_uri(spectrogram_png(wav), "image/png"),
        "sound": data_uri(flac(wav), "audio/flac"),
        "heard": ", ".join(marks) or "nothing",
    }


def _kinds(kinds: list[str]) -> str:
    return ", ".join(kind.replace("_", " ") for kind in kinds)


def _figure(draw, data, words: str) -> dict[str, str]:
    """A figure drawn twice, for light and for dark pages, with its caption."""
    light, dark = (data_uri(svg(draw(data), ink).encode(), "image/svg+xml") for ink in (LIGHT, DARK))
    return {"light": light, "dark": dark, "words": words}


def _rows(rows: list[Measurement]) -> list[dict]:
    controls = (*CONTROLS, MISMATCHED, LIVE_MISMATCHED)
    return [{"name": name, "cells": values, "control": name in controls} for name, *values in cells(rows)]
