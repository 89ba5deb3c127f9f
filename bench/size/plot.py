"""Plot of KL divergence, on a logarithmic axis, against file size."""

from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ...errors import OutputError
from ...stats.interval import FloatArray
from ..harness.drawing import missing_matplotlib
from .kl_curve import CurveReport
from .size_matched import PLANNED_KINDS, CurvePoint, FileKind, pareto_front

if TYPE_CHECKING:  # an extra: imported only to draw
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

ImageFormat = Literal["svg", "png"]

_DPI = 160
_MARGIN = 0.12  # other files are shown up to this fraction beyond the sizes of the planned files
_OBSTACLE_STEP = 4.0  # pixels between the boxes that stand for a line
_KL_MIN = 1e-9  # nats: less is rounding error of the runtime and would stretch the axis
# Offsets of a label from its marker in points, the preferred one first.
_LABEL_OFFSETS = (
    *((6, 0), (5, 4), (5, -4), (-6, 0), (-5, 4), (-5, -4), (0, 6), (0, -6)),
    *((5, 13), (5, -13), (-5, 13), (-5, -13)),
)


class _Style(NamedTuple):
    label: str
    colour: str  # from the colour-blind safe palette of Okabe and Ito
    marker: str


_STYLES: dict[FileKind, _Style] = {
    "planned": _Style("planned by Thirteen, 95 % interval", "#0072B2", "o"),
    "searched": _Style("the same with searched scales", "#117733", "*"),
    "refined": _Style("the same with tuned scales", "#882255", "X"),
    "trimmed": _Style("the same with a smaller vocabulary", "#CC79A7", "D"),
    "uniform": _Style("llama.cpp, one type throughout", "#D55E00", "s"),
    "mix": _Style("llama.cpp's own mixes", "#009E73", "^"),
    "autoround": _Style("AutoRound, optimized rounding to nearest", "#E69F00", "v"),
    "autoround-light": _Style("AutoRound, 50 steps of tuning per layer", "#56B4E9", "<"),
    "autoround-200": _Style("AutoRound, 200 steps of tuning per layer", "#999999", ">"),
    "gptq-gguf": _Style("gptq-gguf-toolkit", "#000000", "P"),
}


def check_plot() -> None:
    """Raise OutputError if matplotlib is missing; commands call it before their work."""
    if lacking := missing_matplotlib():
        raise OutputError(lacking)


def draw_curve(report: CurveReport, title: str, image_format: ImageFormat) -> bytes:
    """Draw the planned files as a line, and the other files of similar size as labelled points.

    Args:
        report: the measurement.
        title: title of the plot.
        image_format: format of the image.

    Returns:
        The image file; the same bytes for the same report.

    Raises:
        OutputError: matplotlib is missing.
    """
    check_plot()
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    file = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "thirteen", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 6), dpi=_DPI, layout="constrained")
        _draw(figure, report, title)
        # A date in the SVG would change its bytes.
        figure.savefig(file, format=image_format, metadata={"Date": None} if image_format == "svg" else None)
    return file.getvalue()


def _draw(figure: "Figure", report: CurveReport, title: str) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator  # noqa: PLC0415

    axes = figure.subplots()
    points = _points_to_draw(report.points)
    series = [_draw_series(axes, points, kind) for kind in _STYLES]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(0.06)
    axes.set_xlabel("file size, MB")
    axes.set_ylabel("KL divergence from full precision, nats (mean)")
    bits_per_mb = 8e6 / report.weights  # bits per weight
    top = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, bits_per_mb), partial(np.multiply, 1 / bits_per_mb))
    )
    top.set_xlabel("bits per weight, metadata included")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(handles=[one for one in series if one], loc="upper right", framealpha=1, edgecolor="#dddddd")
    figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(_footnote(report), fontsize=7, color="#555555", x=0.99, ha="right")
    _draw_labels(axes, points)


def _points_to_draw(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The planned files and the other files of similar size, or all files without planned ones."""
    planned = [point for point in points if point.kind in PLANNED_KINDS] or points
    sizes = [point.file_bytes for point in planned]
    smallest, largest = (1 - _MARGIN) * min(sizes), (1 + _MARGIN) * max(sizes)
    return [point for point in points if smallest <= point.file_bytes <= largest]


def _draw_series(axes: "Axes", points: Sequence[CurvePoint], kind: FileKind) -> "Artist | Container | None":
    """Draw the files of one kind, and a line through the planned ones or the best of the others.

    Returns:
        The entry for the legend; None without files of that kind.
    """
    points, style = [point for point in points if point.kind == kind], _STYLES[kind]
    if not points:
        return None
    sizes, kls = [point.file_bytes / 1e6 for point in points], [_clip(point.kl) for point in points]
    if kind in PLANNED_KINDS:
        intervals = [point.divergence.kl_mean for point in points]
        below = [max(0.0, kl - _clip(interval.low)) for kl, interval in zip(kls, intervals, strict=True)]
        above = [max(0.0, interval.high - kl) for kl, interval in zip(kls, intervals, strict=True)]
        line = f"{style.marker}-"
        return axes.errorbar(
            sizes, kls, (below, above), fmt=line, color=style.colour, capsize=3, label=style.label, zorder=3
        )
    best = pareto_front(list(zip(sizes, kls, strict=True)))
    axes.plot(*zip(*best, strict=True), ":", color=style.colour, linewidth=1)
    (markers,) = axes.plot(sizes, kls, style.marker, color=style.colour, markersize=5, label=style.label)
    return markers


def _clip(kl: float) -> float:
    return max(kl, _KL_MIN)


def _draw_labels(axes: "Axes", points: Sequence[CurvePoint]) -> None:
    """Write the name of each file next to its marker, at the offset with the least overlap."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # places the legend and the axes
    markers = axes.transData.transform([(p.file_bytes / 1e6, _clip(p.kl)) for p in points])  # (points, 2)
    obstacles = list(_obstacles(axes, markers))
    for point, marker in zip(points, markers, strict=True):
        labels = list(_label_candidates(axes, point))
        boxes = [label.get_window_extent() for label in labels]
        costs = [_overlap(box, obstacles, axes.bbox) + _ambiguity(box, marker, markers) for box in boxes]
        best = costs.index(min(costs))
        obstacles.append(boxes[best])
        for label in (*labels[:best], *labels[best + 1 :]):
            label.remove()


def _obstacles(axes: "Axes", markers: FloatArray) -> Iterator["Bbox"]:
    """Boxes, in pixels, that labels should not cover: legend, markers, and lines as rows of small boxes."""
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    legend = axes.get_legend()
    if legend is not None:
        yield legend.get_window_extent()
    for x, y in markers:
        yield Bbox.from_bounds(x - 6, y - 6, 12, 12)
    for line in axes.lines:
        if line.get_linestyle() == "None":
            continue
        for start, end in pairwise(axes.transData.transform(line.get_xydata())):  # (2,) each
            for x, y in np.linspace(start, end, 2 + int(np.hypot(*(end - start)) / _OBSTACLE_STEP)):
                yield Bbox.from_bounds(
                    x - _OBSTACLE_STEP / 2, y - _OBSTACLE_STEP / 2, _OBSTACLE_STEP, _OBSTACLE_STEP
                )


def _label_candidates(axes: "Axes", point: CurvePoint) -> Iterator["Annotation"]:
    for x, y in _LABEL_OFFSETS:
        yield axes.annotate(
            point.name,
            (point.file_bytes / 1e6, _clip(point.kl)),
            (x, y),
            textcoords="offset points",
            ha="center" if x == 0 else "left" if x > 0 else "right",
            va="center" if y == 0 else "bottom" if y > 0 else "top",
            fontsize=7.5,
            color=_STYLES[point.kind].colour,
        )


def _overlap(label: "Bbox", obstacles: Sequence["Bbox"], axes: "Bbox") -> float:
    """Area of a label that covers obstacles or lies outside of the axes."""
    covered = sum(_common_area(label, obstacle) for obstacle in obstacles)
    return covered + label.width * label.height - _common_area(label, axes)


def _ambiguity(label: "Bbox", own: FloatArray, markers: FloatArray) -> float:
    """The area of a label that is nearer to another file's marker than to its own, else 0."""

    def distance(marker: FloatArray) -> float:
        x, y = np.clip(marker, label.min, label.max)  # the label's nearest point
        return float(np.hypot(marker[0] - x, marker[1] - y))

    nearest = min(map(distance, markers))
    return float(label.width * label.height) if nearest < distance(own) else 0.0


def _common_area(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def _footnote(report: CurveReport) -> str:
    return (
        f"{report.positions:,} positions of {report.passages} texts; one importance matrix for the planned "
        "files and llama.cpp's; "
        f"llama-cpp-python {report.build.llama_cpp_python}, {report.date[:10]}"
    )
