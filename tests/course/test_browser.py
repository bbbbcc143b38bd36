"""An explorer in a real browser: JupyterLab draws it, a hand moves each control, and what it shows follows.

Skipped where there is no Chromium with its driver (Debian: apt install chromium chromium-driver).
"""

import nbformat
import pytest

pytest.importorskip("selenium")
import lab

pytestmark = pytest.mark.skipif(lab.browser_and_driver() is None, reason="no Chromium with chromedriver here")

CELL = """
from minigen.course.explorers.delay import DelayExplorer
DelayExplorer()
"""


@pytest.fixture
def page(tmp_path):
    """JupyterLab on a notebook that has been run: the explorer is on the page."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "explorer.ipynb")
    with lab.open_lab(tmp_path) as page:
        page.run("explorer.ipynb")
        yield page


def test_every_control_of_an_explorer_changes_what_the_reader_sees(page, tmp_path):
    kinds = [kind for kind, _ in page.wait(page.controls)]
    assert kinds.count("slider") >= 1 and kinds.count("menu") >= 1
    page.wait(lambda: page.find(".jp-OutputArea-output img"))
    for number, kind in enumerate(kinds):
        shown, picture = page.shown(), page.picture(tmp_path / "before.png")
        page.move(*page.controls()[number])
        page.wait(lambda: page.shown() != shown)  # noqa: B023
        assert page.picture(tmp_path / f"{kind}.png") != picture, kind
    assert not page.find(".jp-RenderedText[data-mime-type*=stderr]")
