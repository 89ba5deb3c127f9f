"""Sections of a report: the tables of the measurements, with their conclusions above."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...stats.paired_ratio import RATIO_LEVEL
from ..accuracy.accuracy import AccuracyReport, accuracy_table
from ..fidelity.fidelity import FidelityReport, fidelity_table
from ..harness.environment import BenchReport
from ..harness.format import Table, megabytes
from ..harness.model_file import ModelFile
from ..memory.memory import memory_rows
from ..memory.size import SizeReport, size_table
from ..peers.peers import PeersReport, peers_table
from ..speed.latency import LatencyReport, latency_table
from .document import Chart, Document, Section, TextTable
from .literature import NOT_MEASURED, literature_table

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measurements of a report; None where there is none.

    Attributes:
        latency: speed and memory of base and adapted model.
        size: size of the adapted file.
        accuracy: accuracy of both models.
        fidelity: fidelity of the adapted file to full precision.
        peers: speed of the adapted file in other programs.
    """

    latency: LatencyReport | None = None
    size: SizeReport | None = None
    accuracy: AccuracyReport | None = None
    fidelity: FidelityReport | None = None
    peers: PeersReport | None = None


def compose_report(found: Measurements) -> Document:
    """Compose the document of a report. A section without a measurement names the command."""
    latency, accuracy, fidelity = found.latency, found.accuracy, found.fidelity
    verdict = tuple(line for one in (accuracy, latency, fidelity) if one for line in one.verdict)

    def section(title: str, command: str, table: Table | None, chart: Chart | None = None) -> Section:
        if table is None:
            text = f"{NOT_MEASURED.capitalize()}. To measure it: thirteen bench {command} --json"
            return Section(title, (text,))
        return Section(title, tuple(line for line in table.notes if line not in verdict), table, chart)

    sections = (
        Section("Summary", (*describe_differences(found), *verdict)),
        section("Speed", "latency BASE ADAPTED", _of(latency_table, latency), _of(_ratio_chart, latency)),
        section("Memory", "latency BASE ADAPTED", _of(_memory_table, latency)),
        section("Accuracy", "accuracy ADAPTED --base BASE --data SET", _of(accuracy_table, accuracy)),
        section("Size", "size ADAPTED", _of(size_table, found.size)),
        section(
            "Fidelity",
            "fidelity REFERENCE ADAPTED",
            _of(fidelity_table, fidelity),
            _of(_effect_chart, fidelity),
        ),
        section("Other programs", "peers ADAPTED", _of(peers_table, found.peers)),
        Section("Published figures", table=literature_table(latency, found.size, accuracy)),
        Section(
            "Environment",
            table=TextTable("Machine, build and files", ("", ""), tuple(_environment_rows(found))),
        ),
    )
    return Document(_title(found), sections)


def _of(make: Callable[[T], U], report: T | None) -> U | None:
    return None if report is None else make(report)


def _title(found: Measurements) -> str:
    if latency := found.latency:
        adapter = f" + {Path(latency.adapted.adapter.path).name}" if latency.adapted.adapter else ""
        return f"{Path(latency.adapted.path).name}{adapter} and its base {Path(latency.base.path).name}"
    paths = (
        found.accuracy and found.accuracy.adapted.path,
        found.size and found.size.path,
        found.fidelity and found.fidelity.files.shipped.path,
        found.peers and found.peers.model,
    )
    return Path(next(path for path in paths if path)).name


def _ratio_chart(latency: LatencyReport) -> Chart:
    ratios = {f"answer, {one.shape} tokens": one.answer.ratio for one in latency.questions}
    for name in ("prefill", "first_token", "decode"):
        ratios[name.replace("_", " ")] = getattr(latency.middle, name).ratio
    return Chart(f"Adapted / base, {RATIO_LEVEL} intervals around 1", ratios, 1.0)


def _effect_chart(report: FidelityReport) -> Chart:
    variants = {"merged": report.merged, "at run time": report.run_time}
    effects = {
        f"{name}: {figure}": getattr(variant.effect, figure)
        for name, variant in variants.items()
        if variant and variant.effect
        for figure in ("slope", "cosine")
    }
    return Chart("The adapter's effect after quantization; 1 is fully preserved", effects, 1.0)


def _memory_table(latency: LatencyReport) -> Table:
    base, adapted = (memory_rows(one.memory) for one in (latency.base, latency.adapted))
    rows = tuple((title, one, other) for (title, one), (_, other) in zip(base, adapted, strict=True))
    return Table("Each model in a fresh process", ("", "base", "adapted"), rows)


def _environment_rows(found: Measurements) -> Iterator[tuple[str, str]]:
    latency = found.latency
    report: BenchReport | None = latency or found.accuracy or found.fidelity or found.peers
    if report:
        machine, build = report.machine, report.build
        memory, load = megabytes(machine.memory_bytes), machine.load_average
        yield "date", report.date
        yield "processor", f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.features)}"
        yield "system", f"{machine.system}, {memory} MB, load average before: {load}"
        versions = f"thirteen {build.thirteen}, llama-cpp-python {build.llama_cpp_python}"
        yield "build", f"{versions}, Python {machine.python}"
        yield "llama.cpp", build.llama_cpp_system
    if latency:
        yield "base", _file(latency.base)
        yield "adapted", _file(latency.adapted)


def _file(model: ModelFile) -> str:
    text = f"{Path(model.path).name}, {model.file_bytes:,} bytes, sha256 {model.sha256}"
    if model.adapter:
        text += f"; adapter {Path(model.adapter.path).name}, sha256 {model.adapter.sha256}"
    return text


def describe_differences(found: Measurements) -> Iterator[str]:
    """A warning if the adapted model of the measurements differs, and one if its run-time adapter does.

    Size and fidelity are of the file without a run-time adapter. The report of the peers has no hash.
    """
    models, adapters = dict[str, tuple[str, str]](), dict[str, tuple[str, str]]()
    if found.latency:
        model, lora = found.latency.adapted, found.latency.adapted.adapter
        models["latency"] = model.path, model.sha256
        adapters["latency"] = (lora.path, lora.sha256) if lora else ("none", "")
    if found.accuracy:
        result = found.accuracy.adapted
        models["accuracy"] = result.path, result.sha256
        adapters["accuracy"] = result.adapter or "none", result.adapter_sha256 or ""
    if found.size:
        models["size"] = found.size.path, found.size.sha256
    if found.fidelity:
        shipped = found.fidelity.files.shipped
        models["fidelity"] = shipped.path, shipped.sha256
    for what, files in (("models", models), ("run-time adapters", adapters)):
        if len({sha256 for _, sha256 in files.values()}) > 1:
            names = ", ".join(
                f"{name} of {Path(path).name} (sha256 {sha256[:12] or 'none'})"
                for name, (path, sha256) in files.items()
            )
            yield f"warning: the measurements are of different {what}: {names}"
