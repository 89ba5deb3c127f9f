"""Sections of a report: the tables of the measurements, with their conclusions above."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from ...quality.environment import BenchReport, ModelFile
from ...quality.fidelity.fidelity import FidelityReport
from ...stats.paired_ratio import RATIO_LEVEL
from ..accuracy.accuracy import AccuracyReport, accuracy_table
from ..accuracy.answer_time import time_rows
from ..harness.format import NOT_AVAILABLE, Table, megabytes
from ..memory.memory import memory_rows
from ..memory.size import SizeReport, size_table
from ..peers.peers import PeersReport, peers_table
from ..quality_tables import fidelity_table
from ..speed.latency import LatencyReport, latency_table
from ..speed.questions import PP512, TG128
from ..summary import accuracy_sentence, size_sentence, speed_sentence
from .document import TERMS, Chart, Document, Section, find_terms
from .effort_plot import describe_efforts, plot_efforts

# Type and command of each measurement.
REPORTS: dict[str, tuple[type, str]] = {
    "latency": (LatencyReport, "latency BASE ADAPTED"),
    "accuracy": (AccuracyReport, "accuracy ADAPTED --base BASE --data SET"),
    "size": (SizeReport, "size ADAPTED"),
    "fidelity": (FidelityReport, "fidelity REFERENCE ADAPTED"),
    "peers": (PeersReport, "peers ADAPTED"),
}
# Kinds of figures, by the unit at the end of a row's title.
_KINDS = {
    "Times: lower is better": (", s", ", ms"),
    "Speeds: higher is better": (", tokens/s", ", % of the memory roofline"),
    "Memory and size: lower is better": (", MB", "bits per weight"),
}


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measurements of a report; None where there is none.

    Attributes:
        latency: speed and memory of base and adapted model.
        size: size of the adapted file.
        accuracy: accuracy of both models.
        fidelity: fidelity of the adapted file to full precision.
        peers: speed of the adapted file in other programs.
        efforts: accuracy and seconds of several efforts.
    """

    latency: LatencyReport | None = None
    size: SizeReport | None = None
    accuracy: AccuracyReport | None = None
    fidelity: FidelityReport | None = None
    peers: PeersReport | None = None
    efforts: tuple[AccuracyReport, ...] = ()


def compose_report(found: Measurements) -> Document:
    """Compose the document of a report; its last line names what was not measured."""
    verdicts = tuple(
        line for one in (found.accuracy, found.latency, found.fidelity) if one for line in one.verdict
    )
    plain = " ".join(_sentences(found))
    summary = Section("Summary", (*filter(None, [plain]), *describe_differences(found), *verdicts))
    told = (
        replace(one, lines=tuple(line for line in one.lines if line not in verdicts))
        for one in _sections(found)
    )
    commands = [
        f"{name} (thirteen bench {command} --json)"
        for name, (_, command) in REPORTS.items()
        if getattr(found, name) is None
    ]
    rows = _memory_rows(found.latency) if found.latency else ()
    missing = [*commands, *(row[0].strip().rpartition(",")[0] for row in rows if not _is_measured(row))]
    last = [Section("Not measured", ("; ".join(missing),))] if missing else []
    sections = (summary, *told)
    terms = find_terms("\n".join(text for one in sections for text in one.texts))
    meanings = tuple((name, TERMS[name]) for name in TERMS if name in terms)
    known = [Section("Terms", tables=(Table("What the words mean", ("", ""), meanings, is_text=True),))]
    return Document(_title(found), (*sections, *(known if meanings else []), *last))


def _sentences(found: Measurements) -> Iterator[str]:
    """Speed, size and right answers, as `bench MODEL --adapter ADAPTER` says them."""
    if latency := found.latency:
        yield speed_sentence(latency.middle, latency.rounds)
        yield size_sentence(latency.base.total_bytes, latency.adapted.total_bytes)
    if found.accuracy:
        yield accuracy_sentence(found.accuracy)


def _sections(found: Measurements) -> Iterator[Section]:
    if latency := found.latency:
        table = latency_table(latency)
        yield Section("Speed and size", table.notes, tuple(_ratio_charts(latency)), tuple(_by_kind(table)))
        yield Section("As Ollama and llama-bench say it", tables=(_familiar_table(latency),))
        yield Section("Memory", tables=(_memory_table(latency),))
    if accuracy := found.accuracy:
        table, times = accuracy_table(accuracy), accuracy.answer_time
        time = tuple(time_rows(times)) if times else ()
        tables = [replace(table, rows=tuple(row for row in table.rows if row not in time))]
        if time:
            title = "Times: lower is better; right answers a minute: higher is better"
            tables.append(Table(title, table.header, time))
        yield Section("Accuracy", table.notes, tuple(_accuracy_charts(accuracy)), tuple(tables))
    if found.efforts:
        lines = tuple(describe_efforts(found.efforts))
        yield Section("Right answers over seconds a question", lines, plot=plot_efforts(found.efforts))
    if found.size:
        yield Section("Size", tables=(size_table(found.size),))
    if fidelity := found.fidelity:
        table = fidelity_table(fidelity)
        better = "lower is better: KL divergence, perplexity, error; higher is better: same top token"
        yield Section("Fidelity", (*table.notes, better), tuple(_effect_charts(fidelity)), (table,))
    if found.peers:
        table = peers_table(found.peers)
        better = "higher is better: tokens/s, thirteen / peer; lower is better: load, peak memory"
        yield Section("Other programs", (*table.notes, better), tables=(table,))
    if rows := tuple(_environment_rows(found)):
        yield Section(
            "Environment", tables=(Table("Machine, build and files", ("", ""), rows, is_text=True),)
        )


def _is_measured(row: tuple[str, ...]) -> bool:
    return NOT_AVAILABLE not in row[1:]


def _by_kind(table: Table) -> Iterator[Table]:
    """A table for each kind of figures, without rows that were not measured."""
    for title, units in _KINDS.items():
        rows = tuple(row for row in table.rows if row[0].endswith(units) and _is_measured(row))
        yield Table(title, table.header, rows)


def _familiar_table(latency: LatencyReport) -> Table:
    """The figures that other programs print of the same files."""
    decode, sizes = latency.middle.decode, (latency.base.total_bytes, latency.adapted.total_bytes)
    rows = [
        ("tokens/s: Ollama's eval rate", f"{decode.base_median:.1f}", f"{decode.adapted_median:.1f}"),
        ("MB: Ollama's size", *map(megabytes, sizes)),
    ]
    by_shape = {one.shape: one for one in latency.questions}
    for name, shape, figure in (("pp512", PP512, "prefill"), ("tg128", TG128, "decode")):
        if one := by_shape.get(shape):
            both = getattr(one, figure)
            cells = (f"{fmean(values):.1f} ± {stdev(values):.1f}" for values in (both.base, both.adapted))
            rows.append((f"tokens/s: llama-bench's {name}", *cells))
    return Table(
        "The same files: higher tokens/s and fewer MB are better", ("", "base", "adapted"), tuple(rows)
    )


def _title(found: Measurements) -> str:
    if latency := found.latency:
        adapter = f" + {Path(latency.adapted.adapter.path).name}" if latency.adapted.adapter else ""
        return f"{Path(latency.adapted.path).name}{adapter} and its base {Path(latency.base.path).name}"
    paths = (
        found.accuracy and found.accuracy.adapted.path,
        found.size and found.size.path,
        found.fidelity and found.fidelity.files["shipped"].path,
        found.peers and found.peers.model,
        *(report.adapted.path for report in found.efforts),
    )
    return Path(next((path for path in paths if path), "")).name


def _ratio_charts(latency: LatencyReport) -> Iterator[Chart]:
    title, middle = f"{{}}, adapted / base ({RATIO_LEVEL})", latency.middle
    times = {f"answer, {one.shape} tokens": one.answer.ratio for one in latency.questions}
    yield Chart(title.format("Times"), "lower", times | {"first token": middle.first_token.ratio})
    speeds = {"prefill": middle.prefill.ratio, "decode": middle.decode.ratio}
    yield Chart(title.format("Speeds"), "higher", speeds)


def _accuracy_charts(report: AccuracyReport) -> Iterator[Chart]:
    if base := report.base:
        scores = {"base": base.scores.accuracy, "adapted": report.adapted.scores.accuracy}
        yield Chart("Accuracy, % (95 %)", "higher", scores, scores["base"].estimate, 100)
    if calibration := report.adapted.scores.calibration:
        right = report.adapted.scores.accuracy.estimate
        curve = {
            f"at least {one.min_confidence:.1f}: {one.given:.0%} given": one.right
            for one in calibration.curve
            if one.right
        }
        yield Chart("Right among the answers given, by confidence, % (95 %)", "higher", curve, right, 100)
    times = report.answer_time
    if times and times.seconds_ratio:
        yield Chart("Seconds a question, adapted / base (95 %)", "lower", {"seconds": times.seconds_ratio})


def _effect_charts(report: FidelityReport) -> Iterator[Chart]:
    variants = {"merged": report.merged, "at run time": report.run_time}
    effects = {
        f"{name}: {figure}": getattr(variant.effect, figure)
        for name, variant in variants.items()
        if variant and variant.effect
        for figure in ("slope", "cosine")
    }
    if effects:
        yield Chart("The adapter's effect after quantization (95 %)", "closer to 1", effects)


def _memory_rows(latency: LatencyReport) -> Iterator[tuple[str, str, str]]:
    base, adapted = (memory_rows(one.memory) for one in (latency.base, latency.adapted))
    return ((title, one, other) for (title, one), (_, other) in zip(base, adapted, strict=True))


def _memory_table(latency: LatencyReport) -> Table:
    rows = tuple(row for row in _memory_rows(latency) if row[0].endswith(", MB") and _is_measured(row))
    return Table("Each model in a fresh process: lower is better", ("", "base", "adapted"), rows)


def _environment_rows(found: Measurements) -> Iterator[tuple[str, str]]:
    latency = found.latency
    report: BenchReport | None = (
        latency or found.accuracy or found.fidelity or found.peers or next(iter(found.efforts), None)
    )
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
    """A warning each if the base, the adapted model or its run-time adapter differs between measurements.

    Size and fidelity are of the file without a run-time adapter. The report of the peers has no hash.
    """
    bases, models, adapters = (dict[str, tuple[str, str]]() for _ in range(3))
    if found.latency:
        bases["latency"] = found.latency.base.path, found.latency.base.sha256
        model, lora = found.latency.adapted, found.latency.adapted.adapter
        models["latency"] = model.path, model.sha256
        adapters["latency"] = (lora.path, lora.sha256) if lora else ("none", "")
    if found.accuracy:
        result = found.accuracy.adapted
        models["accuracy"] = result.path, result.sha256
        adapters["accuracy"] = result.adapter or "none", result.adapter_sha256 or ""
        if base := found.accuracy.base:
            bases["accuracy"] = base.path, base.sha256
    if found.size:
        models["size"] = found.size.path, found.size.sha256
    if found.fidelity:
        shipped = found.fidelity.files["shipped"]
        models["fidelity"] = shipped.path, shipped.sha256
    for what, files in (("bases", bases), ("models", models), ("run-time adapters", adapters)):
        if len({sha256 for _, sha256 in files.values()}) > 1:
            names = ", ".join(
                f"{name} of {Path(path).name} (sha256 {sha256[:12] or 'none'})"
                for name, (path, sha256) in files.items()
            )
            yield f"warning: the measurements are of different {what}: {names}"
