"""Charts as SVG, drawn for a phone's width: no script, no font and no file besides, light and dark.

Colours are variables of the style sheet, so that a page can set them; charts that differ in colour differ in
shape or by a label as well.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

_WIDTH = 360
_LEFT, _RIGHT = 46, 14
_TOP = 8
_CHARACTER = 6.4  # widths of the text's characters, about
_LINE = 18  # height of a line of text
_PLOT = 170  # height of a line chart
_ROW = 40  # height of a row of marks or bars
_BOTTOM = 40  # ticks and the axis' label
_TICKS = 6
_COLOURS = 8
_APART = 6  # of series at the same place, so that their bars are seen
_LOG = 8  # times that lengths must span for a logarithmic axis

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
    "svg .one{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 3}"
    + "".join(
        f"svg .f{n}{{fill:var(--c{n})}}svg .l{n}{{stroke:var(--c{n});stroke-width:2;fill:none}}"
        for n in range(_COLOURS)
    )
)


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A value at a place, and the range about it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together."""

    name: str
    points: tuple[ChartPoint, ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """Series over a common axis, from zero up; places that span far stand on a logarithmic one."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class IntervalMark:
    """An estimate, its interval, and its colour's number."""

    name: str
    low: float
    estimate: float
    high: float
    text: str
    colour: int = 1


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Estimates with their intervals, a row each, beside a reference where there is one."""

    title: str
    x_label: str
    marks: tuple[IntervalMark, ...]
    reference: float | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of segments end to end: their names and lengths; the text is beside it."""

    name: str
    segments: tuple[tuple[str, float], ...]
    text: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Rows of segments from zero; the same name has the same colour in all."""

    title: str
    x_label: str
    bars: tuple[Bar, ...]


Chart: TypeAlias = LineChart | IntervalChart | BarChart


def render_svg(chart: Chart, *, alone: bool) -> str:
    """Draw a chart.

    Args:
        chart: what to draw; of at least one value.
        alone: as a file of its own, with the style sheet in it, or as a part of a page that has it.
    """
    match chart:
        case LineChart():
            height, parts = _lines(chart)
        case IntervalChart():
            height, parts = _marks(chart)
        case BarChart():
            height, parts = _bars(chart)
    body = "".join(parts)
    name = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    own = f'<style>{STYLE}</style><rect width="100%" height="100%" fill="var(--ground)"/>' if alone else ""
    return (
        f'<svg{name} role="img" viewBox="0 0 {_WIDTH} {height:g}" aria-label="{escape(chart.title)}">'
        f"<title>{escape(chart.title)}</title>{own}{body}</svg>"
    )


def _lines(chart: LineChart) -> tuple[float, list[str]]:
    names = [series.name for series in chart.series]
    legend, top = _legend(names)
    points = [point for series in chart.series for point in series.points]
    places = sorted({point.x for point in points})
    across = _places(places)
    most = _nice(max(point.high for point in points))
    ticks = _ticks(0, most)
    top += _LINE  # the axis' label
    bottom = top + _PLOT

    def up(value: float) -> float:
        return bottom - _PLOT * value / most

    parts = [*legend, _text(0, top - 8, chart.y_label, "dim")]
    for tick in ticks:
        parts.append(_line(_LEFT, up(tick), _WIDTH - _RIGHT, up(tick), "grid"))
        parts.append(_text(_LEFT - 6, up(tick) + 4, _short(tick), anchor="end"))
    parts += _under(places, across, bottom)
    for number, series in enumerate(chart.series):
        parts += _polyline(series, number, across, up)
    parts.append(_text(_LEFT, bottom + 36, chart.x_label, "dim"))
    return bottom + _BOTTOM, parts


def _places(places: Sequence[float]) -> dict[float, float]:
    """Where each stands across, in the picture's units."""
    far = places[-1] / places[0] > _LOG if places[0] > 0 else False
    scaled = [math.log(place) if far else place for place in places]
    span = scaled[-1] - scaled[0]
    room = _WIDTH - _LEFT - _RIGHT - 24
    return {
        place: _LEFT + 12 + (room * (at - scaled[0]) / span if span else room / 2)
        for place, at in zip(places, scaled, strict=True)
    }


def _under(places: Sequence[float], across: dict[float, float], bottom: float) -> Iterator[str]:
    """The places' names under the axis, where there is room beside the last one."""
    taken = -math.inf
    for place in places:
        half = len(_short(place)) * _CHARACTER / 2
        if across[place] - half > taken + 4:
            yield _text(across[place], bottom + 16, _short(place), anchor="middle")
            taken = across[place] + half


def _polyline(
    series: Series, number: int, across: dict[float, float], up: Callable[[float], float]
) -> Iterator[str]:
    places = [across[point.x] + _APART * (2 * number - 1) / 2 for point in series.points]
    corners = " ".join(f"{x:.1f},{up(point.y):.1f}" for x, point in zip(places, series.points, strict=True))
    dashes = ' stroke-dasharray="6 3"' if number % 2 else ""
    yield f'<polyline class="l{number}" points="{corners}"{dashes}/>'
    for x, point in zip(places, series.points, strict=True):
        yield _line(x, up(point.low), x, up(point.high), f"l{number}")
        yield _marker(x, up(point.y), number)


def _marks(chart: IntervalChart) -> tuple[float, list[str]]:
    bounds = [bound for mark in chart.marks for bound in (mark.low, mark.estimate, mark.high)]
    bounds += [] if chart.reference is None else [chart.reference]
    low, high = _spread(min(bounds), max(bounds))
    bottom = _TOP + _ROW * len(chart.marks)

    def across(value: float) -> float:
        return _RIGHT + (_WIDTH - 2 * _RIGHT) * (value - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(across(tick), _TOP, across(tick), bottom, "grid"))
        parts.append(_text(across(tick), bottom + 16, _short(tick), anchor="middle"))
    if chart.reference is not None:
        parts.append(_line(across(chart.reference), _TOP, across(chart.reference), bottom, "one"))
    for row, mark in enumerate(chart.marks):
        y = _TOP + _ROW * row + 28
        parts.append(_text(0, y - 12, mark.name))
        parts.append(_text(_WIDTH, y - 12, mark.text, anchor="end"))
        parts.append(_line(across(mark.low), y, across(mark.high), y, f"l{mark.colour}"))
        parts.append(_marker(across(mark.estimate), y, mark.colour))
    parts.append(_text(0, bottom + 36, chart.x_label, "dim"))
    return bottom + _BOTTOM, parts


def _bars(chart: BarChart) -> tuple[float, list[str]]:
    names = list(dict.fromkeys(name for bar in chart.bars for name, _ in bar.segments))
    legend, top = _legend(names, squares=True)
    most = _nice(max(sum(length for _, length in bar.segments) for bar in chart.bars))
    bottom, room = top + _ROW * len(chart.bars), _WIDTH - 2 * _RIGHT
    parts = [*legend]
    for tick in _ticks(0, most):
        x = _RIGHT + room * tick / most
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 16, _short(tick), anchor="middle"))
    for row, bar in enumerate(chart.bars):
        y, x = top + _ROW * row + 20, float(_RIGHT)
        parts.append(_text(0, y - 4, bar.name))
        parts.append(_text(_WIDTH, y - 4, bar.text, anchor="end"))
        for name, length in bar.segments:
            width = room * length / most
            colour = names.index(name) % _COLOURS
            parts.append(
                f'<rect class="f{colour}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="14">'
                f"<title>{escape(f'{bar.name}, {name}: {_short(length)}')}</title></rect>"
            )
            x += width
    parts.append(_text(0, bottom + 36, chart.x_label, "dim"))
    return bottom + _BOTTOM, parts


def _legend(names: Sequence[str], *, squares: bool = False) -> tuple[list[str], float]:
    """Names with their colours, in lines as wide as the chart, and where they end."""
    parts, x, y = list[str](), 0.0, float(_TOP)
    for number, name in enumerate(names):
        width = 18 + len(name) * _CHARACTER + 14
        if x and x + width > _WIDTH:
            x, y = 0.0, y + _LINE
        colour = number % _COLOURS
        square = f'<rect class="f{colour}" x="{x:.1f}" y="{y}" width="11" height="11"/>'
        parts.append(square if squares else _marker(x + 6, y + 6, colour))
        parts.append(_text(x + 17, y + 10, name))
        x += width
    return parts, y + _LINE + 4


def _spread(low: float, high: float) -> tuple[float, float]:
    """A range with some room at both ends; one of nothing is widened."""
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _nice(most: float) -> float:
    """A round number that is not below; 1 for nothing."""
    if most <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(most))
    return next(
        step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= most * (1 - 1e-9)
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range, about _TICKS of them."""
    rough = (high - low) / _TICKS
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _marker(x: float, y: float, number: int) -> str:
    """A circle for even numbers, a square for odd ones."""
    if number % 2:
        return f'<rect class="f{number}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'
