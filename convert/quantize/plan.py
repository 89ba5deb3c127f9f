"""Which type each tensor gets: pure, from shapes to an ordered list of what will be written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from ...errors import ModelFileError, OutputError
from ...files.gguf_header import Header
from ..tensors import TYPES, TensorPlan, Type

_CELLS = 1 << 17  # of a knapsack's table
_ROUNDS = 8  # of the search for the price of time, which settles in three or four


def types_of_model(plans: Sequence[TensorPlan], model: Header) -> list[TensorPlan]:
    """The same tensors, each in the type that it has in `model`: the same one, or one adapted from it.

    Raises:
        ModelFileError: that file has not exactly these tensors, or one in another shape, or in a type that
            nothing is converted to.
    """
    if odd := model.tensors.keys() ^ {p.target for p in plans}:
        raise ModelFileError(f"{model.path}: is of another model: only one of the two has {min(odd)!r}")
    return [_alike(p, model) for p in plans]


@dataclass(frozen=True, slots=True)
class TypeOption:
    """One type that a tensor could have, and what it would come to.

    Attributes:
        type: the type.
        nbytes: of the tensor.
        loss: KL divergence that it is predicted to cause, in nats.
        cost: nanoseconds for each decoded token.
    """

    type: GGMLQuantizationType
    nbytes: int
    loss: float
    cost: float


TypeOptions = Mapping[str, Sequence[TypeOption]]


def allocate_types(
    options: TypeOptions, most: int, least: int = 0, eagerness: float = 0.0
) -> dict[str, TypeOption]:
    """Choose a type for every tensor: the least loss within a budget of bytes, by dynamic programming.

    It is the multiple-choice knapsack problem, solved exactly (Kellerer, Pferschy, Pisinger 2004, section
    11.5), but that bytes are counted in units of `most` / 131072 where they have no larger one in common.
    Speed comes in by minimizing loss * cost**eagerness: its Lagrangian is loss + price * cost, and at the
    minimum the price is eagerness * loss / cost.

    Args:
        options: of each tensor, by name.
        most: bytes that all tensors may come to.
        least: bytes that they shall come to, if any choice does.
        eagerness: percent of loss that a percent of decode time is worth.

    Returns:
        The option chosen for each tensor, in the order of `options`.

    Raises:
        OutputError: not even the smallest types fit; the message says what does.
    """
    kept = {name: _undominated(options[name], eagerness > 0) for name in sorted(options)}
    smallest = sum(min(o.nbytes for o in of) for of in kept.values())
    if smallest > most:
        raise OutputError(f"the smallest possible is {smallest:,} bytes of tensors, more than {most:,}")
    table = _Knapsack(kept, most, least)
    chosen = table.solve(0.0)
    for _ in range(_ROUNDS if eagerness else 0):
        price = eagerness * sum(o.loss for o in chosen) / sum(o.cost for o in chosen)
        before, chosen = chosen, table.solve(price)
        if chosen == before:
            break
    by_name = dict(zip(kept, chosen, strict=True))
    return {name: by_name[name] for name in options}


def _undominated(options: Sequence[TypeOption], timed: bool) -> list[TypeOption]:
    """The options, by size, without those that another beats or equals in size, loss and, if asked, cost."""
    kept: list[TypeOption] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.loss, o.cost)):
        if not any(
            o.loss <= option.loss and (o.cost <= option.cost or not timed)
            for o in kept
            if o.loss < option.loss or o.nbytes == option.nbytes
        ):
            kept.append(option)
    return kept


class _Knapsack:
    """Tables of the least value for every number of bytes, filled tensor by tensor."""

    def __init__(self, options: TypeOptions, most: int, least: int) -> None:
        self.options = list(options.values())
        sizes = [o.nbytes for of in self.options for o in of]
        largest = sum(max(o.nbytes for o in of) for of in self.options)
        reach = min(most, largest)
        common = math.gcd(*sizes)
        self.unit = common * -(-reach // (common * _CELLS))
        self.cells = reach // self.unit + 1
        self.least = -(-least // self.unit)

    def solve(self, price: float) -> list[TypeOption]:
        best = np.zeros(self.cells)  # (cells,) the least value with at most so many units: none needed yet
        best[1:] = np.inf
        picks = []
        for of in self.options:
            grown, pick = np.full(self.cells, np.inf), np.zeros(self.cells, np.uint8)
            for index, option in enumerate(of):
                units = -(-option.nbytes // self.unit)
                value = best[: max(0, self.cells - units)] + (option.loss + price * option.cost)
                better = value < grown[units:]
                grown[units:][better] = value[better]
                pick[units:][better] = index
            best = grown
            picks.append(pick)
        return self._trace(best, picks)

    def _trace(self, best: NDArray[np.float64], picks: list[NDArray[np.uint8]]) -> list[TypeOption]:
        wide = best[self.least :]
        cell = int(self.least + np.argmin(wide)) if np.isfinite(wide).any() else int(np.argmin(best))
        chosen = []
        for of, pick in zip(reversed(self.options), reversed(picks), strict=True):
            option = of[pick[cell]]
            cell -= -(-option.nbytes // self.unit)
            chosen.append(option)
        return chosen[::-1]


def _alike(p: TensorPlan, model: Header) -> TensorPlan:
    tensor = model.tensors[p.target]
    if tensor.shape != p.shape:
        raise ModelFileError(
            f"{model.path}: is of another model: {p.target!r} has the shape {tensor.shape} there, "
            f"{p.shape} here"
        )
    if tensor.type.name not in TYPES or (len(p.shape) == 1 and tensor.type is not Type.F32):
        raise ModelFileError(f"{model.path}: {p.target!r} is {tensor.type.name}, not a type to convert to")
    return replace(p, type=tensor.type, nbytes=tensor.nbytes)
