"""Headers of safetensors files that a fuzzer found: refused in one line, or read as the reference does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thirteen.errors import AdapterError, CheckpointError
from thirteen.files.atomic_write import atomic_write
from thirteen.files.safetensors import SafetensorsFile, write_safetensors


def write(path: Path, header: dict[str, Any]) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def test_an_empty_tensor_of_more_rows_than_numpy_counts_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0, 1 << 47, 1 << 47], "data_offsets": [0, 0]}
    with pytest.raises(CheckpointError, match="tensor 'a' has a damaged entry"):
        SafetensorsFile(write(tmp_path / "a", {"a": entry}))


@pytest.mark.parametrize("metadata", [[0.5], "", {"a": 1}])
def test_metadata_that_is_no_object_of_strings_is_refused(tmp_path: Path, metadata: Any) -> None:
    """The reference refuses it too."""
    with pytest.raises(CheckpointError, match="__metadata__ is not an object of strings"):
        SafetensorsFile(write(tmp_path / "a", {"__metadata__": metadata}))


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the header is not JSON: NaN is not a number"):
        SafetensorsFile(write(tmp_path / "a", {"a": float("nan")}))


def test_an_empty_tensor_is_read(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0, 5], "data_offsets": [0, 0]}
    file = SafetensorsFile(write(tmp_path / "a", {"a": entry}))
    assert file.rows("a").shape == (0, 5)


def test_a_name_as_long_as_the_header_is_quoted_in_part(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor 'xxx") as caught:
        SafetensorsFile(write(tmp_path / "a", {"x" * 100_000: 1}))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("shape", [(), (4, 3)])
def test_a_file_that_has_shrunk_is_named_and_not_the_output(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """It ended in numpy's ValueError; one that was removed, in an error of the file written meanwhile."""
    path = tmp_path / "a"
    write_safetensors(path, {"a": np.ones(shape, np.float32)}, {})
    file = SafetensorsFile(path, AdapterError)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AdapterError, match=r"a: cannot read \d+ items at byte \d+: it was cut short"):
        file.rows("a")
    path.unlink()
    with (
        pytest.raises(AdapterError, match="a: cannot read: No such file or directory"),
        atomic_write(tmp_path / "out"),
    ):
        file.rows("a")
    assert not list(tmp_path.iterdir())
