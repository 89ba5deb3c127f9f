"""Where a file's bytes are: by tensor, by kind of tensor and by type, beside llama.cpp's own files."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ...convert.quantize.file_size import parse_file_size
from ...convert.tensors import padded
from ...errors import OutputError
from ...files.gguf_header import Header, TensorInfo, read_header
from ...files.hashing import file_sha256
from ..harness.format import megabytes
from ..peers.llama_quantize import StockKind
from ..peers.llama_quantize_sizes import StockTensorSizes, stock_tensor_sizes

_LAYER = re.compile(r"blk\.\d+\.(\w+)\.(?:weight|bias)")
_ASKED = "thirteen.type"  # the provenance's key for the type or the size that was asked for
_TABLE_WIDTH = 76
_BASE_ID = "thirteen.base.id"
_BESIDE = 0.25  # of the file's size: how far away a stock file is shown


@dataclass(frozen=True, slots=True)
class TensorSize:
    """One tensor: its place in the model, its type and its bytes."""

    name: str
    group: str
    shape: tuple[int, ...]
    type: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class GroupSize:
    """All tensors of one kind.

    Attributes:
        group: "token_embd", "ffn_down" and so on: a tensor's name without its layer; "vectors" are all norms
            and biases.
        tensors: how many.
        weights: numbers in them.
        nbytes: all together.
        types: bytes by type, the largest first.
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
class StockSize:
    """The file as llama.cpp would make it, with the same metadata.

    Attributes:
        kind: "uniform" for one type throughout, "mix" for one of llama.cpp's mixes.
        name: of the type or the mix.
        file_bytes: its size.
        ratio: the measured file's size over it.
    """

    kind: StockKind
    name: str
    file_bytes: int
    ratio: float

    @property
    def made_as(self) -> str:
        """Its name and kind, in words."""
        return f"{self.name}, {'throughout' if self.kind == 'uniform' else 'mix'}"


@dataclass(frozen=True, slots=True)
class SizeBudget:
    """What the file was planned for, as its provenance has it.

    Attributes:
        asked: the size as its maker wrote it.
        nbytes: what that comes to.
        used: the file's part of it.
    """

    asked: str
    nbytes: int
    used: float


@dataclass(frozen=True, slots=True)
class SizeReport:
    """Everything about one file's size; dataclasses.asdict makes it JSON.

    Attributes:
        path: the file.
        sha256: its hash, in hexadecimal.
        base_id: what it was made of, as its provenance has it; None where it does not tell.
        file_bytes: its size.
        metadata_bytes: of that, all but the tensors: tokenizer, shapes, provenance, padding.
        weights: how many numbers its tensors hold.
        bits_per_weight: mean over all tensors.
        tensors: in the file's order.
        groups: the largest first.
        types: bytes by type, the largest first.
        stock: the smallest first.
        budget: None where the file was not planned for a size.
    """

    path: str
    sha256: str
    base_id: str | None
    file_bytes: int
    metadata_bytes: int
    weights: int
    bits_per_weight: float
    tensors: tuple[TensorSize, ...]
    groups: tuple[GroupSize, ...]
    types: Mapping[str, int]
    stock: tuple[StockSize, ...]
    budget: SizeBudget | None


def run_size(model: Path) -> SizeReport:
    """Account for every byte of a model's file.

    Raises:
        ModelFileError: it is not a GGUF, is damaged, or not a model that this build can run.
    """
    header = read_header(model)
    tensors = tuple(map(_tensor, header.tensors.values()))
    return SizeReport(
        path=str(model),
        sha256=file_sha256(model),
        base_id=header.metadata.get(_BASE_ID),
        file_bytes=header.file_bytes,
        metadata_bytes=header.file_bytes - sum(tensor.nbytes for tensor in tensors),
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        tensors=tensors,
        groups=_groups(tensors),
        types=_by_type(tensors),
        stock=_stock(header, stock_tensor_sizes(model)),
        budget=_budget(header),
    )


def _tensor(tensor: TensorInfo) -> TensorSize:
    return TensorSize(tensor.name, _group(tensor), tensor.shape, tensor.type.name, tensor.nbytes)


def _group(tensor: TensorInfo) -> str:
    if len(tensor.shape) == 1:
        return "vectors"
    layer = _LAYER.fullmatch(tensor.name)
    return layer[1] if layer else tensor.name.removesuffix(".weight")


def _groups(tensors: Iterable[TensorSize]) -> tuple[GroupSize, ...]:
    members: dict[str, list[TensorSize]] = {}
    for tensor in tensors:
        members.setdefault(tensor.group, []).append(tensor)
    groups = (
        GroupSize(
            group=name,
            tensors=len(of),
            weights=sum(prod(tensor.shape) for tensor in of),
            nbytes=sum(tensor.nbytes for tensor in of),
            types=_by_type(of),
        )
        for name, of in members.items()
    )
    return tuple(sorted(groups, key=lambda group: -group.nbytes))


def _by_type(tensors: Iterable[TensorSize]) -> dict[str, int]:
    nbytes: Counter[str] = Counter()
    for tensor in tensors:
        nbytes[tensor.type] += tensor.nbytes
    return dict(nbytes.most_common())


def _stock(header: Header, stock: Iterable[StockTensorSizes]) -> tuple[StockSize, ...]:
    rest = header.file_bytes - sum(map(padded, (tensor.nbytes for tensor in header.tensors.values())))

    def size(one: StockTensorSizes) -> StockSize:
        file_bytes = rest + sum(map(padded, one.nbytes.values()))
        return StockSize(one.kind, one.name, file_bytes, header.file_bytes / file_bytes)

    return tuple(sorted(map(size, stock), key=lambda one: one.file_bytes))


def _budget(header: Header) -> SizeBudget | None:
    asked = str(header.metadata.get(_ASKED, "")).partition(",")[0]
    try:
        nbytes = parse_file_size(asked).file_bytes(header.weights)
    except OutputError:  # a type, or another program's file
        return None
    return SizeBudget(asked, nbytes, header.file_bytes / nbytes)


def size_table(report: SizeReport) -> Group:
    """The groups of tensors, and below them the stock files of about this size."""
    return Group(_group_table(report), "", _stock_table(report))


def _group_table(report: SizeReport) -> Table:
    title = Text(f"{Path(report.path).name}: {_total(report)}")
    out = Table(title=title, title_justify="left", min_width=_TABLE_WIDTH)
    for column in ("tensors", "number", "MB", "of the file, %", "bits a weight", "types, MB"):
        out.add_column(column, justify="left" if column.startswith(("tensors", "types")) else "right")
    for group in report.groups:
        out.add_row(
            Text(group.group),
            str(group.tensors),
            f"{group.nbytes / 1e6:.2f}",
            f"{100 * group.nbytes / report.file_bytes:.1f}",
            f"{group.bits_per_weight:.2f}",
            ", ".join(f"{name} {nbytes / 1e6:.2f}" for name, nbytes in group.types.items()),
        )
    rest = report.metadata_bytes
    out.add_row("metadata", "", f"{rest / 1e6:.2f}", f"{100 * rest / report.file_bytes:.1f}", "", "")
    return out


def _total(report: SizeReport) -> str:
    said = f"{report.file_bytes:,} bytes, {report.bits_per_weight:.2f} bits a weight"
    if budget := report.budget:
        said += f", {100 * budget.used:.2f} % of the {budget.nbytes:,} asked for ({budget.asked})"
    return said


def _stock_table(report: SizeReport) -> Table:
    title = "llama.cpp's own files of these tensors, about that size"
    out = Table(title=title, title_justify="left", min_width=_TABLE_WIDTH)
    for column in ("made as", "MB", "this file / it"):
        out.add_column(column, justify="left" if column == "made as" else "right")
    for one in stock_of_similar_size(report) or report.stock:
        out.add_row(one.made_as, megabytes(one.file_bytes), f"{one.ratio:.3f}")
    return out


def stock_of_similar_size(report: SizeReport) -> tuple[StockSize, ...]:
    """The stock files of about the size of the measured one."""
    return tuple(one for one in report.stock if abs(1 - one.ratio) <= _BESIDE)
