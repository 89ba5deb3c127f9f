"""The plot of a curve: KL divergence, on a logarithmic axis, against file size."""

import importlib.util
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ...errors import OutputError
from ...stats.interval import FloatArray
from .kl_curve import CurveReport
from .size_matched import CurvePoint, FileKind, pareto_front

if TYPE_CHECKING:  # an extra: imported when it is called for
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Format = Literal["svg", "png"]

_DOTS = 160  # an inch, of a PNG
_MARGIN = 0.12  # of the sizes that are shown, beyond the planned ones to each side
_STEP = 4.0  # dots
# Of a label, in points from its file's marker; the best first.
_PLACES = (
    *((6, 0), (5, 4), (5, -4), (-6, 0), (-5, 4), (-5, -4), (0, 6), (0, -6)),
    *((5, 13), (5, -13), (-5, 13), (-5, -13)),
)
_LEAST = 1e-9  # nats: what is less is rounding in the runtime, and would stretch the axis


class _Style(NamedTuple):
    label: str
    colour: str  # of the palette of Okabe and Ito, which all eyes tell apart
    marker: str


_STYLES: dict[FileKind, _Style] = {
    "planned": _Style("planned by Thirteen, 95 % interval", "#0072B2", "o"),
    "uniform": _Style("llama.cpp, one type throughout", "#D55E00", "s"),
    "mix": _Style("llama.cpp's own mixes", "#009E73", "^"),
}


def check_plot() -> None:
    """Raise OutputError if there is nothing to draw with: before the work, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError("matplotlib, which draws the plot, is not installed: pip install 'thirteen[plot]'")


def draw_curve(report: CurveReport, title: str, format_: Format) -> bytes:
    """Draw the planned files as a line, the stock files about their size as labelled points.

    Args:
        report: what was measured.
        title: of the plot.
        format_: of the picture.

    Returns:
        The picture's file; the same for the same report.

    Raises:
        OutputError: matplotlib is missing.
    """
    check_plot()
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    file = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "thirteen", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 6), dpi=_DOTS, layout="constrained")
        _fill(figure, report, title)
        # Without a date, the same figures make the same bytes.
        figure.savefig(file, format=format_, metadata={"Date": None} if format_ == "svg" else None)
    return file.getvalue()


def _fill(figure: "Figure", report: CurveReport, title: str) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator  # noqa: PLC0415

    axes = figure.subplots()
    shown = _shown(report.points)
    series = [_series(axes, shown, kind) for kind in _STYLES]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(0.06)
    axes.set_xlabel("file size, MB")
    axes.set_ylabel("KL divergence from full precision, nats (mean)")
    bits = 8e6 / report.weights  # of every weight, for a megabyte
    above = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, bits), partial(np.multiply, 1 / bits))
    )
    above.set_xlabel("bits a weight, metadata included")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(handles=[one for one in series if one], loc="upper right", framealpha=1, edgecolor="#dddddd")
    figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(_circumstances(report), fontsize=7, color="#555555", x=0.99, ha="right")
    _label(axes, shown)


def _shown(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The planned files, and the stock files about their size; all where nothing was planned."""
    about = [point for point in points if point.kind == "planned"] or points
    sizes = [point.file_bytes for point in about]
    least, most = (1 - _MARGIN) * min(sizes), (1 + _MARGIN) * max(sizes)
    return [point for point in points if least <= point.file_bytes <= most]


def _series(axes: "Axes", shown: Sequence[CurvePoint], kind: FileKind) -> "Artist | Container | None":
    """The points of a kind, and a line: through the planned ones, or the best stock files of their size.

    Returns:
        What stands for them in the legend; None where there are none.
    """
    points, style = [point for point in shown if point.kind == kind], _STYLES[kind]
    if not points:
        return None
    sizes, kls = [point.file_bytes / 1e6 for point in points], [_height(point.kl) for point in points]
    if kind == "planned":
        intervals = [point.divergence.kl_mean for point in points]
        below = [max(0.0, kl - _height(of.low)) for kl, of in zip(kls, intervals, strict=True)]
        over = [max(0.0, of.high - kl) for kl, of in zip(kls, intervals, strict=True)]
        look = f"{style.marker}-"
        return axes.errorbar(
            sizes, kls, (below, over), fmt=look, color=style.colour, capsize=3, label=style.label, zorder=3
        )
    best = pareto_front(list(zip(sizes, kls, strict=True)))
    axes.plot(*zip(*best, strict=True), ":", color=style.colour, linewidth=1)
    (markers,) = axes.plot(sizes, kls, style.marker, color=style.colour, markersize=5, label=style.label)
    return markers


def _height(kl: float) -> float:
    return max(kl, _LEAST)


def _label(axes: "Axes", points: Sequence[CurvePoint]) -> None:
    """Write each file's name beside it, where it covers least of what is there already."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # so that all has its place
    markers = axes.transData.transform([(p.file_bytes / 1e6, _height(p.kl)) for p in points])  # (points, 2)
    taken = list(_obstacles(axes, markers))
    for point, own in zip(points, markers, strict=True):
        tries = list(_tries(axes, point))
        boxes = [label.get_window_extent() for label in tries]
        costs = [_overlap(box, taken, axes.bbox) + _mistakable(box, own, markers) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        for label in (*tries[:best], *tries[best + 1 :]):
            label.remove()


def _obstacles(axes: "Axes", markers: FloatArray) -> Iterator["Bbox"]:
    """What a label should not cover, in dots: legend, markers, and lines as rows of small boxes."""
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    legend = axes.get_legend()
    if legend is not None:
        yield legend.get_window_extent()
    for x, y in markers:
        yield Bbox.from_bounds(x - 6, y - 6, 12, 12)
    drawn = (line for line in axes.lines if line.get_linestyle() != "None")
    for line in drawn:
        for begin, end in pairwise(axes.transData.transform(line.get_xydata())):  # (2,) each
            for x, y in np.linspace(begin, end, 2 + int(np.hypot(*(end - begin)) / _STEP)):
                yield Bbox.from_bounds(x - _STEP / 2, y - _STEP / 2, _STEP, _STEP)


def _tries(axes: "Axes", point: CurvePoint) -> Iterator["Annotation"]:
    """Its label in every place about a point that it could have, the preferred one first."""
    for x, y in _PLACES:
        yield axes.annotate(
            point.name,
            (point.file_bytes / 1e6, _height(point.kl)),
            (x, y),
            textcoords="offset points",
            ha="center" if x == 0 else "left" if x > 0 else "right",
            va="center" if y == 0 else "bottom" if y > 0 else "top",
            fontsize=7.5,
            color=_STYLES[point.kind].colour,
        )


def _overlap(label: "Bbox", taken: Sequence["Bbox"], inside: "Bbox") -> float:
    """How much of a label lies over something else, or outside of the axes."""
    covered = sum(_area(label, other) for other in taken)
    return covered + label.width * label.height - _area(label, inside)


def _mistakable(label: "Bbox", own: FloatArray, markers: FloatArray) -> float:
    """A label's area, if it lies nearer to another file's marker than to its own, else nothing."""

    def distance(to: FloatArray) -> float:
        x, y = np.clip(to, label.min, label.max)  # of the label, what is nearest
        return float(np.hypot(to[0] - x, to[1] - y))

    nearest = min(map(distance, markers))
    return float(label.width * label.height) if nearest < distance(own) else 0.0


def _area(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def _circumstances(report: CurveReport) -> str:
    return (
        f"{report.positions:,} positions of {report.passages} texts; one importance matrix for all files; "
        f"llama-cpp-python {report.build.llama_cpp_python}, {report.date[:10]}"
    )
