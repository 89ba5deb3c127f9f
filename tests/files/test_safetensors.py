"""Headers of safetensors files that a fuzzer found: refused in one line, or read as the reference does."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file as save_numpy
from thirteen.errors import FileError
from thirteen.files.atomic_write import atomic_write
from thirteen.files.safetensors import SafetensorsFile, write_safetensors


def test_an_empty_tensor_is_read(tmp_path):
    (tmp_path / "a").write_bytes(content_of({"a": entry(shape=[0, 5], offsets=[0, 0])}, b""))
    file = SafetensorsFile(tmp_path / "a")
    assert file.rows("a").shape == (0, 5)


def test_a_name_as_long_as_the_header_is_quoted_in_part(tmp_path):
    (tmp_path / "a").write_bytes(content_of({"x" * 100_000: 1}))
    with pytest.raises(FileError, match="tensor 'xxx") as caught:
        SafetensorsFile(tmp_path / "a")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("shape", [(), (4, 3)])
def test_a_file_that_has_shrunk_is_named_and_not_the_output(tmp_path, shape):
    """It ended in numpy's ValueError; one that was removed, in an error of the file written meanwhile."""
    path = tmp_path / "a"
    write_safetensors(path, {"a": np.ones(shape, np.float32)}, {})
    file = SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"a: cannot read \d+ items at byte \d+: it was cut short"):
        file.rows("a")
    path.unlink()
    with (
        pytest.raises(FileError, match="a: cannot read: No such file or directory"),
        atomic_write(tmp_path / "out"),
    ):
        file.rows("a")
    assert not list(tmp_path.iterdir())


def content_of(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (4, 4), offsets: Any = (0, 64), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated"),
        (struct.pack("<Q", 1 << 24) + bytes(1 << 24), "of 16,777,216 bytes; no more than 8,388,608 are read"),
        (content_of(b"\xff{}"), "not JSON"),
        (content_of([]), "not a JSON object"),
        (content_of({"a": 1}), "damaged"),
        (
            content_of({"a": entry(shape=[0, 1 << 47, 1 << 47], offsets=[0, 0])}),
            "tensor 'a' has a damaged entry",
        ),
        (content_of({"a": float("nan")}), "tensor 'a' has a damaged entry"),
        (content_of({"__metadata__": [0.5]}), "__metadata__ is not an object of strings"),
        (content_of({"__metadata__": {"a": 1}}), "__metadata__ is not an object of strings"),
        (content_of({"a": entry(dtype="F33")}), "damaged"),
        (content_of({"a": entry(shape=[4, -4])}), "damaged"),
        (content_of({"a": entry(shape=[4, 4.0])}), "damaged"),
        (content_of({"a": entry(shape=[2**60, 2**60])}), "damaged"),
        (content_of({"a": entry(offsets=[0])}), "damaged"),
        (content_of({"a": entry(offsets=[0, 60])}), "damaged"),
        (content_of({"a": entry()}, bytes(65)), "the file has"),
        (content_of({"a": entry(), "b": entry()}), "starts at 0"),
        (content_of({"a": entry(offsets=[4, 68])}, bytes(68)), "starts at 4, but the previous one ends at 0"),
        (content_of(b'{"a": %b, "a": %b}' % ((json.dumps(entry()).encode(),) * 2)), "twice"),
    ],
)
def test_damaged_safetensors_header_is_named(content, named, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError, match=named) as failure:
        SafetensorsFile(path)
    assert str(path) in str(failure.value)


def test_unsupported_safetensors_type_is_named(tmp_path):
    save_numpy({"a": np.ones((2, 2), np.int8)}, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="'a' is I8; supported: BF16, F16, F32"):
        SafetensorsFile(tmp_path / "a.safetensors").rows("a")
