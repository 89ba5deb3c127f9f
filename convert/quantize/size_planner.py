"""Plan of a file of a given size: the type of each tensor, and the predicted loss and speed."""

import math
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from math import prod

from gguf import GGMLQuantizationType

from ...errors import OutputError
from ...files.progress import Progress
from ..source.architecture import EMBEDDING, OUTPUT
from ..tensors import TensorPlan, TensorSpec, count_weights, padded, plan_tensor
from ..vocabulary.vocabulary_list import SIZES as VOCABULARY_SIZES
from .costs import REFERENCE, CostTable
from .error_feedback import FeedbackCache
from .file_size import FileSize
from .importance import Importance
from .knapsack import TypeOptions, allocate_types
from .quant_error import ReadRows, measure_types

# Percent of loss that one percent of decode time is worth.
PREFERENCES = {"quality": 0.0, None: 2.0, "speed": 8.0}
_FILL_MIN = 0.985  # share of the requested size that a file uses, if its types allow it


@dataclass(frozen=True)
class SizeTarget:
    """What a plan aims for.

    Attributes:
        size: the maximum file size.
        prefer: "quality" or "speed"; None for between the two.
        costs: the types that may be used, and their decode costs.
    """

    size: FileSize
    prefer: str | None
    costs: CostTable

    @property
    def text(self) -> str:
        """The target as a file of its size records it in its metadata."""
        return ", ".join(filter(None, (self.size.text, self.prefer, self.costs.target)))


@dataclass(frozen=True)
class Prediction:
    """Predicted properties of a planned file.

    Attributes:
        budget_bytes: the requested size.
        file_bytes: the exact size of the file, metadata included.
        divergence: KL divergence from the unquantized model in nats; None without measured sensitivities.
        decode_speed: relative to the same model with all matrices in Q4_K, by the cost table; of whole
            answers, if the costs include their prompts.
        target: the kind of processor that the costs are for.
        prefer: see SizeTarget.
    """

    budget_bytes: int
    file_bytes: int
    divergence: float | None
    decode_speed: float
    target: str
    prefer: str | None


def measure_all_types(  # noqa: PLR0913, PLR0917 - the model, its statistics and the costs
    specs: Mapping[str, TensorSpec],
    read_rows: ReadRows,
    importance: Importance,
    costs: CostTable,
    pool: Executor,
    progress: Progress,
) -> TypeOptions:
    """Predict the loss of every matrix in each type it may have, by its name in the checkpoint.

    See quant_error.measure_types().
    """
    matrices = [spec for spec in specs.values() if len(spec.shape) == 2]
    tied, feedbacks = _tied(specs), FeedbackCache(importance)
    futures = {}
    for spec, following in zip(matrices, [*matrices[1:], None], strict=True):
        if following:  # its feedback is computed while another thread measures this matrix
            pool.submit(feedbacks.get, following.target)
        futures[spec.source] = pool.submit(
            measure_types, spec, read_rows, importance, feedbacks, costs, tied=tied
        )
    options = {}
    for done, (source, future) in enumerate(futures.items(), 1):
        options[source] = future.result()
        progress(done, len(matrices))
    return options


def plan_for_size(
    specs: Mapping[str, TensorSpec],
    options: TypeOptions,
    target: SizeTarget,
    overhead: int,
    *,
    measured: bool,
) -> tuple[list[TensorPlan], Prediction]:
    """Choose the type of every tensor.

    Args:
        specs: the model's tensors.
        options: the options of each matrix.
        target: what the plan aims for.
        overhead: bytes of the file that are not tensors in `specs`.
        measured: whether the losses are in nats.

    Raises:
        OutputError: no choice is that small, or that large; the message gives the smallest and the largest
            size.
    """
    vectors = [plan_tensor(spec, GGMLQuantizationType.F32) for spec in specs.values() if len(spec.shape) == 1]
    fixed = overhead + sum(padded(plan.nbytes) for plan in vectors)
    budget = target.size.file_bytes(count_weights(specs.values()))
    _check_reachable(target, budget, fixed, specs, options)
    minimum, speed_weight = math.ceil(_FILL_MIN * budget) - fixed, PREFERENCES[target.prefer]
    chosen = allocate_types(options, budget - fixed, minimum, speed_weight)
    types = {name: option.type for name, option in chosen.items()}
    plans = [plan_tensor(spec, types.get(name, GGMLQuantizationType.F32)) for name, spec in specs.items()]
    return plans, Prediction(
        budget_bytes=budget,
        file_bytes=fixed + sum(option.nbytes for option in chosen.values()),
        divergence=sum(option.loss for option in chosen.values()) if measured else None,
        decode_speed=_reference_cost(specs, target.costs) / sum(option.cost for option in chosen.values()),
        target=target.costs.target,
        prefer=target.prefer,
    )


def _check_reachable(
    target: SizeTarget, budget: int, fixed: int, specs: Mapping[str, TensorSpec], options: TypeOptions
) -> None:
    sizes = [[option.nbytes for option in choices] for choices in options.values()]
    smallest, largest = (fixed + sum(map(pick, sizes)) for pick in (min, max))
    weights = count_weights(specs.values())
    if budget < smallest or _FILL_MIN * budget > largest:
        short = budget < smallest and target.size.unit
        hint = _vocabulary_hint(specs, options, smallest - budget) if short else ""
        raise OutputError(
            f"--size {target.size.text}: {budget:,} bytes cannot be met with the types for "
            f"--target {target.costs.target}: "
            f"the smallest file possible has {smallest:,} bytes ({8 * smallest / weights:.2f} bits per "
            f"weight), the largest {largest:,} ({8 * largest / weights:.2f}){hint}"
        )


def _vocabulary_hint(specs: Mapping[str, TensorSpec], options: TypeOptions, excess: int) -> str:
    """How many tokens leave room for a size that is `excess` bytes too small for all of them."""
    rows = {name: spec.shape[0] for name, spec in specs.items() if spec.target in (EMBEDDING, OUTPUT)}
    token_bytes = sum(min(option.nbytes for option in options[name]) / rows[name] for name in rows)
    vocabulary = max(rows.values())
    kept = [size for size in VOCABULARY_SIZES if size < vocabulary - excess / token_bytes]
    return f"; a vocabulary of {kept[-1]:,} tokens makes it possible: --vocabulary {kept[-1]}" if kept else ""


def _reference_cost(specs: Mapping[str, TensorSpec], costs: CostTable) -> float:
    """Decode cost with all matrices in the reference type."""
    tied = _tied(specs)
    return sum(
        costs.weight_costs(spec.target, tied=tied)[REFERENCE] * prod(spec.shape)
        for spec in specs.values()
        if len(spec.shape) == 2
    )


def _tied(specs: Mapping[str, TensorSpec]) -> bool:
    """Whether the token embedding is also the output matrix."""
    return all(spec.target != OUTPUT for spec in specs.values())
