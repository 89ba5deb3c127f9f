"""A size sweep of a small model, and bad input on the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from thirteen.bench.peers.llama_quantize import StockFormat
from thirteen.bench.size import quantizers
from thirteen.bench.size.quantizers import Quantizer, parse_quantizers
from thirteen.convert.pipeline import convert
from thirteen.convert.provenance import SourceIds
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.quantize.file_size import parse_file_size
from thirteen.convert.quantize.size_planner import SizeTarget
from thirteen.errors import OutputError
from thirteen.workflows import size_sweep
from thirteen.workflows.importance_cache import measure_importance
from thirteen.workflows.size_sweep import check_results, run_size_sweep, write_results
from thirteen.workflows.sweep_files import SweepInputs, SweepRivals

from ..commands import Commands
from ..convert.vocabulary.kept_lists import closed_list, tables_of
from ..leftovers import leftovers

TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"
STOCK = (StockFormat("uniform", "Q4_0"), StockFormat("mix", "Q5_K_M"))


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def importance(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("importance")
    (folder / "texts.jsonl").write_text(TEXT, "utf-8")
    measure_importance(base("llama"), None, folder / "a.gguf", calibration=folder / "texts.jsonl", threads=1)
    return folder / "a.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("THIRTEEN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def targets(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[SizeTarget]:
    """Two sizes between those of the smallest types and Q8_0; the larger one is first, and repeated."""
    largest = tmp_path_factory.mktemp("largest") / "a.gguf"
    convert(base("llama"), largest, quantization="Q8_0")
    sizes = (f"{thousandths * largest.stat().st_size / 1e6:.4f}KB" for thousandths in (950, 850, 950))
    return [SizeTarget(parse_file_size(size), "quality", costs_for("x86")) for size in sizes]


def test_files_are_made_measured_and_deleted(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path, tmp_path: Path
) -> None:
    max_files = 0
    stages = []

    def stage(name: str) -> Callable[[int, int], None]:
        nonlocal max_files
        stages.append(name)
        max_files = max(max_files, len(list(cache.rglob("*.gguf"))))
        return lambda done, total: None

    inputs = SweepInputs(base("llama"), importance=importance, ids=SourceIds("owner/tiny"), threads=1)
    report = run_size_sweep(inputs, targets, SweepRivals(STOCK), tokens=60, stage=stage)
    assert max_files == 2 and not leftovers(cache)  # the reference and one other; then nothing
    sizes = [target.size.text for target in targets]
    assert [name for name in stages if "making" in name] == [
        "making the reference",
        f"1 of 4: making planned {sizes[1]}",
        f"2 of 4: making planned {sizes[0]}",
        "3 of 4: making uniform Q4_0",
        "4 of 4: making mix Q5_K_M",
    ]
    points = {(point.kind, point.name): point for point in report.curve.points}
    assert len(points) == 4
    for target in targets:
        planned = points["planned", target.size.text]
        assert planned.file_bytes <= target.size.file_bytes(report.curve.weights) == planned.target_bytes
        assert planned.predicted_kl is not None and planned.predicted_kl > 0
    assert points["planned", sizes[0]].kl < points["uniform", "Q4_0"].kl
    assert report.curve.reference.bits_per_weight == 32
    assert (report.prefer, report.target, report.model) == ("quality", "x86", "owner/tiny")
    assert report.importance.id == importance.name

    written = write_results(report, tmp_path / "new" / "results")
    assert [path.name for path in written] == [f"curve-owner-tiny{end}" for end in (".json", ".svg", ".png")]
    parsed = json.loads(written[0].read_text("utf-8"))
    assert parsed["importance"]["sha256"] == report.importance.sha256
    assert len(parsed["curve"]["points"]) == 4 and len(parsed["curve"]["comparisons"]) == 4
    again = write_results(report, tmp_path / "new" / "results")
    assert again == written


def test_a_vocabulary_adds_a_file_of_each_size_with_fewer_tokens(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path, tmp_path: Path
) -> None:
    kept = closed_list(tables_of(base("llama")), [261])
    by_weight = [replace(targets[0], size=parse_file_size("8.4bpw"))]
    for sizes in (targets[:2], by_weight):
        inputs = SweepInputs(base("llama"), importance=importance, threads=1, vocabulary=kept)
        curve = run_size_sweep(inputs, sizes, SweepRivals(()), tokens=60).curve
        points = {(point.kind, point.name): point for point in curve.points}
        for target in sizes:
            size = target.size.text
            trimmed = points["trimmed", size]
            assert trimmed.file_bytes <= target.size.file_bytes(curve.weights)
            assert trimmed.vocabulary is not None and trimmed.vocabulary.kept == len(kept.tokens)
            assert points["planned", size].vocabulary is None
        assert sorted(one.name for one in curve.trimmed) == sorted(target.size.text for target in sizes)
        assert sum("smaller vocabulary" in line for line in curve.verdict) == len(sizes)
    assert not leftovers(cache)


def test_refine_adds_a_file_of_each_size_with_tuned_scales(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path
) -> None:
    inputs = SweepInputs(base("llama"), importance=importance, threads=1, refine=0.05)
    curve = run_size_sweep(inputs, targets[:1], SweepRivals(STOCK), tokens=60).curve
    points = {point.kind: point for point in curve.points}
    assert points["refined"].file_bytes <= targets[0].size.file_bytes(curve.weights)
    assert points["refined"].sha256 != points["planned"].sha256
    assert [one.name for one in curve.refined] == [targets[0].size.text]
    assert sum("times that of the plain one" in line for line in curve.verdict) == 1
    assert f"{targets[0].size.text}, refined" in {one.planned for one in curve.comparisons}
    assert not leftovers(cache)


def test_searched_scales_add_a_file_of_each_size(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path
) -> None:
    inputs = SweepInputs(base("llama"), importance=importance, threads=1, search_scales=True)
    curve = run_size_sweep(inputs, targets[:1], SweepRivals(STOCK), tokens=60).curve
    points = {point.kind: point for point in curve.points}
    assert points["searched"].file_bytes <= targets[0].size.file_bytes(curve.weights)
    assert points["searched"].sha256 != points["planned"].sha256
    assert [one.name for one in curve.searched] == [targets[0].size.text]
    assert f"{targets[0].size.text}, searched" in {one.planned for one in curve.comparisons}
    assert not leftovers(cache)


def test_keep_folder_retains_the_files(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "files"
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    run_size_sweep(inputs, targets[:1], SweepRivals(STOCK), tokens=5, keep=keep)
    names = ("full", f"planned-{targets[0].size.text}", "uniform-Q4_0", "mix-Q5_K_M")
    assert {path.name for path in keep.iterdir()} == {f"llama-{name}.gguf" for name in names}
    assert not cache.exists() or not leftovers(cache)


# Stands in for the package: it reads the checkpoint and the text that it is given, and writes a GGUF by
# llama.cpp, whatever the scheme.
FAKE_AUTO_ROUND = """
import os
from pathlib import Path
from transformers import AutoModelForCausalLM

class AutoRound:
    def __init__(self, model, *, scheme, iters, dataset, seqlen, nsamples, **_):
        if iters == 50:
            os.abort()
        if iters == 200:
            raise ValueError("a scheme\\nthat fails")
        self.model = AutoModelForCausalLM.from_pretrained(model)
        self.scheme = scheme
        assert nsamples == len(dataset) and max(chunk.shape[1] for chunk in dataset) == seqlen

    def quantize_and_save(self, folder, format):
        from thirteen.bench.peers.llama_quantize import StockFormat, quantize_stock
        print("a line on standard output")
        assert format == self.scheme.lower()
        source = Path(folder).parents[1] / "llama-full.gguf"
        Path(folder, "model").mkdir(parents=True)
        quantize_stock(source, Path(folder, "model", "model-Q5_0.gguf"), StockFormat("mix", "Q5_0"))
"""


@pytest.mark.slow
def test_other_quantizers_are_measured_or_absent_with_the_reason(
    base: Callable[[str], Path],
    importance: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "auto_round.py").write_text(FAKE_AUTO_ROUND)
    (packages / "sentencepiece.py").touch()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    target = SizeTarget(parse_file_size("8.2bpw"), "quality", costs_for("x86"))
    _, others = parse_quantizers("--with", "autoround,autoround-light,autoround-200,gptq-gguf")
    curve = run_size_sweep(inputs, [target], SweepRivals((), others, 300), tokens=30).curve
    absent = {one.kind: one.reason for one in curve.absent}
    assert set(absent) == {"autoround-light", "autoround-200", "gptq-gguf"}, absent
    assert absent["autoround-light"].startswith("its process ended with status -6")
    assert absent["autoround-200"] == "ValueError: a scheme that fails"
    points = {point.kind: point for point in curve.points if point.name != target.size.text}
    assert points["planned"].file_bytes <= points["autoround"].file_bytes
    assert points["planned"].name == f"{points['autoround'].file_bytes / 1e6:.2f}MB"
    compared = [one for one in curve.comparisons if one.kind == "autoround" and one.ratio]
    assert points["planned"].name in {one.planned for one in compared}
    assert not leftovers(cache)


@pytest.mark.slow
def test_a_quantizer_that_takes_too_long_is_absent(
    base: Callable[[str], Path], importance: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizers, "find_spec", lambda name: object())
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    target = SizeTarget(parse_file_size("8.4bpw"), "quality", costs_for("x86"))
    rivals = SweepRivals((), [Quantizer("autoround")], 0.01)
    (absent,) = run_size_sweep(inputs, [target], rivals, tokens=5).curve.absent
    assert absent.reason == "its process ended with status -9: it took longer than 0.01 s"
    assert not leftovers(cache)


def test_a_file_made_elsewhere_is_measured_beside_a_planned_one_of_its_size(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made.gguf"
    convert(base("llama"), made, quantization="Q8_0")
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    rivals = SweepRivals((), [Quantizer("gptq-gguf", made)])
    curve = run_size_sweep(inputs, targets[:1], rivals, tokens=30).curve
    points = {(point.kind, point.name): point for point in curve.points}
    size = f"{made.stat().st_size / 1e6:.2f}MB"
    assert set(points) == {("planned", targets[0].size.text), ("gptq-gguf", "made"), ("planned", size)}
    assert points["planned", size].file_bytes <= made.stat().st_size
    assert made.exists() and not leftovers(cache)


def test_by_default_llama_cpp_makes_the_files_around_the_sizes(
    base: Callable[[str], Path], importance: Path, targets: list[SizeTarget], cache: Path
) -> None:
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    curve = run_size_sweep(inputs, targets[:1], tokens=5).curve
    size = targets[0].size.file_bytes(curve.weights)
    for kind in ("uniform", "mix"):
        sizes = [point.file_bytes for point in curve.points if point.kind == kind]
        assert min(sizes) <= size < max(sizes)
    assert len(curve.points) < 20


def test_size_that_cannot_be_met_leaves_no_files(
    base: Callable[[str], Path], importance: Path, cache: Path
) -> None:
    target = SizeTarget(parse_file_size("1KB"), "quality", costs_for("x86"))
    inputs = SweepInputs(base("llama"), importance=importance, threads=1)
    with pytest.raises(OutputError, match=r"--size 1KB: .* the smallest file possible"):
        run_size_sweep(inputs, [target], SweepRivals(STOCK), tokens=5)
    assert not leftovers(cache)


def test_unusable_results_folder_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "results"):
        with pytest.raises(OutputError, match="is a file, not a folder"):
            check_results(folder)
    check_results(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_to_keep_files_in_that_is_a_file_is_refused_before_any_work(
    base: Callable[[str], Path], targets: list[SizeTarget], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused after the importance had been measured."""
    monkeypatch.setattr(size_sweep, "cached_importance", lambda *_, **__: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        run_size_sweep(SweepInputs(base("llama")), targets, keep=tmp_path / "file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--questions", "3"), "--questions: requires --accuracy"),
        (("--max-tokens", "3"), "--max-tokens: requires --accuracy"),
        (("--with", "none", "--all-types"), "--all-types: requires imatrix in --with"),
        (("--timeout", "3"), "--timeout: requires AutoRound in --with"),
        (("--with", "autoround=BASE/config.json", "--timeout", "3"), "--timeout: requires AutoRound in"),
        (("--importance", "a", "--calibration", "b"), "--calibration: --importance is given, so none is"),
    ],
)
def test_options_without_effect_are_one_line(
    thirteen: Commands, base: Callable[[str], Path], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    words = tuple(word.replace("BASE", str(base("llama"))) for word in words)
    done = thirteen("bench", "curve", base("llama"), *words, "--output-dir", tmp_path / "results")
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sizes", ["600", "4.5bpw,", "4.5bpw,-1MB", "40bpw"])
def test_invalid_sizes_are_one_line(
    thirteen: Commands, base: Callable[[str], Path], tmp_path: Path, sizes: str
) -> None:
    done = thirteen("bench", "curve", base("llama"), "--sizes", sizes, "--output-dir", tmp_path / "results")
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "--size" in done.stderr
    assert not list(tmp_path.iterdir())


def test_importance_of_another_model_is_one_line(
    thirteen: Commands, base: Callable[[str], Path], importance: Path, tmp_path: Path
) -> None:
    foreign = thirteen(
        *("bench", "curve", base("qwen2"), "--sizes", "5bpw", "--importance", importance),
        *("--output-dir", tmp_path / "results"),
    )
    assert foreign.status == 2 and foreign.stderr.count("\n") == 1 and "another model" in foreign.stderr
    assert not list(tmp_path.iterdir())


def test_missing_texts_are_one_line_before_any_work(
    thirteen: Commands, base: Callable[[str], Path], importance: Path, tmp_path: Path
) -> None:
    words = ("bench", "curve", base("llama"), "--importance", importance, "--data", tmp_path / "none.jsonl")
    done = thirteen(*words, "--output-dir", tmp_path / "results")
    assert done.status == 2 and done.stderr.count("\n") == 1 and "none.jsonl" in done.stderr
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_is_one_line(base: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["thirteen", "bench", "curve", str(base("llama")), "--output-dir", str(tmp_path / "results")]
    script = (
        "import sys; sys.modules['matplotlib'] = None; "
        f"sys.argv = {words!r}; from thirteen.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: matplotlib, which draws the charts, is not installed: "
        "install the extra `report`: pip install '.[report]' in the checkout\n"
    )
    assert not list(tmp_path.iterdir())
