"""Report on a base and its adapted model: an HTML page, Markdown and raw JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import StatisticsError
from typing import Any

from ...errors import RequestError, refuse_options
from ...files.atomic_write import write_file
from ...files.from_json import read_report
from ...files.output import check_folder, make_folder, output_errors
from ...files.progress import Stage, no_progress
from ..accuracy.accuracy import AccuracyReport
from ..memory.size import run_size
from ..speed.latency import LatencyRequest, run_latency
from ..speed.questions import PP512, QUESTIONS, TG128
from .document import render_html, render_markdown, without_home
from .sections import REPORTS, Measurements, compose_report

_QUESTIONS = (*QUESTIONS, PP512, TG128)
PAGE = "report.html"  # in its folder
_PLOT = "effort.svg"
_RAW = re.compile(rf"({'|'.join(REPORTS)}|effort-[1-9][0-9]*)\.json")  # names in `raw`


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """Measurements of a report. With models, latency and size are measured unless they are read.

    Attributes:
        base: unadapted GGUF.
        adapted: adapted GGUF.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        files: files with the `--json` output of `bench NAME`, by the names in REPORTS.
        efforts: those of `bench accuracy` with several efforts.
        threads: threads that compute; by default as `bench latency` chooses.
    """

    base: Path | None = None
    adapted: Path | None = None
    adapter: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    efforts: tuple[Path, ...] = ()
    threads: int | None = None

    def check(self) -> None:
        """Raise RequestError if fields exclude each other, or have no effect."""
        if (self.base is None) != (self.adapted is None):
            raise RequestError("bench report: give both BASE and ADAPTED, or neither")
        if self.base is None:
            options = ("adapter", "threads") if self.files or self.efforts else ("adapter",)
            refuse_options(self, "requires {base} and {adapted}", *options)
        elif {"latency", "size"} <= self.files.keys():
            raise RequestError(
                "bench report: nothing is left to measure of BASE and ADAPTED: latency and size are read"
            )


def collect_measurements(request: ReportRequest, stage: Stage = lambda name: no_progress) -> Measurements:
    """Read earlier measurements, then run the missing ones.

    Args:
        request: what is measured.
        stage: makes the progress callback of a measurement.

    Raises:
        RequestError: fields exclude each other, or a file does not hold its report.
        ThirteenError: raised by a measurement.
    """
    request.check()
    base, adapted, adapter = request.base, request.adapted, request.adapter
    found: dict[str, Any] = {
        name: read_report(path, REPORTS[name][0]) for name, path in request.files.items()
    }
    if request.efforts:
        found["efforts"] = tuple(map(_read_effort, request.efforts))
    if base and adapted:
        if "size" not in found:
            found["size"] = run_size(adapted)
        if "latency" not in found:
            latency = LatencyRequest(
                base=base, adapted=adapted, adapter=adapter, questions=_QUESTIONS, threads=request.threads
            )
            found["latency"] = run_latency(latency, stage("latency"))
    if not found:
        raise RequestError("bench report: give two models or the JSON of an earlier measurement")
    return Measurements(**found)


def _read_effort(path: Path) -> AccuracyReport:
    report = read_report(path, AccuracyReport)
    if report.answer_time is None:
        raise RequestError(f"{path}: no question was timed: see bench accuracy --timed")
    return report


def write_report(found: Measurements, folder: Path) -> Path:
    """Write report.html and report.md, the plot of efforts, and the raw JSON in a folder next to them.

    Of an earlier report, the raw JSON and the plot that are not written again are deleted.

    Returns:
        The path of the page.

    Raises:
        RequestError: a number is one that no measurement can have had, such as a model of no bytes.
        OutputError: the folder cannot be written to.
    """
    try:
        document = compose_report(found)
    except (ArithmeticError, IndexError, StatisticsError) as error:
        raise RequestError(f"bench report: a number cannot be that of a measurement: {error}") from None
    raw = {name: asdict(one) for name in REPORTS if (one := getattr(found, name))}
    raw |= {f"effort-{number}": asdict(one) for number, one in enumerate(found.efforts, 1)}
    texts = {
        **{f"raw/{name}.json": f"{without_home(json.dumps(one, indent=1))}\n" for name, one in raw.items()},
        "report.md": render_markdown(document),
        PAGE: render_html(document),
    }
    if plot := next((section.plot for section in document.sections if section.plot), ""):
        texts[_PLOT] = plot
    make_folder(folder)
    check_folder(folder)
    with output_errors(folder):
        earlier = _earlier_files(folder)
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, text.encode("utf-8", "surrogateescape"))
        for path in earlier.difference(folder / name for name in texts):
            path.unlink()
    return folder / PAGE


def _earlier_files(folder: Path) -> set[Path]:
    """Raw JSON and plot of an earlier report, whose page is in the folder."""
    if not (folder / PAGE).exists():
        return set()
    return {*folder.glob(_PLOT), *(path for path in folder.glob("raw/*") if _RAW.fullmatch(path.name))}
