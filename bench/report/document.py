"""The content of a report, which Jinja templates render as one HTML page or as GitHub-flavoured Markdown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ...stats.interval import Interval
from ..harness.format import Table

# Words of measurements that not everyone knows; a page explains each where it stands.
TERMS = {
    "KL divergence": "how far two predictions of the next token are apart; 0: they are equal",
    "KL": "KL divergence: how far two predictions of the next token are apart; 0: they are equal",
    "nats": "the unit of information with the natural logarithm; one nat is 1.44 bits",
    "perplexity": "among how many equally likely tokens the model hesitates, on average; lower is better",
    "roofline": "the most tokens/s for which the memory can deliver all weights once a token",
    "McNemar": "a test of two models on the same questions: how likely such a difference is by chance",
    "expected calibration error": "how far confidences are from how often such answers are right",
    "cosine": "whether two effects have the same direction: 1 is yes, 0 not at all",
    "slope": "how strong an effect is against the one that it should be: 1 is equal, 0 none",
    "prefill": "reading the question, all of its tokens at once",
    "decode": "writing the answer, one token after the other",
    "first token": "the time until the first word of an answer appears",
}
_TERM = re.compile(rf"\b({'|'.join(TERMS)})\b")
_HOME = str(Path.home())
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

    @property
    def ends(self) -> tuple[float, float]:
        """The outermost values."""
        bounds = [self.reference, *(b for one in self.intervals.values() for b in (one.low, one.high))]
        return min(bounds), max(bounds)

    def place(self, value: float) -> float:
        """The place of a value between the outermost ones, in percent."""
        low, high = self.ends
        return 100 * (value - low) / ((high - low) or 1)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, lines of text, charts, tables and an SVG."""

    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    plot: str = ""

    @property
    def texts(self) -> Iterator[str]:
        """Its lines, the titles of its charts, and the texts of its tables."""
        yield from (*self.lines, *(chart.title for chart in self.charts))
        for table in self.tables:
            yield from (table.title, *(row[0] for row in table.rows))


@dataclass(frozen=True, slots=True)
class Document:
    """A title and sections."""

    title: str
    sections: tuple[Section, ...]


def render_html(document: Document) -> str:
    """Render a document as HTML, without scripts or network access, for screens and print.

    Its texts are escaped.
    """
    environment = _environment(autoescape=True, finalize=without_home)
    environment.filters["explained"] = _explained
    return environment.get_template("report.html.jinja").render(document=document)


def render_effort_plot(lines: Sequence[object]) -> str:
    """Render the lines of the plot of efforts as SVG. Its texts are escaped."""
    return _environment(autoescape=True).get_template("effort.svg.jinja").render(lines=lines)


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


def without_home(value: object) -> object:
    """A text with ~ for the home folder, whose name is private."""
    if isinstance(value, Markup) or not isinstance(value, str) or len(_HOME) < 2:
        return value
    return re.sub(re.escape(_HOME) + r'(?=[/\\"]|$)', "~", value)


def find_terms(text: str) -> set[str]:
    """The words of TERMS in a text."""
    return set(_TERM.findall(text))


def _explained(text: object) -> Markup:
    """A text with an explanation behind each of its terms, as HTML."""
    return Markup(  # noqa: S704 - escaped
        _TERM.sub(lambda m: f'<abbr title="{TERMS[m[1]]}">{m[1]}</abbr>', str(escape(without_home(text))))
    )


def _escape_markdown(value: object) -> object:
    """Escape a text as one line without markup, and addresses so that they do not become links."""
    if isinstance(value, Markup):
        return value
    line = _MARKUP.sub(r"\\\1", " ".join(str(without_home(value)).split()))
    return _LINE_START.sub(r"\1\\\2", line).replace("://", "\\://").replace("www.", "www\\.")
