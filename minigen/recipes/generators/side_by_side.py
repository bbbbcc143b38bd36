"""The shipped generators on the same captions, with the same seeds: rows and the scores of each caption.

    python -m minigen.recipes.generators.side_by_side                 all shipped models, at their own number of steps
    python -m minigen.recipes.generators.side_by_side --steps 4 8     and at these, where a model has steps to choose

    48 test captions ─► controls, each generator ─► Evaluator ─► data/generators/rows.csv        a row of numbers
                                                             └─► data/generators/captions.csv    scores of each caption

The captions are those of `minigen compare --clips 48`, and so are the guidance and the seed. What is measured already
is not measured again, so a new model is one more call. A row holds the digest of the weights: rows of a model that was
trained again are replaced. Notebook 16 reads both files: paired differences need the scores of single captions. The
costs are those of `minigen.evaluation.cost`, the columns those of the study.
"""

import argparse
import hashlib
import sys
from argparse import Namespace
from itertools import cycle, islice
from pathlib import Path

import torch

from minigen.engine.errors import MinigenError
from minigen.engine.files import append_row, read_rows, write_atomically
from minigen.engine.hub import ROOT, shipped
from minigen.evaluation.cost import default_steps, evaluations, makes_columns, processor_seconds
from minigen.evaluation.measure import control_sounds, generate_for
from minigen.evaluation.per_caption import RATIOS, SET_METRICS, Evaluator
from minigen.lm import find_generator_folder

ROWS, CAPTIONS = "rows.csv", "captions.csv"
FOLDER = ROOT / "data/generators"
CLIPS, SECONDS, GUIDANCE, SEED = 48, 4.0, 3.0, 0
BASE = "mini"


def models() -> list[str]:
    """The language model `mini`, and the shipped generators beside it."""
    return [BASE, *shipped("generators")]


def digest(name: str) -> str:
    """Digest of the weights of a shipped model: 12 digits of SHA-256 over its safetensors files."""
    files = sorted(find_generator_folder(name).rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def outdated(rows: list[dict], digests: dict[str, str]) -> list[str]:
    """Models whose rows were measured with other weights than those of the digests."""
    return sorted({row["model"] for row in rows if digests.get(row["model"], row["weights"]) != row["weights"]})


def measure_all(
    folder: Path, evaluator: Evaluator, names: list[str], steps: list[int], load, digests: dict[str, str]
) -> None:
    """Add the rows and scores of controls and models that the files in a folder lack; replace those of old weights.

    load: name -> `minigen.generate.TextToAudio`. digests: of the weights of each model.
    """
    captions = [clip.caption for clip in evaluator.clips]
    loaded = {name: load(name) for name in names}
    if old := outdated(read_rows(folder / ROWS), digests):
        forget(folder, old)
    if not _done(folder) and names:
        for name, wavs in control_sounds(evaluator.real, loaded[names[0]].codec, SEED).items():
            _add(folder, {"model": name, "steps": 0, "weights": ""}, {}, evaluator.measure(name, wavs))
    for asked in (0, *steps):  # 0: the model's own number
        for name, tta in loaded.items():
            columns = makes_columns(tta.generator)
            count = 0 if columns else asked or default_steps(tta.generator)
            if (columns and asked) or (name, count) in _done(folder):
                continue
            how = {"steps": count} if count else {}
            wavs = generate_for(tta, captions, SECONDS, GUIDANCE, SEED, label=f"{name}, {count} steps", **how)
            costs = _costs(tta, list(islice(cycle(captions), 8)), how)
            where = {"model": name, "steps": count, "weights": digests[name]}
            _add(folder, where, costs, evaluator.measure(name, wavs))


def forget(folder: Path, names: list[str]) -> None:
    """Remove the rows and scores of some models."""
    for file in (folder / ROWS, folder / CAPTIONS):
        header, *lines = file.read_text("utf-8").splitlines(keepends=True)
        write_atomically(file, "".join([header, *(line for line in lines if line.split(",")[0] not in names)]))


def _costs(tta, captions: list[str], how: dict) -> dict[str, float]:
    """Evaluations for a clip, and processor seconds for one clip and for eight."""
    frames = round(SECONDS * tta.codec.frame_rate)
    times = [processor_seconds(tta, some, SECONDS, GUIDANCE, **how) for some in (captions[:1], captions)]
    return {
        "evaluations": evaluations(tta.generator, frames, **how),
        "seconds_one": round(times[0], 3),
        "seconds_eight": round(times[1], 3),
    }


def _done(folder: Path) -> set[tuple[str, int]]:
    return {(row["model"], int(row["steps"])) for row in read_rows(folder / ROWS)}


def _add(folder: Path, where: dict, costs: dict, measured: tuple) -> None:
    """Add the scores, then the row: a row means that both are there."""
    numbers, scores = measured
    append_row(folder / CAPTIONS, {name: where[name] for name in ("model", "steps")} | scores.cells())
    costs = {name: costs.get(name, "") for name in ("evaluations", "seconds_one", "seconds_eight")}
    values = {name: numbers[name] for name in (*SET_METRICS, *RATIOS)}
    append_row(folder / ROWS, where | costs | {n: "" if v != v else v for n, v in values.items()})


def main(argv: list[str]) -> None:
    """Measure what is missing."""
    from minigen.app.measuring import evaluator_of
    from minigen.generate import TextToAudio

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="*", default=[])
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(argv)
    names = options.models or models()
    torch.set_num_threads(1)
    asked = Namespace(data=options.data, split="test", clips=CLIPS, seconds=SECONDS, judge="mini", tagger="mini")
    digests = {name: digest(name) for name in names}
    measure_all(FOLDER, evaluator_of(asked), names, options.steps, TextToAudio.from_pretrained, digests)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
