"""Every letter has one meaning in the whole course: in the notebooks' tables, in code cells, on the cheat sheet."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from minigen.course.alphabet import ALPHABET, LOCAL, letter_tables

TOP = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
SHEET = TOP / "docs" / "cheat_sheet.md"

every_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def capitals(source: str) -> set[str]:
    """Capital letters, alone or with an index, that a code cell gives a value."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names = stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return {name for name in names if re.fullmatch(r"[A-Z](_[a-z]+)?", name)}


@every_lesson
def test_the_tables_of_a_notebook_give_each_letter_its_one_meaning(path):
    for letter, meaning in letter_tables("\n\n".join(cells(path, "markdown"))):
        assert letter in ALPHABET, f"{letter}: enter it in minigen/course/alphabet.py, or choose another letter"
        assert re.search(ALPHABET[letter][1], meaning), f"{letter} is {ALPHABET[letter][0]!r}, not {meaning!r}"


@every_lesson
def test_code_uses_no_capital_letter_outside_the_alphabet(path):
    used = set().union(*(capitals(source) for source in cells(path, "code")))
    assert used <= ALPHABET.keys() | LOCAL.keys()


@every_lesson
def test_h_is_an_entropy_in_code_too(path):
    assert not [source for source in cells(path, "code") if "H" in capitals(source) and ".log" not in source]


def test_some_notebooks_have_such_a_table():
    tables = {path.stem[:2]: letter_tables("\n\n".join(cells(path, "markdown"))) for path in NOTEBOOKS}
    assert {"00", "07", "08", "09", "10"} <= {number for number, found in tables.items() if found}


def test_the_cheat_sheet_has_the_whole_alphabet():
    assert dict(letter_tables(SHEET.read_text("utf-8"))) == {
        letter: meaning for letter, (meaning, _) in ALPHABET.items()
    }


def test_a_letter_with_another_meaning_is_found():
    (row,) = letter_tables("| letter | meaning |\n|---|---|\n| F | frames of a timeline |")
    assert row == ("F", "frames of a timeline") and not re.search(ALPHABET["F"][1], row[1])
    assert letter_tables("| letter | x |\n|---|---|\n| K, V | codebooks; entries |\n| $\\ell_v$ | a logit |")[1:] == [
        ("V", "entries"), ("ℓ", "a logit")]  # fmt: skip
    assert capitals("%magic\nQ, b = 1, 2\ndef f(Z_text): pass") == {"Q", "Z_text"}
