"""One report of all that was measured of a base and its adapted model: page, Markdown, charts, raw JSON."""

import json
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError, RequestError
from ..gguf_file import read_header
from ..runtime.cores import default_threads, physical_cores
from . import accuracy, chapters, fidelity, latency, peers, published, size
from .accuracy import AccuracyReport
from .chart import svg
from .document import Document, Figure, Section
from .fidelity import FidelityReport
from .latency import LatencyReport
from .markdown import markdown
from .page import page
from .peers import PeersReport, Programs
from .restore import read_report
from .rounds import Stage, silent
from .size import SizeReport
from .tasks import load_set
from .terms import Terms
from .work import Work

LENGTHS = (32, 128, 512, 1024)
_PAGE, _TEXT, _FIGURES, _RAW = "report.html", "report.md", "figures", "raw"


@dataclass(frozen=True, slots=True)
class Files:
    """Earlier measurements, each what its command printed with --json; None where there is none."""

    latency: Path | None = None
    size: Path | None = None
    accuracy: Path | None = None
    fidelity: Path | None = None
    peers: Path | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured beside latency and size.

    Attributes:
        data: the questions that both models are asked; see accuracy.run(). None leaves accuracy out.
        terms: how they are put.
        limit: the most of them.
        reference: the adapted model in full precision, to which the adapted file is compared. None leaves
            fidelity out.
        base_reference: the unadapted model in full precision, for the adapter's effect; see fidelity.run().
        programs: with which the adapted file is also run; see peers.run(). None leaves peers out.
    """

    data: str | None = None
    terms: Terms | None = None
    limit: int | None = None
    reference: Path | None = None
    base_reference: Path | None = None
    programs: Programs | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a report is made of; None for what was not measured.

    Attributes:
        latency: base and adapted in turns, with their memory.
        size: of the adapted file.
        accuracy: of both to a set of questions.
        fidelity: of the adapted file to full precision.
        peers: the adapted file through other programs.
        raw: the JSON of each, by its name, as it was read or measured.
    """

    latency: LatencyReport | None = None
    size: SizeReport | None = None
    accuracy: AccuracyReport | None = None
    fidelity: FidelityReport | None = None
    peers: PeersReport | None = None
    raw: dict[str, Any] = field(default_factory=dict)


_REPORTS: dict[str, type] = {
    "latency": LatencyReport,
    "size": SizeReport,
    "accuracy": AccuracyReport,
    "fidelity": FidelityReport,
    "peers": PeersReport,
}


def gather(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    files: Files,
    models: tuple[Path, Path] | None = None,
    *,
    adapter: Path | None = None,
    wanted: Wanted | None = None,
    rounds: int = latency.ROUNDS,
    lengths: Sequence[int] = LENGTHS,
    threads: int | None = None,
    stage: Stage = lambda name: silent,
) -> Measured:
    """Read what there is of earlier measurements, and measure what can be of the rest.

    Args:
        files: earlier measurements. They are read first: a bad one is known before any work.
        models: base and adapted GGUF: latency and size are measured of them unless they are in `files`.
        adapter: a LoRA in a GGUF file that the adapted model gets at run time.
        wanted: what else to measure of them, unless it is in `files`.
        rounds: see latency.run().
        lengths: likewise.
        threads: likewise.
        stage: gives the progress of each measurement by its name.

    Raises:
        RequestError: there is nothing to report, or nothing to measure what is wanted of; a file is not its
            command's, or a number is out of bounds.
        ThirteenError: what the measurements raise.
    """
    given = {name: path for name in _REPORTS if (path := getattr(files, name))}
    if models is None and not given:
        raise RequestError("bench report: neither models nor an earlier measurement's JSON are given")
    if models is None and wanted not in {None, Wanted()}:
        raise RequestError("bench report: there are no models to measure that of")
    found: dict[str, Any] = {name: read_report(path, _REPORTS[name]) for name, path in given.items()}
    raw = {name: json.loads(path.read_bytes()) for name, path in given.items()}
    if models:
        work = _Work(*models, adapter, wanted or Wanted(), rounds, lengths, threads, stage)
        for name, measure in work.check(found):
            found[name] = measure()
            raw[name] = asdict(found[name])
    return Measured(**found, raw=raw)


@dataclass(frozen=True, slots=True)
class _Work:
    """The measurements, as gather() was told."""

    base: Path
    adapted: Path
    adapter: Path | None
    wanted: Wanted
    rounds: int
    lengths: Sequence[int]
    threads: int | None
    stage: Stage

    def check(self, known: Container[str]) -> list[tuple[str, Callable[[], Any]]]:
        """The measurements to do, by name; what they are of is looked at before the first begins."""
        wanted = self.wanted
        offered = (
            ("size", True, self._size),
            ("latency", True, self._latency),
            ("peers", wanted.programs, self._peers),
            ("fidelity", wanted.reference, self._fidelity),
            ("accuracy", wanted.data, self._accuracy),
        )
        due = [(name, measure) for name, asked, measure in offered if asked and name not in known]
        names = [name for name, _ in due]
        if "fidelity" in names:
            self._check_fidelity()
        if "accuracy" in names and wanted.data:
            load_set(wanted.data)
        return due

    def _check_fidelity(self) -> None:
        if self.adapter:
            raise RequestError(
                f"{self.adapter}: the fidelity of an adapter at run time is measured by thirteen bench "
                "fidelity, not for a report"
            )
        for path in filter(None, (self.wanted.reference, self.wanted.base_reference)):
            read_header(path)

    def _size(self) -> SizeReport:
        return size.run(self.adapted)

    def _latency(self) -> LatencyReport:
        return latency.run(
            self.base,
            self.adapted,
            adapter=self.adapter,
            rounds=self.rounds,
            lengths=self.lengths,
            threads=self.threads,
            progress=self.stage("latency"),
        )

    def _peers(self) -> PeersReport:
        work = Work(physical_cores() if self.threads is None else self.threads)
        programs, progress = self.wanted.programs, self.stage("peers")
        return peers.run(self.adapted, work=work, programs=programs, progress=progress)

    def _fidelity(self) -> FidelityReport:
        reference, base = self.wanted.reference, self.wanted.base_reference
        assert reference, "it is wanted"
        return fidelity.run(
            reference,
            self.adapted,
            base=base,
            shipped_base=self.base if base else None,
            threads=self.threads,
            progress=self.stage("fidelity"),
        )

    def _accuracy(self) -> AccuracyReport:
        data, progress = self.wanted.data, self.stage("accuracy")
        assert data, "it is wanted"
        return accuracy.run(
            self.adapted,
            data,
            self.wanted.terms or Terms(default_threads().decode if self.threads is None else self.threads),
            base=self.base,
            adapter=self.adapter,
            limit=self.wanted.limit,
            progress=lambda _, done, total: progress(done, total),
        )


def compose(measured: Measured) -> Document:
    """The report as a document."""
    speeds, sizes, answers, kept = measured.latency, measured.size, measured.accuracy, measured.fidelity
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
            chapters.peers(measured.peers),
            claims,
            chapters.circumstances(speeds, answers, kept or measured.peers),
        ),
    )


def _title(measured: Measured) -> str:
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
