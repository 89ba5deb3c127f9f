"""Sizes by tensor group, and the size that a file was planned for."""

from pathlib import Path

import gguf
import pytest
from thirteen.bench.memory.size import run_size, size_table
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header

from ...runtime.conftest import write_gguf


@pytest.fixture(scope="module")
def mixed(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "mixed.gguf"
    convert(Recipe(base("llama wide"), path, Uniform("Q4_K")))
    return path


@pytest.fixture(scope="module")
def report(mixed):
    return run_size(mixed)


def planned(folder: Path, requested: str) -> Path:
    """The tiny model with the requested type or size in its provenance."""
    return write_gguf(
        folder / "planned.gguf", {"thirteen.type": (requested, gguf.GGUFValueType.STRING, None)}, {}
    )


def test_every_byte_of_the_file_counts_once(report, mixed):
    assert report.file_bytes == mixed.stat().st_size
    for parts in ([group.nbytes for group in report.groups], list(report.types.values())):
        assert sum(parts) + report.metadata_bytes == report.file_bytes
    assert sum(group.weights for group in report.groups) == report.weights


def test_tensors_and_types_equal_those_of_the_gguf_package(report, mixed):
    read = gguf.GGUFReader(mixed).tensors
    assert sum(group.tensors for group in report.groups) == len(read)
    assert report.types == {
        name: sum(int(tensor.n_bytes) for tensor in read if tensor.tensor_type.name == name)
        for name in {tensor.tensor_type.name for tensor in read}
    }
    groups = {group.group for group in report.groups}
    assert {"token_embd", "ffn_down", "attn_v", "vectors"} <= groups
    rows = {row[0]: row for row in size_table(report).rows}
    assert set(rows) == {*groups, "metadata"} and "Q4_K" in rows["ffn_down"][-1]


@pytest.mark.parametrize(
    ("requested", "nbytes"),
    [("600KB, speed, x86", 600_000), ("572KiB, quality, arm", 572 << 10), ("32bpw, any", None)],
)
def test_the_budget_comes_from_the_files_provenance(tmp_path, requested, nbytes):
    path = planned(tmp_path, requested)
    budget = run_size(path).budget
    assert budget is not None
    assert budget.asked == requested.partition(",")[0]
    assert budget.nbytes == (4 * read_header(path).weights if nbytes is None else nbytes)
    assert budget.used == pytest.approx(path.stat().st_size / budget.nbytes)
    assert f"of the {budget.nbytes:,} bytes requested" in size_table(run_size(path)).title


@pytest.mark.parametrize("requested", ["Q4_K", "", "600MB\x00\n", "0.0000001KB"])
def test_a_file_without_a_target_size_has_no_budget(tmp_path, requested):
    report = run_size(planned(tmp_path, requested))
    assert report.budget is None
    assert "bytes requested" not in size_table(report).title


def test_files_that_are_not_models_are_refused(not_a_model, tmp_path, lora):
    for path in (not_a_model, tmp_path / "absent.gguf", lora):
        with pytest.raises(FileError, match=path.name):
            run_size(path)
