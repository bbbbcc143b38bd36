"""`make notebooks`: runs every notebook, stores its outputs, and records the time and the memory that it took.

    python -m minigen.course.execute         all of them
    python -m minigen.course.execute 03 10   those whose names begin with 03 or 10

    notebooks/*.ipynb --nbconvert, one at a time--> the same files, with outputs
                                               '--> docs/times.json --> the table in docs/teaching.md

Two times are recorded. `seconds` is clock time, which grows when the machine is busy. `processor` is processor time,
which is nearly the same on an idle and on a busy machine; the budget of 90 s applies to it. `memory` is the largest
amount that one process held at once, which is the kernel's.
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
CELL_LIMIT = 240  # seconds that a cell may take, also on a slow machine
TRIES = 3
LOST = "Timeout waiting for execute reply"  # nbclient sometimes misses the kernel's last message of a cell
TABLE = re.compile(r"(?<=<!-- times -->\n).*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Usage:
    """Resources of one run of a notebook: clock seconds, processor seconds, and megabytes (10^6 bytes) of memory."""

    seconds: float
    processor: float
    memory: int


def main(beginnings: list[str]) -> None:
    """Run the notebooks whose names begin with one of `beginnings`, by default all, and record what they took.

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


def execute(path: Path) -> Usage:
    """Run one notebook in a new kernel, store its outputs in it, and return what that took.

    It is run again, up to `TRIES` times, if a reply of the kernel was lost.

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


def _run(path: Path) -> tuple[Usage | None, list[str]]:
    """Run a notebook once: -> (what it took, or None if a cell stopped; the lines of nbconvert's output)."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path),
               "--ExecutePreprocessor.record_timing=False", f"--ExecutePreprocessor.timeout={CELL_LIMIT}"]  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        _, status, used = os.wait4(process.pid, 0)  # including its child processes, such as the kernel
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()] or ["no reason given"]
    if process.returncode:
        return None, lines
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return Usage(round(seconds, 1), round(used.ru_utime + used.ru_stime, 1), round(used.ru_maxrss * unit / 1e6)), lines


def note(name: str, taken: Usage, top: Path = ROOT) -> None:
    """Record what a notebook took in docs/times.json, and update the table in docs/teaching.md."""
    times = {**read_times(top), name: taken}
    text = json.dumps({name: asdict(times[name]) for name in sorted(times)}, indent=1)
    write_atomically(top / TIMES, text + "\n")
    if (top / TEACHING).is_file():
        page = (top / TEACHING).read_text("utf-8")
        write_atomically(top / TEACHING, TABLE.sub(lambda _: time_table(times), page))


def read_times(top: Path = ROOT) -> dict[str, Usage]:
    """Resources of the last run by name of the notebook ("00_first_sound", "solutions/00_first_sound")."""
    path = top / TIMES
    return {name: Usage(**row) for name, row in json.loads(path.read_text("utf-8")).items()} if path.is_file() else {}


def time_table(times: dict[str, Usage]) -> str:
    """Markdown table of the lessons in `times`, with the processor time of their solutions."""
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
