"""Headers of safetensors files that a fuzzer found: refused in one line, or read as the reference does."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from thirteen.errors import FileError
from thirteen.files.output import atomic_write
from thirteen.files.safetensors import SafetensorsFile, write_safetensors


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
    with pytest.raises(FileError, match="a: No such file or directory"), atomic_write(tmp_path / "out"):
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
        (b"", "header too small"),
        (struct.pack("<Q", 2**63) + b"{}", "header too large"),
        (
            content_of({"__metadata__": {"a": "b" * (1 << 23)}}, b""),
            "a header of .* bytes; at most 8,388,608",
        ),
        (content_of({"a": entry()}, bytes(65)), "file not fully covered"),
    ],
)
def test_damaged_safetensors_header_is_named(content, named, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError, match=named) as failure:
        SafetensorsFile(path)
    assert str(path) in str(failure.value)
