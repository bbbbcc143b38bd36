"""HTML pages from templates: a file each of HTML, CSS and JavaScript, joined into one page without links."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, look: Path | None = None, **values: object) -> str:
    """The page of a jinja2 template, such as page.html.j2, with page.css and page.js of the same folder inside.

    look: template whose css and js are used instead, so that two pages look alike. The template gets their text as
    `style` and `script`. It escapes every value, except those marked `| safe`.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    look = look or template
    stem = look.name.split(".")[0]
    style, script = (look.with_name(f"{stem}.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return environment.get_template(template.name).render(style=style, script=script, **values)
