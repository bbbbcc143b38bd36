"""The form of every notebook: what nbval cannot see for itself, and what keeps its comparison honest.

nbval does not compare a cell that was never run, or one that is marked exempt; it chokes on a trailing semicolon and on
whatever is written to stderr. So: every cell was run, from a fresh kernel; what is exempt says why. That no notebook
reaches the network or leaves a file behind is seen while nbval runs it: `tests/guard`, which is tested here.
"""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from statistics import median

import nbformat
import pytest

from minigen.app.tuning.start import peak_memory
from minigen.course import execute as course
from minigen.engine.errors import MinigenError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TOP = FOLDER.parent
GUARD = TOP / "tests" / "guard"
FIRST = """import sys
sys.path[:0] = [".."]  # where minigen is not installed (Colab), the repository is one folder up
from minigen.course.setup import ready
ready()"""
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
EXEMPT = "nbval-ignore-output"
MARKERS = ("NBVAL_IGNORE_OUTPUT", "PYTEST_VALIDATE_IGNORE_OUTPUT", "NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION")

every_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
every_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def is_exempt(cell) -> bool:
    return EXEMPT in cell.metadata.get("tags", [])


def words(cell) -> str:
    """What a compared cell shows as text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(shown)


def checks(path: Path) -> list[tuple[str, str]]:
    """(name of the check, what it said) for each exercise."""
    found = [(re.search(r"^check\.(\w+)\(", cell.source, re.MULTILINE), cell.outputs) for cell in code_cells(path)]
    return [(name[1], outputs[-1].data["text/plain"]) for name, outputs in found if name]


def test_there_is_a_notebook():
    assert NOTEBOOKS


@every_notebook
def test_the_file_is_valid_and_small(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 3_000_000


@every_notebook
def test_every_cell_was_run_once_in_order_from_a_fresh_kernel(path):
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@every_notebook
def test_no_output_is_an_error_and_no_compared_cell_writes_to_stderr(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert is_exempt(cell) or output.get("name") != "stderr", cell.source


@every_notebook
def test_every_exempt_cell_says_why(path):
    for cell in code_cells(path):
        assert not any(marker in cell.source for marker in MARKERS), f"use the tag {EXEMPT}:\n{cell.source}"
        assert all(tag == EXEMPT for tag in cell.metadata.get("tags", [])), cell.source
        assert len(cell.metadata.get("reason", "").split()) >= 3 if is_exempt(cell) else True, cell.source


@every_notebook
def test_no_compared_output_holds_an_address_a_path_or_a_picture(path):
    for cell in filter(lambda cell: not is_exempt(cell), code_cells(path)):
        assert not re.search(r"0x[0-9a-f]{6,}|/home/|/tmp/|/root/|C:\\", words(cell)), cell.source
        for output in cell.outputs:
            assert not {"image/png", "text/html"} & set(output.get("data", {})), cell.source


@every_notebook
def test_every_cell_is_plain_python_without_a_trailing_semicolon(path):
    for cell in code_cells(path):
        lines = [line for line in cell.source.splitlines() if not line.startswith("%matplotlib inline")]
        ast.parse("\n".join(lines))
        assert not any(line.rstrip().endswith(";") for line in lines), cell.source


@every_notebook
def test_any_python_kernel_will_do(path):
    assert read(path).metadata.kernelspec.name == "python3"


@every_notebook
def test_at_least_ten_outputs_are_compared(path):
    assert sum(bool(words(cell)) for cell in code_cells(path) if not is_exempt(cell)) >= 10


@every_lesson
def test_cells_are_short(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert median(lengths) <= 8
    assert max(lengths) <= 20


@every_lesson
def test_every_lesson_has_its_objectives_needs_time_map_and_summary(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for heading in ("You will be able to", "You need", "Time", "## Exercises", "## Summary", "## Next"):
        assert heading in text


def test_every_lesson_has_its_solutions_and_the_other_way_round():
    assert [path.name for path in NOTEBOOKS] == [path.name for path in SOLUTIONS]


@every_lesson
def test_the_solutions_solve_every_exercise_and_the_lesson_leaves_them_open(path):
    asked, solved = checks(path), checks(FOLDER / "solutions" / path.name)
    assert 2 <= len(asked) <= 4
    assert [name for name, _ in asked] == list(dict.fromkeys(name for name, _ in solved))
    assert all(said.startswith("Not yet: no answer") for _, said in asked)
    assert all(said.startswith("Right: ") for _, said in solved)


@every_lesson
def test_every_lesson_begins_by_looking_whether_all_is_there(path):
    first, second = code_cells(path)[:2]
    assert first.source == FIRST and not first.outputs
    assert "%matplotlib inline" in second.source and "started = time.perf_counter()" in second.source
    assert re.search(r"^chain\(", second.source, re.MULTILINE), "the picture of the chain, today's piece lit"
    assert "perf_counter() - started" in code_cells(path)[-1].source


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_solution_finds_the_library_two_folders_up(path):
    assert code_cells(path)[0].source.startswith('import sys\nsys.path[:0] = ["../.."]')


@every_lesson
def test_one_name_at_the_top_changes_the_data(path):
    cells = [cell.source for cell in code_cells(path)]
    using = [number for number, source in enumerate(cells) if re.search(r"\blesson_corpus\(", source)]
    for number in using:
        assert "lesson_corpus(DATA" in cells[number], cells[number]
    if using:
        naming = [number for number, source in enumerate(cells) if re.search(r"^DATA = None\b", source, re.MULTILINE)]
        assert len(naming) == 1 and naming[0] <= using[0]


# time


def test_every_notebook_was_timed_and_keeps_its_budget():
    """Recorded by `make notebooks`; here no clock is looked at."""
    times = course.read_times()
    for path in NOTEBOOKS + SOLUTIONS:
        name = path.relative_to(FOLDER).with_suffix("").as_posix()
        assert name in times, f"{name} was never timed: make notebooks"
        assert 0 < times[name].processor <= 90, name  # seconds
        assert 50 < times[name].memory < 4000, name


def test_the_teachers_table_is_what_was_recorded():
    page = (TOP / "docs" / "teaching.md").read_text()
    assert course.time_table(course.read_times()) == course.TABLE.search(page)[0]


def small_notebook(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, path)
    return path


def test_a_run_stores_the_outputs_and_says_what_it_took(tmp_path):
    path = small_notebook(tmp_path / "small.ipynb", "2 + 2")
    taken = course.execute(path)
    assert code_cells(path)[0].outputs[0].data["text/plain"] == "4"
    assert 0 < taken.processor < 60 and taken.seconds > 0
    own = peak_memory() / 1e6  # Linux counts the memory of the process that starts the run as well
    assert 10 < taken.memory < max(1000, 1.1 * own)
    with pytest.raises(MinigenError, match="small.ipynb stopped: ZeroDivisionError: division by zero"):
        course.execute(small_notebook(path, "1 / 0"))


def test_what_was_taken_goes_into_the_list_and_into_the_teachers_page(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / course.TEACHING).write_text("# Teaching\n<!-- times -->\nold\n<!-- end -->\nmore\n")
    course.note("01_one", course.Usage(30.2, 12.34, 1500), tmp_path)
    course.note("solutions/01_one", course.Usage(9.0, 4.0, 300), tmp_path)
    course.note("00_none", course.Usage(1.0, 1.0, 100), tmp_path)
    assert course.read_times(tmp_path)["01_one"] == course.Usage(30.2, 12.34, 1500)
    page = (tmp_path / course.TEACHING).read_text()
    assert "| `00_none` | 1 | 0.1 | – |\n| `01_one` | 12 | 1.5 | 4 |\n<!-- end -->\nmore" in page and "old" not in page


# the guard


def guarded(code: str, folder: Path, kernel: bool = True) -> str:
    """What becomes of `code` in a process that Python takes for a kernel, or for another program: its last line."""
    (folder / "ipykernel_launcher.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != "MINIGEN_GUARDED"}
    environment["PYTHONPATH"] = os.pathsep.join([str(GUARD), str(folder)])
    command = ["-m", "ipykernel_launcher"] if kernel else [str(folder / "ipykernel_launcher.py")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=folder, env=environment)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


NEIGHBOUR = "import socket\nwith socket.socket() as s:\n    s.settimeout(1)\n    s.connect"
INSIDE = repr(str(TOP / "minigen" / "never.txt"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (f"{NEIGHBOUR}(('192.0.2.1', 80))", "tried to reach 192.0.2.1"),
        ("import urllib.request as u\nu.urlopen('http://example.invalid')", "tried to reach example.invalid"),
        (
            "from contextlib import suppress\nimport socket\nwith suppress(Exception):\n"
            "    socket.create_connection(('example.invalid', 80))\nprint('swallowed')",
            "tried to reach example.invalid",
        ),
        (f"open({INSIDE}, 'w')", "changed minigen/never.txt"),
        (f"import os\nos.mkdir({INSIDE})", "changed minigen/never.txt"),
        (f"from pathlib import Path\nPath('here').touch()\nPath('here').rename({INSIDE})", "changed minigen/never.txt"),
        (
            "import subprocess, sys\n"
            f"print(subprocess.run([sys.executable, '-c', {f'open({INSIDE}, chr(119))'!r}], capture_output=True, "
            "text=True).stderr)",
            "changed minigen/never.txt",
        ),
    ],
)
def test_a_notebook_that_reaches_out_or_leaves_a_file_is_stopped(code, said, tmp_path):
    assert said in guarded(code, tmp_path)
    assert not (TOP / "minigen" / "never.txt").exists()


@pytest.mark.parametrize("code", [
    f"{NEIGHBOUR}(('127.0.0.1', 9))",  # refused by the machine, not by the guard
    "open('here.txt', 'w').close()\nraise ConnectionRefusedError",
    f"open({str(TOP / 'README.md')!r}).close()\nraise ConnectionRefusedError",
    f"import os\nos.makedirs({str(TOP / 'build' / 'lessons')!r}, exist_ok=True)\nraise ConnectionRefusedError",
])  # fmt: skip
def test_a_notebook_may_read_write_elsewhere_and_talk_to_its_own_machine(code, tmp_path):
    assert guarded(code, tmp_path).startswith("ConnectionRefusedError")


def test_only_kernels_are_watched(tmp_path):
    code = f"import sys\nsys.audit('open', {INSIDE}, 'w', 1)\nprint('not watched')"
    assert guarded(code, tmp_path, kernel=False) == "not watched"
    assert "changed minigen/never.txt" in guarded(code, tmp_path)


def test_nbval_starts_every_kernel_with_the_guard(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    runpy.run_path(str(FOLDER / "conftest.py"))
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(GUARD), "elsewhere"]
    runpy.run_path(str(FOLDER / "conftest.py"))
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(GUARD), "elsewhere"]
