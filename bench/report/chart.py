"""Charts as SVG, sized for a phone, without scripts, fonts or other files, for light and dark mode.

Colours are CSS variables, so a page can set them. Series of different colours also differ in shape or label.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

_WIDTH = 360
_LEFT, _RIGHT = 46, 14
_TOP = 8
_CHARACTER_WIDTH = 6.4  # approximate
_LINE_HEIGHT = 18
_PLOT_HEIGHT = 170
_ROW_HEIGHT = 40  # of an interval or a bar
_AXIS_HEIGHT = 40  # tick labels and axis label
_TICKS = 6
_COLOURS = 8
_SERIES_OFFSET = 6  # between points of two series at the same x, so that both error bars are visible
_LOG_SPAN = 8  # ratio of the largest x to the smallest above which the axis is logarithmic

_LIGHT = (
    "--ink:#1b1b1b;--dim:#555;--line:#d8d8d8;--ground:#fff;--c0:#707070;--c1:#0072b2;--c2:#d55e00;"
    "--c3:#009e73;--c4:#b0578d;--c5:#b87f00;--c6:#3a97cc;--c7:#7d6236"
)
_DARK = (
    "--ink:#ececec;--dim:#b0b0b0;--line:#3d3d3d;--ground:#171717;--c0:#a9a9a9;--c1:#56b4e9;--c2:#f08a4b;"
    "--c3:#2ec4a0;--c4:#e3a3c6;--c5:#f0b93a;--c6:#9bd2f5;--c7:#cdab72"
)
STYLE = (
    f":root{{{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    f"@media print{{:root{{{_LIGHT}}}}}"
    "svg text{font:12px system-ui,sans-serif;fill:var(--ink);"
    "paint-order:stroke;stroke:var(--ground);stroke-width:3px}"
    "svg .dim{fill:var(--dim)}svg .grid{stroke:var(--line);stroke-width:1}"
    "svg .reference{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 3}"
    + "".join(
        f"svg .f{n}{{fill:var(--c{n})}}svg .l{n}{{stroke:var(--c{n});stroke-width:2;fill:none}}"
        for n in range(_COLOURS)
    )
)


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


Chart: TypeAlias = LineChart | IntervalChart | BarChart


def render_svg(chart: Chart, *, standalone: bool) -> str:
    """Render a chart.

    Args:
        chart: a chart with at least one value.
        standalone: render a complete SVG file with its style sheet, instead of a part of a page that has it.
    """
    match chart:
        case LineChart():
            height, parts = _draw_lines(chart)
        case IntervalChart():
            height, parts = _draw_intervals(chart)
        case BarChart():
            height, parts = _draw_bars(chart)
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    background = '<rect width="100%" height="100%" fill="var(--ground)"/>'
    style = f"<style>{STYLE}</style>{background}" if standalone else ""
    return (
        f'<svg{namespace} role="img" viewBox="0 0 {_WIDTH} {height:g}" aria-label="{escape(chart.title)}">'
        f"<title>{escape(chart.title)}</title>{style}{''.join(parts)}</svg>"
    )


def _draw_lines(chart: LineChart) -> tuple[float, list[str]]:
    legend, legend_bottom = _legend([series.name for series in chart.series])
    points = [point for series in chart.series for point in series.points]
    values = sorted({point.x for point in points})
    to_x = _x_positions(values)
    y_max = _round_up(max(point.high for point in points))
    bottom = legend_bottom + _LINE_HEIGHT + _PLOT_HEIGHT

    def to_y(value: float) -> float:
        return bottom - _PLOT_HEIGHT * value / y_max

    parts = [*legend, _text(0, legend_bottom + _LINE_HEIGHT - 8, chart.y_label, "dim")]
    for tick in _ticks(0, y_max):
        parts.append(_line(_LEFT, to_y(tick), _WIDTH - _RIGHT, to_y(tick), "grid"))
        parts.append(_text(_LEFT - 6, to_y(tick) + 4, _format(tick), anchor="end"))
    parts += _x_labels(values, to_x, bottom)
    for number, series in enumerate(chart.series):
        parts += _draw_series(series, number, to_x, to_y)
    parts.append(_text(_LEFT, bottom + 36, chart.x_label, "dim"))
    return bottom + _AXIS_HEIGHT, parts


def _x_positions(values: Sequence[float]) -> dict[float, float]:
    """Map each of the sorted values to its x coordinate."""
    logarithmic = values[0] > 0 and values[-1] / values[0] > _LOG_SPAN
    scaled = [math.log(value) if logarithmic else value for value in values]
    span = scaled[-1] - scaled[0]
    width = _WIDTH - _LEFT - _RIGHT - 24
    return {
        value: _LEFT + 12 + (width * (position - scaled[0]) / span if span else width / 2)
        for value, position in zip(values, scaled, strict=True)
    }


def _x_labels(values: Sequence[float], to_x: dict[float, float], bottom: float) -> Iterator[str]:
    """Label the values under the axis, except where a label would touch the last one."""
    right = -math.inf
    for value in values:
        half_width = len(_format(value)) * _CHARACTER_WIDTH / 2
        if to_x[value] - half_width > right + 4:
            yield _text(to_x[value], bottom + 16, _format(value), anchor="middle")
            right = to_x[value] + half_width


def _draw_series(
    series: Series, number: int, to_x: dict[float, float], to_y: Callable[[float], float]
) -> Iterator[str]:
    xs = [to_x[point.x] + _SERIES_OFFSET * (2 * number - 1) / 2 for point in series.points]
    corners = " ".join(f"{x:.1f},{to_y(point.y):.1f}" for x, point in zip(xs, series.points, strict=True))
    dashes = ' stroke-dasharray="6 3"' if number % 2 else ""
    yield f'<polyline class="l{number}" points="{corners}"{dashes}/>'
    for x, point in zip(xs, series.points, strict=True):
        yield _line(x, to_y(point.low), x, to_y(point.high), f"l{number}")
        yield _marker(x, to_y(point.y), number)


def _draw_intervals(chart: IntervalChart) -> tuple[float, list[str]]:
    values = [value for mark in chart.marks for value in (mark.low, mark.estimate, mark.high)]
    values += [] if chart.reference is None else [chart.reference]
    low, high = _add_margin(min(values), max(values))
    bottom = _TOP + _ROW_HEIGHT * len(chart.marks)

    def to_x(value: float) -> float:
        return _RIGHT + (_WIDTH - 2 * _RIGHT) * (value - low) / (high - low)

    parts = _x_grid(_ticks(low, high), to_x, _TOP, bottom)
    if chart.reference is not None:
        x = to_x(chart.reference)
        parts.append(_line(x, _TOP, x, bottom, "reference"))
    for row, mark in enumerate(chart.marks):
        y = _TOP + _ROW_HEIGHT * row + 28
        parts.append(_text(0, y - 12, mark.name))
        parts.append(_text(_WIDTH, y - 12, mark.text, anchor="end"))
        parts.append(_line(to_x(mark.low), y, to_x(mark.high), y, f"l{mark.colour}"))
        parts.append(_marker(to_x(mark.estimate), y, mark.colour))
    parts.append(_text(0, bottom + 36, chart.x_label, "dim"))
    return bottom + _AXIS_HEIGHT, parts


def _draw_bars(chart: BarChart) -> tuple[float, list[str]]:
    names = list(dict.fromkeys(name for bar in chart.bars for name, _ in bar.segments))
    legend, top = _legend(names, squares=True)
    x_max = _round_up(max(sum(length for _, length in bar.segments) for bar in chart.bars))
    bottom, width = top + _ROW_HEIGHT * len(chart.bars), _WIDTH - 2 * _RIGHT
    parts = [*legend, *_x_grid(_ticks(0, x_max), lambda value: _RIGHT + width * value / x_max, top, bottom)]
    for row, bar in enumerate(chart.bars):
        y, x = top + _ROW_HEIGHT * row + 20, float(_RIGHT)
        parts.append(_text(0, y - 4, bar.name))
        parts.append(_text(_WIDTH, y - 4, bar.text, anchor="end"))
        for name, length in bar.segments:
            segment_width = width * length / x_max
            colour = names.index(name) % _COLOURS
            parts.append(
                f'<rect class="f{colour}" x="{x:.1f}" y="{y}" width="{segment_width:.1f}" height="14">'
                f"<title>{escape(f'{bar.name}, {name}: {_format(length)}')}</title></rect>"
            )
            x += segment_width
    parts.append(_text(0, bottom + 36, chart.x_label, "dim"))
    return bottom + _AXIS_HEIGHT, parts


def _x_grid(ticks: Sequence[float], to_x: Callable[[float], float], top: float, bottom: float) -> list[str]:
    """Vertical grid lines with labels."""
    parts = []
    for tick in ticks:
        parts.append(_line(to_x(tick), top, to_x(tick), bottom, "grid"))
        parts.append(_text(to_x(tick), bottom + 16, _format(tick), anchor="middle"))
    return parts


def _legend(names: Sequence[str], *, squares: bool = False) -> tuple[list[str], float]:
    """Names with their colours, in lines as wide as the chart, and the y coordinate of their end."""
    parts, x, y = list[str](), 0.0, float(_TOP)
    for number, name in enumerate(names):
        width = 18 + len(name) * _CHARACTER_WIDTH + 14
        if x and x + width > _WIDTH:
            x, y = 0.0, y + _LINE_HEIGHT
        colour = number % _COLOURS
        square = f'<rect class="f{colour}" x="{x:.1f}" y="{y}" width="11" height="11"/>'
        parts.append(square if squares else _marker(x + 6, y + 6, colour))
        parts.append(_text(x + 17, y + 10, name))
        x += width
    return parts, y + _LINE_HEIGHT + 4


def _add_margin(low: float, high: float) -> tuple[float, float]:
    """Widen a range at both ends, also one of width 0."""
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _round_up(value: float) -> float:
    """A round number that is not smaller; 1 for 0."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9)
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, about _TICKS of them."""
    distance = (high - low) / _TICKS
    power: float = 10.0 ** math.floor(math.log10(distance))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= distance * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _format(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _marker(x: float, y: float, number: int) -> str:
    """A circle for even numbers, a square for odd ones."""
    if number % 2:
        return f'<rect class="f{number}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    style_class = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style_class}>{escape(text)}</text>'
