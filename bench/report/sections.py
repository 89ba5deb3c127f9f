"""Sections of a report. Each covers one measurement; where it is missing, the section names the command."""

from collections.abc import Iterator, Sized
from pathlib import Path

from ...stats.interval import Interval
from ...stats.paired_ratio import RATIO_LEVEL
from ..accuracy.accuracy import AccuracyReport, ModelResult
from ..accuracy.answer_time import AnswerTimes, time_rows
from ..fidelity.fidelity import FidelityReport
from ..fidelity.merge_or_runtime import Fidelity
from ..harness.environment import BenchReport
from ..harness.format import NOT_AVAILABLE, megabytes
from ..harness.interleave import PERCENTILES, PairedMeasurement
from ..memory.measured_model import MeasuredModel
from ..memory.memory import MemoryUse, memory_rows
from ..memory.roofline import Roofline, describe_bandwidth
from ..memory.size import SizeReport
from ..peers.peer import SPEED_KINDS
from ..peers.peer_process import OWN
from ..peers.peers import PeerRow, PeersReport, work_titles
from ..speed.latency import LatencyReport
from .chart import Bar, BarChart, Chart, ChartPoint, IntervalChart, IntervalMark, LineChart, Series
from .collect import ReportData
from .document import Block, Card, Cards, Figure, Figures, Notes, Paragraph, Section, Table
from .literature import NOT_MEASURED
from .measured_files import describe_differences

_FOOTPRINT_SEGMENTS = {
    "program_bytes": "program",
    "mapped_bytes": "weights, mapped",
    "copied_bytes": "repacked weights",
    "kv_bytes": "KV cache",
    "other_bytes": "buffers and rest",
}
_LATENCY_METHOD = (
    "In each round both models were loaded again and measured in alternation (A B B A), so that drift of "
    "the machine affects both alike. A ratio is the Hodges-Lehmann estimate over rounds with its "
    "interval. Memory and load time were measured in one fresh process per model."
)


def headline_section(data: ReportData) -> Section:
    """Key figures and the conclusions in words."""
    cards = (
        _right_answers_card(data.accuracy),
        *_answer_cards(data.latency),
        _speed_card(data.latency),
        _accuracy_card(data.accuracy),
        _size_card(data.latency, data.size),
        _memory_card(data.latency),
    )
    verdict = (line for report in (data.latency, data.accuracy) if report for line in report.verdict)
    notes = (*describe_differences(data), *verdict)
    return Section("Summary", (Cards(cards), *([Notes(notes)] if notes else [])))


def _right_answers_card(accuracy: AccuracyReport | None) -> Card:
    """Right answers a minute: accuracy and speed in one figure."""
    name = "right answers a minute"
    times = accuracy.answer_time if accuracy else None
    if times is None:
        return Card(name, "unknown", NOT_MEASURED)
    adapted = times.adapted.right_per_minute
    if times.base is None or times.right_ratio is None:
        return Card(name, f"{adapted:.2f}", f"{times.adapted.seconds:.2f} s a question")
    note = f"{times.right_ratio.text(2)} times the base's {times.base.right_per_minute:.2f}"
    return Card(name, f"{adapted:.2f}", note)


def _answer_cards(latency: LatencyReport | None) -> Iterator[Card]:
    """The time to an answer of the middle question; reports of 0.2.0 have none."""
    if latency and latency.questions:
        middle = latency.questions[len(latency.questions) // 2]
        name = f"time to an answer, {middle.shape} tokens"
        ratio = f"{middle.answer.ratio.text(3)} of the base's {middle.answer.base_median:.2f} s"
        yield Card(name, f"{middle.answer.adapted_median:.2f} s", ratio)


def _speed_card(latency: LatencyReport | None) -> Card:
    name = "decode speed, adapted / base"
    if latency is None:
        return Card(name, "unknown", NOT_MEASURED)
    decode = latency.decode
    interval = f"{RATIO_LEVEL}: {decode.ratio.low:.3f} to {decode.ratio.high:.3f}"
    note = f"{interval}; {decode.adapted_median:.1f} and {decode.base_median:.1f} tokens/s"
    return Card(name, f"{decode.ratio.estimate:.3f}", note)


def _accuracy_card(accuracy: AccuracyReport | None) -> Card:
    if accuracy is None:
        return Card("accuracy, adapted - base", "unknown", NOT_MEASURED)
    if accuracy.paired is None:
        scores = accuracy.adapted.scores
        reason = "no question was answered by both" if accuracy.base else "the base was not measured"
        note = f"of {scores.questions} questions; {reason}"
        return Card(f"accuracy, {accuracy.data}", f"{100 * scores.accuracy.estimate:.1f} %", note)
    points = accuracy.paired.difference
    note = f"95 %: {100 * points.low:+.1f} to {100 * points.high:+.1f}; {accuracy.paired.questions} questions"
    return Card(f"accuracy, {accuracy.data}, adapted - base", f"{100 * points.estimate:+.1f} points", note)


def _size_card(latency: LatencyReport | None, size: SizeReport | None) -> Card:
    if latency:
        ratio = latency.adapted.total_bytes / latency.base.total_bytes
        return Card("size", f"{megabytes(latency.adapted.total_bytes)} MB", f"{ratio:.3f} of the base")
    if size:
        return Card("size", f"{megabytes(size.file_bytes)} MB", f"{size.bits_per_weight:.2f} bits per weight")
    return Card("size", "unknown", NOT_MEASURED)


def _memory_card(latency: LatencyReport | None) -> Card:
    if latency is None:
        return Card("peak memory", "unknown", NOT_MEASURED)
    base, adapted = (model.memory.peak_rss_bytes for model in (latency.base, latency.adapted))
    if base is None or adapted is None:
        return Card("peak memory", "unknown", NOT_AVAILABLE)
    return Card("peak memory", f"{megabytes(adapted)} MB", f"{adapted / base:.3f} of the base")


def speed_section(latency: LatencyReport | None) -> Section:
    """Speeds, their ratios, and their change with context length."""
    if latency is None:
        return _missing("Speed", "thirteen bench latency BASE ADAPTED --json")
    blocks: list[Block] = [Figures(tuple(_speed_figures(latency))), _speed_table(latency)]
    if latency.roofline:
        blocks.append(Paragraph(_roofline_text(latency.roofline, latency.settings.threads)))
    return Section("Speed", tuple(blocks))


def _roofline_text(roofline: Roofline, threads: int) -> str:
    base, adapted = (f"{100 * one:.0f} %" for one in (roofline.base_fraction, roofline.adapted_fraction))
    return (
        f"Decode after {roofline.depth} tokens reaches {base} (base) and {adapted} (adapted) of the memory "
        f"roofline: {describe_bandwidth(roofline, threads)}."
    )


def _speed_figures(latency: LatencyReport) -> Iterator[Figure]:
    marks = (
        *(_mark(f"answer, {one.shape} tokens", one.answer.ratio, 3) for one in latency.questions),
        _mark("prefill speed", latency.prefill.ratio, 3),
        _mark("first token time", latency.first_token.ratio, 3),
        _mark("decode speed", latency.decode.ratio, 3),
    )
    label = f"adapted / base, {RATIO_LEVEL} interval"
    yield Figure("ratios", IntervalChart("Speed of the adapted model / the base", label, marks, 1.0))
    decode = {length.tokens: length.decode for length in latency.by_length}
    first_token = {length.tokens: length.first_token for length in latency.by_length}
    label = "tokens before; bars: 5th to 95th percentile"
    chart = LineChart("Decode speed by context length", label, "tokens/s", _series(decode, 1))
    yield Figure("decode", chart)
    label, series = "prompt tokens; bars: 5th to 95th percentile", _series(first_token, 1000)
    chart = LineChart("Time to first token by prompt length", label, "milliseconds", series)
    yield Figure("first-token", chart)


def _series(by_length: dict[int, PairedMeasurement], scale: float) -> tuple[Series, ...]:
    def point(tokens: int, median: float, percentiles: tuple[float, ...]) -> ChartPoint:
        return ChartPoint(tokens, scale * median, scale * percentiles[0], scale * percentiles[-1])

    items = by_length.items()
    return (
        Series("base", tuple(point(n, at_n.base_median, at_n.base_percentiles) for n, at_n in items)),
        Series(
            "adapted", tuple(point(n, at_n.adapted_median, at_n.adapted_percentiles) for n, at_n in items)
        ),
    )


def _speed_table(latency: LatencyReport) -> Table:
    rows = [
        _speed_row(f"time to an answer, {one.shape} tokens, s", one.answer, 1, 2) for one in latency.questions
    ]
    for length in latency.by_length:
        rows.append(_speed_row(f"prefill of {length.tokens}, tokens/s", length.prefill, 1))
        rows.append(_speed_row(f"first token after {length.tokens}, ms", length.first_token, 1000))
        rows.append(_speed_row(f"decode after {length.tokens}, tokens/s", length.decode, 1))
    spread = f"{PERCENTILES[0]}th to {PERCENTILES[-1]}th percentile"
    header = ("median", "base", spread, "adapted", spread, f"adapted / base ({RATIO_LEVEL})")
    return Table("Medians over all iterations, and ratios paired by round", header, tuple(rows))


def _speed_row(name: str, measurement: PairedMeasurement, scale: float, digits: int = 1) -> tuple[str, ...]:
    def spread(percentiles: tuple[float, ...]) -> str:
        return f"{scale * percentiles[0]:.{digits}f} to {scale * percentiles[-1]:.{digits}f}"

    return (
        name,
        f"{scale * measurement.base_median:.{digits}f}",
        spread(measurement.base_percentiles),
        f"{scale * measurement.adapted_median:.{digits}f}",
        spread(measurement.adapted_percentiles),
        measurement.ratio.text(3),
    )


def accuracy_section(accuracy: AccuracyReport | None) -> Section:
    """Accuracies with their intervals, and the outcome of all questions."""
    if accuracy is None:
        return _missing("Accuracy", "thirteen bench accuracy ADAPTED --base BASE --data SET --json")
    models = {"model": accuracy.adapted}
    if accuracy.base:
        models = {"base": accuracy.base, "adapted": accuracy.adapted}
    marks = tuple(
        _mark(name, model.scores.accuracy, 1, 100, colour=0 if name == "base" else 1)
        for name, model in models.items()
    )
    title = f"Correct answers, {accuracy.data}, {accuracy.terms.prompt}"
    chart = IntervalChart(title, "% of the questions, 95 % interval", marks)
    blocks: list[Block] = [Figures((Figure("accuracy", chart),)), _outcome_table(models)]
    if paired := accuracy.paired:
        text = (
            f"Of {paired.questions} questions, {paired.gained} are correct only in the adapted model and "
            f"{paired.lost} only in the base"
        )
        if paired.independent:
            text += f"; McNemar's exact test: p = {paired.p_value:.3g}"
        blocks.append(Paragraph(f"{text}."))
    if accuracy.answer_time:
        blocks.append(_answer_time_table(accuracy.answer_time))
    return Section("Accuracy", tuple(blocks))


def _answer_time_table(times: AnswerTimes) -> Table:
    title = (
        f"Time to a right answer: {times.timed} questions asked one at a time, tokens and accuracy of "
        f"{times.questions}"
    )
    header = ("", "base", "adapted", "adapted / base (95 %)") if times.base else ("", "model")
    return Table(title, header, tuple(time_rows(times)))


def _outcome_table(models: dict[str, ModelResult]) -> Table:
    names = ("questions", "correct", "wrong", "truncated", "unparsed", "errors")
    rows = tuple((name, *(str(getattr(model.scores, name)) for model in models.values())) for name in names)
    title = "Outcome of the questions; errors do not count as wrong answers"
    return Table(title, ("", *models), rows)


def size_section(size: SizeReport | None) -> Section:
    """Bytes by tensor group and type, compared with llama.cpp's own files."""
    if size is None:
        return _missing("Size", "thirteen bench size ADAPTED --json")
    bars = tuple(
        Bar(
            group.group,
            tuple((type_, nbytes / 1e6) for type_, nbytes in group.types.items()),
            f"{group.nbytes / 1e6:.1f} MB, {group.bits_per_weight:.2f} bits",
        )
        for group in size.groups
    )
    chart = BarChart(f"{Path(size.path).name} by tensor group and type", "MB", bars)
    figures = Figures((Figure("size", chart),))
    return Section("Size", (figures, Paragraph(_size_text(size))))


def _size_text(size: SizeReport) -> str:
    text = (
        f"{size.file_bytes:,} bytes, {size.metadata_bytes:,} of them metadata; "
        f"{size.weights:,} weights of {size.bits_per_weight:.2f} bits on average."
    )
    if budget := size.budget:
        text += f" Target size {budget.asked}: {100 * budget.used:.2f} % of {budget.nbytes:,} bytes are used."
    return text


def memory_section(latency: LatencyReport | None) -> Section:
    """Load time, resident memory by use, and energy."""
    title = "Memory, load time and energy"
    if latency is None:
        return _missing(title, "thirteen bench latency BASE ADAPTED --json")
    memory = {"base": latency.base.memory, "adapted": latency.adapted.memory}
    bars = tuple(bar for name, use in memory.items() for bar in _memory_bar(name, use))
    chart = BarChart("Resident memory after an iteration, by use", "MB", bars)
    return Section(title, (*_figures("memory", chart, bars), _memory_table(memory)))


def _memory_bar(name: str, memory: MemoryUse) -> Iterator[Bar]:
    if footprint := memory.steady:
        segments = tuple(
            (label, max(0, getattr(footprint, field)) / 1e6) for field, label in _FOOTPRINT_SEGMENTS.items()
        )
        yield Bar(name, segments, f"{megabytes(footprint.rss_bytes)} MB")


def _memory_table(memory: dict[str, MemoryUse]) -> Table:
    base_rows, adapted_rows = map(memory_rows, memory.values())
    rows = tuple(
        (title.strip(), base, adapted)
        for (title, base), (_, adapted) in zip(base_rows, adapted_rows, strict=True)
    )
    return Table("Each model in a fresh process", ("", *memory), rows)


def fidelity_section(report: FidelityReport | None) -> Section:
    """How much of the model and of the adapter's effect quantization preserves."""
    if report is None:
        return _missing("Fidelity", "thirteen bench fidelity REFERENCE ADAPTED --json")
    variants = {"merged": report.merged}
    if report.run_time:
        variants["at run time"] = report.run_time
    divergences = [variant.divergence for variant in variants.values()]
    rows = (
        ("KL divergence from full precision, nats", *(one.kl_mean.text(4) for one in divergences)),
        ("same top token, %", *(one.same_top.text(1, 100) for one in divergences)),
        ("perplexity / that of full precision", *(one.perplexity_ratio.text(4) for one in divergences)),
    )
    marks = tuple(mark for name, variant in variants.items() for mark in _effect_marks(name, variant))
    title = "The adapter's effect on the logits after quantization"
    chart = IntervalChart(title, "1 = fully preserved", marks, 1.0)
    table = Table(f"Over {report.positions:,} positions of held-out text", ("", *variants), rows)
    return Section("Fidelity", (*_figures("effect", chart, marks), table, Notes(report.verdict)))


def _effect_marks(name: str, variant: Fidelity) -> Iterator[IntervalMark]:
    if variant.effect:
        colour = 1 if name == "merged" else 2
        yield _mark(f"{name}: slope", variant.effect.slope, 2, colour=colour)
        yield _mark(f"{name}: cosine", variant.effect.cosine, 2, colour=colour)


def peers_section(report: PeersReport | None) -> Section:
    """Speed of the same file in other programs."""
    title = "Comparison with other programs"
    if report is None:
        return _missing(title, "thirteen bench peers ADAPTED --json")
    rows = tuple(
        (f"{row.name} {row.version}", *(_peer_cell(row, kind) for kind in SPEED_KINDS)) for row in report.rows
    )
    header = ("tokens/s; thirteen / peer", *work_titles(report.work))
    table = Table(f"{Path(report.model).name}, medians of {report.rounds} rounds", header, rows)
    return Section(title, (table, *([Notes(report.absent)] if report.absent else [])))


def _peer_cell(row: PeerRow, kind: str) -> str:
    speed, ratio = row.speeds.get(kind), row.ratios.get(kind)
    if speed is None or ratio is None:
        return "none"
    return f"{speed:.1f}" if row.name == OWN else f"{speed:.1f}; {ratio.text(3)}"


def environment_section(data: ReportData) -> Section:
    """Method, machine, versions and files."""
    rows = [*_machine_rows(data.latency or data.fidelity or data.peers or data.accuracy)]
    text = "The raw figures are in JSON files next to this page."
    if latency := data.latency:
        text = f"{_LATENCY_METHOD} {text}"
        rows += [
            ("commit", latency.commit or "none: an installed package"),
            (
                "work",
                f"{latency.rounds} rounds, {_work(latency)}, {latency.settings.threads} threads",
            ),
            ("base", _file(latency.base)),
            ("adapted", _file(latency.adapted)),
        ]
    if accuracy := data.accuracy:
        terms, machine = accuracy.terms.prompt, accuracy.machine.cpu
        rows.append(("questions", f"{accuracy.data}, {terms}, {accuracy.date}, {machine}"))
    table = Table("Environment", ("", ""), tuple(rows), is_text=True)
    return Section("Method and environment", (Paragraph(text), *([table] if rows else [])))


def _work(latency: LatencyReport) -> str:
    if latency.questions:
        return f"questions + answers of {', '.join(str(one.shape) for one in latency.questions)} tokens"
    workload = latency.settings
    return f"{workload.prompt_tokens} prompt tokens, {workload.decode_tokens} decoded tokens"


def _machine_rows(report: BenchReport | None) -> Iterator[tuple[str, str]]:
    if report is None:
        return
    machine, build = report.machine, report.build
    memory, load = megabytes(machine.memory_bytes), machine.load_average
    versions = f"thirteen {build.thirteen}, llama-cpp-python {build.llama_cpp_python}"
    yield "date", report.date
    yield "processor", f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.features)}"
    yield "system", f"{machine.system}, {memory} MB, load average before: {load}"
    yield "build", f"{versions}, Python {machine.python}"
    yield "llama.cpp", build.llama_cpp_system


def _file(model: MeasuredModel) -> str:
    text = f"{Path(model.path).name}, {model.file_bytes:,} bytes, sha256 {model.sha256}"
    if model.adapter:
        text += f"; adapter {Path(model.adapter.path).name}, sha256 {model.adapter.sha256}"
    return text


def _missing(title: str, command: str) -> Section:
    return Section(title, (Paragraph(f"{NOT_MEASURED.capitalize()}. To measure it: {command}"),))


def _figures(name: str, chart: Chart, values: Sized) -> Iterator[Figures]:
    """The chart, unless there are no values to draw."""
    if values:
        yield Figures((Figure(name, chart),))


def _mark(name: str, interval: Interval, digits: int, scale: float = 1, colour: int = 1) -> IntervalMark:
    low, estimate, high = (scale * bound for bound in (interval.low, interval.estimate, interval.high))
    return IntervalMark(name, low, estimate, high, interval.text(digits, scale), colour)
