"""The shipped language models: the best training of each kind in the study, with a card made from its rows.

    python -m minigen.recipes.ship build/study

    build/study/dropout-1/model.safetensors ---copied---> data/lm/mini-dropout/model.safetensors
    data/study/rows.csv, captions.csv -----told-------> data/lm/mini-dropout/card.md

Best of a kind is the seed with the lowest loss on validation clips. "Text dropout without guidance" and "with guidance"
are the same weights, so four kinds of the table are three models. Which of them "mini" stands for is `minigen.lm.BEST`.
"""

import csv
import shutil
import sys
from pathlib import Path

from minigen.errors import MinigenError
from minigen.files import write_aside
from minigen.lm import AudioLM
from minigen.study.plan import DROPOUT, NO_DROPOUT, REGULARIZED, TEST, StudyConfig
from minigen.study.table import CODEC, REAL, SHUFFLED, Results, measured

TOP = Path(__file__).resolve().parents[2]
KINDS = {"mini-no-dropout": NO_DROPOUT, "mini-dropout": DROPOUT, "mini-regularized": REGULARIZED}
FILES = ("config.json", "model.safetensors", "pipeline.json")
SAID = {
    NO_DROPOUT: "The text is never taken away: what guidance compares with, the model without text, was never trained.",
    DROPOUT: "The text of the whole batch is taken away in a tenth of the steps, which guidance needs. No regulariser.",
    REGULARIZED: "The text of the whole batch is taken away in a tenth of the steps, and in these the similarity "
    "regulariser (arXiv 2309.08773) acts.",
}


def main(study: str) -> None:
    """Ship the best training of every kind that the study has finished."""
    for name in KINDS:
        print(ship(name, Path(study)))


def ship(name: str, study: Path, top: Path = TOP, config: StudyConfig | None = None) -> str:
    """Copy the best training of a kind and write its card; returns a line that says which one.

    study: the work folder of `minigen study`. top: of the project, with data/study and data/lm.

    Raises:
        MinigenError: no training of this kind is in the rows, or its model is not in the folder.
    """
    results = Results(top / "data/study", config or StudyConfig())
    run = best(results, KINDS[name])
    missing = [file for file in (*FILES, "log.csv") if not (study / run / file).is_file()]
    if missing:
        raise MinigenError(f"{study / run} lacks {', '.join(missing)}. Name the folder in which the study was run.")
    target = top / "data/lm" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(study / run / file, target / file)
    write_aside(target / "card.md", card(name, run, study / run, results))
    return f"{name}: {run}"


def best(results: Results, model: str) -> str:
    """The training of a model with the lowest loss on validation clips."""
    losses = {row["run"]: float(row["valid"]) for row in results.rows if row["model"] == model and row["valid"]}
    if not losses:
        raise MinigenError(f"data/study/rows.csv has no training of {model!r} yet. Run `minigen study` on.")
    return min(losses, key=losses.get)


def card(name: str, run: str, folder: Path, results: Results) -> str:
    """The model card in Markdown; every figure is of the model's files, its log or the rows of the study."""
    row = next(row for row in results.rows if row["run"] == run and row["split"] == TEST)
    lm, config = AudioLM.from_pretrained(folder), results.config
    with open(folder / "log.csv", newline="") as file:
        curve = [(int(r["step"]), round(float(r["valid"]), 3), round(float(r["valid_no_text"]), 3))
                 for r in csv.DictReader(file)]  # fmt: skip
    weight = f", weight of the regulariser {float(row['similarity']):g}, {row['pooling']} pooling" * (
        row["model"] == REGULARIZED
    )
    sounds = {control: (control, 0.0) for control in (REAL, CODEC, SHUFFLED)}
    sounds |= {f"guidance {g:g}": (run, g) for g in config.guidances}
    return f"""# lm/{name}

MusicGen's decoder at {lm.config.width} x {lm.config.layers}, {sum(p.numel() for p in lm.parameters()) / 1e6:.1f} M \
parameters: reads codes of codec/mini and states of text/mini. float16.

{SAID[row["model"]]}

**Made by** `minigen study` (run {run}, {float(row["hours"]):.1f} hours on one thread of a server core), copied by
`python -m minigen.recipes.ship`; of {len(results.config.seeds)} seeds it is the one with the lowest validation loss
among those that are finished.

**Data.** The built-in corpus: {config.clips} clips of {config.seconds:g} s, seed 0, {config.mix:.0%} mixtures added to
those of the training split. No recording was used.

**Settings.** {row["steps"]} steps of {config.batch_size} clips, Muon and AdamW at a peak rate of \
{config.learning_rate:g} (`minigen/optim.py`), seed {row["seed"]},
text dropout {float(row["text_dropout"]):g}{weight}.

**Validation cross-entropy** in nats (step, with the text, without it) of the averaged weights on 64 clips:

{[list(point) for point in curve]}

**Figures**, of the study: {config.captions} captions of the test split, half of them with pairs of events that never
sound together in training; percent, and 95 % intervals over captions. What several seeds say, and the comparisons: see
`data/study/table.md`.

{measured(results, sounds)}

**Limits.** Kinds of event outside the corpus come out as something near them. One training: another seed differs.

**Licence.** The project's own; no third-party data is part of it.
"""


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
