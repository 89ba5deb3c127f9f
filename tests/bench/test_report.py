"""Reports as a reader sees them: one self-contained page that begins with sentences, with text escaped."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from time import perf_counter

import pytest
from thirteen.bench.accuracy.accuracy import AccuracyRequest, run_accuracy
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompts import PromptSettings
from thirteen.bench.environment import ModelSource
from thirteen.bench.fidelity.fidelity import run_fidelity
from thirteen.bench.latency import run_latency
from thirteen.bench.report import read_reports, render_page
from thirteen.bench.workload import Workload
from thirteen.errors import ThirteenError
from thirteen.runtime.options import Options

from ..json_lines import write_rows

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('x')</script> & <img src=x>"


class Page(HTMLParser):
    """Tags and text of a page, with a check that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reports(tiny, lora, tmp_path_factory):
    """Real measurements of a tiny model by name."""
    folder, models = tmp_path_factory.mktemp("reports"), [ModelSource(tiny), ModelSource(tiny, lora)]
    texts = write_rows(folder / "texts.jsonl", ({"text": f"What is {n} times 13?"} for n in range(12)))
    sums = write_rows(folder / "sums.jsonl", ({"question": f"{n} + {n}?", "answer": 2 * n} for n in range(4)))
    base, adapted = models
    roles = {"reference": adapted, "shipped": adapted, "base": base, "shipped_base": base}
    asked = AccuracyRequest(
        models=models,
        questions=load_question_set(str(sums)),
        settings=PromptSettings(threads=1, options=Options(max_tokens=4)),
        records=folder,
        timed=2,
    )
    return {
        "latency": run_latency(models, Workload(5, 3, 1), rounds=2, until=perf_counter() + 60),
        "accuracy": run_accuracy(asked),
        "fidelity": run_fidelity(roles, data=texts, tokens=60, threads=1),
    }


@pytest.fixture
def file(tmp_path):
    def file(value: object) -> Path:
        (tmp_path / "report.json").write_text(json.dumps(value))
        return tmp_path / "report.json"

    return file


@pytest.mark.parametrize(
    "names", [("latency",), ("accuracy",), ("fidelity",), ("latency", "accuracy", "fidelity")]
)
def test_a_page_begins_with_a_sentence_of_each_measurement_and_has_plots(names, reports):
    """The summary of one measurement was empty."""
    chosen = [reports[name] for name in names]
    page = Page(render_page(chosen))
    summary = page.text[: page.text.index(chosen[0].verdict[0]) + 2000]
    for report in chosen:
        assert report.verdict[0] in summary
        assert all(line in page.text for line in report.verdict)
    assert sum(tag == "table" for tag, _ in page.tags) == len(names)
    assert sum(tag == "figure" for tag, _ in page.tags) >= len(names)


def test_the_page_is_self_contained_and_explains_its_terms(reports):
    html = render_page(list(reports.values()))
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "a"}
    assert not any(attributes.keys() & {"src", "href", "onclick", "onload"} for _, attributes in page.tags)
    assert not re.search(r"url\(|@import|@font-face", html)
    for term in ("KL", "McNemar", "decode"):
        assert f"<dt>{term}</dt>" in html


def test_texts_are_escaped_and_the_home_folder_is_not_told(reports):
    home = str(Path.home() / "questions.jsonl")
    report = replace(reports["accuracy"], data=HOSTILE, source=home, verdict=(HOSTILE,))
    page = Page(render_page([report]))
    assert HOSTILE in page.text and home not in page.text
    assert "script" not in {tag for tag, _ in page.tags}


def test_what_a_command_printed_is_read_back(reports, file):
    for report in reports.values():
        assert read_reports(file(asdict(report))) == [report]
    both = {name: asdict(reports[name]) for name in ("latency", "accuracy")}  # of bench --quick
    assert read_reports(file(both)) == [reports["latency"], reports["accuracy"]]


def test_what_is_no_measurement_is_refused(reports, file):
    damaged = asdict(reports["latency"]) | {"rounds": "eight"}
    for value, message in {
        "[]": ([], "not what bench latency, accuracy or fidelity prints"),
        "{}": ({"verdict": []}, "not what bench latency, accuracy or fidelity prints"),
        "damaged": (damaged, "rounds: 'eight' should be a valid integer"),
        "without files": (asdict(reports["latency"]) | {"files": []}, "cannot be that of a measurement"),
    }.values():
        with pytest.raises(ThirteenError, match=message):
            render_page(read_reports(file(value)))


def test_a_chart_places_its_values_between_the_outermost(reports):
    page = Page(render_page([reports["latency"]]))
    styles = [attributes.get("style") or "" for tag, attributes in page.tags if tag in {"i", "b", "em"}]
    places = [float(number) for style in styles for number in re.findall(r"(-?[\d.]+)%", style)]
    assert min(places) == 0 and max(places) <= 100
