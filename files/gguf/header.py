"""The header of a GGUF file, with every count, length and offset checked against the file's size.

A native loader sees a file only after these checks: a damaged header is one clear error, not a crash.
Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import re
import struct
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import ENOMEM
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from ...errors import FileError, InsufficientMemoryError
from ..received_files import open_regular
from .string_array import LENGTH_BYTES, StringArray

T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 14  # metadata keys or tensors; the largest published models have a few thousand
# In all arrays. The largest published vocabularies have 0.8 million tokens and merges, and half a million
# scores and types.
MAX_STRINGS = 1 << 20
MAX_NUMBERS = 1 << 20
MAX_STRING_BYTES = 1 << 25  # of a single value; an embedded tokenizer.json is the longest
MAX_TEXT_BYTES = 1 << 26  # of all names and strings; a single value can take four times its bytes in memory
MAX_KEY_BYTES = (1 << 16) - 1  # of the specification
MAX_NAME_BYTES = 63  # ggml keeps 64, with the terminating zero
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20  # bytes

# Loaders compare names as C strings, up to the first zero byte: two names that differ here may be one there.
_NAME = re.compile(rb"[A-Za-z0-9._-]+")

_LENGTH = struct.Struct("<Q")
SCALARS = {  # formats of struct
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A metadata value with its GGUF type; `element` is an array's element type."""

    value: Any
    type: GGUFValueType
    element: GGUFValueType | None = None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in the file: its shape in numpy's order, (rows, columns), and its absolute offset."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file."""

    path: Path
    version: int
    fields: dict[str, Field]
    tensors: dict[str, TensorInfo]
    file_bytes: int

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata values by key."""
        return {key: field.value for key, field in self.fields.items()}

    @property
    def weights(self) -> int:
        """Number of weights in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """Mean bits per weight over all tensors, without the header; 0 without tensors."""
        return 8 * sum(tensor.nbytes for tensor in self.tensors.values()) / max(1, self.weights)


def row_bytes(columns: int, type_: GGMLQuantizationType) -> int:
    """Bytes of one row of `columns` weights; `columns` must be a multiple of the type's block size."""
    block, block_bytes = GGML_QUANT_SIZES[type_]
    return int(columns // block * block_bytes)


def read_header(path: Path, *, skip_values: Collection[str] = ()) -> Header:
    """Read and check the header of the GGUF file at `path`.

    Args:
        path: the file.
        skip_values: metadata keys whose string arrays are checked but not kept; a list of merges takes 20 MB.

    Raises:
        FileError: the file is missing, not a GGUF, or contradicts its size or the format.
        InsufficientMemoryError: the file does not fit into this process's limit on address space.
    """
    with _mapped(path) as data:
        try:
            return _HeaderReader(path, data, skip_values).header()
        except struct.error:
            raise FileError(f"{path}: the header runs past the end of the file ({len(data)} bytes)") from None


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        with open_regular(path) as file:
            if file.read(4) != MAGIC:
                raise FileError(f"{path}: not a GGUF file (it does not begin with 'GGUF')")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        if error.errno == ENOMEM:  # a limit on address space
            raise InsufficientMemoryError(
                f"{path}: its {path.stat().st_size} bytes do not fit into memory"
            ) from None
        raise FileError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise InsufficientMemoryError(f"{path}: its header does not fit into memory") from None


class _HeaderReader:
    """A cursor over the mapped bytes; struct.error means that the file is too short."""

    def __init__(self, path: Path, data: mmap.mmap, skip_values: Collection[str]) -> None:
        self.path = path
        self.data = data
        self.skip_values = skip_values
        self.at = len(MAGIC)
        self.strings = 0
        self.numbers = 0
        self.text_bytes = 0

    def header(self) -> Header:
        version = self.scalar("I")
        if version not in VERSIONS:
            raise self.error(f"GGUF version {version}; supported: {', '.join(map(str, VERSIONS))}")
        tensor_count, field_count = self.scalar("Q"), self.scalar("Q")
        for what, count in (("tensors", tensor_count), ("metadata keys", field_count)):
            if count > MAX_ENTRIES:
                raise self.error(f"{count} {what}; at most {MAX_ENTRIES} are allowed")
        fields = self.read_named(field_count, self.field, "metadata key", MAX_KEY_BYTES)
        declared = self.read_named(tensor_count, self.tensor, "tensor", MAX_NAME_BYTES)
        tensors = self.with_absolute_offsets(declared, self.alignment(fields))
        return Header(self.path, version, fields, tensors, len(self.data))

    def error(self, what: str) -> FileError:
        return FileError(f"{self.path}: {what:.300}")  # a damaged name can be as long as the file

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def pass_string(self) -> int:
        """Go to the end of a string, and return where it starts."""
        (length,) = _LENGTH.unpack_from(self.data, self.at)
        self.at += LENGTH_BYTES
        if length > len(self.data) - self.at:
            raise self.error(f"a string of {length} bytes at byte {self.at} runs past the end of the file")
        if length > MAX_STRING_BYTES:
            raise self.error(
                f"a string of {length} bytes at byte {self.at}; at most {MAX_STRING_BYTES} are read"
            )
        self.text_bytes += length
        if self.text_bytes > MAX_TEXT_BYTES:
            raise self.error(
                f"{self.text_bytes} bytes of text up to byte {self.at}; at most {MAX_TEXT_BYTES} are read"
            )
        self.at += length
        return int(self.at - length)

    def read_bytes(self) -> bytes:
        start = self.pass_string()
        return self.data[start : self.at]

    def text(self) -> str:
        start = self.pass_string()
        with memoryview(self.data) as view:
            return str(view[start : self.at], "utf-8", "surrogateescape")

    def string_array(self, count: int) -> StringArray:
        start, ends = self.at, array("I")
        data, read, at, last = self.data, _LENGTH.unpack_from, self.at, len(self.data)
        longest = min(MAX_STRING_BYTES, (MAX_TEXT_BYTES - self.text_bytes) // max(1, count))
        # A vocabulary has 100,000 strings: those that are far from every limit are passed in this short loop.
        for _ in range(count):
            (length,) = read(data, at)
            if length > longest or length > last - at - LENGTH_BYTES:
                break
            at += LENGTH_BYTES + length
            ends.append(at - start)
        self.text_bytes += at - start - LENGTH_BYTES * len(ends)
        self.at = at
        for _ in range(count - len(ends)):
            self.pass_string()
            ends.append(self.at - start)
        return StringArray(self.data[start : self.at], ends)

    def read_named(self, count: int, read: Callable[[str], T], what: str, max_bytes: int) -> dict[str, T]:
        found: dict[str, T] = {}
        for _ in range(count):
            name = self.name(what, max_bytes)
            if name in found:
                raise self.error(f"the {what} {name!r} occurs twice")
            found[name] = read(name)
        return found

    def name(self, what: str, max_bytes: int) -> str:
        raw = self.read_bytes()
        text = raw[:80].decode("utf-8", "backslashreplace")
        if not raw:
            raise self.error(f"the name of a {what} is empty")
        if len(raw) > max_bytes:
            raise self.error(f"the name of the {what} {text!r} is longer than {max_bytes} bytes")
        if not _NAME.fullmatch(raw):
            raise self.error(
                f"the name of the {what} {text!r} has characters other than ASCII letters, digits and '._-'"
            )
        return raw.decode("ascii")

    def known_type(self, types: Callable[[int], T], what: str) -> T:
        code = self.scalar("I")
        try:
            return types(code)
        except ValueError:
            raise self.error(f"{what} has the unknown type {code}") from None

    def field(self, key: str) -> Field:
        type_ = self.known_type(GGUFValueType, f"metadata key {key!r}")
        if type_ is GGUFValueType.STRING:
            return Field(self.text(), type_)
        if type_ is not GGUFValueType.ARRAY:
            return Field(self.scalar(SCALARS[type_]), type_)
        element = self.known_type(GGUFValueType, f"metadata key {key!r}")
        if element is GGUFValueType.ARRAY:
            raise self.error(f"metadata key {key!r} is an array of arrays, which no model uses")
        count = self.scalar("Q")
        if count > len(self.data) - self.at:
            raise self.error(f"metadata key {key!r} has {count} elements, more than the file has bytes left")
        if element is GGUFValueType.STRING:
            self.strings += count
            self.check_count(self.strings, "strings", MAX_STRINGS, key)
            strings = self.string_array(count)
            return Field([] if key in self.skip_values else strings, type_, element)
        self.numbers += count
        self.check_count(self.numbers, "numbers", MAX_NUMBERS, key)
        layout = f"<{count}{SCALARS[element]}"
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return Field(list(values), type_, element)

    def check_count(self, count: int, what: str, maximum: int, key: str) -> None:
        if count > maximum:
            raise self.error(f"{count} {what} in arrays up to metadata key {key!r}; at most {maximum}")

    def alignment(self, fields: dict[str, Field]) -> int:
        field = fields.get("general.alignment", Field(32, GGUFValueType.UINT32))
        alignment = field.value
        if (
            field.type is not GGUFValueType.UINT32
            or not 0 < alignment <= MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise self.error(
                f"general.alignment is {alignment!r} ({field.type.name}); "
                f"it must be a UINT32 and a power of two up to {MAX_ALIGNMENT:,}"
            )
        return int(alignment)

    def tensor(self, name: str) -> TensorInfo:
        """A tensor as declared, with its offset relative to the start of the data."""
        dimensions = self.scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.error(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(reversed([self.scalar("Q") for _ in range(dimensions)]))
        if min(shape) < 1 or prod(shape) > 1 << 48:
            raise self.error(f"tensor {name!r} has the shape {shape}")
        type_, offset = self.known_type(GGMLQuantizationType, f"tensor {name!r}"), self.scalar("Q")
        block = GGML_QUANT_SIZES[type_][0]
        if shape[-1] % block:
            raise self.error(
                f"tensor {name!r} has rows of {shape[-1]}, not a multiple of {type_.name}'s block of {block}"
            )
        return TensorInfo(name, shape, type_, offset, prod(shape[:-1]) * row_bytes(shape[-1], type_))

    def with_absolute_offsets(self, declared: dict[str, TensorInfo], alignment: int) -> dict[str, TensorInfo]:
        """Tensors with absolute offsets. Each must start where the previous one ends, as ggml requires."""
        start = -(-self.at // alignment) * alignment
        expected = 0
        for name, tensor in declared.items():
            if tensor.offset != expected:
                raise self.error(f"tensor {name!r} is at offset {tensor.offset}; it must be at {expected}")
            if start + tensor.offset + tensor.nbytes > len(self.data):
                raise self.error(
                    f"tensor {name!r} ends at byte {start + tensor.offset + tensor.nbytes}, "
                    f"but the file has {len(self.data)}: it is truncated"
                )
            declared[name] = replace(tensor, offset=start + tensor.offset)
            expected += -(-tensor.nbytes // alignment) * alignment
        return declared
