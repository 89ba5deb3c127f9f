"""GGUF writer: header first, with every offset known, then the tensor data, in one pass."""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gguf import GGUF_VERSION, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ..files.gguf.header import MAGIC, SCALARS, Field
from ..files.output import atomic_write
from ..files.trusted_files import is_trusted, trust_file
from .tensors import ALIGNMENT, TensorPlan, padded

_ARRAY = GGUFValueType.ARRAY


def write_gguf(
    target: Path,
    fields: Mapping[str, Field],
    plans: Sequence[TensorPlan],
    blocks: Iterable[bytes],
    *,
    source: Path | None = None,
) -> str:
    """Write a GGUF atomically, and record that it is ours.

    A file that has metadata or tensors of a GGUF that is not trusted is not recorded.

    Args:
        target: the file.
        fields: the metadata, in the order in which it is written.
        plans: the tensors, in the order in which they are written.
        blocks: the bytes of all tensors in this order. A block must not span two tensors.
        source: the base that metadata or tensors were copied from, if any.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the target cannot be written, or the disk is full. Nothing is left behind.
    """
    trusted = source is None or source.is_dir() or is_trusted(source)  # before it may be replaced
    with atomic_write(target, nbytes=sum(plan.nbytes for plan in plans)) as file:
        digest, header = hashlib.sha256(), _header(fields, plans)
        remaining = iter(blocks)
        _put(file, digest, header + bytes(-len(header) % ALIGNMENT))
        for plan in plans:
            missing = plan.nbytes
            while missing:
                block = next(remaining)
                _put(file, digest, block)
                missing -= len(block)
            assert missing == 0, plan
            _put(file, digest, bytes(-plan.nbytes % ALIGNMENT))
    if trusted:
        trust_file(target)
    return digest.hexdigest()


def write_arrays(
    target: Path, fields: Mapping[str, Field], arrays: Mapping[str, NDArray[Any]], source: Path | None = None
) -> str:
    """Write a GGUF whose tensors are these arrays, in float32; see write_gguf()."""
    f32 = GGMLQuantizationType.F32
    plans = [TensorPlan(name, name, array.shape, f32, 4 * array.size) for name, array in arrays.items()]
    blocks = (array.astype("<f4", copy=False).tobytes() for array in arrays.values())
    return write_gguf(target, fields, plans, blocks, source=source)


def _put(file: BinaryIO, digest: Any, data: bytes) -> None:
    file.write(data)
    digest.update(data)


def _header(fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> bytes:
    """The bytes of a header: magic, version and counts, the metadata, and each tensor's place."""
    fields = {key: field for key, field in fields.items() if field.type is not _ARRAY or field.value}
    parts = [MAGIC, struct.pack("<IQQ", GGUF_VERSION, len(plans), len(fields))]
    for key, field in fields.items():
        parts += [_string(key), struct.pack("<I", field.type), _value(field)]
    offset = 0
    for plan in plans:
        dimensions = plan.shape[::-1]
        parts.append(_string(plan.target))
        parts.append(struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        parts.append(struct.pack("<IQ", plan.type, offset))
        offset += padded(plan.nbytes)
    return b"".join(parts)


def _value(field: Field) -> bytes:
    if field.type is GGUFValueType.STRING:
        return _string(field.value)
    if field.type is not _ARRAY:
        return struct.pack(f"<{SCALARS[field.type]}", field.value)
    assert field.element is not None, "an array has a type of elements"
    start = struct.pack("<IQ", field.element, len(field.value))
    if field.element is GGUFValueType.STRING:
        return start + b"".join(map(_string, field.value))
    return start + struct.pack(f"<{len(field.value)}{SCALARS[field.element]}", *field.value)


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")  # a few tokens of published vocabularies are not UTF-8
    return struct.pack("<Q", len(data)) + data


def header_size(fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> int:
    """Compute where the tensor data begins in a file; the types of the tensors do not matter."""
    return padded(len(_header(fields, plans)))
