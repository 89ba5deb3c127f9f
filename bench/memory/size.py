"""Size of a GGUF by tensor group and type, and the size that it was planned for."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ...convert.size_text import parse_file_size
from ...errors import OptionError
from ...files.gguf.header import Header, TensorInfo, read_header
from ...files.hashing import file_sha256
from ...runtime.llama.gguf_checks import check_model
from ..harness.format import Table

_LAYER = re.compile(r"blk\.\d+\.(\w+)\.(?:weight|bias)")
_REQUESTED = "thirteen.type"


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Size of all tensors of one kind.

    Attributes:
        group: a tensor name without its layer, such as "token_embd" or "ffn_down"; "vectors" for all norms
            and biases.
        tensors: number of tensors.
        weights: number of weights.
        nbytes: total bytes.
        types: bytes by type, largest first.
    """

    group: str
    tensors: int
    weights: int
    nbytes: int
    types: Mapping[str, int]

    @property
    def bits_per_weight(self) -> float:
        """Mean over the group."""
        return 8 * self.nbytes / self.weights


@dataclass(frozen=True, slots=True)
class SizeBudget:
    """Target size that the file was planned for, from its provenance.

    Attributes:
        asked: the target as given, for example "600MB".
        nbytes: the target in bytes.
        used: size of the file / target.
    """

    asked: str
    nbytes: int
    used: float


@dataclass(frozen=True, slots=True)
class SizeReport:
    """Size of a file; dataclasses.asdict makes it JSON.

    Attributes:
        path: the file.
        sha256: its hash, in hexadecimal.
        file_bytes: size of the file.
        metadata_bytes: everything but tensors: tokenizer, hyperparameters, provenance, padding.
        weights: number of weights.
        bits_per_weight: mean over all tensors.
        groups: sizes by group, largest first.
        types: bytes by type, largest first.
        budget: the target size; None if the file was not planned for one.
    """

    path: str
    sha256: str
    file_bytes: int
    metadata_bytes: int
    weights: int
    bits_per_weight: float
    groups: tuple[GroupSize, ...]
    types: Mapping[str, int]
    budget: SizeBudget | None


def run_size(model: Path) -> SizeReport:
    """Account for every byte of a model file.

    Raises:
        FileError: the file is not a GGUF, is damaged, or cannot be run by this build.
    """
    header = read_header(model)
    check_model(header)
    tensors = header.tensors.values()
    return SizeReport(
        path=str(model),
        sha256=file_sha256(model),
        file_bytes=header.file_bytes,
        metadata_bytes=header.file_bytes - sum(tensor.nbytes for tensor in tensors),
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        groups=_group_sizes(tensors),
        types=_bytes_by_type(tensors),
        budget=_budget(header),
    )


def _group(tensor: TensorInfo) -> str:
    if len(tensor.shape) == 1:
        return "vectors"
    layer = _LAYER.fullmatch(tensor.name)
    return layer[1] if layer else tensor.name.removesuffix(".weight")


def _group_sizes(tensors: Iterable[TensorInfo]) -> tuple[GroupSize, ...]:
    members: dict[str, list[TensorInfo]] = {}
    for tensor in tensors:
        members.setdefault(_group(tensor), []).append(tensor)
    groups = (
        GroupSize(
            group=name,
            tensors=len(group),
            weights=sum(prod(tensor.shape) for tensor in group),
            nbytes=sum(tensor.nbytes for tensor in group),
            types=_bytes_by_type(group),
        )
        for name, group in members.items()
    )
    return tuple(sorted(groups, key=lambda group: -group.nbytes))


def _bytes_by_type(tensors: Iterable[TensorInfo]) -> dict[str, int]:
    nbytes: Counter[str] = Counter()
    for tensor in tensors:
        nbytes[tensor.type.name] += tensor.nbytes
    return dict(nbytes.most_common())


def _budget(header: Header) -> SizeBudget | None:
    requested = str(header.metadata.get(_REQUESTED, "")).partition(",")[0]
    try:
        nbytes = parse_file_size(requested).file_bytes(header.weights)
    except OptionError:  # a type, or a file of another program
        return None
    return SizeBudget(requested, nbytes, header.file_bytes / nbytes) if nbytes else None


def size_table(report: SizeReport) -> Table:
    """Table of the tensor groups."""
    rest = report.metadata_bytes
    rows = [
        (
            group.group,
            str(group.tensors),
            f"{group.nbytes / 1e6:.2f}",
            f"{100 * group.nbytes / report.file_bytes:.1f}",
            f"{group.bits_per_weight:.2f}",
            ", ".join(f"{name} {nbytes / 1e6:.2f}" for name, nbytes in group.types.items()),
        )
        for group in report.groups
    ]
    rows.append(("metadata", "", f"{rest / 1e6:.2f}", f"{100 * rest / report.file_bytes:.1f}", "", ""))
    header = ("tensors", "number", "MB", "of the file, %", "bits per weight", "types, MB")
    return Table(f"{Path(report.path).name}: {_summary(report)}", header, tuple(rows))


def _summary(report: SizeReport) -> str:
    text = f"{report.file_bytes:,} bytes, {report.bits_per_weight:.2f} bits per weight"
    if budget := report.budget:
        text += f", {100 * budget.used:.2f} % of the {budget.nbytes:,} bytes requested ({budget.asked})"
    return text
