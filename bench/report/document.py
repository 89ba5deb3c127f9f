"""The content of a report, independent of its format: one template each for HTML and Markdown renders it."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from .chart import Chart


@dataclass(frozen=True, slots=True)
class Link:
    """A text with a link."""

    text: str
    url: str


Cell: TypeAlias = str | Link


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Notes:
    """A list of notes, one line each."""

    kind: ClassVar = "notes"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure: its name, its value and a note."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Cards:
    """Key figures side by side."""

    kind: ClassVar = "cards"
    cards: tuple[Card, ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cards as rows of a table."""
        return tuple((card.name, card.value, card.note) for card in self.cards)


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column holds names; the others hold figures, or text if `is_text`."""

    kind: ClassVar = "table"
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_text: bool = False

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows), self.title


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and the name of its file without the ending."""

    name: str
    chart: Chart


@dataclass(frozen=True, slots=True)
class Figures:
    """Charts side by side."""

    kind: ClassVar = "figures"
    figures: tuple[Figure, ...]


Block: TypeAlias = Paragraph | Notes | Cards | Table | Figures


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A title, a lead and sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]
