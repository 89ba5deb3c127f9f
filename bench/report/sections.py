"""The sections of a report, each of one measurement; what is missing says so, and how to measure it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...stats.interval import Interval
from ...stats.paired_ratio import RATIO_LEVEL
from ..accuracy.accuracy import AccuracyReport, ModelResult
from ..fidelity.fidelity import FidelityReport
from ..fidelity.merge_or_runtime import Fidelity
from ..harness.format import NOT_AVAILABLE, megabytes
from ..harness.interleave import PERCENTILES, PairedMeasurement
from ..memory.memory import MemoryUse, memory_rows
from ..memory.measured_model import MeasuredModel
from ..peers.peer import SPEED_KINDS
from ..peers.peers import PeerRow, PeersReport, Thirteen
from ..size.size import SizeReport, stock_of_similar_size
from ..speed.latency import LatencyReport
from ..speed.length_sweep import LengthSpeeds
from .chart import Bar, BarChart, ChartPoint, IntervalChart, IntervalMark, LineChart, Series
from .document import Block, Card, Cards, Figure, Notes, Paragraph, Section, Table
from .literature import NOT_MEASURED

_SIDES = ("base", "adapted")
_SPLIT = ("program_bytes", "mapped_bytes", "copied_bytes", "kv_bytes", "other_bytes")
_SPLIT_NAMES = ("program", "weights, mapped", "weights, laid out anew", "keys and values", "buffers and rest")


def headline_section(
    latency: LatencyReport | None, size: SizeReport | None, answers: AccuracyReport | None
) -> Section:
    """Four figures, and what they come to in words."""
    cards = (_speed_card(latency), _accuracy_card(answers), _size_card(latency, size), _memory_card(latency))
    said = (*(latency.verdict if latency else ()), *(answers.verdict if answers else ()))
    return Section("In short", (Cards(cards), *([Notes(said)] if said else [])))


def _speed_card(latency: LatencyReport | None) -> Card:
    name = "decode speed, adapted / base"
    if latency is None:
        return Card(name, "unknown", NOT_MEASURED)
    decode = latency.decode
    interval = f"{RATIO_LEVEL}: {decode.ratio.low:.3f} to {decode.ratio.high:.3f}"
    note = f"{interval}; {decode.adapted_median:.1f} and {decode.base_median:.1f} tokens/s"
    return Card(name, f"{decode.ratio.estimate:.3f}", note)


def _accuracy_card(answers: AccuracyReport | None) -> Card:
    if answers is None:
        return Card("accuracy, adapted - base", "unknown", NOT_MEASURED)
    found = answers.adapted.scores
    if answers.paired is None:
        text = f"{100 * found.accuracy.estimate:.1f} %"
        return Card(f"accuracy, {answers.data}", text, f"of {found.questions} questions; no base beside it")
    points = answers.paired.difference
    note = f"95 %: {100 * points.low:+.1f} to {100 * points.high:+.1f}; {answers.paired.questions} questions"
    return Card(f"accuracy, {answers.data}, adapted - base", f"{100 * points.estimate:+.1f} points", note)


def _size_card(latency: LatencyReport | None, size: SizeReport | None) -> Card:
    if latency:
        ratio = latency.adapted.total_bytes / latency.base.total_bytes
        return Card("size", _mb(latency.adapted.total_bytes), f"{ratio:.3f} of the base's")
    if size:
        return Card("size", _mb(size.file_bytes), f"{size.bits_per_weight:.2f} bits a weight")
    return Card("size", "unknown", NOT_MEASURED)


def _memory_card(latency: LatencyReport | None) -> Card:
    peaks = [side.memory.peak_rss_bytes for side in (latency.base, latency.adapted)] if latency else []
    base, adapted = peaks or (None, None)
    if base is None or adapted is None:
        return Card("peak memory", "unknown", NOT_AVAILABLE if latency else NOT_MEASURED)
    return Card("peak memory", _mb(adapted), f"{adapted / base:.3f} of the base's")


def speed_section(latency: LatencyReport | None) -> Section:
    """Speeds, their ratios, and how they fall with the length of the text."""
    if latency is None:
        return _missing("Speed", "thirteen bench latency BASE ADAPTED --json")
    return Section("Speed", (*_speed_figures(latency), _speed_table(latency)))


def _speed_figures(latency: LatencyReport) -> Iterator[Block]:
    measures = {"prefill": latency.prefill, "first token": latency.first_token, "decode": latency.decode}
    marks = tuple(
        _mark(f"{name}{' time' if measure.unit == 's' else ' speed'}", measure.ratio, 3)
        for name, measure in measures.items()
    )
    yield Figure(
        "ratios", IntervalChart("Adapted beside base", f"adapted / base, {RATIO_LEVEL} interval", marks, 1.0)
    )
    lengths = latency.lengths
    if lengths:
        yield Figure(
            "decode",
            LineChart(
                "Decode speed by length of the text",
                "tokens before; bars: 5th to 95th percentile",
                "tokens/s",
                _series(lengths, [length.decode for length in lengths], 1),
            ),
        )
        yield Figure(
            "first-token",
            LineChart(
                "Time to the first token by length of the prompt",
                "tokens of prompt; bars: 5th to 95th percentile",
                "milliseconds",
                _series(lengths, [length.first_token for length in lengths], 1000),
            ),
        )


def _series(
    lengths: Sequence[LengthSpeeds], measures: Sequence[PairedMeasurement], scale: float
) -> tuple[Series, ...]:
    def point(tokens: int, measure: PairedMeasurement, side: str) -> ChartPoint:
        tail = getattr(measure, f"{side}_percentiles")
        median = getattr(measure, f"{side}_median")
        return ChartPoint(tokens, scale * median, scale * tail[0], scale * tail[-1])

    return tuple(
        Series(
            side,
            tuple(point(length.tokens, of, side) for length, of in zip(lengths, measures, strict=True)),
        )
        for side in _SIDES
    )


def _speed_table(latency: LatencyReport) -> Table:
    asked = "/".join(map(str, dict.fromkeys(latency.question_tokens)))
    rows = [
        _speed_row(f"prefill of {latency.settings.prompt_tokens}, tokens/s", latency.prefill, 1),
        _speed_row(f"first text after a question of {asked}, ms", latency.first_token, 1000),
        _speed_row(f"decode of {latency.settings.decode_tokens}, tokens/s", latency.decode, 1),
    ]
    for length in latency.lengths:
        rows.append(_speed_row(f"prefill of {length.tokens}, tokens/s", length.prefill, 1))
        rows.append(_speed_row(f"decode after {length.tokens}, tokens/s", length.decode, 1))
    span = f"{PERCENTILES[0]}th to {PERCENTILES[-1]}th percentile"
    header = ("median", "base", span, "adapted", span, f"adapted / base ({RATIO_LEVEL})")
    return Table("Medians over all turns, and the ratios paired by round", header, tuple(rows))


def _speed_row(name: str, measure: PairedMeasurement, scale: float) -> tuple[str, ...]:
    def spread(percentiles: tuple[float, ...]) -> str:
        return f"{scale * percentiles[0]:.1f} to {scale * percentiles[-1]:.1f}"

    return (
        name,
        f"{scale * measure.base_median:.1f}",
        spread(measure.base_percentiles),
        f"{scale * measure.adapted_median:.1f}",
        spread(measure.adapted_percentiles),
        measure.ratio.text(3),
    )


def accuracy_section(answers: AccuracyReport | None) -> Section:
    """Right answers with their intervals, and what became of the others."""
    if answers is None:
        return _missing("Accuracy", "thirteen bench accuracy ADAPTED --base BASE --data SET --json")
    sides = {"base": answers.base, "adapted": answers.adapted} if answers.base else {"model": answers.adapted}
    present = {name: side for name, side in sides.items() if side}
    marks = tuple(
        _mark(name, side.scores.accuracy, 1, 100, colour=0 if name == "base" else 1)
        for name, side in present.items()
    )
    title = f"Right answers, {answers.data}, {answers.terms.prompt}"
    blocks: list[Block] = [
        Figure("accuracy", IntervalChart(title, "% of the questions, 95 % interval", marks))
    ]
    blocks.append(_answer_table(present))
    if paired := answers.paired:
        blocks.append(
            Paragraph(
                f"Of {paired.questions} questions the adapted model gained {paired.gained} and lost "
                f"{paired.lost}; McNemar's exact test: p = {paired.p_value:.3g}."
            )
        )
    return Section("Accuracy", tuple(blocks))


def _answer_table(sides: dict[str, ModelResult]) -> Table:
    names = ("questions", "correct", "wrong", "truncated", "unparsed", "errors")
    rows = tuple((name, *(str(getattr(side.scores, name)) for side in sides.values())) for name in names)
    return Table("What became of the questions; an error is not a wrong answer", ("", *sides), rows)


def size_section(report: SizeReport | None) -> Section:
    """Bytes by kind of tensor and type, beside llama.cpp's own files."""
    if report is None:
        return _missing("Size", "thirteen bench size ADAPTED --json")
    bars = tuple(
        Bar(
            group.group,
            tuple((type_, nbytes / 1e6) for type_, nbytes in group.types.items()),
            f"{group.nbytes / 1e6:.1f} MB, {group.bits_per_weight:.2f} bits",
        )
        for group in report.groups
    )
    chart = BarChart(f"{Path(report.path).name} by kind of tensor and type", "MB", bars)
    rows = tuple((one.made_as, _mb(one.file_bytes), f"{one.ratio:.3f}") for one in stock_of_similar_size(report))
    blocks: list[Block] = [Figure("size", chart), Paragraph(_size_text(report))]
    if rows:
        title = "llama.cpp's own files of these tensors, about that size"
        blocks.append(Table(title, ("made as", "size", "this file / it"), rows))
    return Section("Size", tuple(blocks))


def _size_text(report: SizeReport) -> str:
    said = (
        f"{report.file_bytes:,} bytes, {report.metadata_bytes:,} of them metadata; "
        f"{report.weights:,} weights of {report.bits_per_weight:.2f} bits on average."
    )
    if budget := report.budget:
        said += f" Planned for {budget.asked}: {100 * budget.used:.2f} % of {budget.nbytes:,} bytes are used."
    return said


def memory_section(latency: LatencyReport | None) -> Section:
    """What is resident and for what, starts, and energy."""
    title = "Memory, start and energy"
    if latency is None:
        return _missing(title, "thirteen bench latency BASE ADAPTED --json")
    sides = dict(zip(_SIDES, (latency.base.memory, latency.adapted.memory), strict=True))
    bars = tuple(bar for name, of in sides.items() for bar in _memory_bar(name, of))
    chart = (
        [Figure("memory", BarChart("Resident after a turn, by what it is for", "MB", bars))] if bars else []
    )
    return Section(title, (*chart, _memory_table(sides)))


def _memory_bar(name: str, of: MemoryUse) -> Iterator[Bar]:
    if of.steady:
        parts = (max(0, getattr(of.steady, part)) / 1e6 for part in _SPLIT)
        yield Bar(name, tuple(zip(_SPLIT_NAMES, parts, strict=True)), _mb(of.steady.rss_bytes))


def _memory_table(sides: dict[str, MemoryUse]) -> Table:
    figures = zip(*map(memory_rows, sides.values()), strict=True)  # each of all sides
    rows = tuple((of_sides[0][0].strip(), *(figure for _, figure in of_sides)) for of_sides in figures)
    return Table("Each model in a process of its own", ("", *sides), rows)


def fidelity_section(report: FidelityReport | None) -> Section:
    """What quantizing kept of the model and of the adapter's effect."""
    title = "Fidelity"
    if report is None:
        return _missing(title, "thirteen bench fidelity REFERENCE ADAPTED --json")
    ways = {"merged": report.merged} | ({"at run time": report.run_time} if report.run_time else {})
    rows = (
        ("KL divergence from full precision, nats", *(of.divergence.kl_mean.text(4) for of in ways.values())),
        ("same likeliest token, %", *(of.divergence.same_top.text(1, 100) for of in ways.values())),
        ("perplexity / full precision's", *(of.divergence.perplexity_ratio.text(4) for of in ways.values())),
    )
    marks = tuple(mark for name, of in ways.items() for mark in _effect_marks(name, of))
    chart = IntervalChart("The adapter's effect on the logits that is left", "1 = all of it", marks, 1.0)
    figure = [Figure("effect", chart)] if marks else []
    table = Table(f"Over {report.positions:,} positions of held-out text", ("", *ways), rows)
    return Section(title, (*figure, table, Notes(report.verdict)))


def _effect_marks(way: str, kept: Fidelity) -> Iterator[IntervalMark]:
    if kept.effect:
        colour = 1 if way == "merged" else 2
        yield _mark(f"{way}: slope", kept.effect.slope, 2, colour=colour)
        yield _mark(f"{way}: cosine", kept.effect.cosine, 2, colour=colour)


def peers_section(report: PeersReport | None) -> Section:
    """The same file through other programs."""
    title = "Beside other programs"
    if report is None:
        return _missing(title, "thirteen bench peers ADAPTED --json")
    work = report.work
    kinds = (
        f"prefill of {work.prompt_tokens}",
        f"decode of {work.decode_tokens}",
        f"{work.sequences} at once, {work.short_prompt} + {work.short_answer}",
    )
    header = ("tokens/s, and this engine's over theirs", *kinds)
    rows = tuple(
        (f"{row.name} {row.version}", *(_peer_cell(row, kind) for kind in SPEED_KINDS)) for row in report.rows
    )
    table = Table(f"{Path(report.model).name}, medians of {report.rounds} rounds", header, rows)
    return Section(title, (table, *([Notes(report.absent)] if report.absent else [])))


def _peer_cell(row: PeerRow, kind: str) -> str:
    speed, ratio = row.speeds.get(kind), row.ratios.get(kind)
    if speed is None or ratio is None:
        return "none"
    return f"{speed:.1f}" if row.name == Thirteen.name else f"{speed:.1f}; {ratio.text(3)}"


def environment_section(
    latency: LatencyReport | None,
    answers: AccuracyReport | None,
    other: FidelityReport | PeersReport | None,
) -> Section:
    """Where, with what, and how."""
    rows = [*_machine_rows(latency or other)]
    if latency:
        rows.append(("commit", latency.commit or "none: an installed package"))
        rows.append(("work", _work(latency)))
        rows += [
            (f"{name}", _file(side))
            for name, side in zip(_SIDES, (latency.base, latency.adapted), strict=True)
        ]
    if answers:
        rows.append(("questions", f"{answers.data}, {answers.terms.prompt}, {answers.date}"))
    text = (
        "Both models were loaded together and took turns (A B B A …), so that a machine that drifts meets "
        "both alike; a ratio is over rounds (Hodges and Lehmann's estimate and interval). Memory and "
        "loads were measured in a process for each model. The raw figures are in JSON files beside this page."
    )
    return Section(
        "How it was measured",
        (Paragraph(text), *([Table("Circumstances", ("", ""), tuple(rows), True)] if rows else [])),
    )


def _machine_rows(
    report: LatencyReport | FidelityReport | PeersReport | None,
) -> Iterator[tuple[str, str]]:
    if report is None:
        return
    machine, build = report.machine, report.build
    yield "date", report.date
    yield "processor", f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.features)}"
    yield (
        "system",
        f"{machine.system}, {megabytes(machine.memory_bytes)} MB, load before: {machine.load_average}",
    )
    yield (
        "build",
        f"thirteen {build.thirteen}, llama-cpp-python {build.llama_cpp_python}, Python {machine.python}",
    )
    yield "llama.cpp", build.llama_cpp_system


def _work(latency: LatencyReport) -> str:
    settings = latency.settings
    return (
        f"{latency.rounds} rounds, {settings.prompt_tokens} tokens of prompt, "
        f"{settings.decode_tokens} decoded, {settings.threads} threads"
    )


def _file(side: MeasuredModel) -> str:
    adapter = (
        f"; adapter {Path(side.adapter.path).name}, sha256 {side.adapter.sha256}" if side.adapter else ""
    )
    return f"{Path(side.path).name}, {side.file_bytes:,} bytes, sha256 {side.sha256}{adapter}"


def _missing(title: str, command: str) -> Section:
    return Section(
        title, (Paragraph(f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}. To measure it: {command}"),)
    )


def _mark(name: str, interval: Interval, digits: int, scale: float = 1, colour: int = 1) -> IntervalMark:
    low, estimate, high = (scale * bound for bound in (interval.low, interval.estimate, interval.high))
    return IntervalMark(name, low, estimate, high, interval.text(digits, scale), colour)


def _mb(nbytes: float) -> str:
    return f"{megabytes(nbytes)} MB"
