"""GGUF writer: header first, with every offset known, then the tensor data, in one pass."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.gguf_writer import WriterState
from numpy.typing import NDArray

from ..files.atomic_write import atomic_write
from ..files.gguf.header import Field
from ..files.output import check_target
from ..files.trusted_files import is_trusted, trust_file
from .tensors import ALIGNMENT, TensorPlan, padded


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
    check_target(target)
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
        trust_file(target, digest.hexdigest())
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
    """The bytes of a header. GGUFWriter opens only paths; a temporary file would outlive a kill."""
    writer, buffer = GGUFWriter(None, ""), BytesIO()  # it writes no empty architecture
    for key, field in fields.items():
        if field.type is not GGUFValueType.ARRAY or field.value:  # gguf writes no empty arrays
            writer.add_key_value(key, _encoded(field), field.type, field.element)
    for plan in plans:
        writer.add_tensor_info(plan.target, plan.shape, np.dtype(np.float32), plan.nbytes, plan.type)
    writer.fout, writer.state = [buffer], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return buffer.getvalue()


def _encoded(field: Field) -> Any:
    # Text is passed as bytes, because a few tokens of published vocabularies are not valid UTF-8.
    if field.type is GGUFValueType.STRING:
        return field.value.encode("utf-8", "surrogateescape")
    if field.element is GGUFValueType.STRING:
        return [text.encode("utf-8", "surrogateescape") for text in field.value]
    return field.value


def header_size(fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> int:
    """Compute where the tensor data begins in a file; the types of the tensors do not matter."""
    return padded(len(_header(fields, plans)))
