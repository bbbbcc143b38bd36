"""The letters of notebook 00's table mean the same in the first notebooks: what a cell assigns to one is that count."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = [path for path in sorted(FOLDER.rglob("*.ipynb")) if path.name[:2] in ("00", "01", "02", "03")]
SOURCES = {  # letter -> what its value may come from
    "B": r"shape|^\d",
    "N": r"shape|^\d",
    "D": r"width|shape",
    "K": r"num_codebooks|shape",
    "V": r"codebook_size",
    "T": r"shape|frames",
    "S": r"shape|steps",
}


def assigned(source: str) -> list[tuple[str, str]]:
    """(letter, expression) for each assignment to a letter of the table."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Assign):
            names = [
                name.id
                for name in ast.walk(node.targets[0])
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ]
            found += [(name, ast.unparse(node.value)) for name in names if name in SOURCES]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_letter_of_the_table_counts_what_the_table_says(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for letter, value in assigned(cell.source) if cell.cell_type == "code" else ():
            assert re.search(SOURCES[letter], value), f"{letter} = {value} in {path.name}"


def test_the_table_names_these_letters():
    table = next(c.source for c in nbformat.read(NOTEBOOKS[0], as_version=4).cells if "| letter |" in c.source)
    assert re.findall(r"^\| ([A-Z]) \|", table, re.MULTILINE) == ["B", "N", "D", "K", "V", "T", "S"]
    assert set(SOURCES) == set("BNDKVTS")


def test_another_meaning_is_noticed():
    assert assigned("N, s = tally(points)") == [("N", "tally(points)")]
    assert not re.search(SOURCES["N"], "tally(points)")
