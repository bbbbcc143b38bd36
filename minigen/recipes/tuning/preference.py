"""Preference tuning over several seeds: the runs of `minigen prefer` become one row for each measure.

    for s in 0 1 2: minigen prefer ... --guidance 1 --seed s --out build/preferred-s
    python -m minigen.recipes.tuning.preference build/preferred-0 build/preferred-1 build/preferred-2
    for s in 0 1 2: minigen prefer ... --guidance 3 --seed s --out build/guided-s       copies of the folders above
    python -m minigen.recipes.tuning.preference guided build/guided-0 build/guided-1 build/guided-2

The first writes data/tuning/preference.csv, measured without guidance; the second data/tuning/preference_guided.csv,
the same adapters measured with guidance. Both hold CLAP, recall, FAD and diversity before, after, and after less
before, each with its 95 % interval over captions and seeds (`minigen.evaluation.change`), and the values of the seeds.
The exact commands of the figures are in data/tuning/card.md.
"""

import sys
from pathlib import Path

from minigen.app.tuning.prefer import MEASURED
from minigen.engine.errors import MinigenError
from minigen.engine.hub import ROOT
from minigen.evaluation.change import Change, changes_table, load_rows, measure_changes, save_changes

FIGURES = ROOT / "data/tuning/preference.csv"
GUIDED = FIGURES.with_name("preference_guided.csv")


def pool(folders: list[Path]) -> dict[str, Change]:
    """The changes over the runs of several seeds on the same captions.

    Raises:
        MinigenError: a folder is no finished run, runs of other captions, or none.
    """
    missing = [str(folder) for folder in folders if not (folder / MEASURED).is_file()]
    if missing or not folders:
        raise MinigenError(f"no finished run of minigen prefer in {', '.join(missing) or 'no folder'}. Name others.")
    runs = [load_rows(folder / MEASURED) for folder in folders]
    before, after = ([rows[place] for rows, _ in runs] for place in (0, 1))
    return measure_changes(before, after, runs[0][1])


def main() -> None:
    """Pool the runs that the command line names."""
    guided, names = sys.argv[1:2] == ["guided"], sys.argv[1:]
    changes = pool([Path(name) for name in (names[1:] if guided else names)])
    file = GUIDED if guided else FIGURES
    file.parent.mkdir(parents=True, exist_ok=True)
    save_changes(file, changes)
    print(f"{changes_table(changes)}\n{file}")


if __name__ == "__main__":
    main()
