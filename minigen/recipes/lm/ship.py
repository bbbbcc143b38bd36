"""The shipped language models: taken from a training's folder, measured by the study, told in a card.

    minigen train ... --out build/mini-dropout
    python -m minigen.recipes.lm.ship mini-dropout build/mini-dropout    copied to data/lm/mini-dropout
    minigen study                                                     rows of mini-dropout-0 in data/study/rows.csv
    python -m minigen.recipes.lm.ship                                    data/lm/*/card.md from these rows

They are trained like the study's models, for longer and on more clips. "Text dropout without guidance" and "with
guidance" are the same weights, so four kinds of the table are three models. Which of them "mini" stands for is
`minigen.lm.BEST`: the one with the highest CLAP score on validation clips, at its best guidance.
"""

import json
import shutil
import sys
from pathlib import Path

from minigen.corpus.synthesis.builtin import split_sizes
from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows, write_atomically
from minigen.engine.hub import ROOT
from minigen.evaluation.study.plan import TEST, StudyConfig
from minigen.evaluation.study.table import CODEC, REAL, SHUFFLED, Results, measured
from minigen.lm import AudioLM
from minigen.train import SETTINGS_FILE, TrainConfig

# What the weights at hand were made from, and on; to be changed with them.
CLIPS, MACHINE = 37500, "a GPU (H100) that up to fourteen other trainings shared"
FILES = ("model.safetensors", "pipeline.json", SETTINGS_FILE, "log.csv", "config.json")
SAID = {
    "mini-no-dropout": "The text is never taken away: what guidance compares with, the model without text, was never "
    "trained.",
    "mini-dropout": "The text of the whole batch is taken away in a tenth of the steps, which guidance needs. No "
    "regulariser.",
    "mini-regularized": "The text of the whole batch is taken away in a tenth of the steps, and in these the "
    "similarity regulariser (arXiv 2309.08773) acts.",
}


def bring(name: str, training: Path, top: Path = ROOT) -> None:
    """Copy what a training left in its folder to data/lm/`name`, the settings and the log with the weights.

    Raises:
        MinigenError: a file is missing; nothing is copied then.
    """
    missing = [file for file in FILES if not (training / file).is_file()]
    if missing:
        raise MinigenError(f"{training} lacks {', '.join(missing)}. Name the folder of a finished training.")
    target = top / "data/lm" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(training / file, target / file)


def write_cards(top: Path = ROOT, config: StudyConfig | None = None) -> list[str]:
    """Write the card of every shipped model that the study has measured; returns their names."""
    results = Results(top / "data/study", config or StudyConfig())
    told = [name for name in SAID if _row(name, results)]
    for name in told:
        write_atomically(top / "data/lm" / name / "card.md", card(name, top / "data/lm" / name, results))
    return told


def _row(name: str, results: Results) -> dict | None:
    return next((row for row in results.rows if row["model"] == name and row["split"] == TEST), None)


def card(name: str, folder: Path, results: Results) -> str:
    """The model card in Markdown; every figure is of the model's files, its log or the rows of the study."""
    lm, config, row = AudioLM.from_pretrained(folder), results.config, _row(name, results)
    settings, log = json.loads((folder / SETTINGS_FILE).read_text("utf-8")), read_rows(folder / "log.csv")
    curve = [[int(r["step"]), round(float(r["valid"]), 3), round(float(r["valid_no_text"]), 3)] for r in log]
    clips = split_sizes(CLIPS)["train"]
    chosen = " The weight of the regulariser is the one that the study chose." if settings["similarity"] else ""
    rows = round(clips * (1 + config.mix))
    sounds = {control: (control, 0.0) for control in (REAL, CODEC, SHUFFLED)}
    sounds |= {f"guidance {g:g}": (row["run"], g) for g in config.guidances}
    return f"""# lm/{name}

MusicGen's decoder at {lm.config.width} x {lm.config.layers}, {sum(p.numel() for p in lm.parameters()) / 1e6:.1f} M \
parameters: reads codes of codec/mini and states of text/mini. float16.

{SAID[name]}

**Made by**

    minigen corpus --out corpus --clips {CLIPS} --seed 0
    minigen tokenize corpus --out tokens/train --mix {config.mix:g}
    minigen tokenize corpus --out tokens/validation --split validation --mix 0
    minigen train tokens/train --valid tokens/validation --width {lm.config.width} \
--batch-size {settings["batch_size"]} --steps {settings["steps"]} \
--text-dropout {settings["text_dropout"]:g} --similarity {settings["similarity"]:g} --out {name}

in {float(log[-1]["minutes"]):.1f} minutes on {MACHINE}.

**Data.** The training split of the built-in corpus, {clips} clips of {config.seconds:g} s, and {rows - clips} \
mixtures of two of them: {rows * config.seconds / 3600:.0f} hours, each seen \
{settings["batch_size"] * settings["steps"] / rows:.1f} times. No recording was used.

**Settings.** {SETTINGS_FILE} beside this card: Muon and AdamW at a peak rate of {settings["learning_rate"]:g} \
(`minigen/optim.py`), seed {settings["seed"]}.{chosen} It was \
validated every {settings["valid_every"]} steps; `minigen train` does so every {TrainConfig.valid_every}.

**Validation cross-entropy** in nats (step, with the text, without it) of the averaged weights on 64 clips:

{curve}

**Figures**, of the study: {config.captions} captions of the test split, half of them with pairs of events that never
sound together in training; percent, and 95 % intervals over captions. Comparisons: `data/study/table.md`.

{measured(results, sounds)}

**Limits.** Kinds of event outside the corpus come out as something near them. One training: another seed differs.

**Licence.** The project's own; no third-party data is part of it.
"""


def main(name: str = "", training: str = "") -> None:
    """Bring a training in, or write the cards of those that are measured."""
    if name:
        bring(name, Path(training))
    else:
        print("\n".join(write_cards()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
