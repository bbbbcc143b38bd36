"""Shipping of the generators: copies a finished training to data/generators, and writes the model's card.

    minigen corpus --out corpus --clips 12500 --seed 0
    minigen tokenize corpus --out tokens/train --mix 0.2 --latents
    minigen tokenize corpus --out tokens/validation --split validation --mix 0 --latents
    minigen train tokens/train --valid tokens/validation --generator masked --from mini --out masked
    python -m minigen.recipes.generators.ship mini-masked masked mini     copy to data/generators/mini-masked
    minigen compare mini mini-masked --guidance 3 --clips 40 --data corpus --csv data/generators/mini-masked/figures.csv
    python -m minigen.recipes.generators.abilities mini-masked corpus     data/generators/mini-masked/abilities.csv
    python -m minigen.recipes.generators.ship mini-masked                 data/generators/mini-masked/card.md

A training may go on from the shipped weights (`--from mini-masked`). A cascade is one folder, that of its coarse model.
The first stage of a style model is named: `... ship mini-style first mini-dropout conditioner`. Its last one is
`minigen.recipes.generators.bottleneck`. The stages of a model are listed in stages.json: one entry for each, with the
model that it began from. A training that began from another model begins the list anew.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

from minigen.corpus.synthesis.builtin import split_sizes
from minigen.display.tables import markdown_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows, write_atomically
from minigen.engine.hub import ROOT
from minigen.engine.weights import read_tensors
from minigen.generators.base import CLASSES, generator_name
from minigen.recipes.generators.abilities import FILE as ABILITIES
from minigen.recipes.lm.ship import copy_training
from minigen.train import SETTINGS_FILE

# Clips of the corpus and share of mixtures of the shipped trainings; update both when the corpus of a training differs.
CLIPS, MIX, SECONDS = 12500, 0.2, 4.0
STAGES, FIGURES, CASCADER, BOTTLENECK = "stages.json", "figures.csv", "cascader", "bottleneck"
DESCRIPTIONS = {
    "masked": "Masked generation (MaskGIT, SpecMaskGIT, MAGNeT): all cells of a clip are hidden, and filled in a few "
    "steps, the surest first. It also repairs, extends and varies recordings: `minigen inpaint`, `extend`, `vary`, "
    "`refine`.",
    "discrete": "Discrete diffusion of codes (Diffsound, VQ-Diffusion): cells are masked or replaced at random, and "
    "restored step by step. It may revise what it has written.",
    "latent": "Continuous diffusion of the codec's latents (as Noise2Music diffuses spectrograms). No quantiser limits "
    "the sound.",
    "cascade": "Two diffusions of latents, as in Noise2Music: the first makes a coarse clip of 12.5 frames a second, "
    "the second refines it. No quantiser limits the sound.",
    "style": "A language model that reads a sound beside the caption (MusicGen-Style): an excerpt passes a bottleneck "
    "of 1 to 6 codebooks, and its tokens stand behind those of the text. `minigen generate --style FILE`.",
}
# What the training of a shipped model has not reached; change it with the weights.
LIMITS = {
    "style": " Only the conditioner was trained, so captions alone give the sounds of the language model that it began "
    "with, bit for bit. It was trained to say what captions say, so a style says what kind of sound it is, and little "
    "more. Beside a caption it is hardly heard. Its codebooks were made by k-means after the training.",
}
CONDITIONER_LOSS = (
    "The loss of a conditioner is the relative squared distance between what the layers read from the style and from\n"
    "the caption (0: equal). It has no part without text, so the two numbers are the same."
)
COLUMNS = ("recall", "recall_low", "recall_high", "of_codec", "clap", "kl", "fad", "fad_infinity", "kernel", "order",
           "diversity")  # fmt: skip


def bring(name: str, training: Path, start: str, top: Path = ROOT, trained: str = "") -> None:
    """Copy a finished training to data/generators/`name`, and enter it in the list of stages.

    start: the model that the training began from.
    trained: what `--generator` named, where it is not the name of the generator: conditioner.

    Raises:
        MinigenError: a file is missing; nothing is copied then.
    """
    target = top / "data/generators" / name
    copy_training(training, target)
    stages = json.loads((target / STAGES).read_text("utf-8")) if start == name else []
    kind = generator_name(training)
    stages.append(_stage(training, trained or ("coarse" if kind == "cascade" else kind), start))
    if (training / CASCADER).is_dir():
        copy_training(training / CASCADER, target / CASCADER)
        stages.append(_stage(training / CASCADER, CASCADER, f"stage-{len(stages)}"))
    elif (training / "style").is_dir():
        shutil.copytree(training / "style", target / "style", dirs_exist_ok=True)
    write_atomically(target / STAGES, json.dumps(stages, indent=1) + "\n")


def _stage(training: Path, kind: str, start: str) -> dict:
    """Entry of a finished training in the list of stages."""
    settings, log = json.loads((training / SETTINGS_FILE).read_text("utf-8")), read_rows(training / "log.csv")
    stage = {"generator": kind, "from": start, "minutes": round(float(log[-1]["minutes"]), 1)}
    return stage | {key: settings[key] for key in ("steps", "batch_size", "learning_rate", "text_dropout")}


def card(name: str, top: Path = ROOT) -> str:
    """The model's card in Markdown. Every figure comes from the model's files and from figures.csv."""
    folder = top / "data/generators" / name
    kind, stages = generator_name(folder), json.loads((folder / STAGES).read_text("utf-8"))
    model = CLASSES[kind]
    weights = _parameters(folder)
    clips = split_sizes(CLIPS)["train"]
    rows = round(clips * (1 + MIX))
    trainings = [stage for stage in stages if stage["generator"] != BOTTLENECK]
    seen = sum(stage["steps"] * stage["batch_size"] for stage in trainings)
    parts = [folder, folder / CASCADER] if kind == "cascade" else [folder]
    curves = "\n\n".join(str(_curve(part)) for part in parts)
    if kind == "style":
        curves += f"\n\n{CONDITIONER_LOSS}"
    return f"""# generators/{name}

{DESCRIPTIONS[kind]} Class `{model[1]}` in `{model[0].replace(".", "/")}.py`.

{weights / 1e6:.1f} M parameters, for sounds of codec/mini and states of text/mini. float16.

**Made by**

    minigen corpus --out corpus --clips {CLIPS} --seed 0
    minigen tokenize corpus --out tokens/train --mix {MIX:g} --latents
    minigen tokenize corpus --out tokens/validation --split validation --mix 0 --latents
{_commands(kind, stages)}

in {sum(stage["minutes"] for stage in trainings):.0f} minutes on one processor core that other work shared: {seen} clips
seen, {seen / rows:.1f} epochs, beside what the model that it began from had seen.

**Data.** The training split of the built-in corpus, {clips} clips of {SECONDS:g} s, and {rows - clips} mixtures of two
of them. No recording was used.

**Validation loss** of {"both models" if len(parts) > 1 else "the last stage"} (step, with text, without text) of the \
averaged weights on 64 clips:

{curves}

**Figures** of `minigen compare --guidance 3 --data corpus`, in {FIGURES} with all digits; the shares in percent.

{_figures(folder / FIGURES)}
{_abilities(folder / ABILITIES)}
**Limits.** Kinds of event outside the corpus are generated as similar kinds of the corpus. One training: results vary
between seeds. The training was still improving when it ended.{LIMITS.get(kind, "")}

**Licence.** The project's own; no third-party data is part of it.
"""


def _curve(folder: Path) -> list[list]:
    return [[int(row["step"]), round(float(row["valid"]), 3), round(float(row["valid_no_text"]), 3)]
            for row in read_rows(folder / "log.csv")]  # fmt: skip


def _commands(kind: str, stages: list[dict]) -> str:
    given, lines = "minigen train tokens/train --valid tokens/validation --generator", []
    for number, stage in enumerate(stages, 1):
        trained, start = stage.get("generator", kind), stage["from"]
        if trained == BOTTLENECK:
            lines.append(f"    python -m minigen.recipes.generators.bottleneck {start} {stage['entries']} tokens/train")
            continue
        options = f"--batch-size {stage['batch_size']} --steps {stage['steps']} "
        options += f"--learning-rate {stage['learning_rate']:g} --text-dropout {stage['text_dropout']:g}"
        out = f"{start}/{CASCADER}" if trained == CASCADER else f"stage-{number}"
        lines.append(f"    {given} {trained} --from {start} {options} --out {out}")
    return "\n".join(lines)


def _parameters(folder: Path) -> int:
    files = [path.parent for path in folder.rglob("model.safetensors")]
    return sum(tensor.numel() for file in files for tensor in read_tensors(file).values())


def _figures(path: Path) -> str:
    """The rows of a table of `minigen compare`, as Markdown."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    titles = ["", "n", "recall", "of codec", "CLAP", "KL", "FAD", "FAD inf", "kernel", "order", "diversity"]
    return markdown_table(
        titles, [_shown(row) for row in rows if row["name"] not in ("noise", "silence")], numbers=True
    )


def _abilities(path: Path) -> str:
    """The rows of `minigen.recipes.generators.abilities`, as a section of the card; nothing where there are none."""
    if not path.is_file():
        return ""
    rows = [
        [
            row["figure"],
            row["clips"],
            f"{float(row['value']):.3f}",
            f"{float(row['low']):.3f}",
            f"{float(row['high']):.3f}",
        ]
        for row in read_rows(path)
    ]
    table = markdown_table(["", "clips", "mean", "low", "high"], rows, numbers=True)
    return f"""
**Abilities**, of `python -m minigen.recipes.generators.abilities`: means over clips with their 95 % intervals.

{table}
"""


def _shown(row: dict[str, str]) -> list[str]:
    value = {key: float(row[key]) if row[key] else None for key in COLUMNS}

    def number(key: str, digits: int, factor: int = 1) -> str:
        return "n/a" if value[key] is None else f"{factor * value[key]:.{digits}f}"

    recall = f"{number('recall', 0, 100)} [{number('recall_low', 0, 100)}, {number('recall_high', 0, 100)}]"
    rest = [number("kl", 3), number("fad", 1), number("fad_infinity", 1), number("kernel", 2), number("order", 0, 100)]
    return [row["name"], row["clips"], recall, number("of_codec", 0, 100), number("clap", 3), *rest,
            number("diversity", 3)]  # fmt: skip


def main(name: str, training: str = "", start: str = "", trained: str = "") -> None:
    """Copy a training to data/generators; without a training, write the card of the model."""
    if training:
        bring(name, Path(training), start, trained=trained)
    else:
        write_atomically(ROOT / "data/generators" / name / "card.md", card(name))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
