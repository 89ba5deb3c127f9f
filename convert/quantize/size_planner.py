"""A file of a given size: which type each tensor gets, and what that is predicted to come to."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from math import prod

from gguf import GGMLQuantizationType

from ...errors import OutputError
from ..source.architecture import OUTPUT
from ..tensors import ALIGNMENT, TensorPlan, TensorSpec, plan_tensor
from .costs import REFERENCE, CostTable
from .file_size import FileSize
from .gptq import FeedbackCache
from .importance import Importance
from .plan import TypeOptions, allocate_types
from .quant_error import RowSource, measure_types

PREFERENCES = {"quality": 0.0, "balanced": 2.0, "speed": 8.0}  # percent of loss for a percent of decode time
FILL = 0.985  # of the size asked for, which a file uses at least where its types allow it

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SizeTarget:
    """What the file shall be.

    Attributes:
        size: at most.
        prefer: one of PREFERENCES.
        costs: which types are to be used, and what they cost in decode.
    """

    size: FileSize
    prefer: str
    costs: CostTable


@dataclass(frozen=True)
class Prediction:
    """What a plan is predicted to come to.

    Attributes:
        budget_bytes: the size asked for.
        file_bytes: the file's size, metadata included; it will be exactly that.
        divergence: KL divergence from the unquantized model in nats; None where no sensitivity was measured.
        decode_speed: beside the same model with all matrices in Q4_K, by the cost table.
        target: the kind of processor that the costs are for.
        prefer: what was preferred.
    """

    budget_bytes: int
    file_bytes: int
    divergence: float | None
    decode_speed: float
    target: str
    prefer: str


def measure_all_types(  # noqa: PLR0913, PLR0917 - what it takes to measure
    specs: Mapping[str, TensorSpec],
    weights: RowSource,
    importance: Importance,
    costs: CostTable,
    pool: Executor,
    progress: Progress,
) -> TypeOptions:
    """The options of every matrix, by its name in the checkpoint; see loss.measure()."""
    matrices = [spec for spec in specs.values() if len(spec.shape) == 2]
    tied, feedbacks = _tied(specs), FeedbackCache(importance)
    found = {}
    for spec, following in zip(matrices, [*matrices[1:], None], strict=True):
        if following:  # while another thread measures this one
            pool.submit(feedbacks.of, following.target)
        found[spec.source] = pool.submit(
            measure_types, spec, weights, importance, feedbacks, costs, tied=tied
        )
    options = {}
    for done, (source, of) in enumerate(found.items(), 1):
        options[source] = of.result()
        progress(done, len(matrices))
    return options


def plan_for_size(
    specs: Mapping[str, TensorSpec], options: TypeOptions, wish: SizeTarget, overhead: int, *, measured: bool
) -> tuple[list[TensorPlan], Prediction]:
    """Choose the types.

    Args:
        specs: the model's tensors.
        options: of each matrix.
        wish: what is asked for.
        overhead: bytes of the file besides the tensors in `specs`.
        measured: whether losses are in nats.

    Raises:
        OutputError: no choice is that small, or that large; the message names the smallest and the largest.
    """
    vectors = {
        spec.source: plan_tensor(spec, GGMLQuantizationType.F32)
        for spec in specs.values()
        if len(spec.shape) == 1
    }
    fixed = overhead + sum(-(-plan.nbytes // ALIGNMENT) * ALIGNMENT for plan in vectors.values())
    weights = sum(prod(spec.shape) for spec in specs.values())
    budget = wish.size.file_bytes(weights)
    least, most = (fixed + sum(pick(o.nbytes for o in of) for of in options.values()) for pick in (min, max))
    if budget < least or FILL * budget > most:
        raise OutputError(
            f"--size {wish.size.text}: {budget:,} bytes cannot be met with {wish.costs.target} types: "
            f"the smallest file possible has {least:,} bytes ({8 * least / weights:.2f} bits a weight), "
            f"the largest {most:,} ({8 * most / weights:.2f})"
        )
    eagerness = PREFERENCES[wish.prefer]
    chosen = allocate_types(options, budget - fixed, math.ceil(FILL * budget) - fixed, eagerness)
    plans = [
        vectors[name] if name in vectors else plan_tensor(spec, chosen[name].type)
        for name, spec in specs.items()
    ]
    reference = sum(
        wish.costs.of(spec.target, tied=_tied(specs))[REFERENCE] * prod(spec.shape)
        for spec in specs.values()
        if len(spec.shape) == 2
    )
    return plans, Prediction(
        budget_bytes=budget,
        file_bytes=fixed + sum(option.nbytes for option in chosen.values()),
        divergence=sum(option.loss for option in chosen.values()) if measured else None,
        decode_speed=reference / sum(option.cost for option in chosen.values()),
        target=wish.costs.target,
        prefer=wish.prefer,
    )


def _tied(specs: Mapping[str, TensorSpec]) -> bool:
    """Whether the token embedding is the output matrix as well."""
    return all(spec.target != OUTPUT for spec in specs.values())
