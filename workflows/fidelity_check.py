"""Fidelity of a converted file to the model in high precision.

The models to compare with are temporary files in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..convert.adapter.export import export_adapter
from ..convert.pipeline import ConversionReport, convert
from ..errors import FileError
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from ..quality.fidelity.fidelity import FidelityReport, run_fidelity
from ..quality.fidelity.model_roles import ModelSource, Role, model_sources
from ..quality.model_file import ModelFile
from .conversion_inputs import ConversionInputs
from .importance_cache import PRECISION

POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


def check_fidelity(
    conversion: ConversionReport, inputs: ConversionInputs, stage: Stage = lambda name: no_progress
) -> tuple[FidelityReport, list[str]]:
    """Measure what a converted file retains of the model and of its adapter, if it has one.

    Args:
        conversion: report of the conversion.
        inputs: what the file was made from.
        stage: makes the progress callback of each stage.

    Returns:
        The report, and what could not be measured, and why.

    Raises:
        OutputError: the temporary files do not fit on the disk.
        ThirteenError: an input is invalid, or a model's logits are not finite.
    """
    with comparison_models(conversion, inputs, stage) as (models, warnings):
        threads, progress = inputs.request.threads, stage("fidelity")
        fidelity = run_fidelity(models, tokens=POSITIONS, threads=threads, progress=progress)
        return _shorten_paths(fidelity, models["reference"].model.parent), warnings


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
    except FileError as error:
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
