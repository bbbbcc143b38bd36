"""The course as a site: whole, with players, and the same from any folder and without a network."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minigen.course.site import NO_KERNEL, Page, build_site, find_pages, formulas, relink
from minigen.engine.errors import MinigenError

TOP = Path(__file__).resolve().parents[2]
KNOWN = {"notebooks/00_a.ipynb": "00_a.html", "notebooks/solutions/00_a.ipynb": "solutions/00_a.html",
         "docs/teaching.md": "docs/teaching.html"}  # fmt: skip


class Links(HTMLParser):
    """What a page points at: what a reader may click, and what a browser loads by itself."""

    def __init__(self, page: Path):
        super().__init__()
        self.clicked, self.loaded, self.anchors = [], [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        if tag == "a" and named.get("href"):
            self.clicked.append(named["href"])
        else:
            self.loaded += [named[key] for key in ("src", "href", "srcset", "poster", "data") if named.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All pages, built from the stored outputs and then carried elsewhere: nothing may depend on the folder."""
    built = tmp_path_factory.mktemp("built") / "site"
    build_site(built)
    return Path(shutil.move(built, tmp_path_factory.mktemp("served") / "any folder"))


@pytest.fixture(scope="module")
def links(site):
    return {page: Links(page) for page in sorted(site.rglob("*.html"))}


def test_every_notebook_solution_and_document_has_its_page_and_the_index_leads_to_it(site, links):
    lessons, solutions, docs = find_pages(TOP)
    made = {page.relative_to(site).as_posix() for page in links}
    assert made == {"index.html", *(page.target for page in (*lessons, *solutions, *docs))}
    assert set(links[site / "index.html"].clicked) == made - {"index.html"}


def test_every_link_leads_to_a_page_of_the_site_and_to_a_place_in_it(links):
    for page, found in links.items():
        for link in found.clicked:
            if re.match(r"https://", link):
                continue
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            assert target in links, f"{page.name}: {link}"
            assert not anchor or anchor in links[target].anchors, f"{page.name}: {link}"


def test_no_page_loads_anything_from_elsewhere_or_by_an_absolute_path(site, links):
    for page, found in links.items():
        for place in found.loaded:
            assert place.startswith("data:") or (page.parent / place).is_file(), f"{page.name} loads {place[:80]}"
        assert "<script src" not in page.read_text()
    assert not re.search(r"@import|url\((?!['\"]?data:)", (site / "style.css").read_text())


def test_sounds_and_figures_are_in_the_pages(links):
    sounds = [link for found in links.values() for link in found.loaded if link.startswith("data:audio/")]
    pictures = [link for found in links.values() for link in found.loaded if link.startswith("data:image/")]
    assert len(sounds) >= 10 and len(pictures) >= 10


def test_no_machines_folder_is_named(links):
    for page in links:
        assert not re.search(r"(?<![\w.~])/(?:home|root|work|Users)/\w", page.read_text()), page.name


def test_where_a_control_was_stands_what_it_needs_and_not_its_insides(site):
    pages = [page.read_text() for page in site.glob("*.html")]
    assert any(NO_KERNEL in page for page in pages)
    assert not any("Explorer(children=" in page or "widget-view+json" in page for page in pages)


@pytest.mark.parametrize(
    ("source", "link", "wanted"),
    [
        ("notebooks/00_a.ipynb", "solutions/00_a.ipynb", '<a href="solutions/00_a.html">x</a>'),
        ("notebooks/solutions/00_a.ipynb", "../00_a.ipynb#Next", '<a href="../00_a.html#Next">x</a>'),
        ("notebooks/00_a.ipynb", "../docs/teaching.md", '<a href="docs/teaching.html">x</a>'),
        ("docs/teaching.md", "../notebooks/00_a.ipynb", '<a href="../00_a.html">x</a>'),
        ("docs/teaching.md", "../minigen/lm.py", "x"),
        ("docs/teaching.md", "https://arxiv.org/abs/2309.08773", '<a href="https://arxiv.org/abs/2309.08773">x</a>'),
        ("docs/teaching.md", "#glossary", '<a href="#glossary">x</a>'),
    ],
)
def test_a_link_between_sources_becomes_one_between_pages(source, link, wanted):
    assert relink(f'<a href="{link}">x</a>', Page(source, KNOWN[source], "a"), KNOWN) == wanted


def test_without_notebooks_there_is_no_site(tmp_path):
    with pytest.raises(MinigenError, match="no notebooks"):
        build_site(tmp_path / "site", tmp_path)


def test_formulas_are_drawn_by_the_browser_itself_and_code_keeps_its_dollars(site):
    made = formulas("By $w_a < 1$ and\n\n$$\\log p(a\\,|\\,t)$$\n\nin `a$b$c` for 5 $ or 6 $.\n\n    x = $y$\n")
    assert made.count("<math") == 2 and made.count('display="block"') == 1 and "&#x0003C;" in made
    assert "`a$b$c`" in made and "5 $ or 6 $." in made and "    x = $y$" in made
    for page in site.rglob("*.html"):
        text = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", page.read_text(), flags=re.DOTALL)
        assert not re.search(r"\\(?:frac|log|text|sum|propto)\b", re.sub(r"<[^>]*>", "", text)), page.name
