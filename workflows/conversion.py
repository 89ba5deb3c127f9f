"""A conversion from a request to a measured file."""

from dataclasses import dataclass
from pathlib import Path

from ..convert.merged_checkpoint import MergeReport, merge_checkpoint
from ..convert.pipeline import ConversionPlan, ConversionReport, plan_conversion
from ..convert.quantize.size_planner import SizeTarget
from ..errors import RequestError, ThirteenError
from ..files.output import check_empty
from ..files.progress import Run, Stage, no_progress
from ..models.resolve import resolve_sources
from ..quality.fidelity.fidelity import FidelityReport
from .conversion_inputs import ConversionRequest, resolve_inputs
from .fidelity_check import check_fidelity
from .vocabulary.vocabulary_size import SizeLoss

__all__ = ["ConversionRequest", "ConversionResult", "run_conversion", "run_merge", "run_plan"]


@dataclass(frozen=True)
class ConversionResult:
    """A converted file.

    Attributes:
        conversion: report of the conversion.
        fidelity: how near the file is to the model in high precision; None if that was not measured.
        losses: see ConversionInputs.
        warnings: messages for the user.
    """

    conversion: ConversionReport
    fidelity: FidelityReport | None
    losses: tuple[SizeLoss, ...]
    warnings: list[str]


def run_conversion(request: ConversionRequest, stage: Stage = lambda name: no_progress) -> ConversionResult:
    """Merge an adapter into a base, quantize the result, write it as a GGUF and compare it with F16.

    A failure of the comparison is a warning, not an error: the file is complete.

    Args:
        request: what to convert; `output` is required.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    if request.output is None:
        raise RequestError("a conversion needs an output")
    inputs = resolve_inputs(request, stage)
    conversion = inputs.convert(request.output, stage("convert"))
    warnings, fidelity = list(conversion.warnings), None
    if inputs.adapter is not None if request.fidelity is None else request.fidelity:
        try:
            fidelity, missing = check_fidelity(conversion, inputs, stage)
            warnings += missing
        except (ThirteenError, OSError) as error:
            warnings.append(f"fidelity was not measured: {error}")
    return ConversionResult(conversion, fidelity, inputs.losses, warnings)


def run_plan(
    request: ConversionRequest, stage: Stage = lambda name: no_progress
) -> tuple[ConversionPlan, tuple[SizeLoss, ...]]:
    """Plan a file of a given size without writing it.

    Args:
        request: what to convert; `size` is required.
        stage: makes the progress callback of each stage.

    Returns:
        The plan, and what the file is predicted to lose by number of tokens; see ConversionInputs.

    Raises:
        ThirteenError: an input is invalid, or the size cannot be met.
    """
    inputs = resolve_inputs(request, stage)
    if not isinstance(inputs.quantization, SizeTarget) or inputs.importance is None:
        raise RequestError("a plan needs a size")
    plan = plan_conversion(
        inputs.base,
        inputs.quantization,
        inputs.importance,
        adapter=inputs.adapter,
        vocabulary=inputs.vocabulary,
        search_scales=request.search_scales,
        ids=request.ids,
        threads=request.threads,
        progress=stage("plan"),
    )
    return plan, inputs.losses


def run_merge(
    request: ConversionRequest, output: Path, stage: Stage = lambda name: no_progress
) -> MergeReport:
    """Merge an adapter into a base, and write a folder of safetensors.

    Args:
        request: what to merge: `base` and `adapter`.
        output: a folder that does not exist or is empty.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    request.check()
    check_empty(output)
    found = resolve_sources(request.base, request.adapter, Run(stage=stage))
    assert found.adapter is not None, "a merge has one"
    return merge_checkpoint(found.base, found.adapter, output, ids=found.ids, progress=stage("merge"))
