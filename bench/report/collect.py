"""What a report is made of: earlier measurements are read, and what is missing is measured."""

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.gguf_header import read_header
from ...files.progress import Stage, no_progress
from ...runtime.threads import default_threads, physical_cores
from ..accuracy import accuracy
from ..accuracy.accuracy import AccuracyReport
from ..accuracy.datasets import load_question_set
from ..accuracy.prompt_settings import PromptSettings
from ..fidelity import fidelity
from ..fidelity.fidelity import FidelityReport
from ..fidelity.model_roles import model_sources
from ..harness.from_json import read_report
from ..harness.workload import Workload
from ..peers import peers
from ..peers.peer import PeerWorkload
from ..peers.peers import PeerPrograms, PeersReport
from ..size import size
from ..size.size import SizeReport
from ..speed import latency
from ..speed.latency import LatencyReport

LENGTHS = (32, 128, 512, 1024)


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Earlier measurements, each what its command printed with --json; None where there is none."""

    latency: Path | None = None
    size: Path | None = None
    accuracy: Path | None = None
    fidelity: Path | None = None
    peers: Path | None = None


@dataclass(frozen=True, slots=True)
class ReportRequest:
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
    terms: PromptSettings | None = None
    limit: int | None = None
    reference: Path | None = None
    base_reference: Path | None = None
    programs: PeerPrograms | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
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


def collect_measurements(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    files: ReportInputs,
    models: tuple[Path, Path] | None = None,
    *,
    adapter: Path | None = None,
    wanted: ReportRequest | None = None,
    rounds: int = latency.ROUNDS,
    lengths: Sequence[int] = LENGTHS,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> ReportData:
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
    if models is None and wanted not in {None, ReportRequest()}:
        raise RequestError("bench report: there are no models to measure that of")
    found: dict[str, Any] = {name: read_report(path, _REPORTS[name]) for name, path in given.items()}
    raw = {name: json.loads(path.read_bytes()) for name, path in given.items()}
    if models:
        measurements = _Measurements(
            *models, adapter, wanted or ReportRequest(), rounds, lengths, threads, stage
        )
        for name, measure in measurements.due(found):
            found[name] = measure()
            raw[name] = asdict(found[name])
    return ReportData(**found, raw=raw)


@dataclass(frozen=True, slots=True)
class _Measurements:
    """The measurements, as collect_measurements() was told."""

    base: Path
    adapted: Path
    adapter: Path | None
    wanted: ReportRequest
    rounds: int
    lengths: Sequence[int]
    threads: int | None
    stage: Stage

    def due(self, known: Container[str]) -> list[tuple[str, Callable[[], Any]]]:
        """The measurements to do, by name; what they are of is looked at before the first begins."""
        wanted = self.wanted
        offered = (
            ("size", True, self._size),
            ("latency", True, self._latency),
            ("peers", wanted.programs is not None, self._peers),
            ("fidelity", wanted.reference is not None, self._fidelity),
            ("accuracy", wanted.data is not None, self._accuracy),
        )
        due = [(name, measure) for name, asked, measure in offered if asked and name not in known]
        names = [name for name, _ in due]
        if "fidelity" in names:
            self._check_fidelity()
        if "accuracy" in names and wanted.data is not None:
            load_question_set(wanted.data)
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
        return size.run_size(self.adapted)

    def _latency(self) -> LatencyReport:
        return latency.run_latency(
            self.base,
            self.adapted,
            workload=Workload(threads=physical_cores() if self.threads is None else self.threads),
            adapter=self.adapter,
            rounds=self.rounds,
            lengths=self.lengths,
            progress=self.stage("latency"),
        )

    def _peers(self) -> PeersReport:
        work = PeerWorkload(physical_cores() if self.threads is None else self.threads)
        programs, progress = self.wanted.programs, self.stage("peers")
        return peers.run_peers(self.adapted, work=work, programs=programs, progress=progress)

    def _fidelity(self) -> FidelityReport:
        reference, base = self.wanted.reference, self.wanted.base_reference
        assert reference, "it is wanted"
        models = model_sources(reference, self.adapted, base=base, shipped_base=self.base if base else None)
        return fidelity.run_fidelity(models, threads=self.threads, progress=self.stage("fidelity"))

    def _accuracy(self) -> AccuracyReport:
        data, progress = self.wanted.data, self.stage("accuracy")
        assert data is not None, "it is wanted"
        return accuracy.run_accuracy(
            self.adapted,
            load_question_set(data).subsample(self.wanted.limit),
            self.wanted.terms
            or PromptSettings(threads=default_threads().decode if self.threads is None else self.threads),
            base=self.base,
            adapter=self.adapter,
            progress=lambda _, done, total: progress(done, total),
        )
