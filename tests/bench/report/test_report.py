"""Reports as a reader sees them: complete, self-contained, and with all text escaped."""

import json
import os
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thirteen.bench.accuracy.accuracy import AccuracyReport, ModelResult
from thirteen.bench.accuracy.accuracy_metrics import PairedScores, Scores
from thirteen.bench.accuracy.answer_time import AnswerTime, AnswerTimes
from thirteen.bench.accuracy.datasets import HUB_SETS
from thirteen.bench.accuracy.run_config import PromptSettings
from thirteen.bench.fidelity.fidelity import run_fidelity
from thirteen.bench.fidelity.model_roles import model_sources
from thirteen.bench.harness.environment import this_build, this_machine
from thirteen.bench.memory.size import run_size
from thirteen.bench.peers.peer import PeerWorkload
from thirteen.bench.report import report as report_module
from thirteen.bench.report.chart import LineChart
from thirteen.bench.report.collect import ReportData, ReportInputs, ReportRequest, collect_measurements
from thirteen.bench.report.document import Figures
from thirteen.bench.report.measured_files import describe_differences
from thirteen.bench.report.render import render_html, render_markdown
from thirteen.bench.report.report import compose_report, write_report
from thirteen.bench.report.svg import render_svg
from thirteen.bench.speed.latency import run_latency
from thirteen.bench.speed.questions import QuestionShape
from thirteen.errors import ModelFileError, OutputError, RequestError
from thirteen.files.progress import no_progress
from thirteen.models.claims import claims
from thirteen.stats.interval import Interval

from ...commands import Commands
from ...runtime.conftest import tensors, write_gguf
from .conftest import Page

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('x')</script> & | `a` [b](http://evil.example) *c* # <img src=x>"
WORKLOAD = PeerWorkload(1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3)


def accuracy_report(sha256: str, path: str = "adapted.gguf") -> AccuracyReport:
    def model_result(correct: int, file: str, hash_: str) -> ModelResult:
        accuracy = Interval(correct / 200 - 0.05, correct / 200, correct / 200 + 0.05)
        scores = Scores(200, correct, 150 - correct, 20, 30, 1, accuracy, None, 99.5, "no room")
        return ModelResult(file, hash_, None, None, "records.jsonl", scores)

    return AccuracyReport(
        date="2026-11-25",
        machine=this_machine(),
        build=this_build(),
        terms=PromptSettings(threads=1),
        data="gsm8k",
        source=f"{HUB_SETS['gsm8k'].hub_id}@0: test.parquet",
        data_sha256="1",
        left_out=0,
        adapted=model_result(75, path, sha256),
        base=model_result(57, "base.gguf", "0"),
        paired=PairedScores(199, 199, 45, 30, 12, 112, Interval(0.02, 0.09, 0.16), 0.0078),
        verdict=("accuracy: better by 9.0 points",),
        answer_time=answer_times(),
    )


def answer_times() -> AnswerTimes:
    return AnswerTimes(
        date="2026-11-25",
        timed=16,
        questions=199,
        meter=None,
        adapted=AnswerTime(64.0, 0.5, 1.5, 11.25, None),
        base=AnswerTime(200.0, 0.5, 4.5, 3.42, None),
        tokens_ratio=Interval(0.3, 0.32, 0.34),
        seconds_ratio=Interval(0.38, 0.4, 0.42),
        right_ratio=Interval(2.61, 3.29, 4.12),
    )


@pytest.fixture(scope="module")
def data(tiny, lora) -> ReportData:
    """Real measurements of a tiny model, with made-up accuracies."""
    latency = run_latency(
        tiny,
        tiny,
        threads=1,
        adapter=lora,
        questions=(QuestionShape(5, 4), QuestionShape(5, 9)),
    )
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
    raw = {"latency": asdict(latency), "size": asdict(size), "fidelity": asdict(fidelity)}
    return ReportData(latency, size, accuracy_report(size.sha256), fidelity, raw=raw)


@pytest.fixture(scope="module")
def accuracy_only() -> ReportData:
    return ReportData(accuracy=accuracy_report("0"))


def test_the_page_is_self_contained(data):
    html = render_html(compose_report(data))
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video"}
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"src", "srcset", "data", "onclick", "onload"}
        assert "href" not in attributes or tag == "a"
        assert attributes.get("xlink:href", "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import|@font-face", html)
    linked = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert linked == {claim.source.url for claim in claims()}


def test_figures_have_titles_and_labels_and_tables_have_captions(data):
    document = compose_report(data)
    page = Page(render_html(document))
    figures = [
        figure
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Figures)
        for figure in block.figures
    ]
    assert {figure.name for figure in figures} >= {
        "ratios",
        "decode",
        "first-token",
        "accuracy",
        "size",
        "memory",
    }
    assert {figure.name for figure in figures} <= set(
        report_module._CHARTS
    )  # those that a later report removes
    for figure in figures:
        svg = render_svg(figure.chart, figure.name, standalone=False)
        assert figure.chart.title in page.text and figure.chart.x_label in svg
        if isinstance(figure.chart, LineChart):
            assert figure.chart.y_label in svg
            assert all(series.name in svg for series in figure.chart.series)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == tags.count("figcaption") == len(figures)
    assert tags.count("table") == tags.count("caption")
    svgs = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in svgs)


def test_the_page_shows_the_measured_figures(data):
    text = Page(render_html(compose_report(data))).text
    decode = data.latency.decode.ratio
    assert f"{decode.estimate:.3f}" in text
    assert "+9.0 points" in text
    answer = data.latency.questions[1].answer
    assert f"{answer.adapted_median:.2f} s {answer.ratio.text(3)} of the base's" in text
    assert "time to an answer, 5 + 9 tokens" in text and "questions + answers of 5 + 4, 5 + 9 tokens" in text
    assert f"{100 * data.latency.roofline.base_fraction:.0f} % (base)" in text
    assert f"{data.latency.adapted.total_bytes / 1e6:.1f} MB" in text
    assert data.latency.adapted.sha256 in text
    assert data.latency.machine.cpu in text
    for line in (*data.latency.verdict, *data.accuracy.verdict):
        assert line in text


def test_the_report_opens_with_the_time_to_a_right_answer(data, accuracy_only, tmp_path):
    line = (
        "Right answers a minute: 3.29 times the base's (2.61 to 4.12), accuracy +9.0 points (+2.0 to +16.0)."
    )
    document = compose_report(data)
    assert document.lead.startswith(line)
    text = Page(render_html(document)).text
    assert "11.25 3.29 (2.61 to 4.12) times the base's 3.42" in text
    assert "16 questions asked one at a time, tokens and accuracy of 199" in text
    assert "0.32 (0.30 to 0.34) times" in text
    alone = replace(
        data.accuracy,
        base=None,
        paired=None,
        answer_time=AnswerTimes("", 16, 9, None, AnswerTime(64, 0.5, 1.5, 11.25, None)),
    )
    text = Page(render_html(compose_report(replace(data, accuracy=alone)))).text
    assert "11.25 2.00 s a question" in text and not document.lead.startswith("Speed")
    earlier = tmp_path / "accuracy.json"
    rows = asdict(accuracy_only.accuracy)
    del rows["answer_time"]
    earlier.write_text(json.dumps(rows))
    found = collect_measurements(ReportInputs(accuracy=earlier), ReportRequest())
    assert found.accuracy == replace(accuracy_only.accuracy, answer_time=None)
    assert compose_report(found).lead.startswith("Speed")


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
            data.size,
            path=HOSTILE,
            groups=tuple(replace(group, group=HOSTILE) for group in data.size.groups),
        ),
        accuracy=replace(
            accuracy_report(HOSTILE, HOSTILE), data=HOSTILE, verdict=hostile_lines(data.accuracy)
        ),
        fidelity=replace(data.fidelity, verdict=hostile_lines(data.fidelity)),
    )
    document = compose_report(hostile)
    plain, page = Page(render_html(compose_report(data))), Page(render_html(document))
    assert "alert('x')" in page.text
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    text = render_markdown(document, "figures")
    assert not re.search(r"(?<!\\)<|(?<!\\)`|(?<!\\)\[b\]|(?<!\\)\*c|http://", text)


def test_missing_measurements_name_their_command(accuracy_only):
    document = compose_report(accuracy_only)
    text = Page(render_html(document)).text
    assert text.count("not measured here") >= 3 + len(claims())
    for command in ("bench latency", "bench size", "bench fidelity"):
        assert f"Not measured here. To measure it: thirteen {command}" in text
    assert "gsm8k" in text
    assert "bench accuracy" not in text


def test_a_report_of_accuracy_alone_names_its_machine_and_tells_of_no_rounds(accuracy_only, data):
    """It showed seconds a question of an unknown machine, and told how a latency was measured."""
    accuracy = accuracy_only.accuracy
    text = Page(render_html(compose_report(accuracy_only))).text
    assert f"processor {accuracy.machine.cpu}, " in text and f"thirteen {accuracy.build.thirteen}" in text
    assert f"date {accuracy.date}" in text and "In each round" not in text
    elsewhere = replace(accuracy, machine=replace(accuracy.machine, cpu="Another CPU"))
    text = Page(render_html(compose_report(replace(data, accuracy=elsewhere)))).text
    assert "gsm8k, zero-shot, 2026-11-25, Another CPU" in text and "In each round" in text


def test_measurements_of_different_files_are_told_apart(data):
    """Their figures stood under one title."""
    latency, accuracy = data.latency, data.accuracy
    lora = latency.adapted.adapter
    same = replace(accuracy.adapted, adapter=lora.path, adapter_sha256=lora.sha256)
    alike = replace(data, accuracy=replace(accuracy, adapted=same), fidelity=None)
    assert list(describe_differences(alike)) == []
    other = replace(alike, size=replace(data.size, path="of/other.gguf", sha256="ab" * 32))
    (line,) = describe_differences(other)
    assert line.startswith("warning: the measurements are of different models: latency of tiny.gguf (sha256 ")
    assert line.endswith("size of other.gguf (sha256 abababababab)")
    assert line in Page(render_html(compose_report(other))).text
    (line,) = describe_differences(replace(alike, accuracy=accuracy))
    assert "different run-time adapters: latency of lora.gguf (" in line and line.endswith("accuracy of none")
    (line,) = describe_differences(replace(alike, fidelity=data.fidelity))
    assert "fidelity of other.gguf (" in line


def test_claims_are_compared_with_measurements_of_the_same_model_only(data):
    def rows(data: ReportData) -> dict[str, str]:
        text = render_markdown(compose_report(data), "figures").replace("\\", "")
        cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.count(" | ") == 3]
        return {row[0]: row[2] for row in cells}

    size_of_base = replace(data.size, base_id="meta-llama/Llama-3.2-1B-Instruct")
    found = rows(replace(data, size=size_of_base))
    assert "37.5 %" not in found["GSM8K, 13 trained numbers, llama-3.2-1b"]
    assert found["GSM8K, 13 trained numbers, llama-3.2-1b"].startswith("37.5 (32.5 to 42.5) % of 200")
    assert found["GSM8K, base, llama-3.2-1b"].startswith("28.5")
    assert found["GSM8K, base, llama-3.2-1b"].endswith("200 questions, greedy, calculator on")
    voting = PromptSettings(threads=1, votes=3, calculator=False)
    by_vote = replace(data, size=size_of_base, accuracy=replace(data.accuracy, terms=voting))
    assert rows(by_vote)["GSM8K, base, llama-3.2-1b"].endswith(
        "majority of 3, temperature 0.7, calculator off"
    )
    assert found["size of the model, llama-3.2-1b"].endswith("bits per weight")
    assert found["latency that the adapter adds, any model"].startswith("adapted / base: decode ")
    for other in (
        "GSM8K, 13 trained numbers, refined prompt, llama-3.2-1b",
        "SVAMP, 13 trained numbers, llama-3.2-1b",
    ):
        assert found[other] == "not measured here"
    assert found["GSM8K, 13 trained numbers, qwen2.5-7b"] == "not measured here"
    others = (
        replace(data, size=replace(size_of_base, base_id="someone/Llama-3.2-1B-Instruct-else")),
        replace(data, size=replace(size_of_base, base_id=None)),
        replace(data, size=replace(size_of_base, sha256="of another file")),
        replace(data, size=size_of_base, accuracy=replace(data.accuracy, source="mine/gsm8k.jsonl")),
    )
    for other in others:
        assert rows(other)["GSM8K, 13 trained numbers, llama-3.2-1b"] == "not measured here"


def test_a_report_from_json_equals_that_of_the_measurement(data, tmp_path):
    paths = {}
    for name in ("latency", "size", "fidelity"):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(data.raw[name]))
    paths["accuracy"] = tmp_path / "accuracy.json"
    paths["accuracy"].write_text(json.dumps(asdict(data.accuracy)))
    again = collect_measurements(ReportInputs(**paths), ReportRequest())
    assert compose_report(again) == compose_report(data)
    written = write_report(again, tmp_path / "deep" / "out")
    out = written.parent
    assert written.read_text("utf-8") == render_html(compose_report(data))
    charts = re.findall(r"\]\((figures/[\w-]+\.svg)\)", (out / "report.md").read_text("utf-8"))
    assert len(charts) == len(set(charts)) == len(list((out / "figures").iterdir())) >= 7
    for chart in charts:
        svg = (out / chart).read_text("utf-8")
        assert 'xmlns="http://www.w3.org/2000/svg"' in svg and "prefers-color-scheme" in svg
        Page(svg)
    for name in ("latency", "size", "fidelity", "accuracy"):
        assert json.loads((out / "raw" / f"{name}.json").read_text()) == json.loads(paths[name].read_text())
    write_report(again, out)  # overwrites the first


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd")
def test_a_report_is_read_from_a_pipe(accuracy_only):
    """`--accuracy <(…)` was read twice, the second time empty."""
    text = json.dumps(asdict(accuracy_only.accuracy)).encode()
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    try:
        found = collect_measurements(ReportInputs(accuracy=Path(f"/dev/fd/{reader}")), ReportRequest())
    finally:
        os.close(reader)
    assert found.accuracy == accuracy_only.accuracy and found.raw == {"accuracy": json.loads(text)}


def test_impossible_figures_are_refused_in_one_line(data, tmp_path):
    """They ended in a traceback when the report was drawn, after all other measurements."""
    path = tmp_path / "latency.json"

    def refused(message: str, **changes: Any) -> None:
        path.write_text(json.dumps(data.raw["latency"] | changes))
        with pytest.raises(RequestError, match=rf"latency\.json: {message}$"):
            collect_measurements(ReportInputs(latency=path), ReportRequest())

    base, decode = data.raw["latency"]["base"], data.raw["latency"]["decode"]
    refused("base: file_bytes cannot be 0", base=base | {"file_bytes": 0})
    refused(
        "base: memory: peak_rss_bytes cannot be 0",
        base=base | {"memory": base["memory"] | {"peak_rss_bytes": 0}},
    )
    refused("decode: base_percentiles is empty", decode=decode | {"base_percentiles": []})
    refused(
        "decode: ratio: high cannot be 1e[+]200", decode=decode | {"ratio": decode["ratio"] | {"high": 1e200}}
    )
    refused("decode: base_median cannot be inf", decode=decode | {"base_median": 10**400})
    refused("has a number that is NaN or infinite", decode=decode | {"base_median": float("nan")})


def test_without_matplotlib_there_is_markdown_with_the_values_of_the_charts(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_report(data, tmp_path)
    assert written == tmp_path / "report.md"
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "raw"}
    text = written.read_text("utf-8")
    assert "![" not in text
    assert f"Speed of the adapted model / the base: answer, {data.latency.questions[0].shape} tokens: " in (
        text.replace("\\", "")
    )
    assert f"decode speed: {data.latency.decode.ratio.text(3)}" in text


def test_the_page_and_charts_of_an_earlier_report_go(data, accuracy_only, tmp_path, monkeypatch):
    """They stood beside the new text, as if they were of the same measurements."""

    def files() -> set[str]:
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}

    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/mine.svg").write_text("<svg/>")
    write_report(data, tmp_path)
    raw = {f"raw/{name}.json" for name in data.raw}
    write_report(accuracy_only, tmp_path)
    assert files() == {"report.html", "report.md", "figures/accuracy.svg", "figures/mine.svg", *raw}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(accuracy_only, tmp_path)
    assert files() == {"report.md", "figures/mine.svg", *raw}


def test_a_report_of_an_earlier_version_has_no_questions(data, tmp_path):
    path = tmp_path / "latency.json"
    earlier = {
        key: value for key, value in data.raw["latency"].items() if key not in ("questions", "roofline")
    }
    path.write_text(json.dumps(earlier))
    found = collect_measurements(ReportInputs(latency=path), ReportRequest())
    assert found.latency == replace(data.latency, questions=(), roofline=None)
    text = Page(render_html(compose_report(found))).text
    assert "time to an answer, 5" not in text.replace(" ".join(data.latency.verdict), "")
    assert f"prefill of {data.latency.settings.prompt_tokens}, tokens/s" in text


def test_missing_measurements_are_run(tiny, tmp_path, data):
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(data.raw["latency"]))
    found = collect_measurements(ReportInputs(latency=path), ReportRequest((tiny, tiny)))
    assert found.latency == data.latency and found.size == data.size


def test_requested_measurements_are_run(tiny, tmp_path, data, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    files = ReportInputs(latency=tmp_path / "latency.json")
    files.latency.write_text(json.dumps(data.raw["latency"]))
    questions = tmp_path / "two.jsonl"
    questions.write_text('{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 3?", "answer": "5"}\n')
    request = ReportRequest(
        models=(tiny, tiny),
        threads=1,
        data=str(questions),
        limit=1,
        max_tokens=4,
        reference=tiny,
        with_peers=True,
    )
    monkeypatch.setattr("thirteen.bench.report.collect.PeerWorkload", lambda threads: WORKLOAD)
    stages = []

    def stage(name):
        stages.append(name)
        return no_progress

    found = collect_measurements(files, request, stage)
    assert stages == ["peers", "fidelity", "accuracy"]
    assert found.accuracy.paired.questions == 1 and found.accuracy.data == "two"
    assert found.accuracy.answer_time.timed == 1
    assert found.fidelity.merged.divergence.kl_mean.estimate == pytest.approx(0, abs=1e-6)
    assert [row.name for row in found.peers.rows[:2]] == ["thirteen", "llama-cpp-python"]
    text = Page(render_html(compose_report(found))).text
    assert "Comparison with other programs" in text and "llama-cpp-python" in text
    assert all(line in text for line in found.peers.absent)
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(found.raw["peers"]))
    again = collect_measurements(ReportInputs(peers=path), ReportRequest())
    assert again.peers == found.peers
    assert "tiny.gguf" in compose_report(again).title


def test_inputs_are_checked_before_any_work(tiny, lora, not_a_model, tmp_path):
    def refused(error, message, **request):
        with pytest.raises(error, match=message):
            collect_measurements(ReportInputs(), ReportRequest((tiny, tiny), **request), pytest.fail)

    refused(RequestError, "nowhere: no such file", data="nowhere")
    refused(RequestError, "'': no such file", data="")
    refused(ModelFileError, r"no\.gguf", reference=not_a_model)
    refused(RequestError, "an adapter at run time", reference=tiny, adapter=lora)
    with pytest.raises(RequestError, match="--data, --limit, --reference and --with-peers need models"):
        collect_measurements(ReportInputs(peers=tmp_path), ReportRequest(data="svamp"))


def test_missing_or_bad_inputs_are_refused(tiny, not_a_model, tmp_path):
    with pytest.raises(RequestError, match="give two models or the JSON"):
        collect_measurements(ReportInputs(), ReportRequest())
    odd = tmp_path / "odd.json"
    odd.write_text("{}")
    for name in ReportInputs.__slots__:
        with pytest.raises(RequestError, match=r"odd\.json: \w+ is missing"):
            collect_measurements(ReportInputs(**{name: odd}), ReportRequest())
    for models in ((tiny, not_a_model), (not_a_model, tiny)):
        with pytest.raises(ModelFileError, match=r"no\.gguf"):
            collect_measurements(ReportInputs(), ReportRequest(models))


@pytest.fixture(scope="module")
def thirteen():
    with Commands() as commands:
        yield commands


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        ("accuracy", ("--data", "svamp")),
        ("accuracy", ("--limit", "3")),
        ("fidelity", ("--reference", "MODEL")),
        ("peers", ("--with-peers",)),
    ],
)
def test_options_of_a_measurement_that_is_read_are_refused(thirteen, tiny, tmp_path, measurement, words):
    """They were ignored."""
    given = [str(tiny) if word == "MODEL" else word for word in words]
    old, out = tmp_path / "old.json", tmp_path / "report"
    done = thirteen("bench", "report", tiny, tiny, f"--{measurement}", old, *given, "--out", out)
    assert done.status == 2 and done.stderr.count("\n") == 1, done
    assert f"{words[0]}: --{measurement} is given, so it is not measured" in done.stderr


def test_a_refused_input_leaves_no_folder(thirteen, tiny, not_a_model, tmp_path):
    done = thirteen("bench", "report", tiny, not_a_model, "--out", tmp_path / "report")
    assert done.status == 2 and not (tmp_path / "report").exists()


def test_a_base_without_a_common_answer_was_measured_nevertheless(accuracy_only):
    """The card said that it was not."""
    alone = replace(accuracy_only.accuracy, paired=None, answer_time=None)
    text = Page(render_html(compose_report(ReportData(accuracy=alone)))).text
    assert "no question was answered by both" in text and "the base was not measured" not in text
    text = Page(render_html(compose_report(ReportData(accuracy=replace(alone, base=None))))).text
    assert "the base was not measured" in text


def test_a_folder_that_cannot_be_created_is_refused(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_report(data, tmp_path / "file" / "report")
