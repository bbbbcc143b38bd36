"""Tables, sentences and figures of the study of the families, made from rows.csv and captions.csv alone.

    make_table    table.md: controls, families, all differences, shipped models, other numbers of evaluations, figures
    summary       fewer columns: docs/study.md
    conclusion    the four families and one sentence: README.md

As in `minigen.evaluation.study.table`, no number and no verdict is typed in, and a metric that fails its controls is
left out.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

from minigen.display.plots import quality_over_cost, svg
from minigen.engine.files import write_atomically
from minigen.evaluation.bootstrap import interval, paired_difference
from minigen.evaluation.measure import CODEC
from minigen.evaluation.study.families import FamiliesConfig
from minigen.evaluation.study.plan import StudyConfig
from minigen.evaluation.study.results import Entry, Metric, Results, sound_metrics
from minigen.evaluation.study.table import (
    common_seeds,
    comparisons,
    difference,
    missing_tasks,
    over_seeds,
    paragraphs,
    results_with_controls,
    table,
)

NAMES = {"language_model": "language model", "discrete": "discrete diffusion", "latent": "latent diffusion"}
COST_METRICS = (
    Metric("evaluations", "evaluations", "low", whole=True), Metric("seconds_one", "seconds, one clip", "low"),
    Metric("seconds_eight", "seconds, eight clips", "low"),
)  # fmt: skip
SUMMARY_METRICS = ("recall", "recall_held_out", "order", "clap", "fad_infinity")
JUDGED_BY = ("recall", "clap")  # in the figures and the conclusion


def make_table(folder: str | Path, config: FamiliesConfig) -> str:
    """Write table.md and the figures beside the rows; returns the text.

    Raises:
        MinigenError: no rows, no controls, or a folder that cannot be written.
    """
    folder = Path(folder)
    results = results_with_controls(folder, config)
    one_seed = Results(folder, replace(config, seeds=config.seeds[:1]))
    metrics, dropped = sound_metrics(results, (*_families(config), *_shipped(config)))
    text = paragraphs([
        "# The families", _settings(config), missing_tasks(results, names=True),
        table(results, [*COST_METRICS, *metrics], _families(config)), "\n".join(dropped),
        "## Differences", comparisons(results, metrics, _pairs(config)),
        "## The shipped models", _shipped_part(results, metrics),
        "## Other numbers of evaluations", _budgets(one_seed, metrics), _figures(folder, one_seed),
    ])  # fmt: skip
    write_atomically(folder / "table.md", text)
    return text


def summary(folder: str | Path, config: FamiliesConfig) -> str:
    """The tables with few columns, and all differences, in Markdown.

    Raises:
        MinigenError: no rows.
    """
    results, metrics = _summarised(folder, config)
    return paragraphs([
        _settings(config), missing_tasks(results), table(results, [*COST_METRICS, *metrics], _families(config)),
        comparisons(results, metrics, _pairs(config)), _shipped_part(results, metrics),
    ])  # fmt: skip


def conclusion(folder: str | Path, config: FamiliesConfig) -> str:
    """The four families in one table, and one sentence about the differences from the language model, in Markdown.

    Raises:
        MinigenError: no rows.
    """
    results, metrics = _summarised(folder, config)
    rows = table(results, [*COST_METRICS, *metrics], _families(config), (CODEC,))
    return paragraphs([missing_tasks(results), rows, _verdict(results)])


def _summarised(folder: str | Path, config: FamiliesConfig) -> tuple[Results, list[Metric]]:
    results = Results(folder, config)
    metrics, _ = sound_metrics(results, (*_families(config), *_shipped(config)))
    return results, [metric for metric in metrics if metric.field in SUMMARY_METRICS]


# what is compared


def _families(config: StudyConfig) -> tuple[Entry, ...]:
    return tuple(Entry(NAMES.get(model, model), model) for model in config.models)


def _shipped(config: StudyConfig) -> tuple[Entry, ...]:
    return tuple(Entry(model, model) for model in config.shipped)


def _pairs(config: StudyConfig) -> tuple[tuple[Entry, Entry], ...]:
    """Every two families, each of the later ones minus the earlier."""
    return tuple((other, one) for one, other in combinations(_families(config), 2))


def _curve(results: Results, entry: Entry) -> tuple[Entry, ...]:
    """An entry with each of its numbers of evaluations that is measured, fewest first."""
    config = results.config
    assert isinstance(config, FamiliesConfig)
    counts = sorted({*config.others, config.evaluations})
    models = [entry.model if count == config.evaluations else f"{entry.model}@{count}" for count in counts]
    found = [Entry(entry.name, model) for model in models]
    return tuple(each for each in found if results.of(each))


# paragraphs


def _settings(config: FamiliesConfig) -> str:
    clips = config.steps * config.batch_size
    return (
        f"All models begin with random weights, are {config.width} wide with {config.layers} layers, and saw {clips:,} "
        f"clips ({config.steps} steps of {config.batch_size}). The {config.captions} captions are of the test split; "
        'half of them ("held out") have pairs of events that never sound together in training. Guidance is chosen by '
        f"the CLAP score on {config.validation} validation clips, at one seed. Seconds are processor time of one "
        "thread, from captions to waveforms."
    )


def _shipped_part(results: Results, metrics: list[Metric]) -> str:
    """The shipped models beside the first of them, the language model."""
    first, *others = _shipped(results.config) or [None]
    entries = tuple(entry for entry in (first, *others) if entry and results.of(entry))
    if not entries:
        return "No shipped model is measured."
    steps = {row["model"]: f"{row['model']} {row['steps']} steps" for row in results.rows
             if row["model"] in results.config.shipped and row["steps"]}  # fmt: skip
    told = f" ({', '.join(steps.values())})" if steps else ""
    return paragraphs([
        f"The **shipped models** were trained longer and on more clips{told}; their cards say from which weights.",
        table(results, [*COST_METRICS, *metrics], entries, (CODEC,)),
        comparisons(results, metrics, tuple((other, first) for other in others)),
    ]).rstrip()  # fmt: skip


def _budgets(results: Results, metrics: list[Metric]) -> str:
    """A row for each model and number of evaluations."""
    shown = [*COST_METRICS, *(metric for metric in metrics if metric.field in SUMMARY_METRICS)]
    entries = [each for entry in _families(results.config) + _shipped(results.config)
               for each in _curve(results, entry)]  # fmt: skip
    return f"At the first seed.\n\n{table(results, shown, tuple(entries), ())}" if entries else "None is measured."


def _verdict(results: Results) -> str:
    """One sentence: how each family differs from the first, and whether the difference is told from 0."""
    first, *others = _families(results.config)
    told, seeds = [], len(results.config.seeds)
    for entry in others:
        one, other = common_seeds(results, entry, first)
        if not one:
            return "There is no conclusion yet: not all families are measured."
        parts, seeds = [], min(seeds, len(one))
        for metric in sound_metrics(results, (first, *others))[0]:
            if metric.field in JUDGED_BY:
                found = paired_difference(results.ratio(metric.field, one), results.ratio(metric.field, other))
                parts.append(f"{metric.title} {difference(metric, found)}{'' if found.sure else ' (cannot tell)'}")
        told.append(f"{entry.name} {', '.join(parts)}")
    over = over_seeds(seeds, results.config.captions)
    return f"{over}, compared with the {first.name}: {'; '.join(told)}."


# figures


def _figures(folder: Path, results: Results) -> str:
    """Write families.svg and shipped.svg, if measured; returns Markdown that shows them."""
    shown = []
    for file, entries in (("families", _families(results.config)), ("shipped", _shipped(results.config))):
        panels = {title: {entry.name: _points(results, entry, field) for entry in entries if _curve(results, entry)}
                  for field, title in zip(JUDGED_BY, ("recall (share of events)", "CLAP score (cosine)"),
                                          strict=True)}  # fmt: skip
        if all(panels.values()):
            write_atomically(folder / f"{file}.svg", svg(quality_over_cost(panels)))
            shown.append(f"![Recall and CLAP score over evaluations and over seconds]({file}.svg)")
    return "\n\n".join(shown)


def _points(results: Results, entry: Entry, field: str) -> list[tuple[float, float, float, float, float]]:
    """(evaluations, seconds for one clip, value, low, high) of each number of evaluations."""
    points = []
    for each in _curve(results, entry):
        runs = results.of(each)
        costs = results.value("evaluations", runs), results.value("seconds_one", runs)
        points.append((*costs, results.value(field, runs), *interval(results.ratio(field, runs))))
    return points
