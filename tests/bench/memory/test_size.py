"""Sizes by tensor and group, and stock sizes equal to what llama.cpp's quantizer makes."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import gguf
import pytest
from rich.console import Console
from thirteen.bench.peers.llama_quantize import StockFormat, quantize_stock
from thirteen.bench.size.size import SizeReport, run_size, size_table
from thirteen.convert.pipeline import convert
from thirteen.errors import ModelFileError
from thirteen.files.gguf.header import read_header

from ...runtime.conftest import write_gguf


@pytest.fixture(scope="module")
def full(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "full.gguf"
    convert(base("llama wide"), path, quantization="F32")
    return path


@pytest.fixture(scope="module")
def mixed(full: Path) -> Path:
    path = full.with_name("mixed.gguf")
    quantize_stock(full, path, StockFormat("mix", "Q4_K_M"), threads=1)
    return path


@pytest.fixture(scope="module")
def report(mixed: Path) -> SizeReport:
    return run_size(mixed)


def planned(folder: Path, requested: str) -> Path:
    """The tiny model with the requested type or size in its provenance."""
    return write_gguf(
        folder / "planned.gguf", {"thirteen.type": (requested, gguf.GGUFValueType.STRING, None)}, {}
    )


def printed(report: SizeReport) -> str:
    console = Console(width=120, file=StringIO())
    console.print(size_table(report))
    return console.file.getvalue()


def test_every_byte_of_the_file_counts_once(report: SizeReport, mixed: Path) -> None:
    assert report.file_bytes == mixed.stat().st_size
    for parts in (
        [tensor.nbytes for tensor in report.tensors],
        [group.nbytes for group in report.groups],
        list(report.types.values()),
    ):
        assert sum(parts) + report.metadata_bytes == report.file_bytes
    assert sum(group.weights for group in report.groups) == report.weights
    assert sum(group.tensors for group in report.groups) == len(report.tensors)


def test_tensors_and_types_equal_those_of_the_gguf_package(report: SizeReport, mixed: Path) -> None:
    read = gguf.GGUFReader(mixed).tensors
    assert {(t.name, t.type, t.nbytes) for t in report.tensors} == {
        (tensor.name, tensor.tensor_type.name, tensor.n_bytes) for tensor in read
    }
    groups = {group.group for group in report.groups}
    assert {"token_embd", "ffn_down", "attn_v", "vectors"} <= groups


@pytest.mark.parametrize(
    "stock",
    [
        StockFormat("mix", "Q4_K_M"),
        StockFormat("mix", "Q3_K_L"),
        StockFormat("uniform", "Q5_0"),
        StockFormat("uniform", "Q6_K"),
    ],
    ids=lambda stock: f"{stock.kind} {stock.name}",
)
def test_a_stock_size_equals_the_file_that_the_quantizer_makes(
    report: SizeReport, full: Path, tmp_path: Path, stock: StockFormat
) -> None:
    """The size follows from the quantized file's shapes alone; both files have the same metadata."""
    target = tmp_path / "stock.gguf"
    quantize_stock(full, target, stock, threads=1)
    (size,) = (size for size in report.stock if (size.kind, size.name) == (stock.kind, stock.name))
    assert size.file_bytes == target.stat().st_size
    assert size.ratio == pytest.approx(report.file_bytes / target.stat().st_size)


def test_stock_sizes_do_not_depend_on_the_types_of_the_file(report: SizeReport, full: Path) -> None:
    def stock_bytes(report: SizeReport) -> dict[str, int]:
        return {f"{one.kind} {one.name}": one.file_bytes for one in report.stock}

    from_full, from_mixed = stock_bytes(run_size(full)), stock_bytes(report)
    differences = {from_full[name] - from_mixed[name] for name in from_mixed}
    assert len(differences) == 1, "only the metadata differ"
    assert len(from_mixed) == 35


@pytest.mark.parametrize(
    ("requested", "nbytes"),
    [("600KB, speed, x86", 600_000), ("572KiB, quality, arm", 572 << 10), ("32bpw, any", None)],
)
def test_the_budget_comes_from_the_files_provenance(
    tmp_path: Path, requested: str, nbytes: int | None
) -> None:
    path = planned(tmp_path, requested)
    budget = run_size(path).budget
    assert budget is not None
    assert budget.asked == requested.partition(",")[0]
    assert budget.nbytes == (4 * read_header(path).weights if nbytes is None else nbytes)
    assert budget.used == pytest.approx(path.stat().st_size / budget.nbytes)
    assert f"of the {budget.nbytes:,} bytes requested" in " ".join(printed(run_size(path)).split())


@pytest.mark.parametrize("requested", ["Q4_K", "like other.gguf", "", "600MB\x00\n"])
def test_a_file_without_a_target_size_has_no_budget(tmp_path: Path, requested: str) -> None:
    report = run_size(planned(tmp_path, requested))
    assert report.budget is None
    assert "bytes requested" not in printed(report)


def test_the_tables_show_groups_types_and_stock_files(report: SizeReport) -> None:
    text = printed(report)
    for expected in ("mixed.gguf", "ffn_down", "vectors", "metadata", "Q4_K", "Q4_K_M, mix", "1.000"):
        assert expected in text


def test_stock_files_of_other_sizes_are_not_said_to_be_similar(report: SizeReport) -> None:
    assert "of these tensors, of similar size" in printed(report)
    far = tuple(replace(stock, ratio=2.0) for stock in report.stock)
    text = printed(replace(report, stock=far))
    assert "of these tensors; none is of similar size" in text and far[0].label in text


def test_the_report_is_json_serializable(report: SizeReport) -> None:
    plain = asdict(report)
    assert json.loads(json.dumps(plain, allow_nan=False))["file_bytes"] == report.file_bytes


def test_files_that_are_not_models_are_refused(not_a_model: Path, tmp_path: Path, lora: Path) -> None:
    for path in (not_a_model, tmp_path / "absent.gguf", lora):
        with pytest.raises(ModelFileError, match=path.name):
            run_size(path)
