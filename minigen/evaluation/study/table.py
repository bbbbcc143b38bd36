"""Tables and sentences of the study, made from rows.csv and captions.csv alone.

    make_table    table.md: controls, models, shipped models, comparisons, questions, figures
    summary       fewer columns and all comparisons: docs/study.md, notebook 09
    conclusion    four rows and one sentence: README.md

No number and no verdict is typed in: other rows give other sentences. An unfinished study says what is missing.
"""

import math
import re
from pathlib import Path

import numpy as np

from minigen.display.tables import markdown_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.evaluation.bootstrap import Difference, Ratio, interval, paired_difference
from minigen.evaluation.measure import CODEC
from minigen.evaluation.per_caption import RATIOS, CaptionScores, mean
from minigen.evaluation.study.figures import write_figures
from minigen.evaluation.study.plan import (
    CONTROL_ROWS,
    REGULARIZED,
    ROWS,
    TEST,
    StudyConfig,
    chosen_weight,
    missing,
    weight_run,
)
from minigen.evaluation.study.results import (
    COMPARISONS,
    ENTRIES,
    GUIDED,
    METRICS,
    REGULARISED,
    SHIPPED,
    SHIPPED_COMPARISONS,
    UNGUIDED,
    Entry,
    Metric,
    Results,
    Run,
    sound_metrics,
)

ARROWS = {"low": " ↓", "high": " ↑", "near": ""}
SUMMARY_METRICS = ("recall", "recall_held_out", "clap", "fad")
COMPARED_METRICS = ("recall", "recall_held_out", "clap", "kl", "order", "count")
NAMED = 8  # missing tasks that a table names
MARKED = r"(?<=<!-- {0} -->\n).*?(?=<!-- end of {0} -->)"  # in README.md and docs/study.md


# the three texts


def make_table(folder: str | Path, config: StudyConfig | None = None) -> str:
    """Write table.md and the figures beside the rows; returns the text.

    Raises:
        MinigenError: no rows, no controls, or a folder that cannot be written.
    """
    folder = Path(folder)
    results = results_with_controls(folder, config or StudyConfig())
    metrics, dropped = sound_metrics(results)
    parts = [
        "# The study", _settings(results), missing_tasks(results, names=True),
        table(results, metrics), "\n".join(dropped),
        _relative_to_codec(results, metrics, ENTRIES),
        "## The shipped models", _shipped(results, metrics) or "None is measured.",
        "## What the regulariser changed", _similarity(results),
        "## Comparisons", comparisons(results, metrics, COMPARISONS),
        "## At one seed", _questions(results, metrics), write_figures(folder, results),
    ]  # fmt: skip
    text = paragraphs(parts)
    write_atomically(folder / "table.md", text)
    return text


def summary(folder: str | Path, config: StudyConfig | None = None) -> str:
    """The table with few columns, and all comparisons, in Markdown.

    Raises:
        MinigenError: no rows.
    """
    results = Results(folder, config or StudyConfig())
    metrics = _of_fields(results, SUMMARY_METRICS)
    return paragraphs([
        _settings(results), missing_tasks(results), table(results, metrics),
        _relative_to_codec(results, metrics, ENTRIES), comparisons(results, metrics, COMPARISONS),
        _shipped(results, metrics),
    ])  # fmt: skip


def conclusion(folder: str | Path, config: StudyConfig | None = None) -> str:
    """Four rows of the table and one sentence, in Markdown: what guidance does, and what the regulariser does.

    Raises:
        MinigenError: no rows.
    """
    results = Results(folder, config or StudyConfig())
    metrics = _of_fields(results, SUMMARY_METRICS)
    rows = table(results, metrics, (UNGUIDED, GUIDED, REGULARISED), (CODEC,))
    return paragraphs([missing_tasks(results), rows, _verdict(results)])


def results_with_controls(folder: Path, config: StudyConfig) -> Results:
    """Results of a study.

    Raises:
        MinigenError: no rows, or no controls.
    """
    results = Results(folder, config)
    if not all((name, 0.0) in results.tested for name in CONTROL_ROWS):
        raise MinigenError(f"{folder / ROWS} lacks controls. No table is made without them: continue `minigen study`.")
    return results


def write_between_marks(text: str, page: str | Path, name: str = "study") -> None:
    """Put a text between the marks `name` of a page. A page without marks, or none at all, stays as it is."""
    page = Path(page)
    if page.is_file():
        before = page.read_text("utf-8")
        after = re.sub(MARKED.format(name), lambda _: text, before, flags=re.DOTALL)
        if after != before:
            write_atomically(page, after)


def paragraphs(parts: list[str]) -> str:
    """The parts that are not empty, as paragraphs of a page."""
    return "\n\n".join(part for part in parts if part) + "\n"


def _of_fields(results: Results, fields: tuple[str, ...]) -> list[Metric]:
    return [metric for metric in sound_metrics(results)[0] if metric.field in fields]


# paragraphs


def _settings(results: Results) -> str:
    config, weight = results.config, chosen_weight(results.rows, results.config)
    trained = [row for row in results.rows if row["hours"] and row["model"] not in config.shipped]
    hours = {row["run"]: float(row["hours"]) for row in trained}
    text = (
        f"All models are {config.width} wide with {config.layers} layers and were trained for {config.steps} steps of "
        f"{config.batch_size} clips ({config.question_steps} steps for the questions at one seed). {len(hours)} "
        f"trainings took {sum(hours.values()):.1f} hours in total. The {config.captions} captions are of the test "
        f'split; half of them ("held out") have pairs of events that never sound together in training. '
    )
    if weight is None:
        return text + "The weight of the regulariser is not chosen yet."
    scores = ", ".join(f"{w:g}: {_validation(results, weight_run(w, config)):.3f}" for w in config.weights)
    name = "regulariser" if config.chooses == REGULARIZED else "centred regulariser"
    text += f"The {name} has the weight {weight:g}, chosen by the CLAP score on validation clips ({scores})."
    if config.similarity is None:
        return text
    return f"{text} Where it is not centred, it has the weight {config.similarity:g}."


def _validation(results: Results, run: str) -> float:
    return next(float(row["clap"]) for row in results.rows if row["run"] == run and row["split"] != TEST)


def missing_tasks(results: Results, names: bool = False) -> str:
    """A sentence that counts the missing tasks and, with `names`, names the first `NAMED`; "" if there are none."""
    tasks = results.config.tasks(results.rows)
    left = [task.name for task in missing(tasks, results.rows)]
    if not left:
        return ""
    text = f"**Not finished**: {len(left)} of {len(tasks)} tasks of the study are missing"
    if not names:
        return f"{text}. The same command continues it."
    rest = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"{text} ({', '.join(left[:NAMED])}{rest})."


def _verdict(results: Results) -> str:
    """One sentence: the change of recall by guidance and by the regulariser, and whether it differs from 0."""
    changes, seeds = [], len(results.config.seeds)
    for cause, one, other in (("guidance", GUIDED, UNGUIDED), ("the regulariser", REGULARISED, GUIDED)):
        runs = common_seeds(results, one, other)
        if not runs[0]:
            return "There is no conclusion yet: not all of these models are measured."
        seeds = min(seeds, len(runs[0]))
        found = paired_difference(*(results.ratio("recall", of) for of in runs))
        verb = "makes no difference to recall that can be told from 0:"
        if found.sure:
            verb = "raises recall:" if found.mean > 0 else "lowers recall:"
        changes.append(f"{cause} {verb} {difference(METRICS[0], found)}")
    return f"{over_seeds(seeds, results.config.captions)}, {changes[0]}; {changes[1]}."


def over_seeds(seeds: int, captions: int) -> str:
    """The beginning of a sentence about differences: the numbers of seeds and of captions that it rests on."""
    return f"Over {seeds} seed{'s' if seeds > 1 else ''} and {captions} captions"


def _relative_to_codec(results: Results, metrics: list[Metric], entries: tuple[Entry, ...]) -> str:
    """Recall divided by the recall of real clips after the codec: what the model itself loses."""
    if not any(metric.field == "recall" for metric in metrics):
        return ""
    codec = {field: results.value(field, [(CODEC, 0.0)]) for field in ("recall", "recall_held_out")}
    parts = []
    for entry in entries:
        runs = results.of(entry)
        shares = [results.value(field, runs) / base for field, base in codec.items() if runs and base > 0]
        if len(shares) == 2:
            parts.append(f"{entry.name} {shares[0]:.0%}, with held-out pairs {shares[1]:.0%}")
    return f"Recall relative to that of the codec reconstruction: {'; '.join(parts)}." if parts else ""


def _shipped(results: Results, metrics: list[Metric]) -> str:
    """The models in data/lm, which were trained longer; "" if none is measured."""
    if not _rows(results, metrics, SHIPPED):
        return ""
    steps = {row["model"]: f"{row['model']} {row['steps']} steps" for row in results.rows
             if row["model"] in results.config.shipped}  # fmt: skip
    return paragraphs([
        f"The **shipped models** were trained longer and on more clips ({', '.join(steps.values())}: `data/lm`):",
        table(results, metrics, SHIPPED, (CODEC,)),
        _relative_to_codec(results, metrics, SHIPPED), comparisons(results, metrics, SHIPPED_COMPARISONS),
    ]).rstrip()  # fmt: skip


def _similarity(results: Results) -> str:
    """Level, pattern and correlation of the cosines in each model, with the least and the largest of the seeds."""
    config = results.config
    runs = {entry.name: results.runs(entry.model, config.guidances[0]) for entry in ENTRIES if entry != UNGUIDED}
    runs |= {f"weight {weight:g}, one seed": [(weight_run(weight, config), config.question_guidances[0])]
             for weight in (0.0, *config.weights)}  # fmt: skip
    rows = []
    for name, found in runs.items():
        if found := [run for run in found if run in results.tested]:
            rows.append([name, *(_spread(results, field, found) for field in ("level", "pattern", "correlation"))])
    if not rows:
        return "None is measured yet."
    text = (
        "The similarity loss of the hidden states without text, on 64 validation clips, is a sum of two parts. The "
        "level is the square of the mean difference of the cosines: all are too high. The pattern is the variance of "
        "the differences: the wrong pairs are alike (`minigen/evaluation/study/similarity_parts.py`)."
    )
    titles = ["", "level", "pattern", "correlation with the captions' cosines"]
    return f"{text}\n\n{markdown_table(titles, rows, numbers=True)}"


def _spread(results: Results, field: str, runs: list[Run]) -> str:
    values = [results.value(field, [run]) for run in runs]
    spread = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


# comparisons


def comparisons(results: Results, metrics: list[Metric], pairs: tuple[tuple[Entry, Entry], ...]) -> str:
    """A line for each pair of entries, on the same captions and the same seeds."""
    lines = []
    for one, other in pairs:
        runs = common_seeds(results, one, other)
        if runs[0]:
            lines.append(f"- **{one.name}** minus **{other.name}**: {_differences(results, metrics, *runs)}")
    return "\n".join(lines) or "No two models are measured yet."


def common_seeds(results: Results, one: Entry, other: Entry) -> tuple[list[Run], list[Run]]:
    """Measured trainings of both entries, of the seeds that both have."""
    runs = [{run[0].rsplit("-", 1)[1]: run for run in results.of(entry)} for entry in (one, other)]
    seeds = [seed for seed in runs[0] if seed in runs[1]]
    return [runs[0][seed] for seed in seeds], [runs[1][seed] for seed in seeds]


def _differences(results: Results, metrics: list[Metric], one: list[Run], other: list[Run]) -> str:
    texts = []
    for metric in metrics:
        if metric.field not in COMPARED_METRICS:
            continue
        found = paired_difference(results.ratio(metric.field, one), results.ratio(metric.field, other))
        if not math.isnan(found.mean):
            texts.append(f"{metric.title} {difference(metric, found)} ({_certainty(metric, found)})")
    return "; ".join(texts) + "." if texts else "no metric that is sound applies."


def difference(metric: Metric, found: Difference) -> str:
    """A difference with its interval, as text."""
    mean, low, high = (_show(metric, value, "+") for value in found[:3])
    return f"{mean}{' points' if metric.percent else ''} [{low}, {high}]"


def _certainty(metric: Metric, found: Difference) -> str:
    text = "excludes 0" if found.sure else "includes 0: cannot tell"
    if len(found.seeds) > 1:
        text += f"; by seed {', '.join(_show(metric, value, '+') for value in found.seeds)}"
    return text


def _questions(results: Results, metrics: list[Metric]) -> str:
    """Trainings at the first seed, each minus one that differs from it in one setting, at the same guidance."""
    config, weight = results.config, chosen_weight(results.rows, results.config)
    seed, none, guidance = config.seeds[0], weight_run(0.0, config), config.question_guidances[-1]
    pairs = [(f"weight {w:g}", weight_run(w, config), "weight 0", none) for w in config.weights]
    if weight is not None:
        chosen = weight_run(weight, config)
        pairs += [("mean pooling", f"mean-pooling-{seed}", "max pooling", chosen),
                  ("a coin for every clip, regulariser", f"per-clip-regularised-{seed}", "one for the batch",
                   chosen)]  # fmt: skip
    pairs += [(f"dropout {share}", f"dropout-{share}-{seed}", "dropout 0.1", none) for share in ("0.2", "0.3")]
    pairs += [("a coin for every clip", f"per-clip-{seed}", "one for the batch", none),
              ("without mixing", f"no-mixing-{seed}", "with mixing", none)]  # fmt: skip
    lines = []
    for name, run, other_name, other in pairs:
        runs = (run, guidance), (other, guidance)
        if all(of in results.tested for of in runs):
            text = _differences(results, metrics, [runs[0]], [runs[1]])
            lines.append(f"- **{name}** minus **{other_name}**, guidance {guidance:g}: {text}")
    warning = "One training each: the intervals are over captions, and another seed may give another result."
    return "\n".join([warning, "", *lines]) if lines else "None is measured yet."


# tables and cells


def _titles(metrics: list[Metric]) -> list[str]:
    return ["", "guidance", "seeds", *(metric.title + ARROWS[metric.better] for metric in metrics)]


def table(
    results: Results, metrics: list[Metric], entries: tuple[Entry, ...] = ENTRIES,
    controls: tuple[str, ...] = CONTROL_ROWS,
) -> str:  # fmt: skip
    """Controls and entries, a row each."""
    rows = [_control_row(results, metrics, name) for name in controls]
    return markdown_table(_titles(metrics), [*rows, *_rows(results, metrics, entries)], numbers=True)


def _control_row(results: Results, metrics: list[Metric], name: str) -> list[str]:
    return [name, "", "", *(_cell(results, metric, [(name, 0.0)]) for metric in metrics)]


def _rows(results: Results, metrics: list[Metric], entries: tuple[Entry, ...]) -> list[list[str]]:
    """A row for each entry that is measured."""
    rows = []
    for entry in entries:
        if runs := results.of(entry):
            cells = [_cell(results, metric, runs) for metric in metrics]
            rows.append([entry.name, f"{results.guidance(entry):g}", str(len(runs)), *cells])
    return rows


def measured(results: Results, sounds: dict[str, Run]) -> str:
    """A table of the sound metrics of some rows: name -> (run, guidance)."""
    metrics = sound_metrics(results)[0]
    rows = [[name, *(_cell(results, metric, [run]) for metric in metrics)]
            for name, run in sounds.items() if run in results.tested]  # fmt: skip
    return markdown_table(["", *(metric.title for metric in metrics)], rows, numbers=True)


def of_captions(scores: dict[str, CaptionScores]) -> str:
    """A table of the measures that are sums over captions, for any sounds by name, with intervals over captions."""
    shown = [metric for metric in METRICS if metric.field in RATIOS]
    rows = []
    for name, own in scores.items():
        cells = []
        for metric in shown:
            counted, among = own.ratio(metric.field)
            bounds = interval(Ratio(counted[None], among[None]))
            cells.append(_with_interval(metric, mean(own, metric.field), bounds))
        rows.append([name, *cells])
    return markdown_table(["", *(metric.title for metric in shown)], rows, numbers=True)


def _cell(results: Results, metric: Metric, runs: list[Run]) -> str:
    """Mean over seeds, with its interval over captions and seeds, or else the least and the largest of the seeds."""
    value = results.value(metric.field, runs)
    if math.isnan(value):
        return "n/a"
    if metric.field in RATIOS:
        return _with_interval(metric, value, interval(results.ratio(metric.field, runs)))
    values = [results.value(metric.field, [run]) for run in runs]
    return _with_interval(metric, value, (min(values), max(values)))


def _with_interval(metric: Metric, value: float, bounds: tuple[float, float]) -> str:
    if math.isnan(value):
        return "n/a"
    low, high = bounds
    shown = _show(metric, value)
    return f"{shown} [{_show(metric, low)}, {_show(metric, high)}]" if low < high else shown


def _show(metric: Metric, value: float, sign: str = "") -> str:
    if metric.percent or metric.whole:
        return f"{100 * value if metric.percent else value:{sign}.0f}"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"
