"""Card of the figures of tuning: data/tuning/card.md, from the tables beside it.

preference.csv, preference_guided.csv, new_kind.csv, words.csv, memory.csv in data/tuning ─► data/tuning/card.md

python -m minigen.recipes.tuning.card
"""

import csv
from pathlib import Path

from minigen.display.tables import markdown_table
from minigen.engine.files import write_atomically
from minigen.evaluation.change import TITLES
from minigen.recipes.tuning import memory, new_kind, preference, words

CARD = new_kind.FIGURES.with_name("card.md")
# The commands of the figures; update them when the figures are made anew.
PREFERENCE = """\
minigen corpus --clips 12500
SETTINGS="--steps 100 --batch-size 8 --learning-rate 3e-4 --clips 96"
PAIRS="--pairs build/preferred-0/pairs.safetensors"
minigen prefer --by clap --captions 400 $SETTINGS --guidance 1 --seed 0 --out build/preferred-0
for s in 1 2; do
    minigen prefer --by clap $PAIRS $SETTINGS --guidance 1 --seed $s --out build/preferred-$s
done
python -m minigen.recipes.tuning.preference build/preferred-0 build/preferred-1 build/preferred-2"""
GUIDED = """\
for s in 0 1 2; do
    cp -r build/preferred-$s build/guided-$s
    minigen prefer --by clap $PAIRS $SETTINGS --guidance 3 --seed $s --out build/guided-$s
done
python -m minigen.recipes.tuning.preference guided build/guided-0 build/guided-1 build/guided-2"""
MEMORY = "python -m minigen.recipes.tuning.memory        # or with a number of layers"
WORDS = "python -m minigen.recipes.tuning.words ESC10        # a folder of recordings in class folders"
NEW_KIND = """\
python -m minigen.recipes.tuning.new_kind record build/whistles
minigen finetune build/whistles --rehearse build/corpus --steps 500 --learning-rate 5e-3 \\
    --lora 16 --text-dropout 0 --out build/whistled
python -m minigen.recipes.tuning.new_kind measure build/whistled build/corpus"""


def card() -> str:
    """The card in Markdown. Every figure comes from the tables."""
    parts = ["# tuning", "Figures of the two commands that tune the shipped model."]
    if preference.FIGURES.is_file():
        parts += [
            "## Preferences (`minigen prefer`)", _indented(PREFERENCE), _preference(preference.FIGURES),
            "Each value is the mean of the seeds, with its 95 % interval over captions and seeds; the last column has "
            "the change at each seed. FAD is that of the tagger's features against other real clips.",
        ]  # fmt: skip
    if preference.GUIDED.is_file():
        parts += ["The same adapters, measured with guidance 3, with which sounds are usually made:",
                  _indented(GUIDED), _preference(preference.GUIDED)]  # fmt: skip
    if new_kind.FIGURES.is_file():
        parts += ["## A kind that the corpus lacks (`minigen finetune`)", _indented(NEW_KIND),
                  _new_kind(new_kind.FIGURES)]  # fmt: skip
    if words.FIGURES.is_file():
        parts += ["## A new word for a recording (`minigen learn-word`)", _indented(WORDS), _words(words.FIGURES),
                  words.summary(_rows(words.FIGURES))]  # fmt: skip
    if memory.FIGURES.is_file():
        parts += [
            "## Memory of a big model (`--lora 8 --checkpointing`)", _indented(MEMORY), _memory(memory.FIGURES),
            "Two clips of 10 s a step, widths of MusicGen-small (which has 24 layers), constant weights, no text "
            "encoder. The peak is that of the whole process, and so is what is said before. Without "
            "`minigen.engine.resources.return_freed_memory` the process holds more: see there.",
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _words(path: Path) -> str:
    titles = ["recording of", "began as", "held-out loss", "plain caption", "beginning", "word", "rain beside the word"]
    lines = []
    for row in _rows(path):
        losses = f"{float(row['loss_before']):.3f} → {float(row['loss_after']):.3f}"
        cosines = [f"{float(row[name]):.2f}" for name in ("plain", "began", "word")]
        lines.append([row["kind"], row["like"], losses, *cosines, f"{float(row['rain']):.0%}"])
    return markdown_table(titles, lines)


def _memory(path: Path) -> str:
    titles = ["layers", "weights", "said before", "peak", "peak less said", "processor seconds a step"]
    lines = []
    for row in _rows(path):
        said, peak = float(row["said"]), float(row["peak"])
        lines.append([row["layers"], f"{float(row['weights']) / 1e6:.0f} M", f"{said / 1e9:.2f} GB",
                      f"{peak / 1e9:.2f} GB", f"{peak / said - 1:+.0%}", row["seconds"]])  # fmt: skip
    return markdown_table(titles, lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _preference(path: Path) -> str:
    found = {(row["measure"], row["when"]): row for row in _rows(path)}
    lines = []
    for name, title in TITLES.items():
        change = found[name, "change"]
        digits = 1 if name == "fad" else 3
        values = [_interval(found[name, when], "mean", "low", "high", digits) for when in ("before", "after")]
        seeds = ", ".join(f"{float(value):+.{digits}f}" for key, value in change.items() if key.startswith("seed_"))
        lines.append([title, *values, _interval(change, "mean", "low", "high", digits, "+"), seeds])
    return markdown_table(["", "before", "after", "after less before", "at each seed"], lines)


def _interval(row: dict[str, str], mean: str, low: str, high: str, digits: int, sign: str = "") -> str:
    middle, *ends = (f"{float(row[name]):{sign}.{digits}f}" for name in (mean, low, high))
    return f"{middle} [{', '.join(ends)}]"


def _new_kind(path: Path) -> str:
    (row,) = _rows(path)
    share = {name: f"{float(row[name]):.0%}" for name in ("before", "after", "unasked_before", "unasked_after",
             "detector_hits", "detector_false_alarms")}  # fmt: skip
    recall = [_interval(row, each, f"{each}_low", f"{each}_high", 3, "+" if each.endswith("change") else "")
              for each in ("recall_before", "recall_after", "recall_change")]  # fmt: skip
    table = markdown_table(
        ["", "before", "after"],
        [["slide whistles heard, asked for", share["before"], share["after"]],
         ["slide whistles heard, another sound asked for", share["unasked_before"], share["unasked_after"]],
         ["recall of the corpus' kinds", *recall[:2]]],
    )  # fmt: skip
    return (
        f"{table}\n\nAfter less before, recall: {recall[2]}, 95 % interval over captions. {row['clips']} sounds of "
        f"each, {row['steps']} steps in {float(row['minutes']):.1f} minutes. The detector hears "
        f"{share['detector_hits']} of unseen whistles and {share['detector_false_alarms']} of unseen clips of the "
        "corpus."
    )


def main() -> None:
    """Write the card."""
    write_atomically(CARD, card())
    print(CARD)


if __name__ == "__main__":
    main()
