"""The layout of a GGUF: its metadata, and each tensor's type, place and size, as planned or as in a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import prod

from ..files.gguf.header import Field, Header
from .tensors import TensorPlan, padded
from .write import header_size


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
    """What a GGUF holds, and where."""

    fields: Mapping[str, Field] = field(repr=False)  # the metadata, in file order
    tensors: tuple[TensorPlan, ...]  # the tensors, in file order
    file_bytes: int  # the exact size of the file, metadata included
    prediction: Prediction | None = None  # loss and speed that are predicted for a size; None without a size

    @classmethod
    def planned(cls, fields: Mapping[str, Field], plans: Sequence[TensorPlan]) -> "FileLayout":
        """The layout of a file that is to be written."""
        sizes = (padded(plan.nbytes) for plan in plans)
        *offsets, end = accumulate(sizes, initial=header_size(fields, plans))
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
