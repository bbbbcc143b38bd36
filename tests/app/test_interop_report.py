"""`minigen interop`: the rows of docs/interop.md, and the numbers of the cheap ones."""

import re
from pathlib import Path

from minigen.app import cli, interop_report

DOCS = Path(__file__).resolve().parents[2] / "docs/interop.md"
CHEAP = (interop_report._back, interop_report._quantiser, interop_report._judges)


def cells(text: str) -> list[list[str]]:
    """The rows of the Markdown table in a text, without its two header lines."""
    return [line.strip("|\n").split("|") for line in text.splitlines() if line.startswith("|")][2:]


def test_the_report_prints_rows_of_the_page_and_equal_results(monkeypatch, capsys):
    monkeypatch.setattr(interop_report, "PARTS", CHEAP)
    assert cli.main(["interop"]) == 0
    printed = cells(capsys.readouterr().out)
    page = [row[:3] for row in cells(DOCS.read_text("utf-8"))]
    assert len(printed) == 4 and all(row[:3] in page for row in printed)
    for *_, result in printed:
        codes = re.search(r"(\d+) of (\d+) codes equal", result)
        differences = [float(number) for number in re.findall(r"([\d.]+e[+-]\d+) \(sd", result)]
        assert codes or differences
        assert not codes or codes[1] == codes[2]
        assert all(difference < 1e-5 for difference in differences)
