"""Charts of few and many values, as matplotlib draws them."""

import re

import pytest
from thirteen.bench.report.chart import (
    Bar,
    BarChart,
    Chart,
    ChartPoint,
    IntervalChart,
    IntervalMark,
    LineChart,
    Series,
)
from thirteen.bench.report.svg import render_svg

from ...chromium import BROWSER_TEST, CHROMIUM
from .conftest import Page

FAR = Series("base", tuple(ChartPoint(2**n, 60 - n, 59 - n, 61 - n) for n in range(4, 14)))
NEAR = Series("adapted", tuple(ChartPoint(60 + n, 9.5, 9, 10) for n in range(5)))
CHARTS: tuple[Chart, ...] = (
    LineChart("one point", "x", "y", (Series("s", (ChartPoint(1, 0, 0, 0),)),)),
    LineChart("from zero", "x", "y", (Series("s", (ChartPoint(0, 1, 1, 1), ChartPoint(9000, 2, 2, 2))),)),
    LineChart("far and near", "tokens", "tokens/s", (FAR, NEAR)),
    LineChart(
        "large", "x", "y", (Series("s", (ChartPoint(1, 1e102, 0, 1e103), ChartPoint(1e100, 2, 1, 3))),)
    ),
    IntervalChart("large", "x", (IntervalMark("m", -1e102, 1.0, 1e102, "1"),)),
    IntervalChart("no width", "x", (IntervalMark("m", 1.0, 1.0, 1.0, "1"),), 1.0),
    IntervalChart("all zero", "x", (IntervalMark("m", 0.0, 0.0, 0.0, "0"),)),
    IntervalChart("markup", "<x>", (IntervalMark("$m$ & </svg>", 0.9, 1.0, 1.1, '"1"', 2),), 1.0),
    BarChart("nothing", "x", (Bar("b", (("a", 0.0),), "0"),)),
    BarChart("a name that matplotlib hides", "x", (Bar("b", (("_a", 1.0),), "1"),)),
    BarChart("many", "x", tuple(Bar(f"b{n}", ((f"type{n}", n), ("rest", 1)), "") for n in range(12))),
    BarChart("long names", "MB", (Bar("model", tuple((f"a long name {n}", 1.0) for n in range(5)), "5 MB"),)),
)
OUTSIDE = """texts => texts.filter(text => {
    const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect()
    return inner.left < outer.left - 1 || inner.right > outer.right + 1 ||
           inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1
}).map(text => text.textContent)"""

every_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)


@every_chart
def test_charts_of_few_or_many_values_are_complete(chart: Chart) -> None:
    svg = render_svg(chart, "name", standalone=True)
    page = Page(svg)
    assert "nan" not in svg and "inf" not in svg
    for text in (chart.title, chart.x_label):
        assert text in page.text
    (label,) = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert label == f"{chart.title}. {chart.description()}"


@every_chart
def test_a_chart_is_the_same_text_each_time(chart: Chart) -> None:
    assert render_svg(chart, "a", standalone=False) == render_svg(chart, "a", standalone=False)


@every_chart
def test_all_colours_are_variables_of_the_palette(chart: Chart) -> None:
    svg = render_svg(chart, "name", standalone=False)
    assert not re.search(r"(?:fill|stroke): *(?:#|rgb|black|white)", svg)
    palette = render_svg(chart, "name", standalone=True)
    for variable in set(re.findall(r"var\((--\w+)\)", svg)):
        assert palette.count(f"{variable}: #") == 2  # light and dark


def test_no_identifier_of_a_page_stands_for_two_parts() -> None:
    page = "".join(render_svg(chart, f"chart-{n}", standalone=False) for n, chart in enumerate(CHARTS))
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) == set(identifiers)


def test_labels_of_near_values_do_not_touch() -> None:
    svg = render_svg(LineChart("near", "x", "y", (NEAR, FAR)), "near", standalone=False)
    shown = [int(text) for text in Page(svg).texts if text.isdigit() and int(text) >= 16 and int(text) != 20]
    assert 64 in shown or 60 in shown
    assert len(set(shown) & {60, 61, 62, 63, 64}) == 1


class TestInChromium:
    pytestmark = BROWSER_TEST

    def test_all_texts_are_inside_their_chart_on_a_phone(self) -> None:
        playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
        charts = "".join(render_svg(chart, f"chart-{n}", standalone=False) for n, chart in enumerate(CHARTS))
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM)
            page = browser.new_page(viewport={"width": 390, "height": 800})
            page.set_content(f"<!doctype html><style>svg {{ display: block; width: 100% }}</style>{charts}")
            assert page.locator("svg text").count() > 50
            assert page.locator("svg text").evaluate_all(OUTSIDE) == []
            browser.close()
