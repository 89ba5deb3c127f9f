"""A document as one self-contained HTML page, without scripts or network access, for screens and print."""

from html import escape
from itertools import groupby

from .chart import STYLE, render_svg
from .document import Block, Card, Cards, Cell, Document, Figure, Link, Notes, Paragraph, Section, Table

_STYLE = (
    "*{box-sizing:border-box}"
    "body{margin:0 auto;padding:1rem;max-width:62rem;background:var(--ground);color:var(--ink);"
    "font:16px/1.5 system-ui,sans-serif;-webkit-text-size-adjust:100%}"
    "h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}"
    "h2{font-size:1.15rem;margin:2rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}"
    "p,li{max-width:45rem;overflow-wrap:anywhere}.lead,caption,.note{color:var(--dim)}"
    "ul{padding-left:1.2rem}a{color:var(--c1)}"
    ".cards,.figures{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr))}"
    ".figures{grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));margin:1rem 0}"
    ".card{border:1px solid var(--line);border-radius:.5rem;padding:.75rem}"
    ".card b{display:block;font-size:1.6rem;line-height:1.2}"
    "figure{margin:0;max-width:30rem;break-inside:avoid}figcaption{font-weight:600;margin-bottom:.25rem}"
    "svg{display:block;width:100%;height:auto;overflow:visible}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}"
    "caption{text-align:left;padding-bottom:.25rem}"
    "th,td{padding:.3rem .75rem .3rem 0;text-align:right;vertical-align:top;"
    "border-bottom:1px solid var(--line)}"
    "th:first-child,td:first-child,.text td,.text th{text-align:left}"
    "td:first-child{min-width:7rem}.text td{min-width:4.5rem}.facts td:last-child{overflow-wrap:anywhere}"
    "@media print{body{max-width:none;font-size:11pt;padding:0}.card,table,figure{break-inside:avoid}"
    "h2{break-after:avoid}.wide{overflow:visible}"
    ".figures{grid-template-columns:1fr 1fr}.cards{grid-template-columns:repeat(4,1fr)}}"
)


def render_html(document: Document) -> str:
    """Render a document as HTML; its texts are escaped."""
    title, body = escape(document.title), "".join(map(_section, document.sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<p class="lead">{escape(document.lead)}</p>\n{body}</body>\n</html>\n'
    )


def _section(section: Section) -> str:
    body = ""
    for are_figures, blocks in groupby(section.blocks, lambda block: isinstance(block, Figure)):
        html = "".join(map(_block, blocks))
        body += f'<div class="figures">{html}</div>\n' if are_figures else html
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{body}</section>\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>\n"
        case Notes(lines):
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"
        case Cards(cards):
            return f'<div class="cards">{"".join(map(_card, cards))}</div>\n'
        case Table():
            return _table(block)
        case Figure(_, chart):
            svg = render_svg(chart, standalone=False)
            return f"<figure><figcaption>{escape(chart.title)}</figcaption>{svg}</figure>"


def _card(card: Card) -> str:
    note = f'<span class="note">{escape(card.note)}</span>'
    return f'<div class="card">{escape(card.name)}<b>{escape(card.value)}</b>{note}</div>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    columns = f' class="text{" facts" if len(table.header) == 2 else ""}"' if table.is_text else ""
    return (
        f'<div class="wide"><table{columns}><caption>{escape(table.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<a href="{escape(cell.url)}" rel="noreferrer">{escape(cell.text)}</a>'
    return escape(cell)
