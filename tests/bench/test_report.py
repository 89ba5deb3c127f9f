"""Reports as a reader sees them: one self-contained page that begins with sentences, with text escaped."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from xml.etree.ElementTree import Element, fromstring

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


def parse(html: str) -> Element:
    """The page as XML, which checks that its tags are closed in order."""
    return fromstring(re.sub(r"<(meta|br)\b([^>]*)>", r"<\1\2/>", html.replace("<!doctype html>", "")))


def text_of(page: Element) -> str:
    return "".join(page.itertext())


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


@pytest.mark.parametrize(
    "names", [("latency",), ("accuracy",), ("fidelity",), ("latency", "accuracy", "fidelity")]
)
def test_a_page_begins_with_a_sentence_of_each_measurement_and_has_plots(names, reports):
    """The summary of one measurement was empty."""
    chosen = [reports[name] for name in names]
    page = parse(render_page(chosen))
    first, *_ = page.iter("ul")
    for report in chosen:
        assert report.verdict[0] in text_of(first)
        assert all(line in text_of(page) for line in report.verdict)
    assert len([*page.iter("table")]) == len(names) <= len([*page.iter("figure")])


def test_the_page_is_self_contained_and_explains_its_terms(reports):
    html = render_page(list(reports.values()))
    for element in parse(html).iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object", "embed", "a"}
        assert not {*element.keys()} & {"src", "href", "onclick", "onload"}
    assert not re.search(r"url\(|@import|@font-face", html)
    for term in ("KL", "McNemar", "decode"):
        assert f"<dt>{term}</dt>" in html


def test_texts_are_escaped_and_the_home_folder_is_not_told(reports):
    home = str(Path.home() / "questions.jsonl")
    report = replace(reports["accuracy"], data=HOSTILE, source=home, verdict=(HOSTILE,))
    page = parse(render_page([report]))
    assert HOSTILE in text_of(page) and home not in text_of(page) and page.find(".//script") is None


def test_what_a_command_printed_is_read_back(reports, tmp_path):
    for report in reports.values():
        assert read_reports(write_rows(tmp_path / "report.json", [asdict(report)])) == [report]
    both = {name: asdict(reports[name]) for name in ("latency", "accuracy")}  # of bench --quick
    file = write_rows(tmp_path / "both.json", [both])
    assert read_reports(file) == [reports["latency"], reports["accuracy"]]


def test_what_is_no_measurement_is_refused(reports, tmp_path):
    latency = asdict(reports["latency"])
    for value, message in (
        ([], "not what bench latency, accuracy or fidelity prints"),
        ({"verdict": []}, "not what bench latency, accuracy or fidelity prints"),
        (latency | {"rounds": "eight"}, "rounds: 'eight' should be a valid integer"),
        (latency | {"files": []}, "cannot be that of a measurement"),
    ):
        with pytest.raises(ThirteenError, match=message):
            render_page(read_reports(write_rows(tmp_path / "report.json", [value])))


def test_a_chart_places_its_values_between_the_outermost(reports):
    page = parse(render_page([reports["latency"]]))
    styles = " ".join(element.get("style", "") for element in page.iter())
    places = [float(number) for number in re.findall(r"(-?[\d.]+)%", styles)]
    assert min(places) == 0 and max(places) <= 100
