"""Tables and quantities of reports."""

from rich.table import Table
from rich.text import Text

NOT_AVAILABLE = "not available"
_TABLE_WIDTH = 76  # wide enough for most lines of a caption


def report_table(title: str, caption: str, *columns: str) -> Table:
    """Make a table whose columns are right-aligned but for the first, with a caption below."""
    first, *others = columns
    table = Table(
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
