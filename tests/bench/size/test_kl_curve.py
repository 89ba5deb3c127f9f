"""KL curves of small models, from files to report and plot; the figures equal those of `bench fidelity`."""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompt_settings import PromptSettings
from thirteen.bench.fidelity import fidelity
from thirteen.bench.fidelity.model_roles import model_sources
from thirteen.bench.size.kl_curve import AbsentFile, CurveEntry, CurveQuestions, curve_table, run_curve
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
def files(tmp_path_factory, base):
    """Converted files of a small random Llama by type."""
    folder = tmp_path_factory.mktemp("files")
    for type_ in ("F32", *FILES.values()):
        convert(base("llama"), folder / f"{type_}.gguf", quantization=type_)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def entries(files):
    return [CurveEntry(kind, name, files[type_], predicted_kl=0.01) for (kind, name), type_ in FILES.items()]


@pytest.fixture(scope="module")
def report(files, entries, texts):
    return run_curve(files["F32"], entries, data=texts, tokens=400, threads=1)


def test_the_divergence_equals_bench_fidelity_to_the_last_bit(report, files, texts):
    assert [point.name for point in report.points] == ["Q4_0", "5bpw", "Q8_0"]
    for point in report.points:
        models = model_sources(files["F32"], files[FILES[point.kind, point.name]])
        alone = fidelity.run_fidelity(models, data=texts, tokens=400, threads=1)
        assert point.divergence == alone.merged.divergence
        assert point.sha256 == alone.files.shipped.sha256
        assert point.file_bytes == alone.files.shipped.file_bytes
        assert (report.passages, report.positions) == (alone.passages, alone.positions)
    assert report.reference == alone.files.reference


def test_bits_per_weight_count_the_whole_file(report):
    for point in report.points:
        assert point.bits_per_weight * report.weights / 8 == pytest.approx(point.file_bytes)


def test_a_planned_file_is_compared_with_stock_files_of_its_size(report):
    q4_0, planned, _ = report.points
    uniform, mix = report.comparisons
    assert (uniform.planned, uniform.kind, uniform.best) == ("5bpw", "uniform", "Q4_0")
    assert uniform.ratio.estimate == pytest.approx(planned.kl / q4_0.kl)
    assert 0 < uniform.ratio.low <= uniform.ratio.estimate <= uniform.ratio.high < 1
    assert (mix.best, mix.ratio, mix.curve_kl) == (None, None, None)  # Q8_0 is larger
    assert report.verdict[0].startswith("5bpw: KL divergence ")
    assert "times that of uniform Q4_0" in report.verdict[0]
    assert "not compared with mix files: none is as small" in report.verdict[0]
    assert report.verdict[1] == (
        "1 of 1 planned files have at most 0.8 times the KL divergence of the best other files of their size"
    )
    assert report.verdict[2].startswith("warning: with 3 texts")


def test_questions_and_other_texts_have_their_own_divergence(report, files, texts, tmp_path):
    """Texts of one kind alone give the same figure as their part of all texts."""
    kinds = {"kl_questions": TEXTS[1:2], "kl_texts": [TEXTS[0], TEXTS[2]]}
    for name, rows in kinds.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entry = CurveEntry("mix", "Q8_0", files["Q8_0"])
        (alone,) = run_curve(files["F32"], [entry], data=path, tokens=400, threads=1).points
        assert getattr(report.points[2], name).estimate == pytest.approx(alone.kl)
        assert [getattr(alone, other) is None for other in kinds] == [other != name for other in kinds]


def test_files_of_other_quantizers_that_cannot_be_read_are_absent(files, entries, texts, tmp_path):
    foreign = write_gguf(tmp_path / "foreign.gguf", {}, {})
    missing = AbsentFile("gptq-gguf", "gptq-gguf", "it is not installed")
    others = [
        missing,
        CurveEntry("autoround", "Q5_0", files["Q5_0"]),
        CurveEntry("autoround-light", "Q4_0", foreign),
    ]
    found = run_curve(files["F32"], [*others, *entries], data=texts, tokens=60, threads=1)
    assert len(found.points) == 4
    assert found.absent[0] == missing
    (unreadable,) = found.absent[1:]
    assert (unreadable.kind, unreadable.name) == ("autoround-light", "Q4_0")
    assert "its vocabulary has 259 tokens" in unreadable.reason
    assert [one.kind for one in found.comparisons] == ["uniform", "mix", "autoround"]
    assert found.comparisons[2].ratio.estimate == pytest.approx(1)  # the same file as the planned one
    console = Console(width=150, file=StringIO())
    console.print(curve_table(found))
    printed = " ".join(console.file.getvalue().split())
    assert "gptq-gguf: not measured: it is not installed" in printed
    assert "autoround-light Q4_0: not measured: " in printed
    assert b"AutoRound" in draw_curve(found, "a tiny model", "svg")


def test_all_files_answer_the_questions(files, entries, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": n + 1}) + "\n" for n in range(4)))
    asked = CurveQuestions(load_question_set(str(path)), PromptSettings(threads=1, max_tokens=4))
    found = run_curve(files["F32"], entries, data=texts, tokens=30, threads=1, questions=asked)
    assert found.questions == str(path)
    for scores in (found.accuracy, *(point.accuracy for point in found.points)):
        assert (scores.questions, scores.errors) == (4, 0)
    console = Console(width=200, file=StringIO())
    console.print(curve_table(found))
    assert "answers right, %" in console.file.getvalue()
    assert f"answers: 4 questions of {path}" in " ".join(console.file.getvalue().split())


def test_entries_are_requested_one_at_a_time(files, entries, texts, tmp_path):
    leftovers = []

    def one_by_one() -> Iterator[CurveEntry]:
        for entry in entries:
            path = tmp_path / "only.gguf"
            path.write_bytes(entry.path.read_bytes())
            yield replace(entry, path=path)
            path.unlink()
            leftovers.append(list(tmp_path.iterdir()))

    found = run_curve(files["F32"], one_by_one(), data=texts, tokens=30, threads=1, scratch=tmp_path)
    assert len(found.points) == 3
    assert leftovers == [[], [], []] and not list(tmp_path.iterdir())  # the logits are deleted too


def test_the_progress_of_each_file_reaches_its_total(files, entries, texts):
    ticks: dict[str, list[tuple[int, int]]] = {}

    def stage(name):
        return lambda done, total: ticks.setdefault(name, []).append((done, total))

    run_curve(files["F32"], entries, data=texts, tokens=40, threads=1, stage=stage)
    names = ["the reference", *(f"{entry.kind} {entry.name}" for entry in entries)]
    assert list(ticks) == [f"reading {name}" for name in names]
    for steps in ticks.values():
        assert steps == sorted(set(steps)) and steps[-1][0] == steps[-1][1]


def test_json_round_trip(report):
    plain = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert plain["points"][0]["divergence"]["kl_mean"]["estimate"] == report.points[0].kl
    assert plain["comparisons"][0]["ratio"]["estimate"] == report.comparisons[0].ratio.estimate
    assert plain["comparisons"][1]["ratio"] is None


def test_the_table_shows_files_and_comparisons(report):
    console = Console(width=150, file=StringIO())
    console.print(curve_table(report))
    text = " ".join(console.file.getvalue().split())
    for expected in ("planned", "uniform", "mix", "5bpw", "Q4_0", "none", "0.0100", report.machine.cpu):
        assert expected in text
    for line in report.verdict:
        assert line in text


def test_the_plot_labels_files_of_similar_size_and_is_reproducible(report):
    svg = draw_curve(report, "a tiny <model>", "svg")
    assert svg == draw_curve(report, "a tiny <model>", "svg")
    text = svg.decode()
    assert text.startswith("<?xml") and text.rstrip().endswith("</svg>")
    for expected in ("a tiny &lt;model", "5bpw", "nats", "bits per weight", " positions of 3 texts"):
        assert expected in text
    assert "Q8_0<" not in text  # far larger: it would squeeze the others together
    stock_only = draw_curve(replace(report, points=report.points[::2]), "stock alone", "svg").decode()
    assert ">Q8_0<" in stock_only and ">Q4_0<" in stock_only


def test_the_png_has_a_reasonable_size(report):
    png = draw_curve(report, "a tiny model", "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 1200 and height >= 800


def test_a_file_with_zero_divergence_can_be_plotted(files, texts):
    exact = CurveEntry("planned", "32bpw", files["F32"])
    found = run_curve(files["F32"], [exact], data=texts, tokens=20, threads=1)
    assert found.points[0].kl == 0
    assert b"32bpw" in draw_curve(found, "exact", "svg")


def test_bad_files_texts_and_numbers_are_refused(files, entries, texts, not_a_model, tmp_path):
    def refused(error, message, reference=files["F32"], entries=entries, **options):
        with pytest.raises(error, match=message):
            run_curve(reference, entries, **({"data": texts, "tokens": 10, "threads": 1} | options))

    other = write_gguf(tmp_path / "other.gguf", {}, {})
    refused(ModelFileError, r"no\.gguf", reference=not_a_model)
    refused(ModelFileError, r"no\.gguf", entries=[CurveEntry("mix", "a", Path(not_a_model))])
    refused(
        ModelFileError,
        r"other\.gguf: its vocabulary has 259 tokens, that of .* 272",
        entries=[CurveEntry("mix", "a", other)],
    )
    refused(RequestError, r"missing\.jsonl", data=tmp_path / "missing.jsonl")
    refused(RequestError, "tokens must be an integer of at least 1", tokens=0)
