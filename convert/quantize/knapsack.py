"""Choice of a type for every tensor within a budget of bytes: the multiple-choice knapsack problem."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

_CELLS = 1 << 17  # of the dynamic programming table
_ITERATIONS_MAX = 8  # of the Lagrange multiplier, which converges in three or four


@dataclass(frozen=True, slots=True)
class TypeOption:
    """One type that a tensor may have."""

    type: GGMLQuantizationType  # the type
    nbytes: int  # size of the tensor in this type
    loss: float  # predicted KL divergence, in nats
    cost: float  # decode time, in nanoseconds per token


TypeOptions = Mapping[str, Sequence[TypeOption]]


def allocate_types(
    options: TypeOptions, maximum: int, minimum: int = 0, speed_weight: float = 0.0
) -> dict[str, TypeOption]:
    """Choose a type for every tensor: the least loss within a budget of bytes, by dynamic programming.

    The multiple-choice knapsack problem is solved exactly (Kellerer, Pferschy, Pisinger 2004, section 11.5),
    except that sizes are counted in units of `maximum` / 131072 unless they share a larger divisor. With a
    speed weight the objective is loss * cost**speed_weight. Its Lagrangian is loss + multiplier * cost, and
    at the minimum the multiplier is speed_weight * loss / cost.

    Args:
        options: options of each tensor, by name.
        maximum: largest total size in bytes; the smallest options fit.
        minimum: smallest total size in bytes, if any choice reaches it.
        speed_weight: percent of loss that one percent of decode time is worth.

    Returns:
        The option chosen for each tensor, in the order of `options`.
    """
    useful = {name: _pareto_optimal(options[name], speed_weight > 0) for name in sorted(options)}
    knapsack = _Knapsack(useful, maximum, minimum)
    chosen = knapsack.solve(0.0)
    for _ in range(_ITERATIONS_MAX if speed_weight else 0):
        multiplier = speed_weight * sum(o.loss for o in chosen) / sum(o.cost for o in chosen)
        before, chosen = chosen, knapsack.solve(multiplier)
        if chosen == before:
            break
    by_name = dict(zip(useful, chosen, strict=True))
    return {name: by_name[name] for name in options}


def _pareto_optimal(options: Sequence[TypeOption], timed: bool) -> list[TypeOption]:
    """The options by size, without those that another matches or beats in size, loss and, if timed, cost."""
    useful: list[TypeOption] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.loss, o.cost)):
        if not any(
            o.loss <= option.loss and (o.cost <= option.cost or not timed)
            for o in useful
            if o.loss < option.loss or o.nbytes == option.nbytes
        ):
            useful.append(option)
    return useful


class _Knapsack:
    """Dynamic programming over the tensors: the least value for every size, in cells of `unit` bytes.

    The options of each tensor are sorted by size, and the smallest ones fit in `maximum`.
    """

    def __init__(self, options: TypeOptions, maximum: int, minimum: int) -> None:
        self.options = list(options.values())
        largest = sum(max(option.nbytes for option in choices) for choices in self.options)
        capacity = min(maximum, largest)
        divisor = math.gcd(*(option.nbytes for choices in self.options for option in choices))
        self.unit = divisor * -(-capacity // (divisor * _CELLS))
        self.cells = capacity // self.unit + 1
        self.minimum = max(0, -(-minimum // self.unit))

    def solve(self, multiplier: float) -> list[TypeOption]:
        best = np.zeros(self.cells)  # (cells,) the least value with exactly this many units
        best[1:] = np.inf  # no tensor uses any yet
        picks = []
        for choices in self.options:
            extended, pick = np.full(self.cells, np.inf), np.zeros(self.cells, np.uint8)
            for index, option in enumerate(choices):
                units = -(-option.nbytes // self.unit)
                value = best[: max(0, self.cells - units)] + (option.loss + multiplier * option.cost)
                better = value < extended[units:]
                extended[units:][better] = value[better]
                pick[units:][better] = index
            best = extended
            picks.append(pick)
        if not np.isfinite(best).any():  # not even the smallest fit, rounded up to units
            return [choices[0] for choices in self.options]
        large = best[self.minimum :]
        cell = int(self.minimum + np.argmin(large)) if np.isfinite(large).any() else int(np.argmin(best))
        chosen = []
        for choices, pick in zip(reversed(self.options), reversed(picks), strict=True):
            option = choices[pick[cell]]
            cell -= -(-option.nbytes // self.unit)
            chosen.append(option)
        return chosen[::-1]
