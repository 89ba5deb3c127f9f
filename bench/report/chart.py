"""The data of a chart, and its text alternative; svg.py draws it."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A value at x, and its range."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line."""

    name: str
    points: tuple[ChartPoint, ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over a common x axis, which is logarithmic if it spans far; the y axis starts at 0."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]

    def description(self) -> str:
        """The values in words."""
        return "; ".join(
            f"{one.name}: {', '.join(f'{point.y:.4g} at {point.x:g}' for point in one.points)}"
            for one in self.series
        )


@dataclass(frozen=True, slots=True)
class IntervalMark:
    """An estimate with its interval; `colour` is an index into the palette."""

    name: str
    low: float
    estimate: float
    high: float
    text: str
    colour: int = 1


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Estimates with their intervals, one per row, and an optional reference line."""

    title: str
    x_label: str
    marks: tuple[IntervalMark, ...]
    reference: float | None = None

    def description(self) -> str:
        """The values in words."""
        return "; ".join(f"{mark.name}: {mark.text}" for mark in self.marks)


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar: (name, length) of each segment, and a text at its end."""

    name: str
    segments: tuple[tuple[str, float], ...]
    text: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars from 0; segments of one name have one colour in all bars."""

    title: str
    x_label: str
    bars: tuple[Bar, ...]

    def description(self) -> str:
        """The values in words."""
        return "; ".join(
            f"{bar.name}: {', '.join(f'{name} {length:.4g}' for name, length in bar.segments)}; {bar.text}"
            for bar in self.bars
        )


Chart: TypeAlias = LineChart | IntervalChart | BarChart
