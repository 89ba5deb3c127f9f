"""One report of all that was measured of a base and its adapted model: page, Markdown, charts, raw JSON."""

import json
from pathlib import Path

from ...files.output import check_folder, make_folder, output_errors
from . import literature
from . import sections
from .chart import render_svg
from .collect import ReportData
from .document import Document, Figure, Section
from .html import render_html
from .markdown import render_markdown

_PAGE, _TEXT, _FIGURES, _RAW = "report.html", "report.md", "figures", "raw"


def compose_report(measured: ReportData) -> Document:
    """The report as a document."""
    speeds, sizes, answers, kept = measured.latency, measured.size, measured.accuracy, measured.fidelity
    claims = Section("What was published", (literature.literature_table(speeds, sizes, answers),))
    return Document(
        title=_title(measured),
        lead="Speed, accuracy, size and memory of an adapted model beside its base, by thirteen bench.",
        sections=(
            sections.headline_section(speeds, sizes, answers),
            sections.speed_section(speeds),
            sections.accuracy_section(answers),
            sections.size_section(sizes),
            sections.memory_section(speeds),
            sections.fidelity_section(kept),
            sections.peers_section(measured.peers),
            claims,
            sections.environment_section(speeds, answers, kept or measured.peers),
        ),
    )


def _title(measured: ReportData) -> str:
    if speeds := measured.latency:
        adapter = f" + {Path(speeds.adapted.adapter.path).name}" if speeds.adapted.adapter else ""
        return f"{Path(speeds.adapted.path).name}{adapter} beside {Path(speeds.base.path).name}"
    if answers := measured.accuracy:
        return Path(answers.adapted.path).name
    if measured.size:
        return Path(measured.size.path).name
    if measured.fidelity:
        return Path(measured.fidelity.files.shipped.path).name
    assert measured.peers, "something was measured"
    return Path(measured.peers.model).name


def check_report_folder(folder: Path) -> None:
    """Raise OutputError if a report cannot be written to a folder: before the work, not after."""
    make_folder(folder)
    check_folder(folder)


def write_report(measured: ReportData, folder: Path) -> Path:
    """Write report.html, report.md, and the charts and raw JSON in folders beside them.

    Returns:
        The page.

    Raises:
        OutputError: the folder cannot be written to.
    """
    document = compose_report(measured)
    texts = {
        **{f"{_RAW}/{name}.json": json.dumps(said, indent=1) + "\n" for name, said in measured.raw.items()},
        **{
            f"{_FIGURES}/{figure.name}.svg": render_svg(figure.chart, alone=True)
            for figure in _figures(document)
        },
        _TEXT: render_markdown(document, _FIGURES),
        _PAGE: render_html(document),
    }
    check_report_folder(folder)
    with output_errors(folder):
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, "utf-8", "surrogateescape")
    return folder / _PAGE


def _figures(document: Document) -> list[Figure]:
    return [block for section in document.sections for block in section.blocks if isinstance(block, Figure)]
