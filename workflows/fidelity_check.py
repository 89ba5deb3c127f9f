"""Fidelity of a converted file to the model in high precision, and an adapter's effect in both.

The models to compare with are temporary files in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench.fidelity.adapter_effect import AdapterEffect
from ..bench.fidelity.fidelity import FidelityReport, run_fidelity
from ..bench.fidelity.kl_divergence import Divergence
from ..bench.fidelity.model_roles import ModelSource, Role, model_sources
from ..bench.harness.model_file import ModelFile
from ..convert.adapter.export import export_adapter
from ..convert.pipeline import ConversionReport, convert
from ..errors import AdapterError
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from .conversion_inputs import ConversionInputs
from .importance_cache import PRECISION

POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


@dataclass(frozen=True, slots=True)
class UnquantizedEffect:
    """Effect of an adapter on the model in high precision.

    Attributes:
        positions: number of predictions compared.
        moved: the adapted model against the base.
        agreement: effect of the adapter at run time against that of the merged one; None if it has no form
            for run time, or the merged one has no effect.
    """

    positions: int
    moved: Divergence
    agreement: AdapterEffect | None


@dataclass(frozen=True, slots=True)
class FidelityCheck:
    """Result of a fidelity check.

    Attributes:
        fidelity: what the file retains of the model and of the adapter, merged and at run time.
        effect: the adapter's effect before quantization; None unless it was asked for.
        warnings: what could not be measured, and why.
    """

    fidelity: FidelityReport
    effect: UnquantizedEffect | None
    warnings: list[str]


def check_fidelity(
    conversion: ConversionReport,
    inputs: ConversionInputs,
    *,
    positions: int = POSITIONS,
    unquantized: bool = False,
    stage: Stage = lambda name: no_progress,
) -> FidelityCheck:
    """Measure what a converted file retains of the model and of its adapter, if it has one.

    Args:
        conversion: report of the conversion.
        inputs: what the file was made from.
        positions: maximum number of compared predictions.
        unquantized: also measure the adapter's effect before quantization.
        stage: makes the progress callback of each stage.

    Raises:
        OutputError: the temporary files do not fit on the disk.
        ThirteenError: an input is invalid, or a model's logits are not finite.
    """
    settings: dict[str, Any] = {"tokens": positions, "threads": inputs.request.threads}
    with comparison_models(conversion, inputs, stage) as (models, warnings):
        effect = _unquantized_effect(models, settings, stage) if unquantized else None
        fidelity = run_fidelity(models, progress=stage("fidelity"), **settings)
        folder = models["reference"].model.parent
        return FidelityCheck(_shorten_paths(fidelity, folder), effect, warnings)


def _unquantized_effect(
    models: dict[Role, ModelSource], settings: dict[str, Any], stage: Stage
) -> UnquantizedEffect:
    base, reference = models["base"], models["reference"]  # made where there is an adapter
    lora = models["run_time"].adapter if "run_time" in models else None
    adapted = ModelSource(base.model, lora) if lora else reference
    moved = run_fidelity({"reference": base, "shipped": adapted}, progress=stage("effect"), **settings)
    agreement = None
    if lora:
        both: dict[Role, ModelSource] = {
            "reference": reference,
            "shipped": adapted,
            "base": base,
            "shipped_base": base,
        }
        agreement = run_fidelity(both, progress=stage("merged and at run time"), **settings).merged.effect
    return UnquantizedEffect(moved.positions, moved.merged.divergence, agreement)


@contextmanager
def comparison_models(
    conversion: ConversionReport, inputs: ConversionInputs, stage: Stage = lambda name: no_progress
) -> Iterator[tuple[dict[Role, ModelSource], list[str]]]:
    """Make the models that a converted file is compared with; they are removed at the end of the block.

    Yields:
        The files by role, all but the converted one in one temporary folder; and what cannot be compared, and
        why.
    """
    shipped, ids = Path(conversion.output), inputs.request.ids
    with temporary_folder("fidelity") as folder:

        def model(title: str, **options: Any) -> Path:
            target = folder / f"{title}.gguf"
            threads, progress = inputs.request.threads, stage(title)
            convert(inputs.base, target, ids=ids, threads=threads, progress=progress, **options)
            return target

        others, warnings = dict[str, Path | None](), list[str]()
        reference = model(f"reference {PRECISION}", quantization=PRECISION, adapter=inputs.adapter)
        if inputs.adapter is not None:
            others["base"] = model(f"base {PRECISION}", quantization=PRECISION)
            others["shipped_base"] = model(
                "base quantized alike",
                quantization=shipped,
                vocabulary=inputs.vocabulary,
                importance=inputs.importance,
                search_scales=inputs.request.search_scales,
            )
            others["adapter"] = _export(inputs.adapter, inputs, folder / "adapter.gguf", warnings)
        yield model_sources(reference, shipped, **others), warnings


def _export(adapter: Path, inputs: ConversionInputs, target: Path, warnings: list[str]) -> Path | None:
    """Export the adapter as a run-time LoRA; if it has no such form, add a warning and return None."""
    ids, kept = inputs.request.ids, inputs.vocabulary
    try:
        export_adapter(
            adapter, inputs.base, target, adapter_id=ids.adapter, base_id=ids.base, vocabulary=kept
        )
    except AdapterError as error:
        warnings.append(f"the adapter at run time was not measured: {error}")
        return None
    return target


def _shorten_paths(report: FidelityReport, folder: Path) -> FidelityReport:
    """Replace the paths of temporary files in `folder` by their names."""

    def shorten(path: str) -> str:
        return Path(path).name if Path(path).parent == folder else path

    def shorten_file(file: ModelFile) -> ModelFile:
        adapter = file.adapter and replace(file.adapter, path=shorten(file.adapter.path))
        return replace(file, path=shorten(file.path), adapter=adapter)

    return replace(report, files={role: shorten_file(file) for role, file in report.files.items()})
