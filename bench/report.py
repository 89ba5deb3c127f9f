"""One report of all that was measured of a base and its adapted model: page, Markdown, charts, raw JSON."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, RequestError
from . import chapters, latency, published, size
from .accuracy import AccuracyReport
from .chart import svg
from .document import Document, Figure, Section
from .fidelity import FidelityReport
from .latency import LatencyReport
from .markdown import markdown
from .page import page
from .restore import read_report
from .size import SizeReport

LENGTHS = (32, 128, 512, 1024)
_PAGE, _TEXT, _FIGURES, _RAW = "report.html", "report.md", "figures", "raw"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Files:
    """Earlier measurements, each what its command printed with --json; None where there is none."""

    latency: Path | None = None
    size: Path | None = None
    accuracy: Path | None = None
    fidelity: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a report is made of; None for what was not measured.

    Attributes:
        latency: base and adapted in turns, with their memory.
        size: of the adapted file.
        answers: of both to a set of questions.
        fidelity: of the adapted file to full precision.
        raw: the JSON of each, by its name, as it was read or measured.
    """

    latency: LatencyReport | None
    size: SizeReport | None
    answers: AccuracyReport | None
    fidelity: FidelityReport | None
    raw: dict[str, Any]


def gather(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    files: Files,
    models: tuple[Path, Path] | None = None,
    *,
    adapter: Path | None = None,
    rounds: int = latency.ROUNDS,
    lengths: Sequence[int] = LENGTHS,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Measured:
    """Read what there is of earlier measurements, and measure what can be of the rest.

    Args:
        files: earlier measurements. They are read first: a bad one is known before any work.
        models: base and adapted GGUF: latency and size are measured of them unless they are in `files`.
        adapter: a LoRA in a GGUF file that the adapted model gets at run time.
        rounds: see latency.run().
        lengths: likewise.
        threads: likewise.
        progress: likewise.

    Raises:
        RequestError: there is nothing to report, a file is not its command's, or a number is out of bounds.
        ModelFileError: a model is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for the adapted model.
    """
    if models is None and not any(getattr(files, name) for name in Files.__slots__):
        raise RequestError("bench report: neither models nor an earlier measurement's JSON are given")
    speeds = read_report(files.latency, LatencyReport) if files.latency else None
    sizes = read_report(files.size, SizeReport) if files.size else None
    answers = read_report(files.accuracy, AccuracyReport) if files.accuracy else None
    kept = read_report(files.fidelity, FidelityReport) if files.fidelity else None
    raw = {name: json.loads(path.read_bytes()) for name in Files.__slots__ if (path := getattr(files, name))}
    if models and sizes is None:
        sizes = size.run(models[1])
        raw["size"] = asdict(sizes)
    if models and speeds is None:
        speeds = latency.run(
            *models, adapter=adapter, rounds=rounds, lengths=lengths, threads=threads, progress=progress
        )
        raw["latency"] = asdict(speeds)
    return Measured(speeds, sizes, answers, kept, raw)


def compose(measured: Measured) -> Document:
    """The report as a document."""
    speeds, sizes, answers, kept = measured.latency, measured.size, measured.answers, measured.fidelity
    claims = Section("What was published", (published.table(speeds, sizes, answers),))
    return Document(
        title=_title(measured),
        lead="Speed, accuracy, size and memory of an adapted model beside its base, by thirteen bench.",
        sections=(
            chapters.headline(speeds, sizes, answers),
            chapters.speed(speeds),
            chapters.accuracy(answers),
            chapters.size(sizes),
            chapters.memory(speeds),
            chapters.fidelity(kept),
            claims,
            chapters.circumstances(speeds, answers, kept),
        ),
    )


def _title(measured: Measured) -> str:
    if speeds := measured.latency:
        adapter = f" + {Path(speeds.adapted.adapter.path).name}" if speeds.adapted.adapter else ""
        return f"{Path(speeds.adapted.path).name}{adapter} beside {Path(speeds.base.path).name}"
    if answers := measured.answers:
        return Path(answers.adapted.path).name
    if measured.size:
        return Path(measured.size.path).name
    assert measured.fidelity, "something was measured"
    return Path(measured.fidelity.files.shipped.path).name


def check_folder(folder: Path) -> None:
    """Raise OutputError if a report cannot be written to a folder: before the work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"{folder}: {failure.strerror or failure}") from None
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: the folder cannot be written to")


def write(measured: Measured, folder: Path) -> Path:
    """Write report.html, report.md, and the charts and raw JSON in folders beside them.

    Returns:
        The page.

    Raises:
        OutputError: the folder cannot be written to.
    """
    document = compose(measured)
    texts = {
        **{f"{_RAW}/{name}.json": json.dumps(said, indent=1) + "\n" for name, said in measured.raw.items()},
        **{f"{_FIGURES}/{figure.name}.svg": svg(figure.chart, alone=True) for figure in _figures(document)},
        _TEXT: markdown(document, _FIGURES),
        _PAGE: page(document),
    }
    check_folder(folder)
    try:
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, "utf-8", "surrogateescape")
    except OSError as failure:
        raise OutputError(f"{folder}: {failure.strerror or failure}") from None
    return folder / _PAGE


def _figures(document: Document) -> list[Figure]:
    return [block for section in document.sections for block in section.blocks if isinstance(block, Figure)]
