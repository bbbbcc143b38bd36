"""Markdown tables: the exact text of each kind."""

import re
from pathlib import Path

import minigen
from minigen.display.tables import markdown_row, markdown_table, padded_table


def test_a_row_joins_its_cells():
    assert markdown_row(["a", 1, ""]) == "| a | 1 |  |"


def test_a_table_has_a_rule_under_its_titles_and_numbers_are_right_aligned():
    assert markdown_table(["", "b"], [["x", 1], ["y", 22]]) == "|  | b |\n|---|---|\n| x | 1 |\n| y | 22 |"
    assert markdown_table(["", "b", "c"], [], numbers=True) == "|  | b | c |\n|---|---:|---:|"


def test_a_padded_table_lines_up():
    table = padded_table(["", "recall"], [["real clips", "94"], ["x", "5 [1, 9]"]])
    assert table.splitlines() == [
        "|            |   recall |",
        "| ---------- | -------: |",
        "| real clips |       94 |",
        "| x          | 5 [1, 9] |",
    ]


def test_no_other_module_writes_a_table_by_hand():
    by_hand = re.compile(r'"\| |\|---|-- \|')
    package = Path(minigen.__file__).parent
    found = [path for path in package.rglob("*.py") if path.name != "tables.py" and by_hand.search(path.read_text())]
    assert not found
