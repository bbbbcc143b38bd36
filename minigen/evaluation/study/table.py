"""The table of the study, its figures and its sentences: made from rows.csv and captions.csv and from nothing else.

    rows ─► which metrics are sound? ─► table: controls, models (means over seeds, intervals)  table.md
    lines ─► paired bootstrap ────────► comparisons: difference, interval, "leaves out 0?"     guidance.svg and others
                                        the heart of both, a few lines                         README.md, notebook 09

A metric is only shown if real clips are best in it and noise is worst. No number and no verdict is typed in: another
run gives other sentences, and a study that is not finished says what is missing.
"""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows, write_atomically
from minigen.evaluation.bootstrap import Difference, Ratio, interval, paired_difference
from minigen.evaluation.per_caption import RATIOS, Line, mean
from minigen.evaluation.study.plan import (
    DROPOUT,
    EVERY_STEP,
    NO_DROPOUT,
    REGULARIZED,
    TEST,
    StudyConfig,
    chosen_guidance,
    chosen_weight,
    missing,
    plan,
    weight_run,
)
from minigen.evaluation.study.run import CAPTIONS, CONTROL_ROWS, OTHER_SPLIT, ROWS

TIE = 1e-9  # values nearer than this are the same
REAL, CODEC, NOISE, SILENCE, SHUFFLED = "real clips", "codec reconstruction", "noise", "silence", "shuffled captions"


class Metric(NamedTuple):
    """A column: field of the rows, title, which way is better ("low", "high", or "near" the real clips), percent?"""

    field: str
    title: str
    better: str
    percent: bool = False


METRICS = (
    Metric("recall", "recall", "high", True), Metric("recall_seen", "recall, seen", "high", True),
    Metric("recall_held_out", "recall, held out", "high", True), Metric("order", "order", "high", True),
    Metric("count", "count", "high", True), Metric("clap", "CLAP", "high"), Metric("kl", "KL", "low"),
    Metric("fad", "FAD", "low"), Metric("fad_infinity", "FAD inf", "low"), Metric("kernel", "kernel", "low"),
    Metric("diversity", "diversity", "near"),
)  # fmt: skip


class Entry(NamedTuple):
    """A row of the table: its name, the model, and at which guidance (None: the best on validation clips)."""

    name: str
    model: str
    guidance: float | None = None


ENTRIES = (
    Entry("no text dropout", NO_DROPOUT), Entry("text dropout, no guidance", DROPOUT, 1.0),
    Entry("text dropout, guidance", DROPOUT), Entry("regulariser", REGULARIZED),
    Entry("regulariser in every step", EVERY_STEP),
)  # fmt: skip
COMPARED = ((2, 1), (2, 0), (3, 2), (4, 2), (4, 3))  # numbers of ENTRIES: the first less the second
SHIPPED = (
    Entry("mini-no-dropout", "mini-no-dropout"), Entry("mini-dropout, no guidance", "mini-dropout", 1.0),
    Entry("mini-dropout", "mini-dropout"), Entry("mini-regularized, no guidance", "mini-regularized", 1.0),
    Entry("mini-regularized", "mini-regularized"),
)  # fmt: skip
SHIPPED_COMPARED = ((2, 1), (4, 3), (2, 0), (4, 2))
IN_SUMMARY = ("recall", "recall_held_out", "clap", "fad")
PLACE = re.compile(r"(?<=<!-- study -->\n).*?(?=<!-- end of study -->)", re.DOTALL)  # in the README
COMPARED_BY = ("recall", "recall_held_out", "clap", "kl", "order", "count")


class Results:
    """The two files, read.

    Raises:
        MinigenError: there are no rows yet.
    """

    def __init__(self, folder: str | Path, config: StudyConfig):
        self.config, self.rows = config, read_rows(Path(folder) / ROWS)
        if not self.rows:
            raise MinigenError(f"{Path(folder) / ROWS} holds no rows yet. Run `minigen study` first.")
        self.lines = {
            (row["run"], float(row["guidance"])): Line.read(row) for row in read_rows(Path(folder) / CAPTIONS)
        }
        self.tested = {(r["run"], float(r["guidance"])): r for r in self.rows if r["split"] == TEST}

    def guidance(self, entry: Entry) -> float | None:
        """Where an entry is read; None as long as the choice is not made."""
        return entry.guidance or chosen_guidance(self.rows, entry.model, self.config)

    def runs(self, model: str, guidance: float | None) -> list[tuple[str, float]]:
        """The measured trainings of a model, by seed."""
        wanted = [(f"{model}-{seed}", guidance) for seed in self.config.seeds]
        return [run for run in wanted if run in self.tested]

    def value(self, field: str, runs: list[tuple[str, float]]) -> float:
        """Mean over trainings of a column; nan where there is none."""
        values = [float(self.tested[run][field] or "nan") for run in runs]
        return float(np.mean(values)) if values else math.nan

    def ratio(self, measure: str, runs: list[tuple[str, float]]) -> Ratio:
        """What `paired_difference` takes: [seeds, captions] twice."""
        above, below = zip(*(self.lines[run].ratio(measure) for run in runs), strict=True)
        return Ratio(np.stack(above), np.stack(below))


def sound_metrics(results: Results) -> tuple[list[Metric], list[str]]:
    """The metrics that may be shown, and for each other one a sentence that says why not.

    Real clips, or other real clips, must do at least as well as the codec's reconstruction and every model, and noise
    no better than any of these. Silence and shuffled captions are other ways of being wrong and are not asked.
    """
    sounds = {name: [(name, 0.0)] for name in CONTROL_ROWS if (name, 0.0) in results.tested}
    models = {e.name: results.runs(e.model, results.guidance(e)) for e in ENTRIES + SHIPPED}
    asked = {name: runs for name, runs in (sounds | models).items() if runs and name not in (SILENCE, SHUFFLED)}
    kept, dropped = [], []
    for metric in METRICS:
        reason = _unsound(metric, {name: _goodness(results, metric, runs) for name, runs in asked.items()})
        if reason:
            dropped.append(f"{metric.title} is left out: {reason}.")
        else:
            kept.append(metric)
    return kept, dropped


def _unsound(metric: Metric, goodness: dict[str, float]) -> str:
    """Why a metric is not shown; "" where it may be. goodness: -inf where the metric does not apply to a sound."""
    real = max(goodness.get(REAL, -math.inf), goodness.get(OTHER_SPLIT, -math.inf))
    noise = goodness.get(NOISE, -math.inf)
    rivals = [name for name in goodness if name not in (REAL, OTHER_SPLIT, NOISE)]
    if real == -math.inf:
        return "it does not apply to these real clips"
    if better := [name for name in rivals if goodness[name] > real + TIE]:
        return f"by it, {better[0]} would be better than real clips"
    if worse := [name for name in rivals if goodness[name] < noise - TIE]:
        return f"by it, {worse[0]} would be worse than noise"
    return "by it, noise would be as good as real clips" if noise >= real - TIE else ""


def _goodness(results: Results, metric: Metric, runs: list[tuple[str, float]]) -> float:
    value = results.value(metric.field, runs)
    if metric.better == "near":
        value = -abs(value - results.value(metric.field, [(REAL, 0.0)]))
    value = -value if metric.better == "low" else value
    return -math.inf if math.isnan(value) else value  # what does not apply, such as the order of unheard events


def make_table(folder: str | Path, config: StudyConfig | None = None) -> str:
    """Write table.md and the figures beside the rows, and return the text.

    Raises:
        MinigenError: no rows, or a place that cannot be written.
    """
    folder, config = Path(folder), config or StudyConfig()
    results = Results(folder, config)
    if not all((name, 0.0) in results.tested for name in CONTROL_ROWS):
        raise MinigenError(f"{folder / ROWS} lacks controls. No table stands without them: run `minigen study` on.")
    metrics, dropped = sound_metrics(results)
    parts = [
        "# The study", _what(results), _missing(results), _table(results, metrics), "\n".join(dropped),
        _of_codec(results, metrics, ENTRIES),
        "## The shipped models", _shipped(results, metrics) or "None is measured.",
        "## What the regulariser changed", _likeness(results),
        "## Comparisons", _comparisons(results, metrics, ENTRIES, COMPARED),
        "## At one seed", _questions(results, metrics), _figures(folder, results),
    ]  # fmt: skip
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_atomically(folder / "table.md", text)
    return text


def summary(folder: str | Path, config: StudyConfig | None = None) -> str:
    """The heart of the table in Markdown, as the README and notebook 09 show it: few columns, all comparisons.

    Raises:
        MinigenError: no rows.
    """
    results = Results(folder, config or StudyConfig())
    metrics = [metric for metric in sound_metrics(results)[0] if metric.field in IN_SUMMARY]
    parts = [_what(results), _missing(results), _table(results, metrics), _of_codec(results, metrics, ENTRIES),
             _comparisons(results, metrics, ENTRIES, COMPARED), _shipped(results, metrics)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def write_summary(text: str, page: str | Path) -> None:
    """Put the summary between its marks in a page; one that has no marks, or is not there, stays as it is."""
    page = Path(page)
    if page.is_file():
        before = page.read_text("utf-8")
        after = PLACE.sub(lambda _: text, before)
        if after != before:
            write_atomically(page, after)


def _what(results: Results) -> str:
    config, weight = results.config, chosen_weight(results.rows, results.config)
    trained = [row for row in results.rows if row["hours"] and row["model"] not in config.shipped]
    hours = {row["run"]: float(row["hours"]) for row in trained}
    text = (
        f"All models are {config.width} wide with {config.layers} layers and were trained for {config.steps} steps of "
        f"{config.batch_size} clips ({config.question_steps} steps at a single seed); {len(hours)} trainings took "
        f"{sum(hours.values()):.1f} hours, added up. {config.captions} captions of the test split, half of them with "
        f"pairs of events that never sound together in training. "
    )
    if weight is None:
        return text + "The weight of the regulariser is not chosen yet."
    scores = ", ".join(f"{w:g}: {_validation(results, weight_run(w, config)):.3f}" for w in config.weights)
    return text + f"Weight of the regulariser: {weight:g}, by the CLAP score on validation clips ({scores})."


def _validation(results: Results, run: str) -> float:
    return next(float(row["clap"]) for row in results.rows if row["run"] == run and row["split"] != TEST)


def _missing(results: Results) -> str:
    left = [task.name for task in missing(plan(results.config), results.rows)]
    return f"**Not finished**: {len(left)} tasks are missing ({', '.join(left)})." if left else ""


def _table(results: Results, metrics: list[Metric]) -> str:
    arrows = {"low": " ↓", "high": " ↑", "near": ""}
    lines = [["", "guidance", "seeds", *(m.title + arrows[m.better] for m in metrics)]]
    for name in CONTROL_ROWS:
        lines.append([name, "", "", *(_cell(results, metric, [(name, 0.0)]) for metric in metrics)])
    return _markdown(lines + _rows(results, metrics, ENTRIES))


def _rows(results: Results, metrics: list[Metric], entries: tuple[Entry, ...]) -> list[list[str]]:
    """A line for each entry that is measured."""
    lines = []
    for entry in entries:
        guidance = results.guidance(entry)
        runs = results.runs(entry.model, guidance)
        if runs:
            cells = (_cell(results, metric, runs) for metric in metrics)
            lines.append([entry.name, f"{guidance:g}", str(len(runs)), *cells])
    return lines


def _shipped(results: Results, metrics: list[Metric]) -> str:
    """The models in data/lm, which were trained longer; "" as long as none is measured."""
    lines = _rows(results, metrics, SHIPPED)
    if not lines:
        return ""
    titles = ["", "guidance", "seeds", *(metric.title for metric in metrics)]
    lines.insert(0, ["codec reconstruction", "", "", *(_cell(results, metric, [(CODEC, 0.0)]) for metric in metrics)])
    steps = {row["model"]: f"{row['model']} {row['steps']} steps" for row in results.rows
             if row["model"] in results.config.shipped}  # fmt: skip
    text = f"The **shipped models** were trained longer and on more clips ({', '.join(steps.values())}: `data/lm`):"
    parts = [text, _markdown([titles, *lines]), _of_codec(results, metrics, SHIPPED),
             _comparisons(results, metrics, SHIPPED, SHIPPED_COMPARED)]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _of_codec(results: Results, metrics: list[Metric], entries: tuple[Entry, ...]) -> str:
    """Recall as a share of that of real clips which only went through the codec: what the model itself loses."""
    if not any(metric.field == "recall" for metric in metrics):
        return ""
    codec = {field: results.value(field, [(CODEC, 0.0)]) for field in ("recall", "recall_held_out")}
    parts = []
    for entry in entries:
        runs = results.runs(entry.model, results.guidance(entry))
        shares = [results.value(field, runs) / base for field, base in codec.items() if runs and base > 0]
        if len(shares) == 2:
            parts.append(f"{entry.name} {shares[0]:.0%}, with held-out pairs {shares[1]:.0%}")
    return f"True events, relative to those heard after the codec: {'; '.join(parts)}." if parts else ""


def measured(results: Results, sounds: dict[str, tuple[str, float]]) -> str:
    """All sound metrics of some rows, by name: (run, guidance)."""
    metrics = sound_metrics(results)[0]
    there = {name: where for name, where in sounds.items() if where in results.tested}
    table = [[name, *(_cell(results, metric, [where]) for metric in metrics)] for name, where in there.items()]
    return _markdown([["", *(metric.title for metric in metrics)], *table])


def of_captions(lines: dict[str, Line]) -> str:
    """The study's measures that are sums over captions, of any sounds by name, with their intervals over captions."""
    shown = [metric for metric in METRICS if metric.field in RATIOS]
    table = [["", *(metric.title for metric in shown)]]
    for name, line in lines.items():
        ratios = [Ratio(*(part[None] for part in line.ratio(metric.field))) for metric in shown]
        cells = zip(shown, [mean(line, metric.field) for metric in shown], map(interval, ratios), strict=True)
        table.append([name, *(_with_interval(*cell) for cell in cells)])
    return _markdown(table)


def _with_interval(metric: Metric, value: float, bounds: tuple[float, float]) -> str:
    if math.isnan(value):
        return "n/a"
    low, high = bounds
    shown = _show(metric, value)
    return f"{shown} [{_show(metric, low)}, {_show(metric, high)}]" if low < high else shown


def _likeness(results: Results) -> str:
    """Level, pattern and correlation of the cosines in each model, with the least and the largest of the seeds."""
    lines = [["", "level", "pattern", "correlation with the captions' cosines"]]
    runs = {entry.name: results.runs(entry.model, results.config.guidances[0]) for entry in ENTRIES}
    del runs[ENTRIES[1].name]  # the same weights as the next
    runs |= {f"weight {w:g}, one seed": [(weight_run(w, results.config), results.config.question_guidances[0])]
             for w in (0.0, *results.config.weights)}  # fmt: skip
    for name, found in runs.items():
        if found := [run for run in found if run in results.tested]:
            cells = [_spread(results, field, found) for field in ("level", "pattern", "correlation")]
            lines.append([name, *cells])
    text = (
        "Similarity loss of 64 validation clips, of hidden states without text, as a sum: (mean of the differences)², "
        "all cosines too high alike, and their variance, the wrong pairs alike (`study/similarity_parts.py`)."
    )
    return text + "\n\n" + _markdown(lines) if len(lines) > 1 else "None is measured yet."


def _spread(results: Results, field: str, runs: list[tuple[str, float]]) -> str:
    values = [results.value(field, [run]) for run in runs]
    spread = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _cell(results: Results, metric: Metric, runs: list[tuple[str, float]]) -> str:
    """Mean over seeds, with its interval over captions and seeds, or else the least and the largest of the seeds."""
    value = results.value(metric.field, runs)
    if math.isnan(value):
        return "n/a"
    if metric.field in RATIOS:
        low, high = interval(results.ratio(metric.field, runs))
    else:
        values = [results.value(metric.field, [run]) for run in runs]
        low, high = min(values), max(values)
    return _with_interval(metric, value, (low, high))


def _show(metric: Metric, value: float, sign: str = "") -> str:
    if metric.percent:
        return f"{100 * value:{sign}.0f}"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def _comparisons(
    results: Results, metrics: list[Metric], entries: tuple[Entry, ...], compared: tuple[tuple[int, int], ...]
) -> str:
    """Every comparison of two entries, on the same captions and the same seeds."""
    pairs = [(entries[one], entries[other]) for one, other in compared]
    rows = [_compared(results, metrics, (e.name, e.model, results.guidance(e)), (o.name, o.model, results.guidance(o)))
            for e, o in pairs]  # fmt: skip
    return "\n".join(row for row in rows if row) or "No two models are measured yet."


def _compared(results: Results, metrics: list[Metric], one: tuple, other: tuple) -> str:
    runs = [results.runs(*entry[1:]) for entry in (one, other)]
    both = min(map(len, runs))
    if not both or [run[0].rsplit("-", 1)[1] for run in runs[0][:both]] != [
        r[0].rsplit("-", 1)[1] for r in runs[1][:both]
    ]:
        return ""
    return f"- **{one[0]}** less **{other[0]}**: {_differences(results, metrics, runs[0][:both], runs[1][:both])}"


def _differences(results: Results, metrics: list[Metric], one: list, other: list) -> str:
    shown = [metric for metric in metrics if metric.field in COMPARED_BY]
    said = [_said(m, paired_difference(results.ratio(m.field, one), results.ratio(m.field, other))) for m in shown]
    return "; ".join(text for text in said if text) + "." if any(said) else "no metric that is sound applies."


def _said(metric: Metric, found: Difference) -> str:
    if math.isnan(found.mean):
        return ""
    mean, low, high = (_show(metric, value, "+") for value in found[:3])
    unit = " points" if metric.percent else ""
    seeds = f"; by seed {', '.join(_show(metric, value, '+') for value in found.seeds)}" if len(found.seeds) > 1 else ""
    sure = "leaves out 0" if found.sure else "holds 0: cannot tell"
    return f"{metric.title} {mean}{unit} [{low}, {high}] ({sure}{seeds})"


def _questions(results: Results, metrics: list[Metric]) -> str:
    """Trainings at the first seed, each less the one that differs from it in one thing, guided alike."""
    config, weight = results.config, chosen_weight(results.rows, results.config)
    seed, none = config.seeds[0], weight_run(0.0, config)
    pairs = [(f"weight {w:g}", weight_run(w, config), none, "weight 0") for w in config.weights]
    if weight is not None:
        chosen = weight_run(weight, config)
        pairs.append(("mean pooling", f"mean-pooling-{seed}", chosen, "max pooling"))
        pairs.append(
            ("a coin for every clip, regulariser", f"per-clip-regularised-{seed}", chosen, "one for the batch")
        )
    pairs += [(f"dropout {share}", f"dropout-{share}-{seed}", none, "dropout 0.1") for share in ("0.2", "0.3")]
    pairs.append(("a coin for every clip", f"per-clip-{seed}", none, "one for the batch"))
    pairs.append(("without mixing", f"no-mixing-{seed}", none, "with mixing"))
    guidance = config.question_guidances[-1]
    said = [
        f"- **{name}** less **{against}**, guidance {guidance:g}: "
        + _differences(results, metrics, [(run, guidance)], [(base, guidance)])
        for name, run, base, against in pairs
        if (run, guidance) in results.tested and (base, guidance) in results.tested
    ]
    warning = "One training each: the intervals are over captions, and another seed may tell otherwise."
    return "\n".join([warning, "", *said]) if said else "None is measured yet."


def _figures(folder: Path, results: Results) -> str:
    """Guidance against recall, CLAP score and diversity: the four trainings, the shipped models, the weights."""
    from minigen.display.plots import guidance_sweep, svg

    sweeps = {
        "guidance": {m: _points(results, m, results.config.seeds, results.config.guidances)
                     for m in (NO_DROPOUT, DROPOUT, REGULARIZED, EVERY_STEP)},
        "shipped": {m: _points(results, m, results.config.seeds, results.config.guidances)
                    for m in results.config.shipped},
        "weights": {f"weight {w:g}": _points(results, f"weight-{w:g}", results.config.seeds[:1],
                                             results.config.question_guidances)
                    for w in (0.0, *results.config.weights)},
    }  # fmt: skip
    shown = []
    for name, sweep in sweeps.items():
        sweep = {label: points for label, points in sweep.items() if points}
        if sweep:
            write_atomically(folder / f"{name}.svg", svg(guidance_sweep(sweep)))
            shown.append(f"![{', '.join(sweep)}: recall, CLAP score and diversity over guidance]({name}.svg)")
    return "\n\n".join(shown)


def _points(results: Results, model: str, seeds: tuple, guidances: tuple) -> dict[float, object]:
    """What `plots.guidance_sweep` draws: by guidance, means over seeds and their intervals."""
    points = {}
    for guidance in guidances:
        runs = [(f"{model}-{seed}", guidance) for seed in seeds if (f"{model}-{seed}", guidance) in results.tested]
        if runs:
            values = {field: results.value(field, runs) for field in ("recall", "clap", "diversity")}
            bounds = {f"{field}_interval": interval(results.ratio(field, runs)) for field in ("recall", "clap")}
            points[guidance] = SimpleNamespace(**values, **bounds)
    return points


def _markdown(lines: list[list[str]]) -> str:
    head, *rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|---" + "|---:" * (len(lines[0]) - 1) + "|", *rows])
