"""Charts as SVG by matplotlib, sized for a phone, without scripts or other files, for light and dark mode.

matplotlib draws in the colours of the light palette. In the SVG they become CSS variables, which a style
sheet sets. Series of different colours also differ in shape or label.
"""

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import StringIO
from typing import TYPE_CHECKING, Any

from .chart import BarChart, Chart, IntervalChart, LineChart

if TYPE_CHECKING:  # an extra: imported only to draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 360  # of a chart in points, which are the units of the SVG
_PLOT_HEIGHT = 200
_ROW_HEIGHT = 42  # of an interval or a bar
_AXIS_HEIGHT = 48  # tick labels and axis label
_LEGEND_HEIGHT = 20  # of a row
_SERIES_OFFSET = 3  # points between series at the same x, so that both error bars are visible
_LOG_SPAN = 8  # ratio of the largest x to the smallest above which the axis is logarithmic
_TICK_DISTANCE = 0.08  # smallest distance of labelled x values, as a fraction of the axis
_MARGIN = 0.08  # beyond the outermost values, as a fraction of the axis
_MARKERS = "os^Dvphd"
_DASHES = "-", "--"
_INK, _DIM, _LINE = "#1b1b1b", "#555555", "#d8d8d8"
_COLOURS = "#707070", "#0072b2", "#d55e00", "#009e73", "#b0578d", "#b87f00", "#3a97cc", "#7d6236"
_VARIABLES = {_INK: "ink", _DIM: "dim", _LINE: "line"} | {one: f"c{n}" for n, one in enumerate(_COLOURS)}
_SETTINGS: dict[Any, Any] = {
    **{"svg.fonttype": "none", "text.parse_math": False, "font.size": 11, "text.color": _INK},
    **{"axes.edgecolor": _LINE, "axes.labelcolor": _DIM, "xtick.color": _LINE, "ytick.color": _LINE},
    **{"xtick.labelcolor": _INK, "ytick.labelcolor": _INK, "grid.color": _LINE, "grid.linewidth": 0.6},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
}


def render_svg(chart: Chart, name: str, *, standalone: bool) -> str:
    """Render a chart; the same chart and name give the same text.

    Args:
        chart: a chart with at least one value.
        name: makes identifiers of parts unique within a page.
        standalone: render a complete SVG file with its style sheet, instead of a part of a page that has it.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    file = StringIO()
    with mpl.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = Figure(layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        match chart:
            case LineChart():
                height = _draw_lines(figure, axes, chart)
            case IntervalChart():
                height = _draw_intervals(axes, chart)
            case BarChart():
                height = _draw_bars(figure, axes, chart)
        axes.set_xlabel(chart.x_label, loc="left")
        figure.set_size_inches(_WIDTH / 72, height / 72)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _svg(chart, _drawing(file.getvalue()), height, standalone=standalone)


def _svg(chart: Chart, drawing: str, height: int, *, standalone: bool) -> str:
    namespace = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    background = '<rect width="100%" height="100%" style="fill: var(--ground)"/>'
    head = (namespace, f"<style>{_palette()}</style>{background}") if standalone else ("", "")
    title, description = escape(chart.title), escape(chart.description())
    return (
        f'<svg{head[0]} role="img" viewBox="0 0 {_WIDTH} {height}" aria-label="{title}. {description}">'
        f"<title>{title}</title>{head[1]}{drawing}</svg>"
    )


def _palette() -> str:
    return (files(__package__) / "templates/palette.css").read_text("utf-8")


def _drawing(svg: str) -> str:
    """The content of matplotlib's SVG, with variables for colours, the page's font and no unused names."""
    body = svg[svg.index("</defs>") + len("</defs>") : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), body)
    return re.sub(r"\s*\n\s*", " ", body)


def _variable(colour: str) -> str:
    return f"var(--{_VARIABLES[colour]})" if colour in _VARIABLES else colour


def _draw_lines(figure: "Figure", axes: "Axes", chart: LineChart) -> int:
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415

    for number, series in enumerate(chart.series):
        offset = ScaledTranslation((2 * number - 1) * _SERIES_OFFSET / 72, 0, figure.dpi_scale_trans)
        low = [max(0.0, point.y - point.low) for point in series.points]
        high = [max(0.0, point.high - point.y) for point in series.points]
        axes.errorbar(
            [point.x for point in series.points],
            [point.y for point in series.points],
            (low, high),
            fmt=_MARKERS[number % len(_MARKERS)] + _DASHES[number % 2],
            color=_COLOURS[number % len(_COLOURS)],
            label=series.name,
            transform=axes.transData + offset,
        )
    _set_x_ticks(axes, sorted({point.x for series in chart.series for point in series.points}))
    axes.set_ylim(0, 1.05 * max(point.high for series in chart.series for point in series.points) or 1)
    axes.set_title(chart.y_label, loc="left", fontsize=11, color=_DIM)
    axes.grid(axis="y")
    return _PLOT_HEIGHT + _AXIS_HEIGHT + _draw_legend(figure, axes)


def _set_x_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Label the values, except where a label would touch the one before it."""
    from matplotlib.ticker import FixedLocator, NullLocator  # noqa: PLC0415

    low, high = values[0], values[-1]
    if low > 0 and high / low > _LOG_SPAN:
        axes.set_xscale("log")
        ratio = (high / low) ** _MARGIN
        axes.set_xlim(low / ratio, high * ratio)
    else:
        margin = _MARGIN * (high - low) or 1
        axes.set_xlim(low - margin, high + margin)
    to_axes = (axes.transScale + axes.transLimits).transform
    ticks = list[float]()
    for value in values:
        if not ticks or to_axes((value, 0))[0] - to_axes((ticks[-1], 0))[0] >= _TICK_DISTANCE:
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_intervals(axes: "Axes", chart: IntervalChart) -> int:
    for row, mark in enumerate(chart.marks):
        errors = [[max(0.0, mark.estimate - mark.low)], [max(0.0, mark.high - mark.estimate)]]
        colour = _COLOURS[mark.colour]
        axes.errorbar(mark.estimate, row, xerr=errors, fmt=_MARKERS[mark.colour], color=colour)
    if chart.reference is not None:
        axes.axvline(chart.reference, color=_INK, linestyle="--", linewidth=0.8)
    axes.margins(x=_MARGIN)
    return _draw_rows(axes, [(mark.name, mark.text) for mark in chart.marks])


def _draw_bars(figure: "Figure", axes: "Axes", chart: BarChart) -> int:
    names = list(dict.fromkeys(name for bar in chart.bars for name, _ in bar.segments))
    for number, name in enumerate(names):
        rows, left, lengths = list[int](), list[float](), list[float]()
        for row, bar in enumerate(chart.bars):
            start = 0.0
            for segment, length in bar.segments:
                if segment == name:
                    rows.append(row)
                    left.append(start)
                    lengths.append(length)
                start += length
        axes.barh(rows, lengths, 0.36, left, color=_COLOURS[number % len(_COLOURS)], label=name)
    longest = max(sum(length for _, length in bar.segments) for bar in chart.bars)
    axes.set_xlim(0, 1.02 * longest or 1)
    return _draw_rows(axes, [(bar.name, bar.text) for bar in chart.bars]) + _draw_legend(figure, axes)


def _draw_rows(axes: "Axes", texts: Sequence[tuple[str, str]]) -> int:
    """Write a name and a text above each row, and return the height of all rows."""
    across = axes.get_yaxis_transform()  # x as a fraction of the axes
    for row, (name, text) in enumerate(texts):
        # Outside of the layout, in which a long text would leave no room for the axes.
        axes.text(0, row - 0.3, name, transform=across, va="bottom", in_layout=False)
        axes.text(1, row - 0.3, text, transform=across, va="bottom", ha="right", in_layout=False)
    axes.set_ylim(len(texts) - 0.5, -0.8)
    axes.yaxis.set_visible(False)
    axes.spines.left.set_visible(False)
    axes.grid(axis="x")
    return _ROW_HEIGHT * len(texts) + _AXIS_HEIGHT


def _draw_legend(figure: "Figure", axes: "Axes") -> int:
    """Draw the legend above the axes and return its height."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(5, 50 // (6 + max(map(len, labels), default=0))))
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        handlelength=1.5,
    )
    return _LEGEND_HEIGHT * -(-len(labels) // columns) + 6
