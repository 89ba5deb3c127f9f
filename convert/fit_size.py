"""A quantization that fits a file size: it chooses types by predicted loss and speed."""

import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod

from ..errors import OptionError
from ..files.progress import Progress
from .merged_model import MergedModel
from .quantize.costs import REFERENCE, CostTable
from .quantize.knapsack import TypeOption, TypeOptions, allocate_types
from .quantize.quant_error import TypeLosses
from .recipe import Quantization
from .tensors import GGML_TYPES, TensorSpec, count_weights, padded, plan_tensor, plan_uniform
from .write import FileLayout, Prediction

_GAIN_MIN = 1.1  # of another library than the first, as an engine demands it
# Percent of loss that one percent of decode time is worth.
PREFERENCES = {"quality": 0.0, None: 2.0, "speed": 8.0}
_FILL_MIN = 0.985  # share of the requested size that a file uses, if its types allow it
_F32 = GGML_TYPES["F32"]
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "BPW": None}
_BITS_MAX = 32  # F32
_BITS_MIN = 2  # a weight has more in each type of a plan
_PATTERN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class FileSize:
    """Size of a whole file, metadata included."""

    text: str  # the size as the user wrote it
    amount: float  # number of units
    unit: int | None  # bytes per unit; None for bits per weight

    def file_bytes(self, weights: int) -> int:
        """The size in bytes of a model with this number of weights, rounded down."""
        return math.floor(self.amount * (weights / 8 if self.unit is None else self.unit))

    def check_least(self, weights: int) -> None:
        """Refuse what is far too small for these weights; a plan knows the exact limits."""
        smallest = weights * _BITS_MIN // 8
        if self.file_bytes(weights) < smallest:
            reason = f"cannot be met: {weights:,} weights take over {smallest:,} bytes"
            raise OptionError("size", reason, self.text)


def parse_file_size(text: str) -> FileSize:
    """Parse a size.

    Raises:
        OptionError: the text has no unit, is not a positive number, or exceeds 32 bits per weight.
    """
    found = _PATTERN.fullmatch(text.strip())
    amount, unit = (float(found[1]), _UNITS.get(found[2].upper(), 0)) if found else (0.0, 0)
    nbytes = amount * (1 if unit is None else unit)
    if not 0 < nbytes < math.inf or (unit is None and amount > _BITS_MAX):
        raise OptionError(
            "size", f"write it like 600MB, 572MiB, 0.6GB or 3.9bpw (at most {_BITS_MAX})", repr(text)
        )
    return FileSize(text.strip(), amount, unit)


@dataclass(frozen=True)
class FitSize(Quantization):
    """The types of the least predicted loss within a size."""

    size: FileSize  # the maximum file size
    prefer: str | None  # "quality" or "speed"; None for between the two
    costs: CostTable  # the types that may be used, and their decode costs
    # The same for other libraries that may run the file. It is planned for the one that suits best.
    others: tuple[CostTable, ...] = ()

    @property
    def text(self) -> str:
        return ", ".join(filter(None, (self.size.text, self.prefer, self.costs.target)))

    def plan(self, model: MergedModel, pool: ThreadPoolExecutor, progress: Progress) -> FileLayout:
        """See Quantization; OptionError with the smallest and the largest size if it cannot be met."""
        assert model.importance is not None, "a size needs an importance file"
        if not model.importance.sensitivity:
            model.warnings.append(
                f"{model.importance.path}: has no sensitivities: an error counts relative to its matrix's "
                "output"
            )
        losses = TypeLosses(model.rows, model.importance, self.costs, model.base.architecture.tied)
        options = losses.measure_all(model.base.specs.values(), pool, progress)
        # For the library that suits it best.
        layouts = (self._choose(model, options, costs) for costs in (self.costs, *self.others))
        _, layout = min(layouts, key=lambda valued: valued[0])
        return layout

    def _choose(
        self, model: MergedModel, options: TypeOptions, costs: CostTable
    ) -> tuple[tuple[float, float], FileLayout]:
        """The layout with the costs of one library, after its value, which is less for a better one."""
        specs, tied = model.base.specs, model.base.architecture.tied
        if costs is not self.costs:
            options = _with_costs(options, specs, costs, tied=tied)
        fields = model.metadata(self.text)
        floats = FileLayout.planned(fields, plan_uniform(model.specs, _F32))
        fixed = floats.file_bytes - sum(padded(one.nbytes) for one in floats.tensors if one.source in options)
        weights = count_weights(specs.values())
        budget = self.size.file_bytes(weights)
        sizes = [[option.nbytes for option in choices] for choices in options.values()]
        smallest, largest = (fixed + sum(map(pick, sizes)) for pick in (min, max))
        if budget < smallest or _FILL_MIN * budget > largest:
            reason = (
                f"{budget:,} bytes cannot be met with the types for {{target}} {self.costs.target}: "
                f"the smallest file possible has {smallest:,} bytes ({8 * smallest / weights:.2f} bits per "
                f"weight), the largest {largest:,} ({8 * largest / weights:.2f})"
            )
            raise OptionError("size", reason, self.size.text)
        minimum = math.ceil(_FILL_MIN * budget) - fixed
        chosen = allocate_types(options, budget - fixed, minimum, PREFERENCES[self.prefer])
        types = {name: option.type for name, option in chosen.items()}
        layout = FileLayout.planned(
            fields, [plan_tensor(spec, types.get(spec.source, _F32)) for spec in model.specs]
        )
        measured = bool(model.importance and model.importance.sensitivity)
        loss, cost = (sum(getattr(option, part) for option in chosen.values()) for part in ("loss", "cost"))
        prediction = Prediction(
            budget_bytes=budget,
            file_bytes=layout.file_bytes,
            divergence=loss if measured else None,
            decode_speed=_reference_cost(specs, costs, tied=tied) / cost,
            target=costs.target,
            prefer=self.prefer,
            library=costs.library,
        )
        counted = cost if costs.library == self.costs.library else _GAIN_MIN * cost
        value = loss * counted ** PREFERENCES[self.prefer], counted
        return value, replace(layout, prediction=prediction)


def _with_costs(
    options: TypeOptions, specs: Mapping[str, TensorSpec], costs: CostTable, *, tied: bool
) -> TypeOptions:
    """The options with other costs, as far as these have their types."""
    changed = dict[str, list[TypeOption]]()
    for name, choices in options.items():
        by_type = costs.weight_costs(specs[name].target, tied=tied)
        changed[name] = [
            replace(one, cost=by_type[one.type.name] * prod(specs[name].shape))
            for one in choices
            if one.type.name in by_type
        ]
    return changed


def _reference_cost(specs: Mapping[str, TensorSpec], costs: CostTable, *, tied: bool) -> float:
    return sum(
        costs.weight_costs(spec.target, tied=tied)[REFERENCE] * prod(spec.shape)
        for spec in specs.values()
        if spec.is_matrix
    )
