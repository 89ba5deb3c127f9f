"""safetensors files: the header checked against the file's size, and rows read as float32.

Specification: https://github.com/huggingface/safetensors#format. Rows are read, not mapped, so that a 2.5 GB
checkpoint never counts as resident memory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from ..stats.arrays import Floats
from .atomic_write import atomic_write
from .received_files import open_regular

MAX_HEADER_BYTES = 1 << 23  # 60,000 tensors; the reference implementation reads 100 MB
MAX_DIMENSIONS = 8  # numpy has a limit too
MAX_ITEMS = 1 << 48  # of a tensor, without its empty dimensions

_DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}


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
        entries: its tensors by name.
        metadata: the strings under `__metadata__` in its header.
    """

    def __init__(self, path: Path) -> None:
        """Read the header of `path`.

        Raises:
            FileError: the file cannot be read, or is damaged.
        """
        self.path = path
        self.metadata: dict[str, str] = {}
        try:
            self.entries = self._entries()
        except OSError as failure:
            raise FileError(f"{path}: {failure.strerror or failure}") from None

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
        return FileError(f"{self.path}: {what:.300}")  # a damaged name can be as long as the header

    def _entries(self) -> dict[str, TensorEntry]:
        with open_regular(self.path) as file:
            size = self.path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if MAX_HEADER_BYTES < length <= size - 8:
                raise self._problem(
                    f"a header of {length:,} bytes; no more than {MAX_HEADER_BYTES:,} are read"
                )
            if size < 8 or length > size - 8:
                raise self._problem(f"a header of {length} bytes in a file of {size}: truncated or damaged")
            header = self._parse(file.read(length))
        entries, end = {}, 0
        for name, value in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end_next = value["data_offsets"]
            if begin != end:
                raise self._problem(f"tensor {name!r} starts at {begin}, but the previous one ends at {end}")
            entries[name] = TensorEntry(value["dtype"], tuple(value["shape"]), 8 + length + begin)
            end = end_next
        if 8 + length + end != size:
            raise self._problem(f"the header describes {8 + length + end} bytes, the file has {size}")
        return entries

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            header = json.loads(text, object_pairs_hook=_unique_names)
        except (ValueError, RecursionError) as failure:
            raise self._problem(f"the header is not JSON: {failure}") from None
        if not isinstance(header, dict):
            raise self._problem("the header is not a JSON object")
        metadata = header.pop("__metadata__", None)
        self.metadata = {} if metadata is None else metadata
        if not isinstance(self.metadata, dict) or not all(
            isinstance(text, str) for text in self.metadata.values()
        ):
            raise self._problem("__metadata__ is not an object of strings")
        for name, value in header.items():
            if not _is_valid(value):
                raise self._problem(f"tensor {name!r} has a damaged entry")
        return header


def read_items(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    """Read `count` items of a file whose header was checked; raise FileError if it has changed since.

    An OSError would be taken for one of the file that is written meanwhile.
    """
    try:
        items = np.fromfile(path, dtype, count, offset=offset)
    except OSError as failure:
        raise FileError(f"{path}: cannot read: {failure.strerror or failure}") from None
    if len(items) != count:
        raise FileError(
            f"{path}: cannot read {count:,} items at byte {offset:,}: it was cut short, or is damaged"
        )
    return items


def write_safetensors(path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Write tensors as float32, in the order of their names, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as file:
        write_tensors(file, tensors, metadata)


def write_tensors(file: BinaryIO, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Write tensors as float32, in the order of their names, into an open file."""
    names = sorted(tensors)
    shapes = {name: ("F32", tensors[name].shape) for name in names}
    blocks = (np.ascontiguousarray(tensors[name], "<f4").tobytes() for name in names)
    write_blocks(file, shapes, metadata, blocks)


def write_blocks(
    file: BinaryIO,
    shapes: Mapping[str, tuple[str, Sequence[int]]],
    metadata: Mapping[str, str],
    blocks: Iterable[bytes],
) -> None:
    """Write tensors block by block into an open file.

    Args:
        file: the file.
        shapes: type and shape of each tensor, in the order of the file.
        metadata: strings for the header.
        blocks: the bytes of all tensors in that order, in pieces of any size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + prod(shape) * _ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    file.writelines(blocks)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _is_counts(value: Any) -> bool:
    short = isinstance(value, list) and len(value) <= MAX_DIMENSIONS
    return short and all(type(count) is int and 0 <= count < 1 << 48 for count in value)


def _is_valid(value: Any) -> bool:
    """Whether an entry of the header has a known type, a shape, and offsets that fit both."""
    if not isinstance(value, Mapping) or not isinstance(value.get("dtype"), str):
        return False
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    item = _ITEM_BYTES.get(value["dtype"])
    if not (_is_counts(shape) and _is_counts(offsets) and item and len(offsets) == 2):
        return False
    bounded = prod(max(size, 1) for size in shape) < MAX_ITEMS  # as numpy counts them
    return bounded and bool(offsets[1] - offsets[0] == prod(shape) * item)
