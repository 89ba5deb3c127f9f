"""Tables of measurements: rich prints them, and a report shows them on its page."""

from collections.abc import Iterable
from dataclasses import dataclass

import rich.table
from rich.console import Group
from rich.text import Text

_TABLE_WIDTH = 76  # wide enough for most lines of a caption


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a measurement.

    Attributes:
        title: what was measured.
        header: titles of the columns.
        rows: the rows, none longer than the header.
        notes: lines below the table, such as the machine.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __rich__(self) -> rich.table.Table:
        table = report_table(self.title, "\n".join(self.notes), *self.header)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def report_table(title: str, caption: str, *columns: str) -> rich.table.Table:
    """Make a table whose columns are right-aligned but for the first, with a caption below."""
    first, *others = columns
    table = rich.table.Table(
        first, title=Text(title), caption=Text(caption), caption_justify="left", min_width=_TABLE_WIDTH
    )
    for column in others:
        table.add_column(column, justify="right")
    return table


def findings(sentences: Iterable[str], *tables: Table) -> Group:
    """What was found in sentences, and below them the tables."""
    return Group(*map(Text, sentences), *tables)
