"""HTML pages that need no network, from the Jinja2 templates in common/templates. Imports no torch.

A page's template extends page.html (title, CSS, content-security policy) and takes what pages share from parts.html:
headings with an anchor, tables that scroll by themselves, notices, warnings. Every value is escaped but Markup.
"""
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from common.files import replace_file
from common.text import counted


def render(template: str, **context: object) -> str:
    """The page that a template makes.

    Parameters
    ----------
    template : str
        Name of a file in common/templates.
    **context
        The values that the template uses.

    Returns
    -------
    str
        HTML. Texts in it are escaped; `Markup` is taken as HTML.

    Raises
    ------
    jinja2.UndefinedError
        The template uses a value that is not given.
    """
    return _TEMPLATES.get_template(template).render(context)


def render_text(template: str, **context: object) -> str:
    """As `render`, for a text that is not HTML: nothing is escaped."""
    return _TEMPLATES.overlay(autoescape=False).get_template(template).render(context) + "\n"


def write_page(path: str | Path, template: str, **context: object) -> None:
    """Write the page that `render` makes."""
    with replace_file(path) as file:
        file.write(render(template, **context))


def anchor(name: str) -> str:
    """The id of a heading: "TRIPOD+AI" -> "tripod-ai"."""
    return name.lower().replace(" ", "-").replace("+", "-")


def keep_intervals(text: str) -> Markup:
    """HTML of a text in which an interval, such as (0.877 to 0.981), is not broken over two lines."""
    return Markup(re.sub(r"(\([^()]* to [^()]*\))", r"<span>\1</span>", str(escape(text))))


_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True,
                         undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.filters |= {"counted": counted, "anchor": anchor, "keep_intervals": keep_intervals}
