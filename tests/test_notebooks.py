"""The form of every notebook: what nbval cannot see for itself, and what keeps its comparison honest.

nbval does not compare a cell that was never run, or one that is marked exempt; it chokes on a trailing semicolon and on
whatever is written to stderr. So: every cell was run, from a fresh kernel; what is exempt says why.
"""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
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


@every_lesson
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
