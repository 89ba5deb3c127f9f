"""safetensors files: the library checks their headers; rows are read as float32 without torch.

Rows are read, not mapped, so that a 2.5 GB checkpoint never counts as resident memory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import FileError
from ..stats import Floats
from .output import atomic_write
from .received_files import open_regular, read_errors

MAX_HEADER_BYTES = 1 << 23  # 60,000 tensors; parsed, JSON takes thirty times as much memory

_DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in the file: the name of its type, its shape and its absolute offset."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile:
    """One safetensors file. Any thread may read rows of its tensors.

    Attributes:
        path: the file.
        entries: its tensors by name, in the order of the file.
        metadata: the strings under `__metadata__` in its header.
    """

    def __init__(self, path: Path) -> None:
        """Read the header of `path`.

        Raises:
            FileError: the file cannot be read, or is damaged.
        """
        self.path = path
        try:
            with read_errors(path), open_regular(path) as file:
                with safe_open(path, framework="np"):  # checks the header, and the file's size by it
                    length = int.from_bytes(file.read(8), "little")
                if length > MAX_HEADER_BYTES:
                    raise self._problem(
                        f"a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read"
                    )
                header = json.loads(file.read(length))
        except (SafetensorError, ValueError, RecursionError) as failure:
            raise self._problem(f"is no whole safetensors file: {failure}") from None
        self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
        placed = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        self.entries = {
            name: TensorEntry(value["dtype"], tuple(value["shape"]), 8 + length + value["data_offsets"][0])
            for name, value in placed
        }

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Rows `start` to `stop` of a tensor as float32, (stop - start, …); a scalar is (), whole."""
        entry = self.entries[name]
        if entry.dtype not in _DTYPES:
            raise self._problem(f"tensor {name!r} is {entry.dtype}; supported: {', '.join(_DTYPES)}")
        dtype = np.dtype(_DTYPES[entry.dtype])
        stop = prod(entry.shape[:1]) if stop is None else stop
        row = prod(entry.shape[1:])
        offset = entry.offset + start * row * dtype.itemsize
        raw = read_items(self.path, dtype, (stop - start) * row, offset)
        bf16 = entry.dtype == "BF16"
        found = (raw.astype(np.uint32) << 16).view(np.float32) if bf16 else raw.astype(np.float32)
        return found.reshape((stop - start, *entry.shape[1:]) if entry.shape else ())

    def _problem(self, what: str) -> FileError:
        return FileError(f"{self.path}: {' '.join(what.split()):.300}")  # a name can be as long as the header


def read_items(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    """Read `count` items of a file whose header was checked; raise FileError if it has changed since.

    An OSError would be taken for one of the file that is written meanwhile.
    """
    with read_errors(path):
        items = np.fromfile(path, dtype, count, offset=offset)
    if len(items) != count:
        raise FileError(
            f"{path}: cannot read {count:,} items at byte {offset:,}: it was cut short, or is damaged"
        )
    return items


def write_safetensors(path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Write tensors as float32, in the order of their names, atomically."""
    with atomic_write(path) as file:
        write_tensors(file, tensors, metadata)


def write_tensors(file: BinaryIO, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Write tensors as float32, in the order of their names, into an open file."""
    arrays = {name: np.asarray(tensor, "<f4", order="C") for name, tensor in tensors.items()}
    file.write(save(arrays, dict(metadata)))


def write_blocks(
    file: BinaryIO,
    shapes: Mapping[str, tuple[str, Sequence[int]]],
    metadata: Mapping[str, str],
    blocks: Iterable[bytes],
) -> None:
    """Write tensors block by block into an open file.

    Args:
        file: the file.
        shapes: type, a key of _DTYPES, and shape of each tensor, in the order of the file.
        metadata: strings for the header.
        blocks: the bytes of all tensors in that order, in pieces of any size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    file.writelines(blocks)
