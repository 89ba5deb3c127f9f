"""Importance files match llama-imatrix byte for byte; any other file is refused in one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from thirteen.convert.quantize.importance import (
    Importance,
    ImportanceStats,
    read_importance,
    write_importance,
)
from thirteen.convert.tensors import TensorSpec
from thirteen.convert.write import write_arrays
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, read_header

from ...refusals import refused
from .covariances import correlated, importance_with, in_blocks

# Written by llama-imatrix; see tests/convert/calibration/test_activation_stats.py.
TINY = Path(__file__).parents[2] / "data" / "imatrix-tiny.gguf"
Arrays = dict[str, np.ndarray]


def tensors_of(path: Path) -> Arrays:
    """The file's tensors as the gguf package reads them."""
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def importance(**arrays: int) -> Importance:
    """The importance of matrices of layer 0, given the number of columns by role."""
    means = {f"blk.0.{name}.weight": np.ones(columns, np.float32) for name, columns in arrays.items()}
    return Importance(Path("importance.gguf"), "", means, ("a",), 1, {})


def test_a_rewritten_file_matches_llama_imatrix_byte_for_byte(tmp_path):
    read, raw = read_importance(TINY), tensors_of(TINY)
    assert (read.datasets, read.chunk_count) == (("tests/data/imatrix.txt",), 35)
    assert (read.sensitivity, read.lookup_sensitivity, read.lookup_counts) == ({}, None, None)
    sums = {name: raw[f"{name}.in_sum2"] for name in read.mean_squares}
    stats = ImportanceStats(sums, 32 * 35, 32, read.chunk_count)
    sha256 = write_importance(tmp_path / "again.gguf", stats, read.datasets)
    assert (tmp_path / "again.gguf").read_bytes() == TINY.read_bytes()
    assert sha256 == read.sha256


def test_a_file_that_is_cut_short_or_removed_is_a_model_file_error(tmp_path):
    """It was a ValueError, or an OSError that the writer of the output took for its own."""
    read = importance_with(in_blocks(correlated(64), 32, 2), tmp_path)
    read.path.write_bytes(read.path.read_bytes()[:-200])
    with pytest.raises(FileError, match=r"importance.gguf: cannot read 128 items .* cut short"):
        read.covariance("m")
    with pytest.raises(FileError, match=r"importance.gguf: .*cut short|importance.gguf: .*ends"):
        read_importance(read.path)
    read.path.unlink()
    with pytest.raises(FileError, match=r"importance.gguf: No such file"):
        read.covariance("m")


def test_a_covariance_that_overflows_is_refused(tmp_path):
    """It was quantized by, with warnings of NumPy, into garbage."""
    covariance = in_blocks(correlated(64), 32, 2)
    covariance.blocks[0, 0, 0] = 3e38
    with pytest.raises(FileError, match=r"importance.gguf: tensor 'm.in_cov' holds 3\S*e\+38"):
        importance_with(covariance, tmp_path).covariance("m")


Q = "blk.0.attn_q.weight"
ONE = np.ones(1, np.float32)


def changed(arrays: Arrays, kind: str = "imatrix") -> Callable[[Path], Any]:
    """llama-imatrix's file with other tensors, without those that are None, or as a file of another kind."""

    def write(path: Path) -> None:
        fields = read_header(TINY).fields | {"general.type": Field(kind, gguf.GGUFValueType.STRING)}
        kept = {name: one for name, one in (tensors_of(TINY) | arrays).items() if one is not None}
        write_arrays(path, fields, kept)

    return write


BAD: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: path.write_bytes(b"\xd2\0\0\0\x13\0\0\0blk.0.attn_k.weight"), "not a GGUF file"),
    (changed({}, kind="model"), "not an importance file: its general.type is 'model', not 'imatrix'"),
    (changed(dict.fromkeys(tensors_of(TINY)) | {"other": ONE}), "needs both '.in_sum2' and '.counts'"),
    (changed({f"{Q}.in_sum2": np.array([1, -2, 3], np.float32)}), f"tensor '{Q}.in_sum2' holds -2.0"),
    (
        changed({f"{Q}.in_sum2": np.ones((4, 64), np.float32), f"{Q}.counts": np.ones((4, 1), np.float32)}),
        f"tensor '{Q}.in_sum2' is F32 of the shape (4, 64); only F32 of dense models is read",
    ),
]


@pytest.mark.parametrize(("damage", "says"), BAD)
def test_an_invalid_file_is_refused_in_one_line_that_names_it(tmp_path, damage, says):
    path = tmp_path / "importance.gguf"
    damage(path)
    with refused(f"{path}: ", says, FileError):
        read_importance(path)


SPECS = [
    TensorSpec("a", "token_embd.weight", (99, 64)),
    TensorSpec("b", "blk.0.attn_q.weight", (64, 64)),
    TensorSpec("c", "blk.0.ffn_down.weight", (64, 96)),
    TensorSpec("d", "blk.0.attn_norm.weight", (64,)),
    TensorSpec("e", "output.weight", (99, 64)),
]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"attn_q": 65, "ffn_down": 96}, "'blk.0.attn_q.weight' has 65 columns there, but 64 here"),
        ({"attn_q": 64}, "it lacks 1 of this model's 4 matrices, such as 'blk.0.ffn_down.weight'"),
    ],
)
def test_importance_of_another_model_is_refused(arrays, says):
    with refused("importance.gguf: the importance is for another model: ", says, FileError):
        importance(**arrays).check_fits(SPECS)
    fitting = replace(importance(attn_q=64, ffn_down=96), lookup_counts=np.ones(98, np.float32))
    with pytest.raises(FileError, match="it counts 98 tokens, but this model has 99"):
        fitting.check_fits(SPECS)


def test_an_importance_of_zeros_is_one_of_ones(tmp_path):
    """It rounded all weights to 0."""
    stats = ImportanceStats({"blk.0.attn_q.weight": np.zeros(32, np.float32)}, 7, 64, 1)
    write_importance(tmp_path / "zeros.gguf", stats, ["a"])
    (means,) = read_importance(tmp_path / "zeros.gguf").mean_squares.values()
    assert np.array_equal(means, np.ones(32))
