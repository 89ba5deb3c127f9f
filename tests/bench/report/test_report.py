"""The report as a reader gets it: complete, in need of nothing, and with no text taken for markup."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from thirteen.bench.accuracy.accuracy import AccuracyReport, ModelResult
from thirteen.bench.accuracy.accuracy_metrics import PairedScores, Scores
from thirteen.bench.accuracy.prompt_settings import PromptSettings
from thirteen.bench.fidelity.fidelity import run_fidelity
from thirteen.bench.fidelity.model_roles import model_sources
from thirteen.bench.harness.environment import this_build, this_machine
from thirteen.bench.harness.workload import Workload
from thirteen.bench.peers.peer import PeerWorkload
from thirteen.bench.peers.peers import PeerPrograms
from thirteen.bench.report.chart import (
    Bar,
    BarChart,
    ChartPoint,
    IntervalChart,
    IntervalMark,
    LineChart,
    Series,
    _nice,
    _ticks,
    render_svg,
)
from thirteen.bench.report.collect import ReportData, ReportInputs, ReportRequest, collect_measurements
from thirteen.bench.report.document import Figure
from thirteen.bench.report.html import render_html
from thirteen.bench.report.markdown import render_markdown
from thirteen.bench.report.report import compose_report, write_report
from thirteen.bench.size import size
from thirteen.bench.speed import latency
from thirteen.errors import ModelFileError, OutputError, RequestError
from thirteen.files.progress import no_progress
from thirteen.models.claims import claims
from thirteen.stats.interval import Interval

from ...runtime.conftest import tensors, write_gguf

HOSTILE = "<script>alert('x')</script> & | `a` [b](http://evil.example) *c* # <img src=x>"
VOID = {"meta"}
WORK = PeerWorkload(1, prompt_tokens=8, decode_tokens=4, sequences=2, short_prompt=4, short_answer=3)


class Page(HTMLParser):
    """The tags, checked to be closed in order; the text; and what the page would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def answers(sha256: str, path: str = "adapted.gguf") -> AccuracyReport:
    def side(correct: int, file: str, hash_: str) -> ModelResult:
        accuracy = Interval(correct / 200 - 0.05, correct / 200, correct / 200 + 0.05)
        scores = Scores(200, correct, 150 - correct, 20, 30, 1, accuracy, None, 99.5, "no room")
        return ModelResult(file, hash_, None, None, "records.jsonl", scores)

    return AccuracyReport(
        date="2026-11-25",
        machine=this_machine(),
        build=this_build(),
        terms=PromptSettings(threads=1),
        data="gsm8k",
        source="somewhere",
        data_sha256="1",
        left_out=0,
        adapted=side(75, path, sha256),
        base=side(57, "base.gguf", "0"),
        paired=PairedScores(199, 199, 45, 30, 12, 112, Interval(0.02, 0.09, 0.16), 0.0078),
        verdict=("accuracy: better by 9.0 points",),
    )


@pytest.fixture(scope="module")
def measured(tiny, lora) -> ReportData:
    """Real measurements of a tiny model, and made-up answers."""
    speeds = latency.run_latency(
        tiny, tiny, workload=Workload(5, 3, threads=1), adapter=lora, rounds=8, lengths=(8, 64)
    )
    sizes = size.run_size(tiny)
    texts = tiny.with_name("texts.jsonl")
    texts.write_text("".join(json.dumps({"text": f"What is {n} times 13?"}) + "\n" for n in range(12)))
    other = write_gguf(
        tiny.with_name("other.gguf"),
        {},
        {"output_norm.weight": tensors()["output_norm.weight"] * np.float32(1.2)},
    )
    kept = run_fidelity(
        model_sources(other, other, base=tiny, shipped_base=tiny), data=texts, tokens=60, threads=1
    )
    raw = {"latency": asdict(speeds), "size": asdict(sizes), "fidelity": asdict(kept)}
    return ReportData(speeds, sizes, answers(sizes.sha256), kept, raw=raw)


@pytest.fixture(scope="module")
def nothing() -> ReportData:
    return ReportData(accuracy=answers("0"))


def test_the_page_needs_nothing_from_anywhere(measured):
    html = render_html(compose_report(measured))
    shown = Page(html)
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video"}
    for tag, attributes in shown.tags:
        assert not attributes.keys() & {"src", "srcset", "data", "xlink:href", "style", "onclick", "onload"}
        assert "href" not in attributes or tag == "a"
    assert not re.search(r"url\(|@import|@font-face", html)
    linked = {attributes["href"] for tag, attributes in shown.tags if tag == "a"}
    assert linked == {claim.source.url for claim in claims()}


def test_every_figure_has_a_title_and_labels_and_every_table_a_caption(measured):
    document = compose_report(measured)
    shown = Page(render_html(document))
    figures = [
        block for section in document.sections for block in section.blocks if isinstance(block, Figure)
    ]
    assert {figure.name for figure in figures} >= {
        "ratios",
        "decode",
        "first-token",
        "accuracy",
        "size",
        "memory",
    }
    for figure in figures:
        drawn = render_svg(figure.chart, alone=False)
        assert figure.chart.title in shown.text and figure.chart.x_label in drawn
        if isinstance(figure.chart, LineChart):
            assert figure.chart.y_label in drawn
            assert all(series.name in drawn for series in figure.chart.series)
    counted = [tag for tag, _ in shown.tags]
    assert counted.count("svg") == counted.count("figcaption") == len(figures)
    assert counted.count("table") == counted.count("caption")
    labelled = [attributes for tag, attributes in shown.tags if tag == "svg"]
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in labelled)


def test_the_headline_has_the_figures_of_the_measurements(measured):
    text = Page(render_html(compose_report(measured))).text
    decode = measured.latency.decode.ratio
    assert f"{decode.estimate:.3f}" in text
    assert "+9.0 points" in text
    assert f"{measured.latency.adapted.total_bytes / 1e6:.1f} MB" in text
    assert measured.latency.adapted.sha256 in text
    assert measured.latency.machine.cpu in text
    for line in (*measured.latency.verdict, *measured.accuracy.verdict):
        assert line in text


def test_text_out_of_files_never_becomes_markup(measured):
    def hostile_lines(report):
        return (HOSTILE,) * len(report.verdict)

    speeds = measured.latency
    side = replace(speeds.adapted, path=f"/models/{HOSTILE}.gguf".replace("</", "<"))
    hostile = replace(
        measured,
        latency=replace(
            speeds, adapted=side, verdict=hostile_lines(speeds), machine=replace(speeds.machine, cpu=HOSTILE)
        ),
        size=replace(
            measured.size,
            path=HOSTILE,
            groups=tuple(replace(group, group=HOSTILE) for group in measured.size.groups),
        ),
        accuracy=replace(answers(HOSTILE, HOSTILE), data=HOSTILE, verdict=hostile_lines(measured.accuracy)),
        fidelity=replace(measured.fidelity, verdict=hostile_lines(measured.fidelity)),
    )
    document = compose_report(hostile)
    plain, shown = Page(render_html(compose_report(measured))), Page(render_html(document))
    assert "alert('x')" in shown.text
    assert [tag for tag, _ in shown.tags] == [tag for tag, _ in plain.tags]
    text = render_markdown(document, "figures")
    assert not re.search(r"(?<!\\)<|(?<!\\)`|(?<!\\)\[b\]|(?<!\\)\*c|http://", text)


def test_parts_that_were_not_measured_say_so_and_how_to(nothing):
    document = compose_report(nothing)
    text = Page(render_html(document)).text
    assert text.count("not measured here") >= 3 + len(claims())
    for command in ("bench latency", "bench size", "bench fidelity"):
        assert f"Not measured here. To measure it: thirteen {command}" in text
    assert "gsm8k" in text
    assert "bench accuracy" not in text


def test_claims_stand_beside_what_was_measured_of_the_same_model_only(measured):
    def rows(of: ReportData) -> dict[str, str]:
        text = render_markdown(compose_report(of), "figures").replace("\\", "")
        cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.count(" | ") == 3]
        return {row[0]: row[2] for row in cells}

    of_it = replace(measured.size, base_id="meta-llama/Llama-3.2-1B-Instruct")
    found = rows(replace(measured, size=of_it))
    assert "37.5 %" not in found["GSM8K, 13 trained numbers, llama-3.2-1b"]
    assert found["GSM8K, 13 trained numbers, llama-3.2-1b"].startswith("37.5 (32.5 to 42.5) % of 200")
    assert found["GSM8K, base, llama-3.2-1b"].startswith("28.5")
    assert found["size of the model, llama-3.2-1b"].endswith("bits a weight")
    assert found["latency that the adapter adds, any model"].startswith("adapted / base: decode ")
    for other in (
        "GSM8K, 13 trained numbers, refined prompt, llama-3.2-1b",
        "SVAMP, 13 trained numbers, llama-3.2-1b",
    ):
        assert found[other] == "not measured here"
    assert found["GSM8K, 13 trained numbers, qwen2.5-7b"] == "not measured here"
    strangers = (
        replace(measured, size=replace(of_it, base_id="someone/Llama-3.2-1B-Instruct-else")),
        replace(measured, size=replace(of_it, base_id=None)),
        replace(measured, size=replace(of_it, sha256="of another file")),
    )
    for stranger in strangers:
        assert rows(stranger)["GSM8K, 13 trained numbers, llama-3.2-1b"] == "not measured here"


def test_a_report_from_json_is_the_one_of_the_measurement(measured, tmp_path):
    paths = {}
    for name in ("latency", "size", "fidelity"):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(measured.raw[name]))
    paths["accuracy"] = tmp_path / "accuracy.json"
    paths["accuracy"].write_text(json.dumps(asdict(measured.accuracy)))
    again = collect_measurements(ReportInputs(**paths))
    assert compose_report(again) == compose_report(measured)
    written = write_report(again, tmp_path / "deep" / "out")
    out = written.parent
    assert written.read_text("utf-8") == render_html(compose_report(measured))
    charts = re.findall(r"\]\((figures/[\w-]+\.svg)\)", (out / "report.md").read_text("utf-8"))
    assert len(charts) == len(set(charts)) == len(list((out / "figures").iterdir())) >= 7
    for chart in charts:
        drawn = (out / chart).read_text("utf-8")
        assert 'xmlns="http://www.w3.org/2000/svg"' in drawn and "prefers-color-scheme" in drawn
        Page(drawn)
    for name in ("latency", "size", "fidelity", "accuracy"):
        assert json.loads((out / "raw" / f"{name}.json").read_text()) == json.loads(paths[name].read_text())
    write_report(again, out)  # a second time, over the first


def test_models_are_measured_where_no_json_stands_for_it(tiny, tmp_path, measured):
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(measured.raw["latency"]))
    found = collect_measurements(ReportInputs(latency=path), (tiny, tiny))
    assert found.latency == measured.latency and found.size == measured.size


def test_what_is_wanted_is_measured_as_well(tiny, tmp_path, measured, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    files = ReportInputs(latency=tmp_path / "latency.json")
    files.latency.write_text(json.dumps(measured.raw["latency"]))
    data = tmp_path / "two.jsonl"
    data.write_text('{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 3?", "answer": "5"}\n')
    wanted = ReportRequest(str(data), PromptSettings(threads=1, max_tokens=4), 1, tiny, tiny, PeerPrograms())
    monkeypatch.setattr("thirteen.bench.report.collect.PeerWorkload", lambda threads: WORK)
    stages = []

    def stage(name):
        stages.append(name)
        return no_progress

    found = collect_measurements(files, (tiny, tiny), wanted=wanted, threads=1, stage=stage)
    assert stages == ["peers", "fidelity", "accuracy"]
    assert found.accuracy.paired.questions == 1 and found.accuracy.data == "two"
    assert found.fidelity.merged.divergence.kl_mean.estimate == pytest.approx(0, abs=1e-6)
    assert [row.name for row in found.peers.rows] == ["thirteen", "llama-cpp-python"]
    text = Page(render_html(compose_report(found))).text
    assert "Beside other programs" in text and "llama-cpp-python" in text
    assert all(line in text for line in found.peers.absent)
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(found.raw["peers"]))
    assert collect_measurements(ReportInputs(peers=path)).peers == found.peers
    assert "tiny.gguf" in compose_report(collect_measurements(ReportInputs(peers=path))).title


def test_what_is_wanted_is_looked_at_before_any_work(tiny, lora, not_a_model, tmp_path):
    def refused(error, said, **how):
        with pytest.raises(error, match=said):
            collect_measurements(ReportInputs(), (tiny, tiny), stage=pytest.fail, **how)

    refused(RequestError, "nowhere: no such file", wanted=ReportRequest(data="nowhere"))
    refused(RequestError, "'': no such file", wanted=ReportRequest(data=""))
    refused(ModelFileError, r"no\.gguf", wanted=ReportRequest(reference=not_a_model))
    refused(ModelFileError, r"no\.gguf", wanted=ReportRequest(reference=tiny, base_reference=not_a_model))
    refused(RequestError, "an adapter at run time", wanted=ReportRequest(reference=tiny), adapter=lora)
    with pytest.raises(RequestError, match="no models to measure"):
        collect_measurements(ReportInputs(peers=tmp_path), wanted=ReportRequest(data="svamp"))


def test_what_cannot_be_reported_is_one_clear_line(tiny, not_a_model, tmp_path):
    with pytest.raises(RequestError, match="neither models nor"):
        collect_measurements(ReportInputs())
    odd = tmp_path / "odd.json"
    odd.write_text("{}")
    for name in ReportInputs.__slots__:
        with pytest.raises(RequestError, match=r"odd\.json: '\w+' is missing"):
            collect_measurements(ReportInputs(**{name: odd}))
    for models in ((tiny, not_a_model), (not_a_model, tiny)):
        with pytest.raises(ModelFileError, match=r"no\.gguf"):
            collect_measurements(ReportInputs(), models, rounds=8, lengths=())


def test_a_folder_that_cannot_be_is_refused(measured, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_report(measured, tmp_path / "file" / "report")


@pytest.mark.parametrize("high", [0, 1e-9, 0.02, 1, 7.3, 99.99, 1e6])
def test_axes_hold_their_values_and_have_a_few_round_ticks(high):
    top = _nice(high)
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
def test_charts_of_little_or_much_are_whole(chart):
    drawn = render_svg(chart, alone=True)
    Page(drawn)
    assert "nan" not in drawn and "inf" not in drawn
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', drawn)[1].split())
    for x, y in re.findall(r'<text x="(-?[\d.]+)" y="(-?[\d.]+)"', drawn):
        assert 0 <= float(x) <= width and 0 <= float(y) <= height
