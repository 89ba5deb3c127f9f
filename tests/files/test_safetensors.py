"""Headers of safetensors files that a fuzzer found: refused in one line, or read as the reference does."""

import json
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import CheckpointError
from thirteen.files.safetensors import SafetensorsFile


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
