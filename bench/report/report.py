"""Report on a base and its adapted model: an HTML page, Markdown, charts and raw JSON."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from ...errors import install_hint
from ...files.atomic_write import atomic_write
from ...files.output import check_folder, make_folder, output_errors
from ..accuracy.answer_time import describe_times
from . import sections
from .collect import ReportData
from .document import Document, Figures, Section
from .literature import literature_table
from .render import render_html, render_markdown
from .svg import render_svg

_PAGE, _TEXT, _FIGURES, _RAW = "report.html", "report.md", "figures", "raw"
# All charts that a report may have.
_CHARTS = ("accuracy", "decode", "effect", "first-token", "memory", "ratios", "size")


def missing_matplotlib() -> str | None:
    """Advice to install matplotlib, which draws charts; None if it is there."""
    if importlib.util.find_spec("matplotlib"):
        return None
    return f"matplotlib, which draws the charts, is not installed: {install_hint('report')}"


def compose_report(data: ReportData) -> Document:
    """Compose the document of a report."""
    return Document(
        title=_title(data),
        lead=_lead(data),
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


def _lead(data: ReportData) -> str:
    """What the report is of, after its most important figure: the time to a right answer."""
    lead = "Speed, accuracy, size and memory of an adapted model and its base, by thirteen bench."
    accuracy = data.accuracy
    if accuracy and accuracy.answer_time and accuracy.paired:
        times = describe_times(accuracy.answer_time, accuracy.paired.difference)
        return f"{times[0].upper()}{times[1:]}. {lead}"
    return lead


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


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html and report.md, and charts and raw JSON in folders next to them.

    Without matplotlib there is no page and no chart: report.md gives their values. The page and the charts of
    an earlier report in the folder go; its raw measurements stay, since they may have taken hours.

    Returns:
        The path of the HTML page, or of the Markdown without matplotlib.

    Raises:
        OutputError: the folder cannot be written to.
    """
    document = compose_report(data)
    texts = {f"{_RAW}/{name}.json": json.dumps(report, indent=1) + "\n" for name, report in data.raw.items()}
    if missing_matplotlib():
        texts[_TEXT] = render_markdown(document, None)
    else:
        texts |= {
            **{f"{_FIGURES}/{name}.svg": svg for name, svg in _charts(document)},
            _TEXT: render_markdown(document, _FIGURES),
            _PAGE: render_html(document),
        }
    make_folder(folder)
    check_folder(folder)
    with output_errors(folder):
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with atomic_write(folder / name) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
        for name in {_PAGE, *(f"{_FIGURES}/{chart}.svg" for chart in _CHARTS)} - texts.keys():
            (folder / name).unlink(missing_ok=True)
    return folder / (_PAGE if _PAGE in texts else _TEXT)


def _charts(document: Document) -> Iterator[tuple[str, str]]:
    """Name and SVG file of each chart."""
    blocks = [block for section in document.sections for block in section.blocks]
    for figure in (one for block in blocks if isinstance(block, Figures) for one in block.figures):
        yield figure.name, render_svg(figure.chart, figure.name, standalone=True)
