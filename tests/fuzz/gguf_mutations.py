"""GGUF files with mutated headers: keys, types, zero bytes, duplicates, arrays, alignment, split files."""

import math
import re
import struct
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import llama_cpp
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf import GGUFValueType as Kind
from hypothesis import strategies as st
from thirteen.files.gguf.header import read_header

from ..runtime.conftest import tensors, write_gguf
from ..runtime.gguf_adapters import write_factors

NUMBERS = {kind: np.dtype(type_).newbyteorder("<") for kind, type_ in GGUFReader.gguf_scalar_to_np.items()}
SCALARS = (*NUMBERS, Kind.STRING)
ODD_ENDS = (b"\0", b"\0x", b"\0\0", b" ", b".", b"_", b"A", b"\n", b"\x7f", b"\xff", "é".encode())
ODD_NUMBERS = (0, 1, 2, 3, 7, 16, 31, 32, 64, 127, 128, 255, 256, 259, 512, 5000, 2**31, 2**62, 2**64 - 1)
ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, float("inf"), float("-inf"), float("nan"))
ODD_TEXTS = (b"", b"\0", b"llama", b"llama\0", b"qwen2", b"gpt2", b"bert", b"yarn", b"<|im_end|>", b"\xff")


@dataclass
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
        items = b"".join(_scalar(self.element, item) for item in self.value)
        return head + struct.pack("<IQ", self.element, len(self.value)) + items


@dataclass
class RawTensor:
    """A tensor as it is declared, and the bytes of its data."""

    name: bytes
    shape: tuple[int, ...]  # (rows, columns)
    type: int
    data: bytes
    shift: int = 0  # added to the offset

    @property
    def nbytes(self) -> int:
        """How many bytes a tensor of this shape and type has; 0 for an unknown type."""
        if self.type not in set(GGMLQuantizationType):
            return 0
        block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType(self.type)]
        return int(math.prod(self.shape) // block * nbytes)

    def declare(self, offset: int) -> bytes:
        count = len(self.shape)
        numbers = (count, *reversed(self.shape), self.type, (offset + self.shift) % (1 << 64))
        return _text(self.name) + struct.pack(f"<I{count}QIQ", *numbers)


@dataclass
class RawFile:
    """A GGUF file before it is written."""

    fields: list[RawField]
    tensors: list[RawTensor]
    version: int = 3

    @property
    def alignment(self) -> int:
        """The alignment that a reader finds."""
        values = [field.value for field in self.fields if field.key.split(b"\0")[0] == b"general.alignment"]
        return values[0] if values and isinstance(values[0], int) and 0 < values[0] <= 1 << 20 else 32

    def encode(self) -> bytes:
        """The bytes of the file."""
        declared, data = [], b""
        for tensor in self.tensors:
            data += bytes(-len(data) % self.alignment)
            declared.append(tensor.declare(len(data)))
            data += tensor.data
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.fields))
        head += b"".join((*(field.encode() for field in self.fields), *declared))
        return head + bytes(-len(head) % self.alignment) + data

    @classmethod
    def decode(cls, content: bytes) -> "RawFile":
        """The file with these bytes.

        Raises:
            FileError: they are no GGUF, or its header is damaged.
        """
        with TemporaryDirectory() as folder:
            (path := Path(folder, "a.gguf")).write_bytes(content)
            header = read_header(path)
        fields = [
            RawField(_raw(key), field.type, _raw(field.value), field.element)
            for key, field in header.fields.items()
        ]
        tensors = [
            RawTensor(_raw(one.name), one.shape, one.type, content[one.offset :][: one.nbytes])
            for one in header.tensors.values()
        ]
        return cls(fields, tensors)


def _raw(value: Any) -> Any:
    """A value of a header as it is written."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bool | int | float) else [_raw(item) for item in value]


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _scalar(kind: int, value: Any) -> bytes:
    if kind == Kind.STRING:
        return _text(value)
    return np.array(value, NUMBERS[Kind(kind)]).tobytes() if kind in NUMBERS else bytes(8)


def model_file() -> RawFile:
    """The tiny model, which loads."""
    with TemporaryDirectory() as folder:
        return RawFile.decode(write_gguf(Path(folder, "a.gguf"), {}, {}).read_bytes())


def adapter_file() -> RawFile:
    """A LoRA of two matrices of the tiny model, which loads."""
    shapes = {name: tensors()[name].shape for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")}
    factors = {name: (np.ones((2, columns)), np.ones((rows, 2))) for name, (rows, columns) in shapes.items()}
    with TemporaryDirectory() as folder:
        return RawFile.decode(write_factors(Path(folder, "a.gguf"), factors).read_bytes())


def known_keys() -> tuple[bytes, ...]:
    """The keys in llama.cpp's library: of the architecture, the tokenizer, adapters and split files."""
    library = next((Path(llama_cpp.__file__).parent / "lib").glob("libllama.so")).read_bytes()
    found = re.findall(rb"\0((?:%s|general|tokenizer|adapter|split)\.[a-z0-9_.]+)(?=\0)", library)
    return tuple(sorted({key.replace(b"%s", b"llama") for key in found}))


KEYS = known_keys()


def _value(kind: int, random: Random) -> Any:
    """A value of a type, often an extreme one."""
    if kind == Kind.STRING:
        return random.choice((*ODD_TEXTS, random.randbytes(12)))
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        return random.choice(ODD_FLOATS)
    if kind == Kind.BOOL:
        return random.random() < 0.5
    limits = np.iinfo(NUMBERS.get(Kind(kind), "u8") if kind in SCALARS else "u8")
    return max(limits.min, min(limits.max, random.choice((*ODD_NUMBERS, -1, random.getrandbits(64)))))


def _key(file: RawFile, random: Random) -> bytes:
    """A key of the file, or one that llama.cpp reads for its architecture."""
    names = (field.value for field in file.fields if field.key == b"general.architecture")
    prefix = next((name for name in names if isinstance(name, bytes)), b"llama") + b"."
    known = re.sub(rb"^llama\.", lambda _: prefix, random.choice(KEYS))
    return random.choice((known, random.choice(file.fields).key, b"pad"))


def _field(key: bytes, random: Random) -> RawField:
    """Any value under a key."""
    kind = random.choice(SCALARS)
    if random.random() < 0.7:
        return RawField(key, int(kind), _value(kind, random))
    return RawField(
        key, int(Kind.ARRAY), [_value(kind, random) for _ in range(random.randrange(5))], int(kind)
    )


def _set_key(file: RawFile, random: Random) -> None:
    _put(file, _field(_key(file, random), random))


def _put(file: RawFile, made: RawField) -> None:
    file.fields = [*(field for field in file.fields if field.key != made.key), made]


def _set_value(file: RawFile, random: Random) -> None:
    """Another value of the same type."""
    field = random.choice(file.fields)
    if field.element is None:
        field.value = _value(field.type, random)
    else:
        more = [_value(field.element, random) for _ in range(random.randrange(4))]
        field.value = [*field.value[: random.randint(0, len(field.value))], *more]


def _odd_key(file: RawFile, random: Random) -> None:
    """A key that begins like another, or is there twice, first or last in the file."""
    made = _field(random.choice(file.fields).key + random.choice((b"", *ODD_ENDS)), random)
    file.fields.insert(random.choice((0, len(file.fields))), made)


def _align(file: RawFile, random: Random) -> None:
    _put(file, RawField(b"general.alignment", int(Kind.UINT32), 1 << random.randrange(13)))


def _change_tensor(file: RawFile, random: Random) -> None:
    tensor = random.choice(file.tensors)
    match random.randrange(5):
        case 0:
            tensor.name = random.choice(
                (random.choice(file.tensors).name, tensor.name + random.choice(ODD_ENDS))
            )
        case 1:
            sizes = random.choices((0, 1, 2, 32, 64, 2**32, 2**62), k=random.randrange(6))
            tensor.shape = random.choice((tuple(sizes), (*tensor.shape, 1)))
        case 2:  # with as many bytes as it takes, if its rows are whole blocks
            tensor.type = random.choice((*map(int, GGMLQuantizationType), 50))
            tensor.data = (tensor.data * 9)[: tensor.nbytes]
        case 3:
            tensor.shift = random.choice((-32, 1, 32, 1 << 63))
        case 4:
            tensor.data = random.randbytes(4) * (len(tensor.data) // 4)


_MUTATIONS = (*(_set_key,) * 6, *(_set_value,) * 4, *(_odd_key, _align, _change_tensor) * 2)


def mutate(file: RawFile, random: Random) -> bytes:
    """The bytes of a file with fields and tensors, after one to three mutations."""
    file = deepcopy(file)
    for _ in range(random.randint(1, 3)):
        random.choice(_MUTATIONS)(file, random)
    content = bytearray(file.encode())
    if random.random() < 0.1:
        content[random.randrange(min(len(content), 1 << 16))] = random.randrange(256)
    if random.random() < 0.1:
        del content[random.randrange(1, len(content)) :]
    return bytes(content)


def mutated_files(files: Sequence[RawFile]) -> st.SearchStrategy[bytes]:
    """One of the files, after one to three mutations."""
    return st.builds(mutate, st.sampled_from(files), st.randoms(use_true_random=False))
