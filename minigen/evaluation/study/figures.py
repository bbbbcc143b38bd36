"""Figures of the study: recall, CLAP score and diversity over the guidance scale."""

from pathlib import Path
from types import SimpleNamespace

from minigen.display.plots import guidance_sweep, svg
from minigen.engine.files import write_atomically
from minigen.evaluation.bootstrap import interval
from minigen.evaluation.study.plan import weight_run
from minigen.evaluation.study.results import Results, Run


def write_figures(folder: Path, results: Results) -> str:
    """Write guidance.svg, shipped.svg and weights.svg, if measured; returns Markdown that shows them."""
    config = results.config
    of_seeds = {model: _sweep(results, [f"{model}-{seed}" for seed in config.seeds], config.guidances)
                for model in (*config.models, *config.shipped)}  # fmt: skip
    weights = {f"weight {weight:g}": _sweep(results, [weight_run(weight, config)], config.question_guidances)
               for weight in (0.0, *config.weights)}  # fmt: skip
    figures = {
        "guidance": {model: of_seeds[model] for model in config.models},
        "shipped": {model: of_seeds[model] for model in config.shipped},
        "weights": weights,
    }
    shown = []
    for name, sweeps in figures.items():
        sweeps = {label: points for label, points in sweeps.items() if points}
        if sweeps:
            write_atomically(folder / f"{name}.svg", svg(guidance_sweep(sweeps)))
            shown.append(f"![{', '.join(sweeps)}: recall, CLAP score and diversity over guidance]({name}.svg)")
    return "\n\n".join(shown)


def _sweep(results: Results, names: list[str], guidances: tuple[float, ...]) -> dict[float, SimpleNamespace]:
    """Points for `plots.guidance_sweep`: guidance -> means over the trainings, and their intervals."""
    points = {}
    for guidance in guidances:
        runs = [(name, guidance) for name in names if (name, guidance) in results.tested]
        if runs:
            points[guidance] = _point(results, runs)
    return points


def _point(results: Results, runs: list[Run]) -> SimpleNamespace:
    values = {field: results.value(field, runs) for field in ("recall", "clap", "diversity")}
    bounds = {f"{field}_interval": interval(results.ratio(field, runs)) for field in ("recall", "clap")}
    return SimpleNamespace(**values, **bounds)
