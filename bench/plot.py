"""The plot of a curve: KL divergence, on a logarithmic axis, against file size."""

import importlib.util
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ..errors import OutputError
from .curve import CurveReport
from .equal_bytes import Kind, Point, envelope

if TYPE_CHECKING:  # an extra: imported when it is called for
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Format = Literal["svg", "png"]

_DOTS = 160  # an inch, of a PNG
_MARGIN = 0.12  # of the sizes that are shown, beyond the planned ones to each side
_LEAST = 1e-9  # nats: what is less is rounding in the runtime, and would stretch the axis


class _Style(NamedTuple):
    label: str
    colour: str  # of the palette of Okabe and Ito, which all eyes tell apart
    marker: str
    line: str


_STYLES: dict[Kind, _Style] = {
    "planned": _Style("planned here (95 % interval)", "#0072B2", "o", "-"),
    "uniform": _Style("llama.cpp, one type throughout", "#D55E00", "s", ":"),
    "mix": _Style("llama.cpp's own mixes", "#009E73", "^", ":"),
}


def check_plot() -> None:
    """Raise OutputError if there is nothing to draw with: before the work, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError("matplotlib, which draws the plot, is not installed: pip install 'thirteen[plot]'")


def draw(report: CurveReport, title: str, format_: Format) -> bytes:
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
    axes = figure.subplots()
    shown = _shown(report.points)
    for kind, style in _STYLES.items():
        _series(axes, [point for point in shown if point.kind == kind], style)
    axes.set_yscale("log")
    axes.set_xlabel("file size, MB")
    axes.set_ylabel("KL divergence from full precision, nats (mean)")
    bits = 8e6 / report.weights  # of every weight, for a megabyte
    above = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, bits), partial(np.multiply, 1 / bits))
    )
    above.set_xlabel("bits a weight, metadata included")
    axes.grid(which="both", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="upper right", framealpha=1, edgecolor="#dddddd")
    axes.set_title(f"{title}\n", fontweight="bold", loc="left")
    figure.supxlabel(_circumstances(report), fontsize=7, color="#555555", x=0.99, ha="right")
    _label(axes, shown)


def _shown(points: Sequence[Point]) -> list[Point]:
    """The planned files, and the stock files about their size; all where nothing was planned."""
    about = [point for point in points if point.kind == "planned"] or points
    sizes = [point.file_bytes for point in about]
    least, most = (1 - _MARGIN) * min(sizes), (1 + _MARGIN) * max(sizes)
    return [point for point in points if least <= point.file_bytes <= most]


def _series(axes: "Axes", points: Sequence[Point], style: _Style) -> None:
    """The points of a kind, and a line: through the planned ones, or the best stock files of their size."""
    if not points:
        return
    planned = points[0].kind == "planned"
    sizes, kls = [point.file_bytes / 1e6 for point in points], [_height(point.kl) for point in points]
    through = envelope([(point.file_bytes, _height(point.kl)) for point in points])
    line = (sizes, kls) if planned else ([size / 1e6 for size, _ in through], [kl for _, kl in through])
    axes.plot(*line, style.line, color=style.colour, linewidth=1.6 if planned else 1, alpha=0.8)
    intervals = [point.divergence.kl_mean for point in points]
    axes.errorbar(
        sizes,
        kls,
        yerr=[
            [kl - _height(of.low) for kl, of in zip(kls, intervals, strict=True)],
            [_height(of.high) - kl for kl, of in zip(kls, intervals, strict=True)],
        ],
        fmt=style.marker,
        color=style.colour,
        markersize=6 if planned else 5,
        elinewidth=1.2 if planned else 0,
        capsize=3 if planned else 0,
        label=style.label,
    )


def _height(kl: float) -> float:
    return max(kl, _LEAST)


def _label(axes: "Axes", points: Sequence[Point]) -> None:
    """Write each file's name beside it, where it covers least of what is there already."""
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # so that all has its place
    at = [axes.transData.transform((p.file_bytes / 1e6, _height(p.kl))) for p in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in at]
    legend = axes.get_legend()
    taken += [legend.get_window_extent()] if legend else []
    for point in points:
        tries = list(_tries(axes, point))
        boxes = [label.get_window_extent() for label in tries]
        covered = [_overlap(box, taken, axes.bbox) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        for label in (*tries[:best], *tries[best + 1 :]):
            label.remove()


def _tries(axes: "Axes", point: Point) -> Iterator["Annotation"]:
    """Its label in every place about a point that it could have, the preferred one first."""
    for x, y in ((6, 0), (5, 6), (5, -6), (-6, 0), (-5, 6), (-5, -6), (0, 8), (0, -8), (5, 14), (5, -14)):
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


def _area(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def _circumstances(report: CurveReport) -> str:
    return (
        f"{report.positions:,} positions of {report.passages} texts; one importance matrix for all files; "
        f"llama-cpp-python {report.build.llama_cpp_python}, {report.date[:10]}"
    )
