"""Shipping of the language models: copies a finished training to data/lm and writes the model cards.

    minigen train ... --out build/mini-dropout
    python -m minigen.recipes.lm.ship mini-dropout build/mini-dropout    copy to data/lm/mini-dropout
    minigen study --first                                                table of the rows, which are in data/study
    python -m minigen.recipes.lm.ship                                    data/lm/*/card.md from these rows

The models are trained like the study's, for more steps and on more clips. "Text dropout without guidance" and "with
guidance" are the same weights, so four entries of the study's table are three models. "mini" is an alias of
`minigen.lm.BEST`, the model with the highest CLAP score on validation clips at its best guidance.
"""

import json
import shutil
import sys
from pathlib import Path

from minigen.corpus.synthesis.builtin import split_sizes
from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows, write_atomically
from minigen.engine.hub import ROOT
from minigen.evaluation.measure import CODEC, REAL, SHUFFLED
from minigen.evaluation.study.plan import TEST, StudyConfig
from minigen.evaluation.study.results import Results
from minigen.evaluation.study.table import measured
from minigen.lm import AudioLM
from minigen.train import SETTINGS_FILE, TrainConfig

# Number of clips and machine of the shipped weights; update both when the weights are replaced.
CLIPS, MACHINE = 37500, "a GPU (H100) that up to fourteen other trainings shared"
FILES = ("model.safetensors", "pipeline.json", SETTINGS_FILE, "log.csv", "config.json")
DESCRIPTIONS = {
    "mini-no-dropout": "Trained with the text in every step. Guidance compares with the model without text, which was "
    "never trained here.",
    "mini-dropout": "In a tenth of the steps the text of the whole batch is dropped, which guidance needs. No "
    "regulariser.",
    "mini-regularized": "In a tenth of the steps the text of the whole batch is dropped, and these steps use the "
    "similarity regulariser (arXiv 2309.08773).",
}


def bring(name: str, training: Path, top: Path = ROOT) -> None:
    """Copy the weights, settings and log of a finished training to data/lm/`name`; raises as `copy_training`."""
    copy_training(training, top / "data/lm" / name)


def copy_training(training: Path, target: Path) -> None:
    """Copy the weights, settings and log of a finished training.

    Raises:
        MinigenError: a file is missing; nothing is copied then.
    """
    missing = [file for file in FILES if not (training / file).is_file()]
    if missing:
        raise MinigenError(f"{training} lacks {', '.join(missing)}. Name the folder of a finished training.")
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(training / file, target / file)


def write_cards(top: Path = ROOT, config: StudyConfig | None = None) -> list[str]:
    """Write the card of every shipped model that the study has measured; returns their names."""
    results = Results(top / "data/study", config or StudyConfig())
    measured_models = [name for name in DESCRIPTIONS if _row(name, results)]
    for name in measured_models:
        write_atomically(top / "data/lm" / name / "card.md", card(name, top / "data/lm" / name, results))
    return measured_models


def _row(name: str, results: Results) -> dict | None:
    return next((row for row in results.rows if row["model"] == name and row["split"] == TEST), None)


def card(name: str, folder: Path, results: Results) -> str:
    """The model card in Markdown; all figures come from the model's files, its log or the rows of the study."""
    lm, config, row = AudioLM.from_pretrained(folder), results.config, _row(name, results)
    settings, log = json.loads((folder / SETTINGS_FILE).read_text("utf-8")), read_rows(folder / "log.csv")
    curve = [[int(r["step"]), round(float(r["valid"]), 3), round(float(r["valid_no_text"]), 3)] for r in log]
    clips = split_sizes(CLIPS)["train"]
    chosen = " The weight of the regulariser is the one chosen by the study." if settings["similarity"] else ""
    rows = round(clips * (1 + config.mix))
    sounds = {control: (control, 0.0) for control in (REAL, CODEC, SHUFFLED)}
    sounds |= {f"guidance {g:g}": (row["run"], g) for g in config.guidances}
    return f"""# lm/{name}

MusicGen's decoder at {lm.config.width} x {lm.config.layers}, {sum(p.numel() for p in lm.parameters()) / 1e6:.1f} M \
parameters, for codes of codec/mini and states of text/mini. float16.

{DESCRIPTIONS[name]}

**Made by**

    minigen corpus --out corpus --clips {CLIPS} --seed 0
    minigen tokenize corpus --out tokens/train --mix {config.mix:g}
    minigen tokenize corpus --out tokens/validation --split validation --mix 0
    minigen train tokens/train --valid tokens/validation --width {lm.config.width} \
--batch-size {settings["batch_size"]} --steps {settings["steps"]} \
--text-dropout {settings["text_dropout"]:g} --similarity {settings["similarity"]:g} --out {name}

in {float(log[-1]["minutes"]):.1f} minutes on {MACHINE}.

**Data.** The training split of the built-in corpus, {clips} clips of {config.seconds:g} s, and {rows - clips} \
mixtures of two of them: {rows * config.seconds / 3600:.0f} hours, \
{settings["batch_size"] * settings["steps"] / rows:.1f} epochs. No recording was used.

**Settings.** {SETTINGS_FILE} beside this card: Muon and AdamW at a peak rate of {settings["learning_rate"]:g} \
(`minigen/optim.py`), seed {settings["seed"]}.{chosen} The \
training validated every {settings["valid_every"]} steps; the default of `minigen train` is {TrainConfig.valid_every}.

**Validation cross-entropy** in nats (step, with text, without text) of the averaged weights on 64 clips:

{curve}

**Figures** from the first study, through the codec's first decoder, on {config.captions} captions of the test split;
half of them have pairs of events that never occur together in training. In percent, with 95 % intervals over captions.
Comparisons: `data/study/table.md`.

{measured(results, sounds)}

**Limits.** Kinds of event outside the corpus are generated as similar kinds of the corpus. One training run: results
vary between seeds.

**Licence.** The project's own; no third-party data is part of it.
"""


def main(name: str = "", training: str = "") -> None:
    """Copy a training to data/lm, or, without arguments, write the cards of all measured models."""
    if name:
        bring(name, Path(training))
    else:
        print("\n".join(write_cards()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
