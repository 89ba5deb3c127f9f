"""The content of a report, independent of its format: one template each for HTML and Markdown renders it."""

from dataclasses import dataclass

from ...stats.interval import Interval
from ..harness.format import Table


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
