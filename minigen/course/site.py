"""`make site`: makes web pages of the course, `build/site/index.html`, which need no web server.

    notebooks/*.ipynb   --nbconvert-->  00_first_sound.html ...        outputs as they are stored: nothing is run
    solutions/*.ipynb   ------------->  solutions/00_first_sound.html
    docs/*.md           ------------->  docs/teaching.html ...         and index.html, the map of the course

Every link is relative, and no page loads anything from another machine. Sounds and pictures are inside the pages.
Formulas are MathML, which browsers draw without a library (nbconvert would load MathJax, require.js and the widgets'
code). An explorer is replaced by a note that it needs a kernel. Links to files that are not pages, such as a module,
become plain text.
"""

import html
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import ROOT

OUT = ROOT / "build" / "site"
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_KERNEL = "<p><em>This control needs a running kernel: <code>make lab</code>.</em></p>"
FORMULA = re.compile(  # code, which stays as it is; $$a formula of its own$$; $one in a line$
    r"(```.*?```|`[^`]*`|^ {4}[^\n]*$)|\$\$(.+?)\$\$|\$(?=\S)([^$\n]+?)(?<=\S)\$", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r'<a\b([^>]*?)\bhref="([^"]*)"([^>]*)>(.*?)</a>', re.DOTALL)

# nbconvert's page without what it would fetch, with the style in one file beside all pages and a bar above and below.
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block notebook_css -%}<link rel="stylesheet" href="{{ resources.up }}style.css">{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true">{{ resources.bar }}<main>
{%- endblock -%}
{%- block body_footer -%}</main>{{ resources.bar }}</body>{%- endblock -%}
"""
STYLE = """
body { max-width: 62rem; margin: 0 auto; padding: 0 1rem 3rem; overflow: visible; color: #1a1a1a; background: #fff;
  font-family: system-ui, sans-serif; line-height: 1.5 }
nav { display: flex; gap: 1.5rem; flex-wrap: wrap; padding: .7rem 0; margin: .5rem 0; border: solid #ddd;
  border-width: 1px 0; font-size: .95rem }
main { overflow-x: auto } nav a, main a { color: #0060a0 } nav .here { color: #666 }
table { border-collapse: collapse } .page td, .page th { border-bottom: 1px solid #ddd; padding: .35rem .8rem .35rem 0;
  text-align: left; vertical-align: top } .page pre { background: #f5f5f5; padding: .7rem; overflow-x: auto }
.jp-InputPrompt, .jp-OutputPrompt { display: none } .jp-Cell { padding: 2px 0 }
@page { size: A4; margin: 11mm }
@media print {
  nav { display: none } body { max-width: none; padding: 0 } main { overflow: visible }
  .page { font-size: 8pt; line-height: 1.2 } .page h1 { font-size: 13pt } .page h2 { font-size: 10pt }
  .page h1, .page h2, .page p, .page ol, .page pre { margin: .25rem 0 } .page pre { font-size: 6.8pt; padding: .2rem }
  .page td, .page th { padding: .05rem .5rem .05rem 0 }
}
"""


@dataclass(frozen=True)
class Page:
    """A page. source: its file, relative to the repository. target: the page, relative to the site."""

    source: str
    target: str
    title: str
    about: str = ""


def build_site(out: Path = OUT, top: Path = ROOT) -> Path:
    """Make all pages from the stored outputs. Returns the first one.

    Raises:
        MinigenError: no notebooks, or no place to write.
    """
    lessons, solutions, docs = find_pages(top)
    shutil.rmtree(out, ignore_errors=True)
    write_atomically(out / "style.css", lab_style() + STYLE)
    known = {page.source: page.target for page in (*lessons, *solutions, *docs)}
    for pages in (lessons, solutions):
        for i, page in enumerate(pages):
            bar = _bar(page, pages[i - 1] if i else None, pages[i + 1] if i + 1 < len(pages) else None, known)
            write_atomically(out / page.target, notebook_html(top / page.source, page, bar, known))
    for page in docs:
        body = _markdown((top / page.source).read_text("utf-8"))
        write_atomically(out / page.target, _plain(page, relink(body, page, known), _bar(page, None, None, known)))
    write_atomically(out / "index.html", _index(lessons, docs, known))
    return out / "index.html"


def find_pages(top: Path) -> tuple[list[Page], list[Page], list[Page]]:
    """Lessons, solutions and documents, each in the order of their names."""
    lessons = [_notebook_page(top, path) for path in sorted((top / "notebooks").glob("*.ipynb"))]
    solutions = [_notebook_page(top, path) for path in sorted((top / "notebooks" / "solutions").glob("*.ipynb"))]
    if not lessons:
        raise MinigenError(f"no notebooks in {top / 'notebooks'}. Run this where the repository is.")
    docs = []
    for path in sorted((top / "docs").glob("*.md")):
        title = path.read_text("utf-8").lstrip("# ").split("\n", 1)[0]
        docs.append(Page(f"docs/{path.name}", f"docs/{path.stem}.html", title))
    return lessons, solutions, docs


def _notebook_page(top: Path, path: Path) -> Page:
    source = path.relative_to(top).as_posix()
    opening = next(
        (c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "markdown"), {"source": ""}
    )
    paragraphs = "".join(opening["source"]).split("\n\n")
    title = paragraphs[0].lstrip("# ") or path.stem
    about = " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""
    return Page(source, source.removeprefix("notebooks/").replace(".ipynb", ".html"), title, about)


def notebook_html(path: Path, page: Page, bar: str, known: dict[str, str]) -> str:
    """One notebook as a page, with its stored outputs."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["title"] = page.title
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas(cell.source)
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output["data"] = _without_kernel(output["data"].get("text/plain", ""))
    body, _ = _exporter().from_notebook_node(notebook, {"up": _up(page), "bar": bar})
    return relink(body, page, known)


@cache
def _exporter():
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    page = DictLoader({"minigen.html.j2": TEMPLATE})
    return HTMLExporter(template_name="lab", template_file="minigen.html.j2", extra_loaders=[page])


def formulas(text: str) -> str:
    """Markdown with its LaTeX between dollars as MathML."""
    from latex2mathml.converter import convert

    def turn(found: re.Match) -> str:
        code, block, inline = found.groups()
        if code is not None:
            return code
        return convert(block.strip(), display="block") if block else convert(inline)

    return FORMULA.sub(turn, text)


def _without_kernel(text: str) -> dict[str, str]:
    """The output in place of a widget: a note that it needs a kernel, or nothing for a progress bar."""
    return {"text/html": "" if "%|" in text else NO_KERNEL}


def relink(body: str, page: Page, known: dict[str, str]) -> str:
    """Turn the links of a source into links between pages. A link to a file without a page becomes plain text."""
    folder = os.path.dirname(page.source)

    def turn(found: re.Match) -> str:
        before, target, after, text = found.groups()
        if re.match(r"https?:|mailto:|#", target):
            return found[0]
        place, hash_sign, anchor = html.unescape(target).partition("#")
        source = os.path.normpath(os.path.join(folder, place))
        if source not in known:
            return found[0] if place in _own(page, known) else text
        link = os.path.relpath(known[source], os.path.dirname(page.target) or ".")
        return f'<a{before}href="{link}{hash_sign}{anchor}"{after}>{text}</a>'

    return LINK.sub(turn, body)


def _own(page: Page, known: dict[str, str]) -> set[str]:
    """Links of the page's navigation bar, which already lead to pages."""
    folder = os.path.dirname(page.target) or "."
    return {os.path.relpath(target, folder) for target in (*known.values(), "index.html")}


def _up(page: Page) -> str:
    return "../" * page.target.count("/")


def _bar(page: Page, back: Page | None, following: Page | None, known: dict[str, str]) -> str:
    """Navigation bar: the course, the previous and the next page, and the solutions of a lesson or the reverse."""
    folder, up = os.path.dirname(page.target) or ".", _up(page)
    links = [f'<a href="{up}index.html">The course</a>']
    for arrow, other in (("← {}", back), ("{} →", following)):
        if other:
            href = os.path.relpath(other.target, folder)
            links.append(f'<a href="{href}">{arrow.format(html.escape(other.title))}</a>')
    name = os.path.basename(page.source)
    for text, source in (("Solutions", f"notebooks/solutions/{name}"), ("The lesson", f"notebooks/{name}")):
        if source in known and source != page.source:
            links.append(f'<a href="{os.path.relpath(known[source], folder)}">{text}</a>')
    return f"<nav>{''.join(links)}</nav>"


def _index(lessons: list[Page], docs: list[Page], known: dict[str, str]) -> str:
    """The first page: a table of the notebooks, then the documents."""
    rows = []
    for page in lessons:
        solved = known.get(page.source.replace("notebooks/", "notebooks/solutions/"))
        link = f'<a href="{solved}">solutions</a>' if solved else ""
        lesson = f'<a href="{page.target}">{html.escape(page.title)}</a>'
        rows.append(f"<tr><td>{lesson}</td><td>{_inline(page.about)}</td><td>{link}</td></tr>")
    listed = "".join(f'<li><a href="{page.target}">{html.escape(page.title)}</a></li>' for page in docs)
    return _plain(
        Page("README.md", "index.html", "minigen: the course"),
        "<h1>How text becomes sound</h1><p>A course in notebooks that builds a text-to-audio language model piece by "
        "piece. These pages are the notebooks as they were run, with their sounds and figures; nothing is fetched from "
        "elsewhere. To move a slider and solve the exercises, run them: <code>make lab</code>.</p>"
        f"<table>{''.join(rows)}</table><h2>Beside the notebooks</h2><ul>{listed}</ul>",
        "",
    )


def _plain(page: Page, body: str, bar: str) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(page.title)}</title><link rel="stylesheet" href="{_up(page)}style.css"></head>'
        f'<body>{bar}<main class="page">{body}</main>{bar}</body></html>\n'
    )


def _markdown(text: str) -> str:
    from nbconvert.filters import markdown2html

    return markdown2html(formulas(text))


def _inline(text: str) -> str:
    """A paragraph of Markdown without the paragraph around it."""
    return re.sub(r"^<p>|</p>\s*$", "", _markdown(text).strip())


def lab_style() -> str:
    """JupyterLab's style sheet for notebooks, as it comes with nbconvert."""
    from nbconvert.exporters.templateexporter import TemplateExporter

    for folder in TemplateExporter(template_name="lab").template_paths:
        static = Path(folder) / "static"
        if (static / "index.css").is_file():
            return (static / "index.css").read_text("utf-8") + (static / "theme-light.css").read_text("utf-8")
    raise MinigenError(
        "nbconvert has no style sheet for notebooks. Install it again: pip install --force-reinstall nbconvert"
    )


if __name__ == "__main__":
    try:
        print(f"the course as a site: {os.path.relpath(build_site())}")
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
