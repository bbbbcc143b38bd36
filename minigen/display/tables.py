"""Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown_row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[object]], numbers: bool = False) -> str:
    """A Markdown table, without a final line break.

    titles: of the columns; rows: as many cells each; numbers: align all columns but the first to the right.
    """
    rule = "|---" + ("|---:" if numbers else "|---") * (len(titles) - 1) + "|"
    return "\n".join([markdown_row(titles), rule, *map(markdown_row, rows)])


def padded_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A `markdown_table` of numbers whose cells are padded with spaces: its columns also line up in a terminal."""
    lines = [titles, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    rule[0] = "-" * widths[0]
    shown = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        shown.append(markdown_row(cells))
    return "\n".join([shown[0], markdown_row(rule), *shown[1:]])
