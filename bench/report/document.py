"""A report as what it says, apart from how it is written: HTML and Markdown are made of the same document."""

from dataclasses import dataclass
from typing import TypeAlias

from .chart import Chart


@dataclass(frozen=True, slots=True)
class Link:
    """A text that leads to an address."""

    text: str
    url: str


Cell: TypeAlias = str | Link


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Notes:
    """Remarks, a line each."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A figure that is read first: what it is of, the figure, and a remark."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Cards:
    """Some of them, side by side."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the first column names them, and the others are figures, or texts as well."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of_text: bool = False

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows), self.title


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and the name that its file has."""

    name: str
    chart: Chart


Block: TypeAlias = Paragraph | Notes | Cards | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """All of it."""

    title: str
    lead: str
    sections: tuple[Section, ...]
