"""Markdown tables: the exact text of each kind."""

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
