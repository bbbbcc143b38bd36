"""`make notebooks`: every notebook run anew, its outputs stored, and the time and memory it took written down.

    python -m minigen.course.execute         all of them
    python -m minigen.course.execute 03 10   those whose names begin so

    notebooks/*.ipynb --nbconvert, one at a time--> the same files, with outputs
                                               '--> docs/times.json --> the table in docs/teaching.md

Two times are kept. `seconds` is what the clock says, and grows when the machine is busy. `processor` is what the
notebook kept a processor busy for: nearly the same on an idle machine and on a full one, it is what the budget of 90 s
is held to. Memory is the largest that a process held at once: the kernel's.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from minigen.display.tables import markdown_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import ROOT

TIMES, TEACHING = "docs/times.json", "docs/teaching.md"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BUDGET = 90.0  # seconds that a notebook may take
CELL_LIMIT = 240  # seconds that a cell may take: several times the budget, for slower machines
TRIES = 3
LOST = "Timeout waiting for execute reply"  # nbclient now and then misses the kernel's last word on a cell
TABLE = re.compile(r"(?<=<!-- times -->\n).*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Taken:
    """What a notebook took: seconds by the clock and of a processor, and megabytes (10^6 bytes) of memory."""

    seconds: float
    processor: float
    memory: int


def main(beginnings: list[str]) -> None:
    """Run the notebooks whose names begin with one of these, all where there are none, and write down what they took.

    Raises:
        MinigenError: no such notebook, or a cell that stopped with an error.
    """
    paths = [*sorted(ROOT.glob("notebooks/*.ipynb")), *sorted(ROOT.glob("notebooks/solutions/*.ipynb"))]
    chosen = [path for path in paths if path.name.startswith(tuple(beginnings) or "")]
    if not chosen:
        raise MinigenError(f"no notebook begins with {' or '.join(beginnings)}. The first ones: {paths[0].name}, ...")
    bar = tqdm(chosen, unit="notebook")
    for path in bar:
        bar.set_postfix_str(path.stem)
        note(path.relative_to(ROOT / "notebooks").with_suffix("").as_posix(), execute(path))


def execute(path: Path) -> Taken:
    """Run one notebook from a fresh kernel and store its outputs in it; returns what that took.

    Where a reply of the kernel got lost, it is run again, up to `TRIES` times.

    Raises:
        MinigenError: a cell stopped with an error, with its last line; the file stays as it was.
    """
    for _ in range(TRIES):
        taken, lines = _run(path)
        if taken is not None:
            return taken
        if not any(LOST in line for line in lines):
            break
    raise MinigenError(f"{path.name} stopped: {COLOUR.sub('', lines[-1])}")


def _run(path: Path) -> tuple[Taken | None, list[str]]:
    """One try: what it took, or None where a cell stopped; and all that was said."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path),
               "--ExecutePreprocessor.record_timing=False", f"--ExecutePreprocessor.timeout={CELL_LIMIT}"]  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        _, status, used = os.wait4(process.pid, 0)  # with all that it waited for: its kernel
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()] or ["no reason given"]
    if process.returncode:
        return None, lines
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return Taken(round(seconds, 1), round(used.ru_utime + used.ru_stime, 1), round(used.ru_maxrss * unit / 1e6)), lines


def note(name: str, taken: Taken, top: Path = ROOT) -> None:
    """Write down what a notebook took, and the table of the teacher's page with it."""
    times = {**read_times(top), name: taken}
    text = json.dumps({name: asdict(times[name]) for name in sorted(times)}, indent=1)
    write_atomically(top / TIMES, text + "\n")
    if (top / TEACHING).is_file():
        page = (top / TEACHING).read_text("utf-8")
        write_atomically(top / TEACHING, TABLE.sub(lambda _: time_table(times), page))


def read_times(top: Path = ROOT) -> dict[str, Taken]:
    """Name of a notebook ("00_first_sound", "solutions/00_first_sound") -> what it took when it was last run."""
    path = top / TIMES
    return {name: Taken(**row) for name, row in json.loads(path.read_text("utf-8")).items()} if path.is_file() else {}


def time_table(times: dict[str, Taken]) -> str:
    """The lessons of `times` as a table in Markdown, with what their solutions take."""
    rows = []
    for name in sorted(name for name in times if "/" not in name):
        taken, solved = times[name], times.get(f"solutions/{name}")
        seconds = f"{solved.processor:.0f}" if solved else "–"
        rows.append([f"`{name}`", f"{taken.processor:.0f}", f"{taken.memory / 1000:.1f}", seconds])
    titles = ("notebook", "processor (s)", "memory (GB)", "solutions (s)")
    return markdown_table(titles, rows) + "\n"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
