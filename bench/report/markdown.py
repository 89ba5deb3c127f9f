"""A document as GitHub-flavoured Markdown, with its charts in separate files."""

import re
from collections.abc import Iterator

from .document import Block, Cards, Cell, Document, Figure, Link, Notes, Paragraph, Table

_MARKUP = re.compile(r"([\\`*_\[\]<>|~#&!$])")  # characters that can start markup
_LINE_START = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")  # what can start a list or underline a title


def render_markdown(document: Document, figures: str) -> str:
    """Render a document as Markdown; its texts are escaped.

    Args:
        document: the document.
        figures: relative path of the folder with the charts.
    """
    lines = [f"# {_plain(document.title)}", "", _plain(document.lead)]
    for section in document.sections:
        lines += ["", f"## {_plain(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block, figures)]
    return "\n".join(lines) + "\n"


def _block(block: Block, figures: str) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield _plain(text)
        case Notes(lines):
            yield from (f"- {_plain(line)}" for line in lines)
        case Cards(cards):
            rows = tuple((card.name, card.value, card.note) for card in cards)
            yield from _table(("", "", ""), rows)
        case Table():
            yield f"{_plain(block.title)}:"
            yield ""
            yield from _table(block.header, block.rows)
        case Figure():
            yield f"![{_plain(block.chart.title)}]({figures}/{block.name}.svg)"


def _table(header: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]) -> Iterator[str]:
    yield _row(header)
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield _row(row)


def _row(cells: tuple[Cell, ...]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(cell: Cell) -> str:
    return f"[{_plain(cell.text)}]({cell.url})" if isinstance(cell, Link) else _plain(cell)


def _plain(text: str) -> str:
    """Escape a text as one line without markup, and addresses so that they do not become links."""
    line = _MARKUP.sub(r"\\\1", " ".join(text.split()))
    return _LINE_START.sub(r"\1\\\2", line).replace("://", "\\://").replace("www.", "www\\.")
