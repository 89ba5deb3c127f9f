"""A GGUF header is read as it was written, and a damaged one is an error that names the file, no more."""

import os
import pickle
import string
import struct
from array import array
from itertools import accumulate, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import FileError
from thirteen.files.gguf.header import MAX_ENTRIES, MAX_NUMBERS, Field, Header, StringArray, read_header

from ...refusals import refused
from ...runtime.conftest import finish

Entries = dict[str, Field]
Arrays = dict[str, tuple[np.ndarray, Type]]

BITS = {Kind.UINT8: 8, Kind.UINT16: 16, Kind.UINT32: 32, Kind.UINT64: 64}
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    **{kind: st.integers(0, 2**bits - 1) for kind, bits in BITS.items()},
    **{
        kind: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for kind, bits in zip((Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64), BITS.values(), strict=True)
    },
    Kind.FLOAT32: st.floats(width=32, allow_nan=False),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.BOOL: st.booleans(),
    Kind.STRING: st.text(max_size=20),
}


def arrays_of(kind: Kind) -> st.SearchStrategy[Field]:
    values = st.lists(VALUES[kind], min_size=1, max_size=8)  # the gguf package writes no empty ones
    return values.map(lambda value: Field(value, Kind.ARRAY, kind))


fields = st.one_of(
    *(values.map(lambda value, kind=kind: Field(value, kind)) for kind, values in VALUES.items()),
    *(arrays_of(kind) for kind in VALUES),
)
names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=63)
keys = names.map(lambda text: f"k.{text}")
TYPES = [Type.F32, Type.F16, Type.I32, Type.Q8_0, Type.IQ4_NL, Type.Q4_K, Type.Q6_K]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, Type]:
    type_ = draw(st.sampled_from(TYPES))
    nbytes = gguf.GGML_QUANT_SIZES[type_][1]
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    raw = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 255, (*shape[:-1], shape[-1] * nbytes))
    return raw.astype(np.uint8), type_


def write(path: Path, entries: Entries, arrays: Arrays, alignment: int = 32) -> Path:
    """Write a GGUF by the gguf package."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    for key, field in entries.items():
        writer.add_key_value(key, field.value, field.type, field.element)
    for name, (raw, type_) in arrays.items():
        writer.add_tensor(name, raw, raw_dtype=type_)
    return finish(writer, path)


def check_sound(header: Header) -> None:
    """Whatever a header says lies within the file and fits its types."""
    for tensor in header.tensors.values():
        block, nbytes = gguf.GGML_QUANT_SIZES[tensor.type]
        weights = int(np.prod(tensor.shape, dtype=object))
        assert tensor.shape[-1] % block == 0
        assert tensor.nbytes == weights // block * nbytes
        assert 0 < tensor.offset <= tensor.offset + tensor.nbytes <= header.file_bytes
    assert all(isinstance(field.type, Kind) for field in header.fields.values())
    assert header.bits_per_weight >= 0


@given(
    st.dictionaries(keys, fields, max_size=6),
    st.dictionaries(names, tensors(), max_size=4),
    st.sampled_from([8, 32, 256]),
)
def test_a_header_is_read_as_the_gguf_package_wrote_it(entries, arrays, alignment):
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.gguf", entries, arrays, alignment)
        header, content = read_header(path), path.read_bytes()
    usual = {"general.architecture": Field("llama", Kind.STRING)}
    usual |= {"general.alignment": Field(alignment, Kind.UINT32)} if alignment != 32 else {}
    assert header.fields == usual | entries
    assert header.metadata == {key: field.value for key, field in (usual | entries).items()}
    assert list(header.tensors) == list(arrays)
    for name, (raw, type_) in arrays.items():
        tensor = header.tensors[name]
        assert tensor.type is type_
        assert tensor.offset % alignment == 0
        assert content[tensor.offset :][: tensor.nbytes] == raw.tobytes()
        block, nbytes = gguf.GGML_QUANT_SIZES[type_]
        assert tensor.shape == (*raw.shape[:-1], raw.shape[-1] // nbytes * block)
    check_sound(header)


@given(st.lists(st.binary(max_size=4) | st.text(max_size=4).map(str.encode)), st.slices(6))
def test_an_array_reads_like_the_list_of_its_strings(values, part):
    ends = array("Q", accumulate(8 + len(value) for value in values))
    strings = StringArray(b"".join(struct.pack("<Q", len(value)) + value for value in values), ends)
    expected = [value.decode("utf-8", "surrogateescape") for value in values]
    assert list(strings) == expected and strings.raw() == values
    assert [strings[i] for i in range(-len(values), len(values))] == expected * 2
    assert strings[part] == expected[part]
    assert strings == expected == strings == pickle.loads(pickle.dumps(strings)) != [*expected, "more"]
    with pytest.raises(IndexError):
        strings[len(values)]


# The security property: a damaged file gives FileError or a sound header, never another exception.


@pytest.fixture(scope="module")
def file_content(tmp_path_factory):
    scalars = {Kind.UINT8: 7, Kind.FLOAT64: 0.5, Kind.BOOL: True, Kind.STRING: "text"}
    entries = {f"k.{kind.name}": Field(value, kind) for kind, value in scalars.items()}
    entries |= {"k.tokens": Field(["a", "bc", "é"], Kind.ARRAY, Kind.STRING)}
    entries |= {"k.numbers": Field([1, 2, 3], Kind.ARRAY, Kind.INT32)}
    arrays = {name: (np.ones((3, 34 * 2), np.uint8), Type.Q8_0) for name in ("blk.0.a", "blk.0.b")}
    path = write(tmp_path_factory.mktemp("file") / "a.gguf", entries, arrays, 64)
    return path.read_bytes()


def test_a_file_cut_at_any_byte_is_refused(file_content, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(file_content)
    end = max(tensor.offset + tensor.nbytes for tensor in read_header(path).tensors.values())
    for cut in range(len(file_content)):
        path.write_bytes(file_content[:cut])
        if cut < end:
            with refused("", str(path), FileError):
                read_header(path)
        else:
            check_sound(read_header(path))


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def declared(shape: tuple[int, ...], type_: int = 0, offset: int = 0, name: bytes = b"t") -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", type_, offset)


def crafted(
    entries: tuple[bytes, ...] = (), infos: tuple[bytes, ...] = (), data: bytes = bytes(256)
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join((*entries, *infos))
    return head + bytes(-len(head) % 32) + data


def number_array(count: int, type_: bytes, number: bytes) -> bytes:
    return text(b"k") + ARRAY + type_ + struct.pack("<Q", count) + (number and number * count)


U8, U32, STRING, ARRAY = (struct.pack("<I", kind) for kind in (0, 4, 8, 9))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\3\4" + bytes(64), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, MAX_ENTRIES + 1, 0), f"{MAX_ENTRIES + 1} tensors"),
        (crafted((text(b"k") + struct.pack("<I", 13),)), "unknown type 13"),
        (crafted((text(b"k") + ARRAY + ARRAY + bytes(8),)), "array of arrays"),
        (crafted((text(b"k") + U8 + b"1",) * 2), "'k' occurs twice"),
        (crafted((text(b"general.alignment") + U32 + bytes(4),)), "general.alignment is 0"),
        (crafted(infos=(declared((4,)), declared((4,), offset=32))), "'t' occurs twice"),
        (crafted(infos=(declared(()),)), "the shape ()"),
        (crafted(infos=(declared((4,), type_=4),)), "unknown type 4"),
        (crafted(infos=(declared((33,), type_=8),)), "rows of 33, not a multiple of Q8_0's block of 32"),
        (crafted((number_array(MAX_NUMBERS + 1, U8, b"\1"),)), "more than 1,048,576 numbers"),
        # Published holes of GGUF parsers: sizes whose sum or product wraps around, and data beyond the end.
        (crafted((number_array(2**61, STRING, b""),)), "past the end"),  # CVE-2024-21825
        (crafted(infos=(text(b"t") + struct.pack("<I", 2**31),)), "past the end"),  # CVE-2024-23605
        (  # CVE-2025-53630
            crafted(infos=(declared((2**47,)), declared((2**47,), offset=2**49, name=b"u"))),
            "is truncated",
        ),
        (crafted(infos=(declared((2**62 - 1, 1)),)), "is truncated"),  # CVE-2026-27940
        (crafted(infos=(declared((2**31, 2**31, 2, 1)),)), "is truncated"),  # CVE-2026-33298
        (crafted(infos=(declared((1 << 20,)),)), "is truncated"),  # CVE-2026-7482
    ],
    ids=count(),  # some contents have megabytes
)
def test_a_lying_header_is_named(content, named, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with refused("", named, FileError) as failure:
        read_header(path)
    assert str(path) in str(failure.value)


def test_a_header_that_never_ends_is_refused(tmp_path):
    """Such a file is sparse and costs its maker nothing; eight texts of 32 MB took 1.4 GB."""
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + text(b"k") + STRING + struct.pack("<Q", 1 << 27))
        file.seek(1 << 28, os.SEEK_CUR)
        file.truncate()
    with pytest.raises(FileError, match="the header runs past what is read of a header"):
        read_header(path)
