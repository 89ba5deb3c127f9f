"""The content of a report, which Jinja templates render as one HTML page or as GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...stats.interval import Interval
from ..harness.format import Table

_MARKUP = re.compile(r"([\\`*_\[\]<>|~#&!$])")  # characters that can start markup
_LINE_START = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")  # what can start a list or underline a title


@dataclass(frozen=True, slots=True)
class Chart:
    """Estimates with their intervals by name, around a line at `reference`; the page alone draws it.

    `better` says which values are, such as "lower"; `scale` multiplies those that are shown.
    """

    title: str
    better: str
    intervals: dict[str, Interval]
    reference: float = 1.0
    scale: float = 1.0

    def place(self, value: float) -> float:
        """The place of a value between the outermost ones, in percent."""
        bounds = [self.reference, *(b for one in self.intervals.values() for b in (one.low, one.high))]
        return 100 * (value - min(bounds)) / ((max(bounds) - min(bounds)) or 1)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, lines of text, charts, tables and an SVG."""

    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    plot: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A title and sections."""

    title: str
    sections: tuple[Section, ...]


def render_html(document: Document) -> str:
    """Render a document as HTML, without scripts or network access, for screens and print.

    Its texts are escaped.
    """
    return _environment(autoescape=True).get_template("report.html.jinja").render(document=document)


def render_svg(template: str, lines: Sequence[object]) -> str:
    """Render the lines of a plot by its template. Its texts are escaped."""
    return _environment(autoescape=True).get_template(template).render(lines=lines)


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
