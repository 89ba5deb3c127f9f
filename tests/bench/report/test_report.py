"""Reports as a reader sees them: complete, self-contained, and with all text escaped."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from thirteen.bench.accuracy.accuracy import AccuracyReport, accuracy_table
from thirteen.bench.accuracy.accuracy_metrics import Calibration, GivenAnswers, PairedScores, Scores
from thirteen.bench.accuracy.answer_time import AnswerTime, AnswerTimes
from thirteen.bench.accuracy.evaluate import ModelResult
from thirteen.bench.accuracy.prompts import PromptSettings
from thirteen.bench.memory.memory import Footprint, MemoryUse
from thirteen.bench.memory.size import run_size
from thirteen.bench.peers.peer import PeerWorkload
from thirteen.bench.peers.peers import PeersRequest, run_peers
from thirteen.bench.report.document import TERMS, Chart, Document, Section, render_html, render_markdown
from thirteen.bench.report.effort_plot import plot_efforts
from thirteen.bench.report.report import ReportRequest, collect_measurements, write_report
from thirteen.bench.report.sections import Measurements, compose_report, describe_differences
from thirteen.bench.speed.latency import LatencyRequest, latency_table, run_latency
from thirteen.bench.speed.questions import QuestionShape
from thirteen.errors import FileError, OutputError, RequestError
from thirteen.quality.environment import this_build, this_machine
from thirteen.quality.fidelity.fidelity import run_fidelity
from thirteen.quality.fidelity.model_roles import model_sources
from thirteen.stats.interval import Interval

from ...runtime.conftest import tensors, write_gguf
from .conftest import Page

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('x')</script> & | `a` [b](http://evil.example) *c* # <img src=x>"
CALIBRATION = Calibration(
    0.04, (GivenAnswers(0.8, 0.5, Interval(0.8, 0.9, 0.95)), GivenAnswers(0.9, 0.0, None))
)
WORKLOAD = PeerWorkload(1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3)


def accuracy_report(sha256: str, path: str = "adapted.gguf") -> AccuracyReport:
    def model_result(correct: int, file: str, hash_: str) -> ModelResult:
        accuracy = Interval(correct / 200 - 0.05, correct / 200, correct / 200 + 0.05)
        scores = Scores(200, correct, 150 - correct, 20, 30, 1, accuracy, 99.5, "no room", CALIBRATION)
        return ModelResult(file, hash_, None, None, "records.jsonl", scores)

    return AccuracyReport(
        date="2026-11-25",
        machine=this_machine(),
        build=this_build(),
        terms=PromptSettings(threads=1),
        data="gsm8k",
        source="openai/gsm8k@0: test.parquet",
        data_sha256="1",
        adapted=model_result(75, path, sha256),
        base=model_result(57, "base.gguf", "0"),
        paired=PairedScores(199, 45, 30, 12, 112, Interval(0.02, 0.09, 0.16), 0.0078),
        verdict=("accuracy: better by 9.0 points",),
        answer_time=answer_times(),
    )


def answer_times() -> AnswerTimes:
    return AnswerTimes(
        timed=16,
        questions=199,
        adapted=AnswerTime(64.0, 0.5, 1.5, 11.25),
        base=AnswerTime(200.0, 0.5, 4.5, 3.42),
        tokens_ratio=Interval(0.3, 0.32, 0.34),
        seconds_ratio=Interval(0.38, 0.4, 0.42),
        right_ratio=Interval(2.61, 3.29, 4.12),
    )


@pytest.fixture(scope="module")
def data(tiny, lora):
    """Real measurements of a tiny model, with made-up accuracies and memory."""
    request = LatencyRequest(
        base=tiny, adapted=tiny, threads=1, adapter=lora, questions=(QuestionShape(5, 4), QuestionShape(5, 9))
    )
    footprint = Footprint(9_000_000, 8_000_000, 5_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000)
    with pytest.MonkeyPatch.context() as patch:
        memory = MemoryUse(0.1, 0.2, None, 9_500_000, footprint)
        patch.setattr("thirteen.bench.memory.memory.measure_memory", lambda *_: memory)
        patch.setattr("thirteen.bench.speed.latency.measure_read_bandwidth", lambda _: 2e10)
        latency = run_latency(request)
    size = run_size(tiny)
    texts = tiny.with_name("texts.jsonl")
    texts.write_text("".join(json.dumps({"text": f"What is {n} times 13?"}) + "\n" for n in range(12)))
    other = write_gguf(
        tiny.with_name("other.gguf"),
        {},
        {"output_norm.weight": tensors()["output_norm.weight"] * np.float32(1.2)},
    )
    fidelity = run_fidelity(
        model_sources(other, other, base=tiny, shipped_base=tiny), data=texts, tokens=60, threads=1
    )
    return Measurements(latency, size, accuracy_report(size.sha256), fidelity)


@pytest.fixture(scope="module")
def accuracy_only():
    return Measurements(accuracy=accuracy_report("0"))


def test_the_page_is_self_contained(data):
    html = render_html(compose_report(data))
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video"}
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"src", "srcset", "data", "onclick", "onload"}
        assert "href" not in attributes or tag == "a"
    assert not re.search(r"url\(|@import|@font-face", html)
    assert "a" not in names


def test_the_page_shows_the_measured_figures(data):
    """Those of the tables in a terminal, with the conclusions first and told once."""
    document = compose_report(data)
    text = Page(render_html(document)).text
    shown = [
        *(
            cell
            for table in (latency_table(data.latency), accuracy_table(data.accuracy))
            for cell in table.rows[0]
        ),
        *(data.latency.adapted.sha256, data.latency.machine.cpu, "right answers a minute", "slope"),
        *("cosine", "KV cache, MB", "KL divergence, nats", "token_embd"),
        *("Times: lower is better", "Speeds: higher is better", "closer to 1 is better"),
    ]
    assert all(" ".join(cell.split()) in text for cell in shown)
    lines = [line for section in document.sections for line in section.lines]
    for line in (*data.latency.verdict, *data.accuracy.verdict, *data.fidelity.verdict):
        assert line in text and lines.count(line) == 1
    markdown = render_markdown(document)
    assert markdown.count("\n| --- ") == sum(len(section.tables) for section in document.sections)


def test_the_report_begins_with_plain_sentences_and_explains_its_terms(data):
    document = compose_report(data)
    html = render_html(document)
    first = document.sections[0].lines[0]
    assert re.match(r"Speed: .* tokens/s.* Size: .* MB.* Right answers: 75 of 199 questions of gsm8k", first)
    for term in ("KL divergence", "nats", "roofline", "McNemar"):
        assert f'<abbr title="{TERMS[term]}">{term}</abbr>' in html
        assert f"| {term} | " in render_markdown(document)
    assert "Ollama's eval rate" in Page(html).text


def test_the_home_folder_is_not_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr("thirteen.bench.report.document._HOME", "/home/jo_e")
    report = replace(data.accuracy.adapted, records="/home/jo_e/.cache/a.jsonl")
    found = replace(data, accuracy=replace(data.accuracy, adapted=report))
    write_report(found, tmp_path)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("~/.cache/a.jsonl" in text for text in texts)
    assert not any("jo_e" in text or "jo\\_e" in text for text in texts)


def test_llama_benchs_figures_are_those_of_its_default_test(data):
    speeds = [replace(data.latency.middle, tokens=512, answer_tokens=2)]
    speeds += [replace(data.latency.middle, tokens=1, answer_tokens=129)]
    found = replace(data, latency=replace(data.latency, questions=tuple(speeds)))
    text = Page(render_html(compose_report(found))).text
    assert re.search(r"llama-bench's pp512 [\d.]+ ± [\d.]+ .* llama-bench's tg128 [\d.]+ ± [\d.]+", text)


def test_a_chart_has_a_scale():
    chart = Chart("ratios", "lower", {"one": Interval(0.5, 0.75, 1.25)}, scale=100)
    html = render_html(Document("a", (Section("b", charts=(chart,)),)))
    assert "<small>50</small><small>125</small>" in html


def test_a_mark_is_at_its_place_between_the_outermost_values():
    chart = Chart("ratios", "lower", {"one": Interval(0.5, 0.75, 1.0), "other": Interval(1.0, 1.25, 1.5)})
    assert [chart.place(value) for value in (0.5, 0.75, 1.0, 1.5)] == [0, 25, 50, 100]
    assert Chart("equal", "lower", {"one": Interval(1, 1, 1)}).place(1.0) == 0


def test_text_from_files_is_escaped(data):
    def hostile_lines(report):
        return (HOSTILE,) * len(report.verdict)

    latency = data.latency
    adapted = replace(latency.adapted, path=f"/models/{HOSTILE}.gguf".replace("</", "<"))
    hostile = replace(
        data,
        latency=replace(
            latency,
            adapted=adapted,
            verdict=hostile_lines(latency),
            machine=replace(latency.machine, cpu=HOSTILE),
        ),
        size=replace(
            data.size, path=HOSTILE, groups=tuple(replace(group, group=HOSTILE) for group in data.size.groups)
        ),
        accuracy=replace(
            accuracy_report(HOSTILE, HOSTILE), data=HOSTILE, verdict=hostile_lines(data.accuracy)
        ),
        fidelity=replace(data.fidelity, verdict=hostile_lines(data.fidelity)),
    )
    document = compose_report(hostile)
    plain, page = Page(render_html(compose_report(data))), Page(render_html(document))
    assert "alert('x')" in page.text
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    text = render_markdown(document)
    assert not re.search(r"(?<!\\)<|(?<!\\)`|(?<!\\)\[b\]|(?<!\\)\*c|http://", text)


def test_missing_measurements_name_their_command(accuracy_only):
    """In one line at the end; they were sections without a figure, and rows."""
    document = compose_report(accuracy_only)
    (line,) = document.sections[-1].lines
    titles = [section.title for section in document.sections]
    assert titles == ["Summary", "Accuracy", "Environment", "Terms", "Not measured"]
    for command in ("latency BASE", "size", "fidelity", "peers"):
        assert f"(thirteen bench {command}" in line
    assert "bench accuracy" not in line
    text = Page(render_html(document)).text
    assert f"processor {accuracy_only.accuracy.machine.cpu}, " in text and "gsm8k" in text


def test_figures_without_a_value_are_in_the_last_line(data):
    document = compose_report(data)
    assert document.sections[-1].lines[0].endswith("; cold start to first token (file not cached)")
    assert "not available" not in Page(render_html(document)).text


def test_times_are_apart_from_speeds(data):
    """Each chart and table has one direction; together the tables have all rows with a figure."""
    speed = next(section for section in compose_report(data).sections if section.title == "Speed and size")
    assert [chart.better for chart in speed.charts] == ["lower", "higher"]
    times, speeds, sizes = ([row[0] for row in table.rows] for table in speed.tables)
    assert all(title.endswith("s") for title in times) and not any("tokens/s" in title for title in times)
    assert {*times, *speeds, *sizes} == {
        row[0] for row in latency_table(data.latency).rows if "not available" not in row
    }


def test_efforts_are_in_the_order_of_their_seconds(data, tmp_path):
    files = []
    for effort, seconds in (("high", 9.0), ("low", 2.0)):
        one = data.accuracy
        times = replace(one.answer_time.adapted, prefill_s=1.0, decode_s=seconds)
        report = replace(
            one, terms=replace(one.terms, effort=effort), answer_time=replace(one.answer_time, adapted=times)
        )
        files.append(tmp_path / f"{effort}.json")
        files[-1].write_text(json.dumps(asdict(report)))
    page = write_report(collect_measurements(ReportRequest(efforts=tuple(files))), tmp_path / "out")
    assert re.findall(r"(low|high): .*? right, (\S+) s a question", page.read_text()) == [
        ("low", "3.0"),
        ("high", "10.0"),
    ]
    plot = ElementTree.fromstring((tmp_path / "out" / "effort.svg").read_text())
    circles = [float(one.get("cx")) for one in plot.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles[0] == pytest.approx(circles[1] * 0.3, abs=0.1), "both on one axis of seconds from 0"
    assert "<circle" in page.read_text()
    assert (tmp_path / "out" / "raw" / "effort-2.json").exists() and "llama.cpp" in page.read_text()
    other = replace(data.accuracy, data_sha256="f" * 64)
    lines = plot_efforts([data.accuracy, other]).count('stroke-width="2"')
    assert lines == 2, "of other questions"


def test_a_file_of_an_earlier_version_claims_no_calibration(data):
    """It had an error of 0.000 and an empty chart."""
    one, told = data.accuracy, ("Right among the answers given", "calibration error")
    assert all(words in render_html(compose_report(data)) for words in told)
    sides = {
        side: replace(found, scores=replace(found.scores, calibration=None))
        for side in ("adapted", "base")
        if (found := getattr(one, side))
    }
    page = render_html(compose_report(replace(data, accuracy=replace(one, **sides))))
    assert not any(words in page for words in told)


def test_measurements_of_different_files_are_told_apart(data):
    """Their figures stood under one title."""
    latency, accuracy = data.latency, data.accuracy
    lora = latency.adapted.adapter
    same = replace(accuracy.adapted, adapter=lora.path, adapter_sha256=lora.sha256)
    base = replace(accuracy.base, path=latency.base.path, sha256=latency.base.sha256)
    accuracy = replace(accuracy, base=base)
    alike = replace(data, accuracy=replace(accuracy, adapted=same), fidelity=None)
    assert list(describe_differences(alike)) == []
    other = replace(alike, size=replace(data.size, path="of/other.gguf", sha256="ab" * 32))
    (line,) = describe_differences(other)
    assert line.startswith("warning: the measurements are of different models: latency of tiny.gguf (sha256 ")
    assert line.endswith("size of other.gguf (sha256 abababababab)")
    assert line in Page(render_html(compose_report(other))).text
    (line,) = describe_differences(replace(alike, accuracy=accuracy))
    assert "different run-time adapters: latency of lora.gguf (" in line and line.endswith(
        "accuracy of none (sha256 none)"
    )
    (line,) = describe_differences(replace(alike, fidelity=data.fidelity))
    assert "fidelity of other.gguf (" in line
    (line,) = describe_differences(replace(alike, accuracy=replace(data.accuracy, adapted=same)))
    assert "different bases: " in line and line.endswith("accuracy of base.gguf (sha256 0)")


def test_a_report_from_json_equals_that_of_the_measurement(data, tmp_path):
    first = write_report(data, tmp_path / "deep" / "out")
    raw = {name: first.parent / f"raw/{name}.json" for name in ("latency", "size", "fidelity", "accuracy")}
    again = collect_measurements(ReportRequest(files=raw))
    assert again == data
    second = write_report(again, tmp_path)
    for name in ("report.html", "report.md", *(f"raw/{name}.json" for name in raw)):
        assert (second.parent / name).read_bytes() == (first.parent / name).read_bytes()


def test_a_report_keeps_no_figures_of_the_one_that_it_replaces(data, accuracy_only, tmp_path):
    """Its raw JSON and its plot remained beside a page that did not have them."""
    folder = tmp_path / "out"
    own = [folder / "raw" / name for name in ("latency.json", "notes.json", "effort-01.json")]
    own[0].parent.mkdir(parents=True)
    for path in own:
        path.write_text("of the user")
    write_report(Measurements(size=data.size), folder)
    assert own[0].exists(), "no report was there"
    write_report(replace(data, efforts=(data.accuracy, data.accuracy)), folder)
    assert (folder / "effort.svg").exists() and (folder / "raw" / "effort-2.json").exists()
    write_report(replace(accuracy_only, efforts=(data.accuracy,)), folder)
    assert {path.name for path in folder.rglob("*.*")} == {
        *("report.html", "report.md", "effort.svg", "accuracy.json", "effort-1.json"),
        *(path.name for path in own[1:]),
    }
    write_report(accuracy_only, folder)
    assert not (folder / "effort.svg").exists() and not (folder / "raw" / "effort-1.json").exists()


def test_an_effort_without_timed_answers_is_refused(data, tmp_path):
    """Its section was a heading alone."""
    (path := tmp_path / "low.json").write_text(json.dumps(asdict(replace(data.accuracy, answer_time=None))))
    with pytest.raises(RequestError, match=r"low.json: no question was timed: see bench accuracy --timed"):
        collect_measurements(ReportRequest(efforts=(path,)))


def test_impossible_figures_are_refused_in_one_line(data, tmp_path):
    """They ended in a traceback when the report was written, after all other measurements."""
    first = asdict(data.latency.questions[0]) | {"tokens": 512, "answer_tokens": 2}
    once = first | {"prefill": first["prefill"] | {"base": [100.0]}}
    for name, change, message in (
        ("size", {"file_bytes": 0}, "cannot be that of a measurement: .* by zero"),
        ("size", {"bits_per_weight": float("nan")}, r"size\.json: has a number that is NaN"),
        ("latency", {"questions": []}, "cannot be that of a measurement: .* out of range"),
        ("latency", {"questions": [once]}, "cannot be that of a measurement: .* two data points"),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(asdict(getattr(data, name)) | change))
        with pytest.raises((FileError, RequestError), match=message):
            write_report(collect_measurements(ReportRequest(files={name: path})), tmp_path / "out")


def test_a_fidelity_without_its_files_is_refused_in_one_line(data, tmp_path):
    """It was a KeyError when the report was composed."""
    path = tmp_path / "fidelity.json"
    found = asdict(data.fidelity)
    path.write_text(json.dumps(found | {"files": {"shipped": found["files"]["shipped"]}}))
    with pytest.raises(FileError, match=r"fidelity\.json: files: reference is missing"):
        collect_measurements(ReportRequest(files={"fidelity": path}))


def test_what_is_not_read_is_measured(tiny, tmp_path, data):
    latency, peers = tmp_path / "latency.json", tmp_path / "peers.json"
    latency.write_text(json.dumps(asdict(data.latency)))
    measured = run_peers(PeersRequest(model=tiny, work=WORKLOAD, rounds=1, rows=("llama-cpp-python",)))
    peers.write_text(json.dumps(asdict(measured)))
    files = {"latency": latency, "peers": peers}
    request = ReportRequest(base=tiny, adapted=tiny, files=files, threads=1)
    found = collect_measurements(request, pytest.fail)
    assert (found.latency, found.size, found.peers) == (data.latency, data.size, measured)
    text = Page(render_html(compose_report(found))).text
    assert "Other programs" in text and all(row.name in text for row in measured.rows)
    assert compose_report(collect_measurements(ReportRequest(files={"peers": peers}))).title == "tiny.gguf"


FILE = Path("old.json")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "give two models or the JSON"),
        ({"base": FILE}, "give both BASE and ADAPTED, or neither"),
        ({"files": {"peers": FILE}, "threads": 2}, "threads: requires base and adapted"),
        ({"adapter": FILE}, "adapter: requires base and adapted"),
        (
            {"base": FILE, "adapted": FILE, "files": {"latency": FILE, "size": FILE}},
            "nothing is left to measure of BASE and ADAPTED: latency and size are read",
        ),
    ],
)
def test_fields_without_effect_are_refused(request_, message):
    with pytest.raises(RequestError, match=message):
        collect_measurements(ReportRequest(**request_), pytest.fail)


def test_inputs_are_checked_before_any_work(tiny, not_a_model, tmp_path):
    odd = tmp_path / "odd.json"
    odd.write_text("{}")
    with pytest.raises(FileError, match=r"odd\.json: \w+ is missing"):
        collect_measurements(ReportRequest(base=tiny, adapted=tiny, files={"latency": odd}), pytest.fail)
    for models in ((tiny, not_a_model), (not_a_model, tiny)):
        with pytest.raises(FileError, match=r"no\.gguf"):
            collect_measurements(ReportRequest(base=models[0], adapted=models[1]))


def test_a_refused_input_leaves_no_folder(thirteen, tiny, not_a_model, tmp_path):
    done = thirteen("bench", "report", tiny, not_a_model, "--out", tmp_path / "report")
    assert done.status == 2 and not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_created_is_refused(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_report(data, tmp_path / "file" / "report")
