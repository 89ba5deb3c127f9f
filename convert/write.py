"""The layout of a GGUF, as planned or as in a file, and its writer, which knows every offset before."""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from gguf import GGUF_VERSION, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ..files.gguf.header import MAGIC, SCALARS, Field, Header
from ..files.output import atomic_write
from ..files.trusted_files import is_trusted, trust_file
from .tensors import ALIGNMENT, TensorPlan, padded

_ARRAY = GGUFValueType.ARRAY


@dataclass(frozen=True)
class Prediction:
    """Predicted properties of a file that is planned for a size."""

    budget_bytes: int  # the requested size
    file_bytes: int  # the exact size of the file, metadata included
    # KL divergence from the unquantized model in nats; None without measured sensitivities
    divergence: float | None
    # relative to the same model with all matrices in Q4_K, by the cost table; of whole answers, if the costs
    # include their prompts
    decode_speed: float
    target: str  # the kind of processor that the costs are for
    prefer: str | None
    library: str  # the library that the costs are for


@dataclass(frozen=True)
class TypeShare:
    """Share of a type in a file."""

    tensors: int  # number of its tensors
    weights: int  # number of their weights
    nbytes: int  # their size


@dataclass(frozen=True)
class FileLayout:
    """The contents of a GGUF, and their places."""

    fields: Mapping[str, Field] = field(repr=False)  # the metadata, in file order
    tensors: tuple[TensorPlan, ...]  # the tensors, in file order
    file_bytes: int  # the exact size of the file, metadata included
    prediction: Prediction | None = None  # loss and speed that are predicted for a size; None without a size

    @classmethod
    def planned(cls, fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> "FileLayout":
        """The layout of a file that is to be written."""
        sizes = (padded(plan.nbytes) for plan in plans)
        *offsets, end = accumulate(sizes, initial=padded(len(_header(fields, plans))))
        placed = (replace(plan, offset=offset) for plan, offset in zip(plans, offsets, strict=True))
        return cls(fields, tuple(placed), end)

    @classmethod
    def of(cls, header: Header) -> "FileLayout":
        """The layout of a file."""
        tensors = header.tensors.values()
        plans = (
            TensorPlan(one.name, one.name, one.shape, one.type, one.nbytes, one.offset) for one in tensors
        )
        return cls(header.fields, tuple(plans), header.file_bytes)

    @property
    def weights(self) -> int:
        """Number of weights in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Mean over all tensors, without metadata; 0 without tensors."""
        return 8 * sum(tensor.nbytes for tensor in self.tensors) / max(1, self.weights)

    @property
    def types(self) -> dict[str, TypeShare]:
        """Share of each type, the largest first."""
        shares = {}
        for name in {tensor.type.name: None for tensor in self.tensors}:
            chosen = [tensor for tensor in self.tensors if tensor.type.name == name]
            nbytes = sum(tensor.nbytes for tensor in chosen)
            shares[name] = TypeShare(len(chosen), sum(prod(tensor.shape) for tensor in chosen), nbytes)
        return dict(sorted(shares.items(), key=lambda item: -item[1].nbytes))


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
    fields = {key: one for key, one in fields.items() if one.type is not _ARRAY or one.value}
    parts = [MAGIC, struct.pack("<IQQ", GGUF_VERSION, len(plans), len(fields))]
    for key, value in fields.items():
        parts += [_string(key), struct.pack("<I", value.type), _value(value)]
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
