"""A curve from files to report and plot, on small models: its figures are those of `bench fidelity`."""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from thirteen.bench.fidelity import fidelity
from thirteen.bench.fidelity.model_roles import model_sources
from thirteen.bench.size.kl_curve import CurveEntry, curve_table, run_curve
from thirteen.bench.size.plot import draw_curve
from thirteen.convert.pipeline import convert
from thirteen.errors import ModelFileError, RequestError

from ...runtime.conftest import write_gguf

TEXTS = [
    {"text": "The ferry leaves at nine and comes back at noon."},
    {"question": "What is 12 * 13?", "solution": "12 * 13 = 156\n#### 156"},
    {"text": "Der Zug kommt um halb acht; niemand steigt aus."},
]
FILES = {("planned", "5bpw"): "Q5_0", ("uniform", "Q4_0"): "Q4_0", ("mix", "Q8_0"): "Q8_0"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, base):
    """Converted files of a small random Llama by type."""
    folder = tmp_path_factory.mktemp("made")
    for type_ in ("F32", *FILES.values()):
        convert(base("llama"), folder / f"{type_}.gguf", quantization=type_)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def entries(made):
    return [CurveEntry(kind, name, made[type_], predicted_kl=0.01) for (kind, name), type_ in FILES.items()]


@pytest.fixture(scope="module")
def report(made, entries, texts):
    return run_curve(made["F32"], entries, data=texts, tokens=400, threads=1)


def test_the_divergence_is_that_of_bench_fidelity_to_the_last_bit(report, made, texts):
    assert [point.name for point in report.points] == ["Q4_0", "5bpw", "Q8_0"]
    for point in report.points:
        models = model_sources(made["F32"], made[FILES[point.kind, point.name]])
        alone = fidelity.run_fidelity(models, data=texts, tokens=400, threads=1)
        assert point.divergence == alone.merged.divergence
        assert point.sha256 == alone.files.shipped.sha256
        assert point.file_bytes == alone.files.shipped.file_bytes
        assert (report.passages, report.positions) == (alone.passages, alone.positions)
    assert report.reference == alone.files.reference


def test_bits_a_weight_are_of_the_whole_file(report):
    for point in report.points:
        assert point.bits_per_weight * report.weights / 8 == pytest.approx(point.file_bytes)


def test_a_planned_file_is_set_beside_the_stock_files_of_its_size(report):
    q4_0, planned, _ = report.points
    uniform, mix = report.comparisons
    assert (uniform.planned, uniform.kind, uniform.best) == ("5bpw", "uniform", "Q4_0")
    assert uniform.ratio.estimate == pytest.approx(planned.kl / q4_0.kl)
    assert 0 < uniform.ratio.low <= uniform.ratio.estimate <= uniform.ratio.high < 1
    assert (mix.best, mix.ratio, mix.curve_kl) == (None, None, None)  # Q8_0 is larger
    assert report.verdict[0].startswith("5bpw: KL divergence ") and "of uniform Q4_0's" in report.verdict[0]
    assert "beside no mix file, as none is so small" in report.verdict[0]
    assert report.verdict[1] == "at most 0.8 of the best stock files' of their size: 1 of 1 planned"
    assert report.verdict[2].startswith("warning: with 3 texts")


def test_a_file_is_made_when_it_is_asked_for_and_may_go_when_the_next_one_is(made, entries, texts, tmp_path):
    there = []

    def one_by_one() -> Iterator[CurveEntry]:
        for entry in entries:
            path = tmp_path / "only.gguf"
            path.write_bytes(entry.path.read_bytes())
            yield replace(entry, path=path)
            path.unlink()
            there.append(len(list(tmp_path.iterdir())))

    found = run_curve(made["F32"], one_by_one(), data=texts, tokens=30, threads=1, scratch=tmp_path)
    assert len(found.points) == 3
    assert there == [0, 0, 0] and not list(tmp_path.iterdir())  # nor do the reference's logits stay


def test_the_progress_of_every_file_counts_to_its_total(made, entries, texts):
    ticks: dict[str, list[tuple[int, int]]] = {}

    def stage(name):
        return lambda done, total: ticks.setdefault(name, []).append((done, total))

    run_curve(made["F32"], entries, data=texts, tokens=40, threads=1, stage=stage)
    names = ["the reference", *(f"{entry.kind} {entry.name}" for entry in entries)]
    assert list(ticks) == [f"reading {name}" for name in names]
    for counted in ticks.values():
        assert counted == sorted(set(counted)) and counted[-1][0] == counted[-1][1]


def test_a_report_goes_to_json_and_back(report):
    again = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert again["points"][0]["divergence"]["kl_mean"]["estimate"] == report.points[0].kl
    assert again["comparisons"][0]["ratio"]["estimate"] == report.comparisons[0].ratio.estimate
    assert again["comparisons"][1]["ratio"] is None


def test_a_table_shows_the_files_and_the_comparisons(report):
    console = Console(width=150, file=StringIO())
    console.print(curve_table(report))
    text = " ".join(console.file.getvalue().split())
    for said in ("planned", "uniform", "mix", "5bpw", "Q4_0", "none", "0.0100", report.machine.cpu):
        assert said in text
    for line in report.verdict:
        assert line in text


def test_the_plot_names_every_file_about_the_planned_ones_size_and_is_the_same_again(report):
    svg = draw_curve(report, "a tiny <model>", "svg")
    assert svg == draw_curve(report, "a tiny <model>", "svg")
    text = svg.decode()
    assert text.startswith("<?xml") and text.rstrip().endswith("</svg>")
    for said in ("a tiny &lt;model", "5bpw", "nats", "bits a weight", " positions of 3 texts"):
        assert said in text
    assert "Q8_0<" not in text  # it is far larger, and would make the others a blot
    whole = draw_curve(replace(report, points=report.points[::2]), "stock alone", "svg").decode()
    assert ">Q8_0<" in whole and ">Q4_0<" in whole


def test_the_png_is_a_picture_of_some_size(report):
    png = draw_curve(report, "a tiny model", "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 1200 and height >= 800


def test_a_plot_of_files_that_diverge_in_nothing_can_be_drawn(made, texts):
    exact = CurveEntry("planned", "32bpw", made["F32"])
    found = run_curve(made["F32"], [exact], data=texts, tokens=20, threads=1)
    assert found.points[0].kl == 0
    assert b"32bpw" in draw_curve(found, "exact", "svg")


def test_what_cannot_be_measured_is_refused(made, entries, texts, not_a_model, tmp_path):
    def refused(error, said, reference=made["F32"], given=entries, **how):
        with pytest.raises(error, match=said):
            run_curve(reference, given, **({"data": texts, "tokens": 10, "threads": 1} | how))

    other = write_gguf(tmp_path / "other.gguf", {}, {})
    refused(ModelFileError, r"no\.gguf", reference=not_a_model)
    refused(ModelFileError, r"no\.gguf", given=[CurveEntry("mix", "a", Path(not_a_model))])
    refused(
        ModelFileError,
        r"other\.gguf: its vocabulary has 259 tokens, that of .* 272",
        given=[CurveEntry("mix", "a", other)],
    )
    refused(RequestError, r"missing\.jsonl", data=tmp_path / "missing.jsonl")
    refused(RequestError, "tokens must be a whole number from 1", tokens=0)
