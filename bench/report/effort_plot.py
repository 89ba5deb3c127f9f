"""The right answers of several efforts over the seconds that they take, as an SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ...stats.interval import Interval
from ..accuracy.accuracy import AccuracyReport
from .document import render_effort_plot


@dataclass(frozen=True, slots=True)
class EffortPoint:
    """Accuracy of one effort, with its interval, and mean seconds a question."""

    effort: str
    seconds: float
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class EffortLine:
    """The efforts of one model on one question set, the quickest first."""

    name: str
    points: tuple[EffortPoint, ...]


def plot_efforts(reports: Sequence[AccuracyReport]) -> str:
    """Plot the accuracies of several efforts over their seconds, a line for each model and question set.

    Args:
        reports: those with timed answers are shown.

    Returns:
        An SVG; empty without timed answers.
    """
    lines = tuple(_lines(reports))
    return render_effort_plot(lines) if lines else ""


def describe_efforts(reports: Sequence[AccuracyReport]) -> Iterator[str]:
    """A line of text for each point of the plot."""
    for line in _lines(reports):
        for point in line.points:
            right = point.accuracy.text(0, 100)
            yield f"{line.name}, {point.effort}: {right} % right, {point.seconds:.1f} s a question"


def _lines(reports: Sequence[AccuracyReport]) -> Iterator[EffortLine]:
    for (name, *_), group in groupby(sorted(reports, key=_identity), _identity):
        points = (
            EffortPoint(one.terms.effort, one.answer_time.adapted.seconds, one.adapted.scores.accuracy)
            for one in group
            if one.answer_time
        )
        if ordered := tuple(sorted(points, key=lambda point: point.seconds)):
            yield EffortLine(name, ordered)


def _identity(report: AccuracyReport) -> tuple[str, ...]:
    """Identity of a line: its name, then the hashes of questions, model and adapter."""
    model = report.adapted
    files = " + ".join(Path(file).name for file in (model.path, model.adapter) if file)
    return f"{report.data}, {files}", report.data_sha256, model.sha256, model.adapter_sha256 or ""
