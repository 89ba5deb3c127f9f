"""The header of a GGUF file: metadata and places of tensors, from a bounded part at the file's beginning.

llama.cpp checks what it loads once more, and foreign files are tried in a process of their own.
Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from ...errors import FileError
from ..received_files import open_regular, read_errors

T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 14  # metadata keys or tensors; the largest published models have a few thousand
MAX_NUMBERS = 1 << 20  # in all arrays; the largest vocabularies have half a million scores and types
# Parts of a file that are read one after another until its header ends; published ones have up to 20 MB.
_WINDOWS = (1 << 20, 1 << 24, 1 << 26)
_LENGTH = struct.Struct("<Q")  # before each string
MERGED_ADAPTER = "thirteen.adapter.id"  # key of a file with a merged adapter
# Keys for what a tokenizer does and llama.cpp has no key for: no space is put before a text that begins with
# one, as by Metaspace in tokenizer.json; and these control tokens take the white space after them.
SPACE_ONCE, STRIPPING_TOKENS = "thirteen.tokenizer.space_once", "thirteen.tokenizer.rstrip"
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


class StringArray(Sequence[str]):
    """An immutable array of strings that decodes each when it is asked for.

    As Python strings, the tokens of a vocabulary would take five to ten times their bytes in the file. A few
    tokens of published vocabularies are not UTF-8; surrogates preserve their bytes.
    """

    def __init__(self, data: bytes, ends: "array[int]") -> None:
        """Make an array of strings, each after its length in `data`, from where each of them ends there."""
        self._data, self._ends = data, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return _decode(self._data[start + _LENGTH.size : self._ends[index]])

    def __iter__(self) -> Iterator[str]:
        return map(_decode, self.raw())

    def raw(self) -> list[bytes]:
        """The bytes of all strings."""
        data, skip = self._data, _LENGTH.size
        return [data[start + skip : end] for start, end in pairwise((0, *self._ends))]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StringArray | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"


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

    def error(self, problem: str) -> FileError:
        """Make an error about the file."""
        return FileError(f"{self.path}: {problem:.300}")  # a value can be as long as the file

    def check_whole(self) -> None:
        """Refuse a part of a split file. A merged one keeps the keys of its parts, with a count of 0."""
        if any(key.startswith("split.") for key in self.fields):
            count = self.value("split.count", GGUFValueType.UINT16)
            if count > 1:
                raise self.error(f"one part of {count}; merge the parts first (llama-gguf-split --merge)")

    def value(self, key: str, type_: GGUFValueType) -> Any:
        """Return a metadata value of exactly this type, or raise FileError, which names file and key."""
        field = self.fields.get(key)
        if field is None:
            raise self.error(f"metadata key {key!r} is missing")
        if field.type is not type_:
            raise self.error(f"metadata key {key!r} is of type {field.type.name}, not {type_.name}")
        return field.value

    def count(self, key: str, maximum: int, default: int | None = None) -> int:
        """Return a UINT32 from 1 to `maximum`, or the default, if there is one, where the key is missing."""
        if default is not None and key not in self.fields:
            return default
        value = self.value(key, GGUFValueType.UINT32)
        if not 1 <= value <= maximum:
            raise self.error(f"metadata key {key!r} is {value}; it must be from 1 to {maximum}")
        return int(value)

    def array(self, key: str, element: GGUFValueType) -> list[Any]:
        """Return an array whose elements have exactly this type."""
        values: list[Any] = self.value(key, GGUFValueType.ARRAY)
        if self.fields[key].element is not element:
            raise self.error(f"metadata key {key!r} is not an array of {element.name}")
        return values


def row_bytes(columns: int, type_: GGMLQuantizationType) -> int:
    """Bytes of one row of `columns` weights; `columns` must be a multiple of the type's block size."""
    block, block_bytes = GGML_QUANT_SIZES[type_]
    return int(columns // block * block_bytes)


def read_header(path: Path) -> Header:
    """Read the header of the GGUF file at `path`.

    Raises:
        FileError: the file is missing, not a GGUF, or contradicts its size or the format.
    """
    with read_errors(path), open_regular(path) as file:
        nbytes = os.fstat(file.fileno()).st_size
        for window in _WINDOWS:
            file.seek(0)
            data = file.read(min(window, nbytes))
            if data[:4] != MAGIC:
                raise FileError(f"{path}: not a GGUF file (it does not begin with 'GGUF')")
            try:
                return _HeaderReader(path, data, nbytes).header()
            except (struct.error, OverflowError):  # it goes on after the window
                if len(data) == nbytes:
                    break
    end = "the end of the file" if len(data) == nbytes else "what is read of a header"
    raise FileError(f"{path}: the header runs past {end} ({len(data)} bytes)")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


class _HeaderReader:
    """A cursor over the first bytes of a file; struct.error and OverflowError mean that they are too few."""

    def __init__(self, path: Path, data: bytes, file_bytes: int) -> None:
        self.path, self.data, self.file_bytes = path, data, file_bytes
        self.at, self.numbers = len(MAGIC), 0

    def header(self) -> Header:
        version = self.scalar("I")
        if version not in VERSIONS:
            raise self.error(f"GGUF version {version}; supported: {', '.join(map(str, VERSIONS))}")
        tensor_count, field_count = self.scalar("Q"), self.scalar("Q")
        if max(tensor_count, field_count) > MAX_ENTRIES:
            raise self.error(
                f"{tensor_count} tensors and {field_count} metadata keys; at most {MAX_ENTRIES} are read"
            )
        fields = self.named(field_count, self.field)
        declared = self.named(tensor_count, self.tensor)
        alignment = fields["general.alignment"].value if "general.alignment" in fields else 32
        if not isinstance(alignment, int) or alignment < 1:
            raise self.error(f"general.alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        tensors = {name: self.placed(name, start, *declared[name]) for name in declared}
        return Header(self.path, version, fields, tensors, self.file_bytes)

    def error(self, what: str) -> FileError:
        return FileError(f"{self.path}: {what:.300}")  # a damaged name can be as long as the header

    def numbers_of(self, code: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return values

    def scalar(self, code: str) -> Any:
        return self.numbers_of(code)[0]

    def text(self) -> str:
        return _decode(self.numbers_of(f"{self.scalar('Q')}s")[0])

    def strings(self, count: int) -> StringArray:
        start, at, ends, read, data = self.at, self.at, array("Q"), _LENGTH.unpack_from, self.data
        for _ in range(count):
            (length,) = read(data, at)
            at += _LENGTH.size + length
            ends.append(at - start)
        if at > len(data):
            raise struct.error
        self.at = at
        return StringArray(data[start:at], ends)

    def named(self, count: int, read: Callable[[str], T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for _ in range(count):
            name = self.text()
            if name in found:
                raise self.error(f"{name!r} occurs twice")
            found[name] = read(name)
        return found

    def type(self, types: Callable[[int], T], name: str) -> T:
        code = self.scalar("I")
        try:
            return types(code)
        except ValueError:
            raise self.error(f"{name!r} has the unknown type {code}") from None

    def field(self, key: str) -> Field:
        type_ = self.type(GGUFValueType, key)
        if type_ is GGUFValueType.STRING:
            return Field(self.text(), type_)
        if type_ is not GGUFValueType.ARRAY:
            return Field(self.scalar(SCALARS[type_]), type_)
        element, count = self.type(GGUFValueType, key), self.scalar("Q")
        if element is GGUFValueType.STRING:
            return Field(self.strings(count), type_, element)
        if element is GGUFValueType.ARRAY:
            raise self.error(f"metadata key {key!r} is an array of arrays, which no model uses")
        self.numbers += count
        if self.numbers > MAX_NUMBERS:
            raise self.error(f"more than {MAX_NUMBERS:,} numbers in arrays up to metadata key {key!r}")
        return Field(list(self.numbers_of(f"{count}{SCALARS[element]}")), type_, element)

    def tensor(self, name: str) -> tuple[tuple[int, ...], GGMLQuantizationType, int]:
        """Shape, type, and offset relative to the start of the data."""
        shape = self.numbers_of(f"{self.scalar('I')}Q")[::-1]
        return shape, self.type(GGMLQuantizationType, name), self.scalar("Q")

    def placed(
        self, name: str, start: int, shape: tuple[int, ...], type_: GGMLQuantizationType, offset: int
    ) -> TensorInfo:
        if not shape or min(shape) < 1:
            raise self.error(f"tensor {name!r} has the shape {shape}")
        block = GGML_QUANT_SIZES[type_][0]
        if shape[-1] % block:
            raise self.error(
                f"tensor {name!r} has rows of {shape[-1]}, not a multiple of {type_.name}'s block of {block}"
            )
        nbytes = prod(shape[:-1]) * row_bytes(shape[-1], type_)
        if (end := start + offset + nbytes) > self.file_bytes:
            raise self.error(
                f"tensor {name!r} ends at byte {end}, but the file has {self.file_bytes}: it is truncated"
            )
        return TensorInfo(name, shape, type_, start + offset, nbytes)
