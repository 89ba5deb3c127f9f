"""Measurements of a report: earlier ones are read from JSON, missing ones are run."""

from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.gguf.header import read_header
from ...files.progress import Stage, no_progress
from ...runtime.threads import default_threads, physical_cores
from ..accuracy.accuracy import AccuracyReport, run_accuracy
from ..accuracy.datasets import QuestionSet, load_question_set
from ..accuracy.run_config import PromptSettings
from ..accuracy.timed_answers import TIMED
from ..fidelity.fidelity import FidelityReport, run_fidelity
from ..fidelity.model_roles import model_sources
from ..harness.from_json import read_report
from ..memory.size import SizeReport, run_size
from ..peers.peer import PeerWorkload
from ..peers.peers import PeersReport, run_peers
from ..speed.latency import LatencyReport, run_latency
from .impossible_numbers import check_numbers


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Files with the `--json` output of earlier commands; None where there is none."""

    latency: Path | None = None
    size: Path | None = None
    accuracy: Path | None = None
    fidelity: Path | None = None
    peers: Path | None = None


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Measurements to run, unless they are read from files. With models, latency and size are always run.

    Attributes:
        models: base and adapted GGUF; None to run nothing.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        threads: compute threads; by default as each measurement chooses.
        data: question set that both models answer; None leaves accuracy out.
        limit: maximum number of its questions.
        max_tokens: maximum tokens per answer.
        reference: the adapted model in full precision; None leaves fidelity out.
        with_peers: whether other programs run the adapted file.
    """

    models: tuple[Path, Path] | None = None
    adapter: Path | None = None
    threads: int | None = None
    data: str | None = None
    limit: int | None = None
    max_tokens: int = 512
    reference: Path | None = None
    with_peers: bool = False


@dataclass(frozen=True, slots=True)
class ReportData:
    """Measurements of a report; None where there is none.

    Attributes:
        latency: speed and memory of base and adapted model.
        size: size of the adapted file.
        accuracy: accuracy of both models.
        fidelity: fidelity of the adapted file to full precision.
        peers: speed of the adapted file in other programs.
        raw: the JSON of each measurement by name.
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


def collect_measurements(
    inputs: ReportInputs, request: ReportRequest, stage: Stage = lambda name: no_progress
) -> ReportData:
    """Read earlier measurements, then run the missing ones.

    Args:
        inputs: files of earlier measurements. All are read before the first measurement starts.
        request: measurements to run.
        stage: makes the progress callback of each measurement.

    Raises:
        RequestError: there is neither a file nor a model, a file does not hold its report or has impossible
            numbers, or a number is out of range.
        ThirteenError: raised by a measurement.
    """
    paths = {name: path for name in _REPORTS if (path := getattr(inputs, name))}
    if request.models is None:
        if not paths:
            raise RequestError("bench report: give two models or the JSON of an earlier measurement")
        if request.data or request.limit or request.reference or request.with_peers:
            raise RequestError("bench report: --data, --limit, --reference and --with-peers need models")
    reports: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for name, path in paths.items():
        reports[name], raw[name] = read_report(path, _REPORTS[name])
        check_numbers(asdict(reports[name]), str(path))
    if request.models:
        for name, measure in _Measurements(*request.models, request, stage).missing(reports):
            reports[name] = measure()
            raw[name] = asdict(reports[name])
    return ReportData(**reports, raw=raw)


@dataclass(frozen=True, slots=True)
class _Measurements:
    base: Path
    adapted: Path
    request: ReportRequest
    stage: Stage

    def missing(self, known: Container[str]) -> list[tuple[str, Callable[[], Any]]]:
        """Requested measurements that are not known, after a check of their inputs."""
        request = self.request
        requested = (
            ("size", True, self._size),
            ("latency", True, self._latency),
            ("peers", request.with_peers, self._peers),
            ("fidelity", request.reference is not None, self._fidelity),
            ("accuracy", request.data is not None, self._accuracy),
        )
        missing = [(name, measure) for name, wanted, measure in requested if wanted and name not in known]
        names = [name for name, _ in missing]
        if "fidelity" in names:
            self._check_fidelity()
        if "accuracy" in names:
            self._questions()
        return missing

    def _size(self) -> SizeReport:
        return run_size(self.adapted)

    def _latency(self) -> LatencyReport:
        return run_latency(
            self.base,
            self.adapted,
            threads=self.request.threads,
            adapter=self.request.adapter,
            progress=self.stage("latency"),
        )

    def _peers(self) -> PeersReport:
        threads = physical_cores() if self.request.threads is None else self.request.threads
        return run_peers(self.adapted, workload=PeerWorkload(threads), progress=self.stage("peers"))

    def _check_fidelity(self) -> None:
        if self.request.adapter:
            raise RequestError(
                f"{self.request.adapter}: a report does not measure the fidelity of an adapter at run time: "
                "use thirteen bench fidelity"
            )
        if self.request.reference:
            read_header(self.request.reference)

    def _fidelity(self) -> FidelityReport:
        assert self.request.reference is not None
        models = model_sources(self.request.reference, self.adapted)
        return run_fidelity(models, threads=self.request.threads, progress=self.stage("fidelity"))

    def _questions(self) -> QuestionSet:
        assert self.request.data is not None
        return load_question_set(self.request.data).subsample(self.request.limit)

    def _accuracy(self) -> AccuracyReport:
        threads, progress = self.request.threads, self.stage("accuracy")
        threads = default_threads() if threads is None else threads
        return run_accuracy(
            self.adapted,
            self._questions(),
            PromptSettings(threads=threads, max_tokens=self.request.max_tokens),
            base=self.base,
            adapter=self.request.adapter,
            timed=TIMED,
            progress=lambda _, done, total: progress(done, total),
        )
