"""Tables and quantities of reports."""

from dataclasses import dataclass

import rich.table
from rich.text import Text

NOT_AVAILABLE = "not available"
_TABLE_WIDTH = 76  # wide enough for most lines of a caption


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a measurement: rich prints it, and a report shows it on its page.

    Attributes:
        title: what was measured.
        header: titles of the columns.
        rows: the rows, none longer than the header.
        notes: lines below the table, such as the verdict and the machine.
        is_text: whether a report aligns its cells to the left.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    is_text: bool = False

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


def megabytes(nbytes: float | None) -> str:
    """Format bytes in units of 10^6 bytes, with one decimal."""
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:,.1f}"


def seconds(duration_s: float | None) -> str:
    """Format seconds with two decimals."""
    return NOT_AVAILABLE if duration_s is None else f"{duration_s:.2f}"
