"""Plans of whole files of a given size: what each type costs each matrix, and the choice among them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gguf import GGMLQuantizationType

from ..errors import OutputError
from ..files.progress import Progress, no_progress
from ..files.worker_pool import worker_pool
from .merged_model import MergedModel
from .quantize.knapsack import TypeOptions
from .quantize.size_planner import Prediction, SizeTarget, measure_all_types, plan_for_size
from .source.architecture import EMBEDDING, OUTPUT, ROPE_FACTORS
from .source.checkpoint import Checkpoint, open_checkpoint
from .tensors import TensorPlan, TensorSpec, padded, plan_uniform
from .vocabulary.vocabulary_list import VocabularyList
from .write import header_size


def plan_for_file_size(
    model: MergedModel, target: SizeTarget, pool: ThreadPoolExecutor, progress: Progress
) -> tuple[list[TensorPlan], Prediction]:
    """Plan a file of a given size.

    Args:
        model: the model to write, with the importance of its matrices.
        target: the size, and what the plan aims for.
        pool: threads that measure.
        progress: called with the matrices measured and in all.

    Raises:
        OutputError: the model has no importance, or the size cannot be met.
    """
    if model.importance is None:
        raise OutputError(f"--size {target.size.text}: needs an importance file")
    if not model.importance.sensitivity:
        model.warnings.append(
            f"{model.importance.path}: has no sensitivities: an error counts relative to its matrix's output"
        )
    options = measure_all_types(model.base.specs, model.rows, model.importance, target.costs, pool, progress)
    return _plan_with(model, target, options)


def _plan_with(
    model: MergedModel, target: SizeTarget, options: TypeOptions
) -> tuple[list[TensorPlan], Prediction]:
    """Plan a file by what its types cost each matrix."""
    base, importance = model.base, model.importance
    unquantized = plan_uniform(file_specs(base), GGMLQuantizationType.F32)
    rope_factors = unquantized[len(base.specs) :]
    overhead = header_size(base.architecture.name, model.metadata(target.text), unquantized)
    overhead += sum(padded(plan.nbytes) for plan in rope_factors)
    measured = importance is not None and bool(importance.sensitivity)
    tensors, prediction = plan_for_size(base.specs, options, target, overhead, measured=measured)
    return [*tensors, *rope_factors], prediction


def file_specs(base: Checkpoint) -> list[TensorSpec]:
    """List the tensors of the file: those of the checkpoint, then the RoPE factors if the model has any."""
    specs, factors = list(base.specs.values()), base.rope_factors
    return specs if factors is None else [*specs, TensorSpec(ROPE_FACTORS, ROPE_FACTORS, factors.shape)]


def predict_vocabularies(  # noqa: PLR0913 - inputs of several plans
    base: Path,
    target: SizeTarget,
    importance: Path,
    vocabularies: Sequence[VocabularyList | None],
    *,
    adapter: Path | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> list[float | None]:
    """Predict the loss of files of one size that keep different tokens.

    What the types cost the matrices without a row for each token is measured once.

    Args:
        base: see convert().
        target: the size, in bytes.
        importance: see convert().
        vocabularies: the tokens that each file keeps, the fewest first; None for all.
        adapter: see convert().
        threads: see convert().
        progress: called with the matrices measured and in all.

    Returns:
        The predicted KL divergence of each file in nats; None where no plan has the size, or where the
        importance file has no sensitivities.

    Raises:
        OutputError: no file can have the size.
        ThirteenError: an input is invalid.
    """
    full = MergedModel(open_checkpoint(base), adapter, importance=importance)
    specs = full.base.specs
    by_token = [name for name, spec in specs.items() if spec.target in (EMBEDDING, OUTPUT)]
    shared = {name: spec for name, spec in specs.items() if name not in by_token}
    losses, failures = list[float | None](), list[OutputError]()
    with worker_pool(threads) as pool:

        def measured(model: MergedModel, specs: Mapping[str, TensorSpec], progress: Progress) -> TypeOptions:
            assert model.importance is not None, "it was given"
            return measure_all_types(specs, model.rows, model.importance, target.costs, pool, progress)

        types = measured(full, specs, progress)
        for vocabulary in vocabularies:
            if vocabulary is None:
                model, changed = full, types
            else:
                model = full.trimmed(vocabulary)
                own = {name: model.base.specs[name] for name in by_token}
                changed = measured(model, own, no_progress)
            options = {name: (types if name in shared else changed)[name] for name in types}
            try:
                _, prediction = _plan_with(model, target, options)
            except OutputError as failure:  # this vocabulary cannot have the size
                losses.append(None)
                failures.append(failure)
            else:
                losses.append(prediction.divergence)
    if len(failures) == len(vocabularies):
        # Fewer tokens allow the smallest file, and all tokens the largest.
        largest = sum(max(option.nbytes for option in choices) for choices in types.values())
        raise failures[-1 if target.size.file_bytes(0) > largest else 0]
    return losses
