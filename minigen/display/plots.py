"""Plots for notebooks and reports. Each function returns a matplotlib `Figure` whose axes have names and units.

    waveform, spectrogram, spectrograms, window_lengths, event_lanes     sounds
    codes_heatmap, codebook_map, probability_bars                        codes
    loss_curves, similarity_matrices                                     training
    guidance_sweep, quality_over_cost, intervals, point_clouds                              measurements
    lines, matrices                                                      any quantity over another, any table of numbers

`Figure` is used without pyplot: no window or backend is needed, and figures are freed with their last reference.
`figure.savefig(path)` writes a file. A notebook shows the figure that a cell ends with.
"""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from minigen.audio import SAMPLE_RATE, log_mel

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # palette of Okabe and Ito, for colour-blind readers too
LINES = ("-", "--", "-.", ":")  # line styles, for print without colour
MARKERS = ("o", "s", "^", "D")
QUIET_DB, LOUD_DB = -40, 30  # colour range of all spectrograms, so that they can be compared
HZ_TICKS, FEW_HZ_TICKS = (0, 250, 500, 1000, 2000, 4000, 8000, 16000), (0, 500, 2000, 8000)


def waveform(wav: Tensor, sample_rate: int = SAMPLE_RATE, title: str = "") -> "Figure":
    """Amplitude over time in seconds. wav: [samples], [1, samples] or [1, 1, samples]."""
    figure, axes = _figure(6, 2)
    samples = _flat(wav)
    axes.plot(np.arange(len(samples)) / sample_rate, samples, color=COLOURS[0], linewidth=0.5)
    axes.set(xlabel="time (s)", ylabel="amplitude", title=title, xlim=(0, len(samples) / sample_rate), ylim=(-1, 1))
    return figure


def spectrogram(wav: Tensor, sample_rate: int = SAMPLE_RATE, title: str = "", bands: int = 80) -> "Figure":
    """Log-mel spectrogram in dB: time in seconds, frequency in Hz on the mel scale, brighter is louder.

    wav: [samples], [1, samples] or [1, 1, samples]. The colours range from -40 to 30 dB in all spectrograms. 0 dB is a
    power of 1 in a band of `minigen.audio.log_mel`.
    """
    figure, axes = _figure(6, 3)
    image = _draw_spectrogram(axes, wav, sample_rate, title, HZ_TICKS, bands)
    figure.colorbar(image, ax=axes, label="level (dB)")
    return figure


def spectrograms(wavs: Mapping[str, Tensor], sample_rate: int = SAMPLE_RATE, columns: int = 2) -> "Figure":
    """Several spectrograms in one figure, `columns` in a row, with one colour scale. wavs: title -> wav."""
    rows = math.ceil(len(wavs) / columns)
    figure, axes = _figure(3.6 * columns + 0.8, 0.4 + 1.7 * rows, rows, columns)
    axes = np.atleast_1d(axes).flatten()
    for axis, (title, wav) in zip(axes, wavs.items(), strict=False):
        image = _draw_spectrogram(axis, wav, sample_rate, title, FEW_HZ_TICKS)
    for axis in axes[len(wavs) :]:
        axis.remove()
    figure.colorbar(image, ax=axes[: len(wavs)].tolist(), label="level (dB)")
    return figure


def _draw_spectrogram(axis, wav: Tensor, sample_rate: int, title: str, hz_ticks: Sequence[int], bands: int = 80):
    """Draw into one axis; returns the image for a colour bar."""
    ticks = [hz for hz in hz_ticks if hz <= sample_rate / 2]
    image = axis.imshow(
        mel_db(wav, sample_rate, bands), origin="lower", aspect="auto", cmap="magma", vmin=QUIET_DB, vmax=LOUD_DB,
        extent=(0, _flat(wav).size / sample_rate, 0, mel(sample_rate / 2)), interpolation="nearest",
    )  # fmt: skip
    axis.set(xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    axis.set(yticks=[mel(hz) for hz in ticks], yticklabels=ticks)
    return image


def spectrogram_png(wav: Tensor, sample_rate: int = SAMPLE_RATE, bands: int = 80) -> bytes:
    """The image of `spectrogram` without axes, as PNG: one pixel for each band and 20 ms."""
    from matplotlib.image import imsave

    file = BytesIO()
    picture = mel_db(wav, sample_rate, bands)
    imsave(file, picture, origin="lower", cmap="magma", vmin=QUIET_DB, vmax=LOUD_DB, format="png")
    return file.getvalue()


def loss_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str = "") -> "Figure":
    """Cross-entropy in nats per code over the training steps.

    curves: name -> (steps, losses). Losses that are nan were not measured and are left out.
    """
    figure, axes = _figure(5, 3.4)
    for i, (name, (steps, losses)) in enumerate(curves.items()):
        points = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
        x, y = [step for step, _ in points], [loss for _, loss in points]
        axes.plot(x, y, label=name, **_style(i), markersize=3)
    axes.set(xlabel="step", ylabel="cross-entropy (nats per code)", title=title)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return figure


def guidance_sweep(sweep: Mapping[str, Mapping[float, object]], title: str = "") -> "Figure":
    """Recall and CLAP score with their 95% intervals, and diversity, over the guidance scale.

    sweep: model -> {guidance scale: `minigen.evaluation.measure.Measurement`}. Panels without numbers are left out.
    """
    panels = [
        ("recall", "recall (share of events)"),
        ("clap", "CLAP score (cosine)"),
        ("diversity", "diversity (1 − cosine)"),
    ]
    rows = [row for scales in sweep.values() for row in scales.values()]
    panels = [panel for panel in panels if any(math.isfinite(getattr(row, panel[0])) for row in rows)]
    figure, axes = _figure(5, 0.8 + 1.9 * len(panels), rows=len(panels), sharex=True)
    for axis, (field, label) in zip(np.atleast_1d(axes), panels, strict=True):
        for i, (name, scales) in enumerate(sweep.items()):
            _sweep_line(axis, scales, field, name, i)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
    first, last = np.atleast_1d(axes)[[0, -1]]
    first.set_title(title)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    last.set_xlabel("guidance scale (1: none)")
    return figure


def quality_over_cost(panels: Mapping[str, Mapping[str, Sequence[tuple[float, ...]]]]) -> "Figure":
    """Quality with its 95% interval over the evaluations of the network and over seconds, on logarithmic scales.

    panels: name of a quality -> name of a model -> points (evaluations, seconds, quality, low, high); a row each.
    """
    figure, axes = _figure(8, 0.8 + 2.6 * len(panels), rows=len(panels), columns=2)
    for row, (label, curves) in zip(np.atleast_2d(axes), panels.items(), strict=True):
        for cost, (axis, xlabel) in enumerate(zip(row, ("evaluations of the network", "seconds, one clip"),
                                                  strict=True)):  # fmt: skip
            for i, (name, points) in enumerate(curves.items()):
                value, ends = np.array([p[2] for p in points]), np.array([p[3:5] for p in points])  # [n], [n, 2]
                x = [point[cost] for point in points]
                axis.errorbar(x, value, np.abs(ends.T - value), label=name, capsize=2, markersize=4, **_style(i))
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set(xlabel=xlabel, ylabel=label)
            axis.grid(alpha=0.25)
    first = np.atleast_2d(axes)[0, 0]
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
    return figure


def similarity_matrices(text: Tensor, audio: Tensor, captions: Sequence[str] | None = None) -> "Figure":
    """The two matrices that the regulariser compares, [B, B] each, and their squared difference off the diagonal.

    Each matrix of cosines is shown less its mean and in units of its spread (`standardised`); both are in the title.
    The loss is the mean of the third matrix over its off-diagonal pairs. captions: labels of the rows.
    """
    text, audio = (torch.as_tensor(matrix).detach().cpu().float() for matrix in (text, audio))
    squared = (text - audio).square().fill_diagonal_(0)
    figure, axes = _figure(10 if captions is None else 12, 3.2, columns=3)
    for axis, (name, matrix) in zip(axes, {"text": text, "audio": audio}.items(), strict=False):
        shown, mean, spread = standardised(matrix)
        image = axis.imshow(shown.numpy(), vmin=-3, vmax=3, cmap="RdBu_r")
        axis.set(title=f"{name}: {mean:.2f} ± {spread:.2f}", xlabel="clip", ylabel="clip")
        figure.colorbar(image, ax=axis, label="(cosine − mean) / spread")
    image = axes[2].imshow(squared.numpy(), vmin=0, cmap="magma")
    axes[2].set(title="(text − audio)²", xlabel="clip", ylabel="clip")
    figure.colorbar(image, ax=axes[2], label="squared difference")
    _whole_ticks(axes)
    if captions is not None:
        axes[0].set_yticks(range(len(captions)), captions)
    return figure


def standardised(matrix: Tensor) -> tuple[Tensor, float, float]:
    """Pattern of a matrix [B, B]: its entries off the diagonal less their mean, over their standard deviation.

    The diagonal becomes nan. Returns the pattern, the mean and the standard deviation.
    """
    own = torch.eye(len(matrix), dtype=torch.bool)
    mean, spread = matrix[~own].mean(), matrix[~own].std(correction=0)
    return ((matrix - mean) / spread.clamp(min=1e-6)).masked_fill(own, math.nan), float(mean), float(spread)


def codes_heatmap(codes: Tensor, frame_rate: float = 50.0, codebook_size: int = 1024, title: str = "") -> "Figure":
    """Codes [K, T] as colours: time in seconds, one row for each codebook.

    Equal colours are equal entries. Neighbouring entries have different colours, because the number of an entry is only
    a name. Codes of `codebook_size` and above, such as the special token of a delay pattern, are white.
    """
    codes = torch.as_tensor(codes).cpu().numpy()
    figure, axes = _figure(6, 1 + 0.3 * len(codes))
    shown = np.ma.masked_greater_equal(codes, codebook_size)
    axes.imshow(
        shown, aspect="auto", cmap=entry_colours(codebook_size), vmin=-0.5, vmax=codebook_size - 0.5,
        extent=(0, codes.shape[1] / frame_rate, len(codes) - 0.5, -0.5), interpolation="nearest",
    )  # fmt: skip
    axes.set(xlabel="time (s)", ylabel="codebook", title=title, yticks=range(len(codes)))
    return figure


def entry_colours(codebook_size: int) -> "Colormap":
    """Colour map for the entries of a codebook: neighbouring numbers have different colours, since they are names."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    order = np.random.default_rng(0).permutation(codebook_size)
    return ListedColormap(colormaps["turbo"](order / codebook_size))


def lines(
    curves: Mapping[str, tuple], xlabel: str, ylabel: str, dots: Mapping[str, tuple] | None = None, title: str = ""
) -> "Figure":
    """Curves, name -> (x, y), with markers if a curve has 20 points or fewer. dots: points without a line.

    If all x are integers, such as steps or numbers of codebooks, so are the ticks.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(7, 3)
    for i, (name, (x, y)) in enumerate(curves.items()):
        style = _style(i) if len(x) <= 20 else {**_style(i), "marker": ""}
        axes.plot(np.asarray(x), np.asarray(y), label=name, **style, markersize=4, linewidth=1.2)
    for name, (x, y) in (dots or {}).items():
        axes.plot(np.asarray(x), np.asarray(y), "o", color="black", label=name, markersize=5)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if all(np.asarray(x).dtype.kind == "i" for x, _ in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    if len(curves) + len(dots or {}) > 1:
        figure.legend(frameon=False, loc="outside right center")
    return figure


def probability_bars(rows: Mapping[str, Tensor], xlabel: str = "code", columns: int = 3) -> "Figure":
    """Distributions over a few codes, one panel each, with one scale. rows: title -> probabilities [V]."""
    height = math.ceil(len(rows) / columns)
    figure, axes = _figure(2.6 * columns, 0.3 + 1.8 * height, height, columns)
    axes = np.atleast_1d(axes).flatten()
    most = max(float(torch.as_tensor(probs).max()) for probs in rows.values())
    for axis, (title, probs) in zip(axes, rows.items(), strict=False):
        axis.bar(range(len(probs)), torch.as_tensor(probs).numpy(), color=COLOURS[0])
        axis.set(title=title, xlabel=xlabel, ylabel="probability", ylim=(0, 1.05 * most), xticks=range(len(probs)))
    for axis in axes[len(rows) :]:
        axis.remove()
    return figure


def window_lengths(wav: Tensor, lengths: Sequence[int], sample_rate: int = SAMPLE_RATE, top: float = 2000) -> "Figure":
    """Spectrograms of one sound with Hann windows of several lengths in samples, from 0 to `top` Hz (not mel).

    wav: [samples], [1, samples] or [1, 1, samples]. Frames are 4 ms apart. The colours of each panel range over the 60
    dB below its maximum.
    """
    figure, axes = _figure(3.2 * len(lengths) + 0.8, 3, columns=len(lengths))
    samples, hop = torch.as_tensor(_flat(wav)), round(0.004 * sample_rate)
    for axis, length in zip(np.atleast_1d(axes), lengths, strict=True):
        window = torch.hann_window(length)
        power = torch.stft(samples, length, hop, window=window, pad_mode="constant", return_complex=True).abs().square()
        power = power[: round(top / sample_rate * length) + 1]
        db, half = 10 * (power / power.max()).clamp(min=1e-6).log10(), sample_rate / length / 2
        image = axis.imshow(
            db.numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-60, vmax=0, interpolation="nearest",
            extent=(0, len(samples) / sample_rate, -half, (len(power) - 0.5) * sample_rate / length),
        )  # fmt: skip
        title = f"{length} samples = {1000 * length / sample_rate:.0f} ms"
        axis.set(xlabel="time (s)", ylabel="frequency (Hz)", title=title, ylim=(0, top))
    figure.colorbar(image, ax=axes, label="level (dB)")
    return figure


def event_lanes(events: Sequence, seconds: float, title: str = "") -> "Figure":
    """Events over time, one lane for each `minigen.corpus.Event`, from onset to offset, with its count."""
    figure, axes = _figure(6, 0.9 + 0.35 * max(1, len(events)))
    for lane, event in enumerate(events):
        axes.barh(lane, event.offset - event.onset, left=event.onset, height=0.6, color=COLOURS[lane % 6])
        if event.count > 1:
            axes.text(event.onset, lane, f" {event.count} times", va="center", color="white")
    names = [event.kind.replace("_", " ") for event in events]
    axes.set(xlabel="time (s)", ylabel="event", title=title, xlim=(0, seconds), ylim=(len(events) - 0.5, -0.5))
    axes.set_yticks(range(len(events)), names)
    return figure


def codebook_map(points: Tensor, maps: Mapping[str, Tensor]) -> "Figure":
    """Vectors [n, 2] coloured by their nearest entry. maps: name -> entries [V, 2]; a cross is an unused entry."""
    figure, axes = _figure(3.2 * len(maps), 3.3, columns=len(maps))
    points = torch.as_tensor(points).float()
    for axis, (name, entries) in zip(np.atleast_1d(axes), maps.items(), strict=True):
        entries = torch.as_tensor(entries).detach().float()
        chosen = torch.cdist(points, entries).argmin(1)
        used = torch.bincount(chosen, minlength=len(entries)) > 0
        axis.scatter(*points.T.numpy(), c=[COLOURS[i % 6] for i in chosen.tolist()], s=3, alpha=0.35, linewidths=0)
        axis.plot(*entries[used].T.numpy(), "o", color="black", markersize=4)
        axis.plot(*entries[~used].T.numpy(), "x", color="black", markersize=5)
        axis.set(xlabel="first component", ylabel="second component", title=name, aspect="equal")
    return figure


def matrices(
    maps: Mapping[str, Tensor],
    xlabel: str,
    ylabel: str,
    label: str,
    cmap: str = "viridis",
    aspect: str = "equal",
    limits: tuple[float, float] | None = None,
) -> "Figure":
    """Tables of numbers as images side by side, with one colour scale; the first row is on top.

    maps: title -> [rows, columns]; xlabel, ylabel: names of columns and rows; label: what the numbers are. limits: ends
    of the colour scale, the smallest and the largest number by default.
    """
    tables = [torch.as_tensor(table).detach().cpu().float().numpy() for table in maps.values()]
    low, high = limits or (min(table.min() for table in tables), max(table.max() for table in tables))
    figure, axes = _figure(1.2 + 3.2 * len(tables), 3.2, columns=len(tables))
    axes = np.atleast_1d(axes)
    for axis, title, table in zip(axes, maps, tables, strict=True):
        image = axis.imshow(table, vmin=low, vmax=high, cmap=cmap, aspect=aspect, interpolation="nearest")
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.get_major_locator().set_params(integer=True)  # rows and columns have whole numbers
    figure.colorbar(image, ax=axes.tolist(), label=label)
    return figure


def point_clouds(clouds: Mapping[str, np.ndarray], xlabel: str, ylabel: str) -> "Figure":
    """Sets of points [n, 2] with the Gaussian fitted to each: its mean, and the ellipse of two standard deviations."""
    figure, axes = _figure(6.5, 4)
    circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 100)), np.sin(np.linspace(0, 2 * np.pi, 100))])  # [2, 100]
    for i, (name, points) in enumerate(clouds.items()):
        points = np.asarray(points, dtype=np.float64)
        values, vectors = np.linalg.eigh(np.cov(points.T))
        ellipse = points.mean(axis=0)[:, None] + vectors @ (2 * np.sqrt(values.clip(0))[:, None] * circle)
        axes.plot(*points.T, MARKERS[i % 4], color=COLOURS[i % 6], markersize=3, alpha=0.5, linewidth=0)
        axes.plot(*ellipse, color=COLOURS[i % 6], linestyle=LINES[i % 4], label=name)
        axes.plot(*points.mean(axis=0), "+", color=COLOURS[i % 6], markersize=10, markeredgewidth=2)
    axes.set(xlabel=xlabel, ylabel=ylabel, aspect="equal")
    axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside right center")
    return figure


def intervals(rows: Mapping[str, tuple[float, float, float]], xlabel: str, mark: float | None = None) -> "Figure":
    """Means with their intervals, one row each, the first on top.

    rows: name -> (mean, low, high); rows with nan are left out. mark: a reference value that is drawn as a line, such
    as 0 for differences or 0.5 for preferences.
    """
    rows = {name: row for name, row in rows.items() if np.isfinite(row).all()}
    figure, axes = _figure(6, 0.9 + 0.3 * len(rows))
    for place, (mean, low, high) in enumerate(rows.values()):
        axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.5)
        axes.plot(mean, place, "o", color=COLOURS[0], markersize=5)
    if mark is not None:
        axes.axvline(mark, color="black", linestyle=":", linewidth=1)
    axes.set(xlabel=xlabel, ylabel="", yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(alpha=0.25, axis="x")
    return figure


def mel(hz: float) -> float:
    """Mel scale, 2595 log10(1 + hz / 700), as in HTK and torchaudio: equal steps sound about equally large."""
    return 2595 * math.log10(1 + hz / 700)


def mel_db(wav: Tensor, sample_rate: int = SAMPLE_RATE, bands: int = 80) -> np.ndarray:
    """Log-mel spectrogram in dB, 10 log10(power): float32 [bands, frames], low bands first."""
    wav = torch.from_numpy(_flat(wav)).view(1, 1, -1)
    return 10 * log_mel(wav, sample_rate, bands)[0].numpy()


def svg(figure: "Figure", ink: str | None = None) -> str:
    """The figure as SVG text without background. ink: colour of text, axes and ticks, black by default."""
    from matplotlib import rc_context

    if ink is not None:
        _recolour(figure, ink)
    file = BytesIO()
    with rc_context({"svg.hashsalt": "minigen"}):  # equal figures give equal text
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue().decode()


def _recolour(figure: "Figure", ink: str) -> None:
    for axes in figure.axes:
        axes.tick_params(colors=ink)
        for line in axes.spines.values():
            line.set_edgecolor(ink)
        legend = axes.get_legend()
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())]
        for text in texts:
            text.set_color(ink)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, sharex: bool = False):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=sharex)


def _whole_ticks(axes) -> None:
    """Ticks at whole numbers only, on both axes: rows and columns are counted."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _style(i: int) -> dict[str, str]:
    return {"color": COLOURS[i % 6], "linestyle": LINES[i % 4], "marker": MARKERS[i % 4]}


def _sweep_line(axis, scales: Mapping[float, object], field: str, name: str, i: int) -> None:
    """One model's line in one panel, with error bars where the field has an interval."""
    points = [(scale, row) for scale, row in sorted(scales.items()) if math.isfinite(getattr(row, field))]
    x, y = [scale for scale, _ in points], [getattr(row, field) for _, row in points]
    bars = None
    if points and hasattr(points[0][1], f"{field}_interval"):
        ends = np.array([getattr(row, f"{field}_interval") for _, row in points])
        bars = np.abs(ends.T - y) if np.isfinite(ends).all() else None
    axis.errorbar(np.array(x) + 0.06 * i, y, yerr=bars, label=name, capsize=2, markersize=4, **_style(i))


def _flat(wav: Tensor) -> np.ndarray:
    return torch.as_tensor(wav).detach().cpu().float().flatten().numpy()
