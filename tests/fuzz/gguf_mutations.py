"""GGUF files with mutated headers: keys, types, zero bytes, duplicates, arrays, alignment, split files."""

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llama_cpp
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf import GGUFValueType as Kind
from hypothesis import strategies as st

from ..runtime.conftest import tensors, write_gguf
from ..runtime.gguf_adapters import write_factors

NUMBERS = {kind: np.dtype(type_).newbyteorder("<") for kind, type_ in GGUFReader.gguf_scalar_to_np.items()}
ODD_ENDS = (b"\0", b"\0x", b"\0\0", b" ", b".", b"_", b"A", b"\n", b"\x7f", b"\xff", "é".encode())
ODD_NUMBERS = (0, 1, 2, 3, 7, 16, 31, 32, 64, 127, 128, 255, 256, 259, 512, 5000)
ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, float("inf"), float("-inf"), float("nan"))
ODD_TEXTS = (
    *(b"", b"\0", b"llama", b"llama\0", b"qwen2", b"gpt2", b"bert", b"default"),
    *(b"yarn", b"<|im_end|>", b"\xff"),
)
ALIGNMENTS = tuple(1 << bits for bits in range(13))


@dataclass(frozen=True)
class RawField:
    """A metadata key as it is written: nothing is checked."""

    key: bytes
    type: int
    value: Any
    element: int | None = None

    def encode(self) -> bytes:
        head = _text(self.key) + struct.pack("<I", self.type)
        if self.element is None:
            return head + _scalar(self.type, self.value)
        count = struct.pack("<IQ", self.element, len(self.value))
        return head + count + b"".join(_scalar(self.element, item) for item in self.value)


@dataclass(frozen=True)
class RawTensor:
    """A tensor as it is declared, and the bytes of its data."""

    name: bytes
    shape: tuple[int, ...]  # (rows, columns)
    type: int
    data: bytes = field(repr=False)
    shift: int = 0  # added to the offset

    @property
    def nbytes(self) -> int:
        """How many bytes a tensor of this shape and type has; 0 for an unknown type."""
        if self.type not in set(GGMLQuantizationType):
            return 0
        block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType(self.type)]
        return int(math.prod(self.shape) // block * nbytes)

    def declare(self, offset: int) -> bytes:
        sizes = struct.pack(f"<{len(self.shape)}Q", *reversed(self.shape))
        place = struct.pack("<IQ", self.type, (offset + self.shift) % (1 << 64))
        return _text(self.name) + struct.pack("<I", len(self.shape)) + sizes + place


@dataclass(frozen=True)
class RawFile:
    """A GGUF file before it is written."""

    fields: tuple[RawField, ...]
    tensors: tuple[RawTensor, ...]
    version: int = 3
    end: int | None = None  # bytes that are kept
    flips: tuple[tuple[int, int], ...] = field(default=())  # position in the header, byte

    @property
    def alignment(self) -> int:
        """The alignment that a reader finds."""
        values = [entry.value for entry in self.fields if entry.key.split(b"\0")[0] == b"general.alignment"]
        return values[0] if values and isinstance(values[0], int) and 0 < values[0] <= 1 << 20 else 32

    def encode(self) -> bytes:
        """The bytes of the file."""
        infos, data = [], b""
        for tensor in self.tensors:
            data += bytes(-len(data) % self.alignment)
            infos.append(tensor.declare(len(data)))
            data += tensor.data
        counts = struct.pack("<IQQ", self.version, len(self.tensors), len(self.fields))
        head = bytearray(
            b"GGUF" + counts + b"".join(entry.encode() for entry in self.fields) + b"".join(infos)
        )
        for at, value in self.flips:
            head[at % len(head)] = value
        return (bytes(head) + bytes(-len(head) % self.alignment) + data)[: self.end]

    @classmethod
    def decode(cls, content: bytes) -> "RawFile":
        """The file with these bytes, of which nothing is checked.

        Raises:
            ValueError: they are no GGUF, or its header does not end.
        """
        cursor = _Cursor(content)
        if content[:4] != b"GGUF":
            raise ValueError("no GGUF")
        version, tensor_count, field_count = cursor.read("IQQ")
        fields = tuple(cursor.field() for _ in range(field_count))
        declared = [cursor.declaration() for _ in range(tensor_count)]
        file = cls(fields, (), version)
        start = -(-cursor.at // file.alignment) * file.alignment
        tensors, expected = [], 0
        for tensor, offset in declared:
            data = content[start + offset : start + offset + tensor.nbytes]
            tensors.append(replace(tensor, data=data, shift=offset - expected))
            expected += -(-len(data) // file.alignment) * file.alignment
        return replace(file, tensors=tuple(tensors))


class _Cursor:
    """Reads a header; ValueError where it ends too early."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 4

    def read(self, layout: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from(f"<{layout}", self.content, self.at)
        except struct.error as error:
            raise ValueError(str(error)) from None
        self.at += struct.calcsize(f"<{layout}")
        return values

    def text(self) -> bytes:
        (length,) = self.read("Q")
        if length > len(self.content) - self.at:
            raise ValueError("a string that does not end")
        self.at += length
        return self.content[self.at - length : self.at]

    def field(self) -> RawField:
        key, (kind,) = self.text(), self.read("I")
        if kind != Kind.ARRAY:
            return RawField(key, kind, self.value(kind))
        element, count = self.read("IQ")
        return RawField(key, kind, [self.value(element) for _ in range(count)], element)

    def value(self, kind: int) -> Any:
        if kind == Kind.STRING:
            return self.text()
        if kind not in NUMBERS:
            raise ValueError("an unknown type")
        (raw,) = self.read(f"{NUMBERS[Kind(kind)].itemsize}s")
        return np.frombuffer(raw, NUMBERS[Kind(kind)]).item()

    def declaration(self) -> tuple[RawTensor, int]:
        """A tensor without its data, and its offset."""
        name, (dimensions,) = self.text(), self.read("I")
        shape = tuple(reversed(self.read(f"{dimensions}Q")))
        kind, offset = self.read("IQ")
        return RawTensor(name, shape, kind, b""), offset


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _scalar(kind: int, value: Any) -> bytes:
    if kind == Kind.STRING:
        return _text(value)
    return np.array(value, NUMBERS[Kind(kind)]).tobytes() if kind in NUMBERS else bytes(8)


def read_raw(write: Callable[[Path], Path]) -> RawFile:
    """The file that a function writes."""
    with TemporaryDirectory() as folder:
        return RawFile.decode(write(Path(folder, "a.gguf")).read_bytes())


def model_file() -> RawFile:
    """The tiny model, which loads."""
    return read_raw(lambda path: write_gguf(path, {}, {}))


def adapter_file() -> RawFile:
    """A LoRA of two matrices of the tiny model, which loads."""
    shapes = {name: tensors()[name].shape for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")}
    factors = {name: (np.ones((2, columns)), np.ones((rows, 2))) for name, (rows, columns) in shapes.items()}
    return read_raw(lambda path: write_factors(path, factors))


def known_keys() -> tuple[bytes, ...]:
    """The keys in llama.cpp's library: of the architecture, the tokenizer, adapters and split files."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = next(folder.glob("libllama.so")).read_bytes()
    pattern = rb"\0((?:%s|general|tokenizer|adapter|split)\.[a-z0-9_.]+)(?=\0)"
    found = {key.replace(b"%s", b"llama") for key in re.findall(pattern, library)}
    return tuple(sorted(found | {entry.key for entry in model_file().fields}))


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Values of a type, the extreme ones often."""
    if kind is Kind.STRING:
        return st.sampled_from(ODD_TEXTS) | st.binary(max_size=12)
    if kind is Kind.BOOL:
        return st.booleans()
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        return st.sampled_from(ODD_FLOATS) | st.floats(width=32)
    low, high = np.iinfo(NUMBERS[kind]).min, np.iinfo(NUMBERS[kind]).max
    odd = [number for number in (*ODD_NUMBERS, low, high, low + 1, high // 2 + 1) if low <= number <= high]
    return st.sampled_from(odd) | st.integers(low, high)


SCALARS = (*NUMBERS, Kind.STRING)
KEYS = known_keys()


@st.composite
def raw_fields(draw: st.DrawFn, key: bytes) -> RawField:
    """Any value under a key."""
    kind = draw(st.sampled_from(SCALARS))
    if draw(st.integers(0, 3)):
        return RawField(key, int(kind), draw(values_of(kind)))
    return RawField(key, int(Kind.ARRAY), draw(st.lists(values_of(kind), max_size=4)), int(kind))


def _keys_of(file: RawFile, prefix: bytes) -> st.SearchStrategy[bytes]:
    own = [entry.key for entry in file.fields]
    return st.sampled_from(own) | st.sampled_from(KEYS).map(
        lambda key: prefix + key[6:] if key.startswith(b"llama.") else key
    )


Mutation = Callable[[st.DrawFn, RawFile], RawFile]


def _place(draw: st.DrawFn, things: Sequence[Any]) -> int:
    return draw(st.integers(0, len(things) - 1))


def _with_field(file: RawFile, entry: RawField) -> RawFile:
    """The file with a field in place of that of the same key."""
    return replace(file, fields=(*(other for other in file.fields if other.key != entry.key), entry))


def _set_key(draw: st.DrawFn, file: RawFile) -> RawFile:
    return _with_field(file, draw(raw_fields(draw(_keys_of(file, _prefix(file))))))


def _set_value(draw: st.DrawFn, file: RawFile) -> RawFile:
    """Another value of the same type."""
    at = _place(draw, file.fields)
    entry = file.fields[at]
    if entry.element is not None:
        length = draw(st.integers(0, len(entry.value)))
        more = draw(st.lists(values_of(_known(entry.element)), max_size=3))
        changed = replace(entry, value=[*entry.value[:length], *more])
    else:
        changed = replace(entry, value=draw(values_of(_known(entry.type))))
    return replace(file, fields=(*file.fields[:at], changed, *file.fields[at + 1 :]))


def _known(kind: int) -> Kind:
    """The type of this number; of those that GGUF does not have, all values are written alike."""
    return Kind(kind) if kind in SCALARS else Kind.UINT64


def _drop_key(draw: st.DrawFn, file: RawFile) -> RawFile:
    at = _place(draw, file.fields)
    return replace(file, fields=file.fields[:at] + file.fields[at + 1 :])


def _odd_key(draw: st.DrawFn, file: RawFile) -> RawFile:
    """A key that begins like another, first or last in the file."""
    key = draw(_keys_of(file, _prefix(file))) + draw(st.sampled_from(ODD_ENDS))
    entry = draw(raw_fields(key))
    return replace(file, fields=(entry, *file.fields) if draw(st.booleans()) else (*file.fields, entry))


def _repeat_key(draw: st.DrawFn, file: RawFile) -> RawFile:
    key = file.fields[_place(draw, file.fields)].key
    return replace(file, fields=(*file.fields, draw(raw_fields(key))))


def _align(draw: st.DrawFn, file: RawFile) -> RawFile:
    value = draw(st.sampled_from(ALIGNMENTS) | st.integers(0, 2**32 - 1))
    return _with_field(file, RawField(b"general.alignment", int(Kind.UINT32), value))


def _pad(draw: st.DrawFn, file: RawFile) -> RawFile:
    """Move the data by a few bytes, with a key that nobody reads."""
    return _with_field(file, RawField(b"pad", int(Kind.STRING), bytes(draw(st.integers(0, 40)))))


def _change_tensor(draw: st.DrawFn, file: RawFile) -> RawFile:
    at = _place(draw, file.tensors)
    tensor = file.tensors[at]
    changed = draw(
        st.one_of(
            st.sampled_from(ODD_ENDS).map(lambda end: replace(tensor, name=tensor.name + end)),
            st.sampled_from(file.tensors).map(lambda other: replace(tensor, name=other.name)),
            st.lists(st.sampled_from((0, 1, 2, 32, 64, 2**32, 2**62)), max_size=5).map(
                lambda shape: replace(tensor, shape=tuple(shape))
            ),
            st.just(replace(tensor, shape=(*tensor.shape, 1))),
            st.sampled_from(list(GGMLQuantizationType)).map(lambda kind: _retyped(tensor, kind)),
            st.integers(0, 50).map(lambda code: replace(tensor, type=code)),
            st.sampled_from((-32, 1, 32, 1 << 63)).map(lambda shift: replace(tensor, shift=shift)),
            st.binary(min_size=4, max_size=4).map(
                lambda word: replace(tensor, data=word * (len(tensor.data) // 4))
            ),
        )
    )
    return replace(file, tensors=(*file.tensors[:at], changed, *file.tensors[at + 1 :]))


def _retyped(tensor: RawTensor, kind: GGMLQuantizationType) -> RawTensor:
    """The tensor in another type, with as many bytes as it takes, where its rows are whole blocks."""
    block, nbytes = GGML_QUANT_SIZES[kind]
    count = int(np.prod(tensor.shape, dtype=object))
    return replace(tensor, type=int(kind), data=(tensor.data * 9)[: count // block * nbytes])


def _drop_tensor(draw: st.DrawFn, file: RawFile) -> RawFile:
    at = _place(draw, file.tensors)
    return replace(file, tensors=file.tensors[:at] + file.tensors[at + 1 :] or file.tensors)


def _cut(draw: st.DrawFn, file: RawFile) -> RawFile:
    return replace(file, end=-draw(st.integers(1, 5000)))


def _flip(draw: st.DrawFn, file: RawFile) -> RawFile:
    return replace(file, flips=(*file.flips, (draw(st.integers(0, 1 << 16)), draw(st.integers(0, 255)))))


MUTATIONS: tuple[Mutation, ...] = (
    *(_set_key,) * 6,
    *(_set_value,) * 4,
    *(_odd_key,) * 2,
    *(_align, _pad) * 2,
    *(_change_tensor,) * 2,
    _drop_key,
    _repeat_key,
    _drop_tensor,
    _cut,
    _flip,
)


def _prefix(file: RawFile) -> bytes:
    names = (entry.value for entry in file.fields if entry.key == b"general.architecture")
    return next((name + b"." for name in names if isinstance(name, bytes)), b"llama.")


@st.composite
def mutated_files(draw: st.DrawFn, files: Sequence[RawFile]) -> bytes:
    """One of the files, after one to three mutations."""
    file = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 3))):
        file = draw(st.sampled_from(MUTATIONS))(draw, file) if file.fields else file
    return file.encode()
