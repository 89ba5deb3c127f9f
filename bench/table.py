"""Tables of measurements: rich prints them, and a report shows them on its page."""

from dataclasses import dataclass

import rich.table
from rich.text import Text

_WIDTH = 76  # wide enough for most lines of a caption


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a measurement; `notes` are lines below it, and no row is longer than the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __rich__(self) -> rich.table.Table:
        first, *others = self.header
        title, caption = Text(self.title), Text("\n".join(self.notes))
        table = rich.table.Table(
            first, title=title, caption=caption, caption_justify="left", min_width=_WIDTH
        )
        for column in others:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table
