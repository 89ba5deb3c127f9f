"""Report on a base and its adapted model: an HTML page, Markdown and raw JSON."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import RequestError, refuse_options
from ...files.atomic_write import write_file
from ...files.gguf.header import read_header
from ...files.output import check_folder, make_folder, output_errors
from ...files.progress import Progress, Stage, no_progress
from ...runtime.threads import default_threads, physical_cores
from ..accuracy.accuracy import AccuracyReport, AccuracyRequest, run_accuracy
from ..accuracy.datasets import load_question_set
from ..accuracy.run_config import PromptSettings
from ..fidelity.fidelity import FidelityReport, run_fidelity
from ..fidelity.model_roles import model_sources
from ..harness.from_json import read_report
from ..memory.size import SizeReport, run_size
from ..peers.peer import PeerWorkload
from ..peers.peers import PeersReport, PeersRequest, run_peers
from ..speed.latency import LatencyReport, LatencyRequest, run_latency
from .render import render_html, render_markdown
from .sections import Measurements, compose_report

_REPORTS: dict[str, type] = {
    "latency": LatencyReport,
    "size": SizeReport,
    "accuracy": AccuracyReport,
    "fidelity": FidelityReport,
    "peers": PeersReport,
}
# Fields that shape a measurement, by the one with the file that it is read from instead.
_SHAPED_BY = {
    "accuracy": ("data", "limit", "max_tokens"),
    "fidelity": ("reference",),
    "peers": ("with_peers",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """Measurements of a report. With models, latency and size are measured unless they are read.

    Attributes:
        base: unadapted GGUF.
        adapted: adapted GGUF.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        latency: file with the `--json` output of `bench latency`.
        size: that of `bench size`.
        accuracy: that of `bench accuracy`.
        fidelity: that of `bench fidelity`.
        peers: that of `bench peers`.
        efforts: those of `bench accuracy` with several efforts.
        data: question set that both models answer; None leaves accuracy out.
        limit: maximum number of its questions.
        max_tokens: maximum tokens of an answer; by default 512.
        reference: the adapted model in full precision; None leaves fidelity out.
        with_peers: whether other programs run the adapted file.
        threads: compute threads; by default as each measurement chooses.
    """

    base: Path | None = None
    adapted: Path | None = None
    adapter: Path | None = None
    latency: Path | None = None
    size: Path | None = None
    accuracy: Path | None = None
    fidelity: Path | None = None
    peers: Path | None = None
    efforts: tuple[Path, ...] = ()
    data: str | None = None
    limit: int | None = None
    max_tokens: int | None = None
    reference: Path | None = None
    with_peers: bool = False
    threads: int | None = None

    def check(self) -> None:
        """Raise RequestError if fields exclude each other, or have no effect."""
        if (self.base is None) != (self.adapted is None):
            raise RequestError("bench report: give both BASE and ADAPTED, or neither")
        for measurement, names in _SHAPED_BY.items():
            if getattr(self, measurement):
                refuse_options(self, f"--{measurement} is given, so it is not measured", *names)
        if self.data is None:
            refuse_options(self, "requires --data", "limit", "max_tokens")
        if self.base is None and (self.files or self.efforts):
            refuse_options(
                self, "requires BASE and ADAPTED", "adapter", "threads", "data", "reference", "with_peers"
            )
        if self.reference and self.adapter:
            raise RequestError(
                f"{self.adapter}: a report does not measure the fidelity of an adapter at run time: "
                "use thirteen bench fidelity"
            )

    @property
    def files(self) -> dict[str, Path]:
        """The files of earlier measurements by name."""
        return {name: path for name in _REPORTS if (path := getattr(self, name))}


def run_report(request: ReportRequest, folder: Path, stage: Stage = lambda name: no_progress) -> Path:
    """Read and run the measurements, and write the report.

    Args:
        request: what is measured.
        folder: where report.html, report.md and the raw JSON are written.
        stage: makes the progress callback of each measurement.

    Returns:
        The path of the page.

    Raises:
        RequestError: fields exclude each other, or a file does not hold its report.
        OutputError: the folder cannot be written to.
        ThirteenError: raised by a measurement.
    """
    check_folder(folder)
    return write_report(collect_measurements(request, stage), folder)


def collect_measurements(request: ReportRequest, stage: Stage = lambda name: no_progress) -> Measurements:
    """Read earlier measurements, then run the missing ones; see run_report()."""
    request.check()
    if request.base is None and not (request.files or request.efforts):
        raise RequestError("bench report: give two models or the JSON of an earlier measurement")
    found: dict[str, Any] = {name: read_report(path, _REPORTS[name]) for name, path in request.files.items()}
    found["efforts"] = tuple(read_report(path, AccuracyReport) for path in request.efforts)
    for name, measure in _measurements(request, stage).items():
        if name not in found:
            found[name] = measure()
    return Measurements(**found)


def _measurements(request: ReportRequest, stage: Stage) -> dict[str, Callable[[], Any]]:
    """A measurement for each quantity that is asked for, after a check of the inputs."""
    base, adapted, threads = request.base, request.adapted, request.threads
    if base is None or adapted is None:
        return {}
    latency = LatencyRequest(base=base, adapted=adapted, adapter=request.adapter, threads=threads)
    measures: dict[str, Callable[[], Any]] = {
        "size": lambda: run_size(adapted),
        "latency": lambda: run_latency(latency, stage("latency")),
    }
    if request.with_peers:
        peers = PeersRequest(model=adapted, work=PeerWorkload(threads or physical_cores()))
        measures["peers"] = lambda: run_peers(peers, stage("peers"))
    if reference := request.reference:
        read_header(reference)
        models = model_sources(reference, adapted)
        measures["fidelity"] = lambda: run_fidelity(models, threads=threads, progress=stage("fidelity"))
    if request.data is not None:
        accuracy = AccuracyRequest(
            model=adapted,
            base=base,
            adapter=request.adapter,
            questions=load_question_set(request.data).subsample(request.limit),
            settings=PromptSettings(
                threads=threads or default_threads(), max_tokens=request.max_tokens or 512
            ),
        )
        measures["accuracy"] = lambda: run_accuracy(
            accuracy, progress=partial(_without_label, stage("accuracy"))
        )
    return measures


def _without_label(progress: Progress, _label: str, done: int, total: int) -> None:
    progress(done, total)


def write_report(found: Measurements, folder: Path) -> Path:
    """Write report.html and report.md, and the raw JSON in a folder next to them.

    Returns:
        The path of the page.

    Raises:
        RequestError: a number is one that no measurement can have had, such as a model of no bytes.
        OutputError: the folder cannot be written to.
    """
    try:
        document = compose_report(found)
    except (ZeroDivisionError, OverflowError) as error:
        raise RequestError(f"bench report: a number cannot be that of a measurement: {error}") from None
    raw = {name: asdict(one) for name in _REPORTS if (one := getattr(found, name))}
    texts = {
        **{f"raw/{name}.json": json.dumps(one, indent=1) + "\n" for name, one in raw.items()},
        "report.md": render_markdown(document),
        "report.html": render_html(document),
    }
    make_folder(folder)
    check_folder(folder)
    with output_errors(folder):
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, text.encode("utf-8", "surrogateescape"))
    return folder / "report.html"
