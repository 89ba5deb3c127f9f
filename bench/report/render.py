"""A document as one self-contained HTML page, or as GitHub-flavoured Markdown, by Jinja templates."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .document import Document

_MARKUP = re.compile(r"([\\`*_\[\]<>|~#&!$])")  # characters that can start markup
_LINE_START = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")  # what can start a list or underline a title


def render_html(document: Document) -> str:
    """Render a document as HTML, without scripts or network access, for screens and print.

    Its texts are escaped.
    """
    return _environment(autoescape=True).get_template("report.html.jinja").render(document=document)


def render_svg(template: str, plot: object) -> str:
    """Render a plot by its template. Its texts are escaped."""
    return _environment(autoescape=True).get_template(template).render(plot=plot)


def render_markdown(document: Document) -> str:
    """Render a document as Markdown; its texts are escaped, and its charts are left to the page."""
    # What a template inserts is escaped for Markdown, by `finalize`, instead of HTML.
    environment = _environment(finalize=_escape_markdown, keep_trailing_newline=True)
    environment.filters["verbatim"] = Markup
    return environment.get_template("report.md.jinja").render(document=document)


def _environment(**options: Any) -> Environment:
    return Environment(  # noqa: S701 - the callers escape
        loader=PackageLoader(__package__, "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def _escape_markdown(value: object) -> object:
    """Escape a text as one line without markup, and addresses so that they do not become links."""
    if isinstance(value, Markup):
        return value
    line = _MARKUP.sub(r"\\\1", " ".join(str(value).split()))
    return _LINE_START.sub(r"\1\\\2", line).replace("://", "\\://").replace("www.", "www\\.")
