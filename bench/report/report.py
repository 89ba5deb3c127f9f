"""Report on a base and its adapted model: an HTML page, Markdown, charts and raw JSON."""

import json
from pathlib import Path

from ...files.output import check_folder, make_folder, output_errors
from . import sections
from .chart import render_svg
from .collect import ReportData
from .document import Document, Figure, Section
from .html import render_html
from .literature import literature_table
from .markdown import render_markdown

_PAGE, _TEXT, _FIGURES, _RAW = "report.html", "report.md", "figures", "raw"


def compose_report(data: ReportData) -> Document:
    """Compose the document of a report."""
    return Document(
        title=_title(data),
        lead="Speed, accuracy, size and memory of an adapted model and its base, by thirteen bench.",
        sections=(
            sections.headline_section(data),
            sections.speed_section(data.latency),
            sections.accuracy_section(data.accuracy),
            sections.size_section(data.size),
            sections.memory_section(data.latency),
            sections.fidelity_section(data.fidelity),
            sections.peers_section(data.peers),
            Section("Published figures", (literature_table(data),)),
            sections.environment_section(data),
        ),
    )


def _title(data: ReportData) -> str:
    if latency := data.latency:
        adapter = f" + {Path(latency.adapted.adapter.path).name}" if latency.adapted.adapter else ""
        return f"{Path(latency.adapted.path).name}{adapter} and its base {Path(latency.base.path).name}"
    if data.accuracy:
        path = data.accuracy.adapted.path
    elif data.size:
        path = data.size.path
    elif data.fidelity:
        path = data.fidelity.files.shipped.path
    else:
        assert data.peers, "a report has at least one measurement"
        path = data.peers.model
    return Path(path).name


def check_report_folder(folder: Path) -> None:
    """Raise OutputError if a report cannot be written to a folder; commands call it before their work."""
    make_folder(folder)
    check_folder(folder)


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html and report.md, and charts and raw JSON in folders next to them.

    Returns:
        The path of the HTML page.

    Raises:
        OutputError: the folder cannot be written to.
    """
    document = compose_report(data)
    blocks = [block for section in document.sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, Figure)]
    texts = {
        **{f"{_RAW}/{name}.json": json.dumps(report, indent=1) + "\n" for name, report in data.raw.items()},
        **{f"{_FIGURES}/{figure.name}.svg": render_svg(figure.chart, standalone=True) for figure in figures},
        _TEXT: render_markdown(document, _FIGURES),
        _PAGE: render_html(document),
    }
    check_report_folder(folder)
    with output_errors(folder):
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, "utf-8", "surrogateescape")
    return folder / _PAGE
