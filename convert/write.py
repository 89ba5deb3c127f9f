"""Write a GGUF in one pass: the header first, with every offset known, then the tensors' bytes in order."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from ..files.atomic_write import atomic_write
from ..files.gguf_header import Field
from ..files.output import check_target
from .tensors import ALIGNMENT, TensorPlan


def write_gguf(
    target: Path,
    architecture: str,
    fields: Mapping[str, Field],
    plans: Sequence[TensorPlan],
    blocks: Iterable[bytes],
) -> str:
    """Write `target` from its metadata, its tensors' plans, and their bytes: `blocks`, end to end in order.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the target cannot be written, or the disk is full. Nothing is left behind then.
    """
    check_target(target)
    with atomic_write(target, exclusive=True, nbytes=sum(plan.nbytes for plan in plans)) as file:
        _write_header(Path(file.name), architecture, fields, plans)
        file.seek(0)
        digest = hashlib.sha256(file.read())
        chunks = iter(blocks)
        _put(file, digest, bytes(-file.tell() % ALIGNMENT))
        for plan in plans:
            left = plan.nbytes
            while left:
                chunk = next(chunks)
                _put(file, digest, chunk)
                left -= len(chunk)
            assert left == 0, plan
            _put(file, digest, bytes(-plan.nbytes % ALIGNMENT))
    return digest.hexdigest()


def _put(file: BinaryIO, digest: Any, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _write_header(
    part: Path, architecture: str, fields: Mapping[str, Field], plans: Sequence[TensorPlan]
) -> None:
    writer = GGUFWriter(None, architecture)
    for key, field in fields.items():
        if field.type is not GGUFValueType.ARRAY or field.value:  # the format has no empty arrays
            writer.add_key_value(key, _encoded(field), field.type, field.element)
    for plan in plans:
        writer.add_tensor_info(plan.target, plan.shape, np.dtype(np.float32), plan.nbytes, plan.type)
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _encoded(field: Field) -> Any:
    """Text as bytes, since a few published tokens are no UTF-8."""
    if field.type is GGUFValueType.STRING:
        return field.value.encode("utf-8", "surrogateescape")
    if field.element is GGUFValueType.STRING:
        return [text.encode("utf-8", "surrogateescape") for text in field.value]
    return field.value


def header_size(architecture: str, fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> int:
    """How long the file is before the tensors' bytes begin, whatever types the tensors have."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header"
        _write_header(path, architecture, fields, plans)
        size = path.stat().st_size
    return size + -size % ALIGNMENT
