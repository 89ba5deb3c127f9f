"""Charts of few and many values."""

import re

import pytest
from thirteen.bench.report.chart import (
    Bar,
    BarChart,
    ChartPoint,
    IntervalChart,
    IntervalMark,
    LineChart,
    Series,
    _round_up,
    _ticks,
    render_svg,
)

from .conftest import Page


@pytest.mark.parametrize("high", [0, 1e-9, 0.02, 1, 7.3, 99.99, 1e6])
def test_an_axis_covers_its_values_with_a_few_round_ticks(high):
    top = _round_up(high)
    assert high <= top * (1 + 1e-9) and top > 0
    ticks = _ticks(0, top)
    assert 3 <= len(ticks) <= 11 and ticks[0] == 0 and ticks[-1] <= top * (1 + 1e-9)


@pytest.mark.parametrize(
    "chart",
    [
        LineChart("one point", "x", "y", (Series("s", (ChartPoint(1, 0, 0, 0),)),)),
        LineChart("from zero", "x", "y", (Series("s", (ChartPoint(0, 1, 1, 1), ChartPoint(9000, 2, 2, 2))),)),
        IntervalChart("no width", "x", (IntervalMark("m", 1.0, 1.0, 1.0, "1"),), 1.0),
        IntervalChart("all zero", "x", (IntervalMark("m", 0.0, 0.0, 0.0, "0"),)),
        BarChart("nothing", "x", (Bar("b", (("a", 0.0),), "0"),)),
        BarChart("many", "x", tuple(Bar(f"b{n}", ((f"type{n}", n),), "") for n in range(12))),
    ],
    ids=lambda chart: chart.title,
)
def test_charts_of_few_or_many_values_are_complete(chart):
    svg = render_svg(chart, standalone=True)
    Page(svg)
    assert "nan" not in svg and "inf" not in svg
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split())
    for x, y in re.findall(r'<text x="(-?[\d.]+)" y="(-?[\d.]+)"', svg):
        assert 0 <= float(x) <= width and 0 <= float(y) <= height
