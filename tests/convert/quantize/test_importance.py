"""Importance files are llama.cpp's own, byte for byte, and whatever else comes along is one clear error."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.convert.quantize.importance import Importance, read_importance, write_importance
from thirteen.convert.tensors import TensorSpec
from thirteen.errors import ModelFileError, OutputError

TINY = Path(__file__).parents[2] / "data" / "imatrix-tiny.gguf"  # by llama-imatrix; see runtime/test_trace.py
Arrays = dict[str, np.ndarray]

names = st.sampled_from([f"blk.{n}.{kind}.weight" for n in (0, 1, 10) for kind in ("attn_q", "ffn_down")])
squares = st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=40)
entries = st.dictionaries(names, st.tuples(squares, st.integers(0, 1 << 24)), min_size=1)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def held(path: Path) -> Arrays:
    """The file's tensors, by the gguf package."""
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def write(path: Path, arrays: dict[str, Any], keys: dict[str, Any] | None = None) -> Path:
    """Write a file by the gguf package: whole keys, but for those that are None, and any arrays."""
    usual = {
        "general.type": ("imatrix", Kind.STRING, None),
        "imatrix.datasets": (["a.txt"], Kind.ARRAY, Kind.STRING),
        "imatrix.chunk_count": (3, Kind.UINT32, None),
        "imatrix.chunk_size": (64, Kind.UINT32, None),
    }
    writer = gguf.GGUFWriter(path, "")
    for key, entry in (usual | (keys or {})).items():
        if entry is not None:
            writer.add_key_value(key, *entry)
    for name, array in arrays.items():
        writer.add_tensor(name, np.asarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def importance(**arrays: int) -> Importance:
    """The importance of matrices by their names' last parts, of layer 0, with so many columns."""
    means = {f"blk.0.{name}.weight": np.ones(columns, np.float32) for name, columns in arrays.items()}
    return Importance(Path("importance.gguf"), "", means, dict.fromkeys(means, 1), ("a",), 64, 1, {})


def test_a_file_written_again_is_llama_imatrixs_byte_for_byte(tmp_path: Path) -> None:
    read, raw = read_importance(TINY), held(TINY)
    assert (read.datasets, read.chunk, read.chunks, read.sensitivity) == (
        ("tests/data/imatrix.txt",),
        32,
        35,
        {},
    )
    assert read.look_up_sensitivity is read.look_ups is None
    sums = {name: raw[f"{name}.in_sum2"] for name in read.means}
    sha256 = write_importance(
        tmp_path / "again.gguf",
        sums,
        read.counts,
        chunk=read.chunk,
        chunks=read.chunks,
        datasets=read.datasets,
    )
    assert (tmp_path / "again.gguf").read_bytes() == TINY.read_bytes()
    assert sha256 == read.sha256


@settings(max_examples=60, deadline=None)
@given(
    entries,
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
    st.integers(0, 1 << 31),
    st.integers(0, 1 << 31),
    st.dictionaries(names, numbers.map(abs)),
)
def test_what_was_written_is_read_back(
    entry: dict[str, Any], datasets: list[str], chunk: int, chunks: int, sensitivity: dict[str, float]
) -> None:
    sums = {name: np.array(values, np.float32) for name, (values, _) in entry.items()}
    counts = {name: count for name, (_, count) in entry.items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        sha256 = write_importance(
            path, sums, counts, chunk=chunk, chunks=chunks, datasets=datasets, sensitivity=sensitivity
        )
        read = read_importance(path)
    assert (read.path, read.sha256) == (path, sha256)
    assert (read.datasets, read.chunk, read.chunks) == (tuple(datasets), chunk, chunks)
    assert (read.counts, read.sensitivity) == (counts, sensitivity)
    for name, count in counts.items():
        expected = sums[name] / np.float32(count) if count else np.ones_like(sums[name])
        assert np.array_equal(read.means[name], expected)
        assert read.means[name].dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(st.none() | numbers.map(abs), st.none() | st.lists(st.integers(0, 1 << 24), min_size=1))
def test_what_was_written_of_look_ups_is_read_back(
    sensitivity: float | None, look_ups: list[int] | None
) -> None:
    counts = None if look_ups is None else np.array(look_ups)
    sums = {"a.weight": np.ones(4, np.float32)}
    how = {"chunk": 1, "chunks": 1, "datasets": ["a"]}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        write_importance(path, sums, {"a.weight": 1}, look_up_sensitivity=sensitivity, look_ups=counts, **how)
        read = read_importance(path)
    assert read.look_up_sensitivity == sensitivity
    assert (None if read.look_ups is None else read.look_ups.tolist()) == look_ups
    assert read.sensitivity == {}


def test_nothing_is_left_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_importance(
            tmp_path / "none" / "a.gguf",
            {"a.weight": np.ones(4, np.float32)},
            {"a.weight": 1},
            chunk=1,
            chunks=1,
            datasets=["a"],
        )
    assert not list(tmp_path.iterdir())


def test_tensors_that_it_does_not_know_are_passed_over_as_in_llama_cpp(tmp_path: Path) -> None:
    arrays = held(TINY) | {"output.weight.in_sum": np.ones(64, np.float32), "extra": np.ones(3, np.int8)}
    assert (
        read_importance(write(tmp_path / "a.gguf", arrays)).means.keys() == read_importance(TINY).means.keys()
    )


Q = "blk.0.attn_q.weight"
ONE = np.ones(1, np.float32)


def changed(arrays: Arrays | None = None, **keys: Any) -> Callable[[Path], Any]:
    """llama-imatrix's file with some tensors and keys changed; None leaves one out."""
    wanted = {key.replace("__", "."): entry for key, entry in keys.items()}

    def damage(path: Path) -> None:
        every = held(TINY) | (arrays or {})
        write(path, {name: array for name, array in every.items() if array is not None}, wanted)

    return damage


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a missing file": (Path.unlink, "No such file"),
    "an empty file": (lambda path: path.write_bytes(b""), "not a GGUF file"),
    "the older format": (
        lambda path: path.write_bytes(b"\xd2\0\0\0\x13\0\0\0blk.0.attn_k.weight\x0a\0\0\0"),
        "llama-imatrix --model MODEL --in-file",
    ),
    "a header cut off": (lambda path: path.write_bytes(TINY.read_bytes()[:100]), "past the end of the file"),
    "data cut off": (lambda path: path.write_bytes(TINY.read_bytes()[:-64]), "it is truncated"),
    "a model": (
        changed(general__type=None, general__architecture=("llama", Kind.STRING, None)),
        "not an importance file: its general.type is 'model', not 'imatrix'",
    ),
    "an adapter": (changed(general__type=("adapter", Kind.STRING, None)), "general.type is 'adapter'"),
    "a type that is a number": (changed(general__type=(7, Kind.UINT32, None)), "general.type is 7"),
    "no data": (lambda path: write(path, {"other": ONE}), "holds no tensor '.in_sum2'"),
    "sums without a count": (changed({f"{Q}.counts": None}), f"{Q!r} has not both '.in_sum2' and '.counts'"),
    "a count without sums": (changed({f"{Q}.in_sum2": None}), f"{Q!r} has not both"),
    "a negative sum": (
        changed({f"{Q}.in_sum2": np.array([1, -2, 3], np.float32)}),
        f"tensor '{Q}.in_sum2' holds -2.0",
    ),
    "a sum that is not a number": (changed({f"{Q}.in_sum2": ONE * np.nan}), f"'{Q}.in_sum2' holds nan"),
    "an infinite sum": (changed({f"{Q}.in_sum2": ONE * np.inf}), f"'{Q}.in_sum2' holds inf"),
    "a negative count": (changed({f"{Q}.counts": -ONE}), f"'{Q}.counts' holds -1.0"),
    "an infinite count": (changed({f"{Q}.counts": ONE * np.inf}), f"'{Q}.counts' holds inf"),
    "several experts": (
        changed({f"{Q}.in_sum2": np.ones((4, 64), np.float32), f"{Q}.counts": np.ones((4, 1), np.float32)}),
        f"tensor '{Q}.in_sum2' is of 4 experts; only dense models are supported",
    ),
    "counts of several experts": (
        changed({f"{Q}.counts": np.ones((4, 1), np.float32)}),
        f"tensor '{Q}.counts' is of 4 experts",
    ),
    "several counts": (changed({f"{Q}.counts": np.ones(4, np.float32)}), "has 4 numbers, not one"),
    "sums in half precision": (changed({f"{Q}.in_sum2": np.ones(64, np.float16)}), "is F16, not F32"),
    "counts that are integers": (changed({f"{Q}.counts": np.ones(1, np.int32)}), "is I32, not F32"),
    "a sensitivity that is not a number": (
        changed({f"{Q}.sensitivity": ONE * np.nan}),
        f"'{Q}.sensitivity' holds nan",
    ),
    "two sensitivities": (changed({f"{Q}.sensitivity": np.ones(2, np.float32)}), "has 2 numbers, not one"),
    "a negative sensitivity of look-ups": (
        changed({"token_embd.weight.look_up_sensitivity": -ONE}),
        "'token_embd.weight.look_up_sensitivity' holds -1.0",
    ),
    "look-ups that are not counted": (
        changed({"token_embd.weight.look_ups": ONE * np.nan}),
        "'token_embd.weight.look_ups' holds nan",
    ),
    "no chunk size": (changed(imatrix__chunk_size=None), "metadata key 'imatrix.chunk_size' is missing"),
    "no datasets": (changed(imatrix__datasets=None), "metadata key 'imatrix.datasets' is missing"),
    "datasets that are numbers": (
        changed(imatrix__datasets=([1, 2], Kind.ARRAY, Kind.INT32)),
        "metadata key 'imatrix.datasets' is [1, 2], of another type",
    ),
    "a chunk count that is a text": (
        changed(imatrix__chunk_count=("many", Kind.STRING, None)),
        "metadata key 'imatrix.chunk_count' is 'many', of another type",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, what: str) -> None:
    damage, says = BAD[what]
    path = tmp_path / "importance.gguf"
    shutil.copy(TINY, path)
    damage(path)
    with pytest.raises(ModelFileError) as error:
        read_importance(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, TINY.stat().st_size), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4)
)
def test_a_file_cut_or_changed_anywhere_is_read_or_refused(
    length: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(TINY.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        path.write_bytes(data[:length] if not changes else data)
        try:
            read = read_importance(path)
        except ModelFileError as error:
            assert str(error).startswith(f"{path}: ")
            return
    assert read.means.keys() == read.counts.keys()
    assert all(np.isfinite(means).all() and (means >= 0).all() for means in read.means.values())


SPECS = [
    TensorSpec("a", "token_embd.weight", (99, 64)),
    TensorSpec("b", "blk.0.attn_q.weight", (64, 64)),
    TensorSpec("c", "blk.0.ffn_down.weight", (64, 96)),
    TensorSpec("d", "blk.0.attn_norm.weight", (64,)),
    TensorSpec("e", "output.weight", (99, 64)),
]


def test_importance_fits_the_model_it_came_from() -> None:
    fitting = importance(attn_q=64, ffn_down=96)
    fitting.fit(SPECS)
    fitting.means["token_embd.weight"] = np.ones(64, np.float32)
    fitting.sensitivity["output.weight"] = 0.5
    fitting.fit(iter(SPECS))


def test_look_ups_in_another_vocabulary_are_refused() -> None:
    fitting = importance(attn_q=64, ffn_down=96)
    replace(fitting, look_ups=np.ones(99, np.float32)).fit(SPECS)
    with pytest.raises(ModelFileError, match="it counts 98 tokens, but this model has 99"):
        replace(fitting, look_ups=np.ones(98, np.float32)).fit(SPECS)


@pytest.mark.parametrize(
    ("arrays", "sensitive", "says"),
    [
        ({"attn_q": 65, "ffn_down": 96}, "", "'blk.0.attn_q.weight' has 65 columns there, but 64 here"),
        (
            {"attn_q": 64, "ffn_down": 96, "attn_k": 64},
            "",
            "it has 'blk.0.attn_k.weight', which this model has not",
        ),
        ({"attn_q": 64, "ffn_down": 96, "attn_norm": 64}, "", "it has 'blk.0.attn_norm.weight', which"),
        ({"attn_q": 64}, "", "it lacks 1 of this model's 4 matrices, such as 'blk.0.ffn_down.weight'"),
        ({"attn_q": 64, "ffn_down": 96}, "blk.9.attn_q.weight", "it has 'blk.9.attn_q.weight', which"),
    ],
)
def test_importance_of_another_model_is_refused(arrays: dict[str, int], sensitive: str, says: str) -> None:
    other = importance(**arrays)
    if sensitive:
        other.sensitivity[sensitive] = 1.0
    with pytest.raises(ModelFileError) as error:
        other.fit(SPECS)
    assert str(error.value).startswith("importance.gguf: the importance is for another model: ")
    assert says in str(error.value)
