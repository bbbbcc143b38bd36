"""The capstone of notebook 16: raise the CLAP score on held-out captions with ten minutes of training.

    python -m minigen.course.capstone NAME build/model --minutes 9.6
    python -m minigen.course.capstone NAME mini --adapter build/finetuned --guidance 4 --minutes 9.6

    48 test captions, one seed ─► sounds of the model ─► scores of each caption ─► build/lessons/capstone.csv
                                                         data/capstone/entries.csv ─┴─► leaderboard

The baseline is `mini` as it is shipped. An entry counts as raised if the paired 95 % interval of its CLAP score, less
the baseline's, lies above 0, its recall is not lower beyond doubt, and its training took at most ten minutes. All else
is decided before the test: guidance, steps and learning rate are chosen on validation captions.
"""

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from minigen.display.tables import markdown_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import append_row, read_rows
from minigen.engine.hub import ROOT
from minigen.evaluation.bootstrap import Difference, Ratio, paired_difference
from minigen.evaluation.measure import generate_for
from minigen.evaluation.per_caption import CaptionScores, Evaluator, mean

CLIPS, SECONDS, SEED = 48, 4.0, 0
MINUTES = 10.0
BASELINE = "mini"
GIVEN = ROOT / "data/capstone/entries.csv"  # the baseline, and the starting points of the solutions
OWN = ROOT / "build/lessons/capstone.csv"
TITLES = ("entry", "minutes", "guidance", "CLAP", "less the baseline", "recall", "less the baseline", "diversity",
          "verdict")  # fmt: skip


class Entry(NamedTuple):
    """A measured model. minutes: of its training; scores: of each caption, the same captions for all entries."""

    name: str
    minutes: float
    guidance: float
    diversity: float
    scores: CaptionScores

    def ratio(self, measure: str) -> Ratio:
        """A measure, [1, captions] each."""
        counted, among = self.scores.ratio(measure)
        return Ratio(counted[None], among[None])


def measure(
    name: str, tta, evaluator: Evaluator, minutes: float, guidance: float = 3.0, seconds: float = SECONDS,
    progress: bool = True,
) -> Entry:  # fmt: skip
    """Make a sound for each caption of the evaluator, all models with the same seeds, and measure them."""
    captions = [clip.caption for clip in evaluator.clips]
    wavs = generate_for(tta, captions, seconds, guidance, SEED, progress=progress, label=name)
    numbers, scores = evaluator.measure(name, wavs)
    return Entry(name, minutes, guidance, numbers["diversity"], scores)


def add_entry(path: str | Path, entry: Entry) -> None:
    """Append an entry to a CSV file, which is made if it is not there.

    Raises:
        MinigenError: there is an entry of this name, or the file cannot be written.
    """
    if entry.name in [other.name for other in read_entries(path)]:
        raise MinigenError(f"{path} has an entry {entry.name!r} already. Give this one another name.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    told = {"name": entry.name, "minutes": entry.minutes, "guidance": entry.guidance, "diversity": entry.diversity}
    append_row(path, told | entry.scores.cells())


def read_entries(*paths: str | Path) -> list[Entry]:
    """Entries of some CSV files; none of a file that is not there."""
    rows = [row for path in paths for row in read_rows(path)]
    numbers = ("minutes", "guidance", "diversity")
    return [Entry(row["name"], *(float(row[name]) for name in numbers), CaptionScores.read(row)) for row in rows]


def difference(entry: Entry, baseline: Entry, measure: str = "clap") -> Difference:
    """A measure of an entry less that of the baseline, with the paired interval over captions.

    Raises:
        MinigenError: the two were measured on different captions.
    """
    if not (entry.scores.values["asked"].tolist() == baseline.scores.values["asked"].tolist()):
        raise MinigenError(f"{entry.name} and {baseline.name} were measured on different captions. Measure both again.")
    return paired_difference(entry.ratio(measure), baseline.ratio(measure))


def verdict(entry: Entry, baseline: Entry) -> str:
    """Judgement of an entry by the rules of the module, in a few words."""
    clap, recall = difference(entry, baseline), difference(entry, baseline, "recall")
    if entry.minutes > MINUTES:
        return "over time"
    if clap.low > 0:
        return "CLAP rose, recall fell" if recall.high < 0 else "raised"
    return "lower" if clap.high < 0 else "cannot tell"


def leaderboard(entries: list[Entry], baseline: str = BASELINE) -> str:
    """Markdown table of the entries, the highest CLAP score first; a sentence where there is nothing to compare."""
    found = [entry for entry in entries if entry.name == baseline]
    if not found:
        return f"No entries yet: measure the baseline first, `python -m minigen.course.capstone {baseline} {baseline}`."
    ordered = sorted(entries, key=lambda entry: -mean(entry.scores, "clap"))
    return markdown_table(TITLES, [_row(entry, found[0]) for entry in ordered], numbers=True)


def _row(entry: Entry, baseline: Entry) -> list[str]:
    cells = [entry.name, f"{entry.minutes:.1f}", f"{entry.guidance:g}"]
    for name, factor, digits in (("clap", 1, 3), ("recall", 100, 0)):
        less = "" if entry is baseline else _signed(difference(entry, baseline, name), factor, digits)
        cells += [f"{factor * mean(entry.scores, name):.{digits}f}", less]
    judged = "baseline" if entry is baseline else verdict(entry, baseline)
    return [*cells, f"{entry.diversity:.3f}", judged]


def _signed(found: Difference, factor: float, digits: int) -> str:
    value, low, high = (f"{factor * number:+.{digits}f}" for number in found[:3])
    return f"{value} [{low}, {high}]"


def main(argv: list[str]) -> None:
    """Measure a model and enter it."""
    from minigen.app.measuring import evaluator_of
    from minigen.generate import TextToAudio

    parser = argparse.ArgumentParser(prog="python -m minigen.course.capstone", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name of the entry")
    parser.add_argument("model", help="name or folder of the model")
    parser.add_argument("--adapter", help="folder of a LoRA adapter for it")
    parser.add_argument("--guidance", type=float, default=3.0, help="chosen on validation captions")
    parser.add_argument("--minutes", type=float, default=0.0, help="that the training took")
    parser.add_argument("--to", type=Path, default=OWN, help="CSV file of the entries")
    given = parser.parse_args(argv)
    tta = TextToAudio.from_pretrained(given.model, adapter=given.adapter)
    asked = Namespace(data=None, split="test", clips=CLIPS, seconds=SECONDS, judge="mini", tagger="mini")
    add_entry(given.to, measure(given.name, tta, evaluator_of(asked), given.minutes, given.guidance))
    print(leaderboard(read_entries(GIVEN, OWN)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
