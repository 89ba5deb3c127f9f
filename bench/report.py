"""A report of measurements as one HTML page, without scripts or network access."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import FileError, RequestError
from ..files.from_json import from_json
from ..files.json_file import parse_json, read_bounded
from ..stats.interval import Interval
from ..stats.paired_ratio import RATIO_LEVEL
from .accuracy.accuracy import AccuracyReport, accuracy_table
from .fidelity.fidelity_report import FidelityReport, fidelity_table
from .latency import LatencyReport, latency_table
from .table import Table

Report: TypeAlias = LatencyReport | AccuracyReport | FidelityReport

_HOME = str(Path.home())
_BYTES_MAX = 1 << 26  # of a file; typical ones have a few hundred thousand
# Types of reports by a key that only they have, and their titles.
_TYPES: dict[str, tuple[type[Report], str]] = {
    "first_token": (LatencyReport, "Speed, memory and size"),
    "adapted": (AccuracyReport, "Right answers"),
    "shipped": (FidelityReport, "Fidelity"),
}
# Words of measurements that not everyone knows; the page explains those that it has.
_TERMS = {
    "adapted": "the model with the adapter; base: the same model without it",
    "KL": "Kullback-Leibler divergence: how far two predictions of a token are apart; 0: they are equal",
    "nats": "the unit of information with the natural logarithm; one nat is 1.44 bits",
    "perplexity": "among how many equally likely tokens the model hesitates, on average; lower is better",
    "McNemar": "a test of two models on the same questions: how likely such a difference is by chance",
    "cosine": "whether two effects have the same direction: 1 is yes, 0 not at all",
    "slope": "how strong an effect is against the one that it should be: 1 is equal, 0 none",
    "prefill": "reading the question, all of its tokens at once",
    "decode": "writing the answer, one token after the other",
    "first token": "the time until the first word of an answer appears",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """Estimates with their intervals by name, around a line at `reference`.

    `better` says which values are, such as "lower"; those that are shown are times `scale`, with `digits`.
    """

    title: str
    better: str
    intervals: dict[str, Interval]
    reference: float = 1.0
    scale: float = 1.0
    digits: int = 2

    @property
    def ends(self) -> tuple[float, float]:
        """The outermost values."""
        bounds = [self.reference, *(b for one in self.intervals.values() for b in (one.low, one.high))]
        return min(bounds), max(bounds)

    def place(self, value: float) -> float:
        """The place of a value between the outermost ones, in percent."""
        low, high = self.ends
        return 100 * (value - low) / ((high - low) or 1)


@dataclass(frozen=True, slots=True)
class Section:
    """A measurement on the page: its model, what was found, what explains it, plots and a table."""

    title: str
    model: str
    finding: str
    lines: tuple[str, ...]
    charts: tuple[Chart, ...]
    table: Table


def read_reports(path: Path) -> list[Report]:
    """Read what a `bench` command printed with --json: one measurement, or several by name.

    Raises:
        FileError: the file cannot be read, or does not hold measurements.
    """
    value = parse_json(read_bounded(path, _BYTES_MAX), str(path))
    objects = [value, *value.values()] if isinstance(value, dict) else []
    reports = [
        from_json(type_, one, str(path))
        for one in objects
        if isinstance(one, dict)
        for key, (type_, _) in _TYPES.items()
        if key in one and "verdict" in one
    ]
    if not reports:
        raise FileError(f"{path}: not what bench latency, accuracy or fidelity prints with --json")
    return reports


def render_page(reports: Sequence[Report]) -> str:
    """Render reports as HTML; texts in them are escaped.

    Raises:
        RequestError: a number is one that no measurement can have had.
    """
    try:
        sections = [_section(report) for report in reports]
    except (ArithmeticError, IndexError, ValueError) as error:
        raise RequestError(f"bench report: a number cannot be that of a measurement: {error}") from None
    environment = Environment(
        loader=PackageLoader("thirteen", "bench"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_without_home,
    )
    words = " ".join(text for section in sections for text in _texts(section))
    terms = {term: meaning for term, meaning in _TERMS.items() if term in words}
    first = reports[0]
    return environment.get_template("report.html.jinja").render(
        title=" and ".join(dict.fromkeys(section.model for section in sections)),
        sections=sections,
        terms=terms,
        machine=first.machine,
        build=first.build,
        date=first.date,
    )


def _without_home(value: object) -> object:
    """A text with ~ for the home folder, whose name is private."""
    return value.replace(_HOME, "~") if type(value) is str and len(_HOME) > 1 else value


def _texts(section: Section) -> Iterator[str]:
    yield from (section.finding, *section.lines, *(chart.title for chart in section.charts))
    yield from (*section.table.header, *(row[0] for row in section.table.rows))


def _section(report: Report) -> Section:
    title = next(title for type_, title in _TYPES.values() if isinstance(report, type_))
    if isinstance(report, LatencyReport):
        model, charts, table = report.files[-1], _latency_charts(report), latency_table(report)
    elif isinstance(report, AccuracyReport):
        model, charts, table = report.adapted.file, _accuracy_charts(report), accuracy_table(report)
    else:
        model, charts, table = report.shipped, _fidelity_charts(report), fidelity_table(report)
    finding = " ".join(line for line in report.verdict if line.endswith("."))  # the sentences
    lines = tuple(line for line in report.verdict if not line.endswith("."))
    return Section(title, model.name, finding, lines, tuple(charts), table)


def _latency_charts(report: LatencyReport) -> Iterator[Chart]:
    decode, names = report.decode, ("base", "adapted") if len(report.files) == 2 else ("model",)
    spans = {
        name: Interval(min(values), median, max(values))
        for name, values, median in zip(names, decode.values, decode.medians, strict=True)
    }
    yield Chart("Tokens a second, slowest to fastest answer", "higher", spans, decode.medians[0], digits=0)
    answer, first_token = report.answer.ratio, report.first_token.ratio
    if answer and first_token:
        ratios = {"answer": answer, "first token": first_token}
        yield Chart(f"Seconds, adapted / base ({RATIO_LEVEL})", "lower", ratios)


def _accuracy_charts(report: AccuracyReport) -> Iterator[Chart]:
    names = ("base", "adapted") if report.base else ("model",)
    scores = {name: result.scores.accuracy for name, result in zip(names, report.results, strict=True)}
    yield Chart("Right answers, % (95 %)", "higher", scores, scores[names[0]].estimate, 100, 0)
    if report.seconds and report.seconds.ratio:
        ratio = {"seconds of an answer": report.seconds.ratio}
        yield Chart("Seconds, adapted / base (95 %)", "lower", ratio)


def _fidelity_charts(report: FidelityReport) -> Iterator[Chart]:
    same = {"same next token": report.divergence.same_top}
    yield Chart("Next token as in full precision, % (95 %)", "higher", same, 1.0, 100, 1)
    if effect := report.effect:
        effects = {"slope": effect.slope, "cosine": effect.cosine}
        yield Chart("The adapter's effect after quantization (95 %)", "closer to 1", effects)
