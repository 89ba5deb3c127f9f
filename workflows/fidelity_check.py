"""Fidelity of a converted file to the model in high precision, measured right after its conversion.

The other models of the comparison are temporary files in the cache.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench.fidelity.fidelity import FidelityReport, run_fidelity
from ..bench.fidelity.model_roles import ModelFile, model_sources
from ..convert.adapter.export import export_adapter
from ..convert.pipeline import ConversionReport, convert
from ..convert.provenance import SourceIds
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import AdapterError, OutputError, ThirteenError
from ..files.gguf_header import read_header
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from .importance_cache import PRECISION

POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


@dataclass(frozen=True, slots=True)
class FidelityCheck:
    """Result of a fidelity check.

    Attributes:
        fidelity: comparison with the adapted model in high precision; None if it could not be measured.
        warnings: what could not be measured, and why.
    """

    fidelity: FidelityReport | None
    warnings: list[str]


def check_fidelity(  # noqa: PLR0913 - inputs of the conversion
    conversion: ConversionReport,
    base: Path,
    *,
    adapter: Path | None = None,
    vocabulary: VocabularyList | None = None,
    importance: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> FidelityCheck:
    """Measure what a converted file retains of the model and of the adapter, merged and at run time.

    The file itself is complete. A failure to measure it is a warning, not an error.

    Args:
        conversion: report of the conversion.
        base: the base that was converted.
        adapter: the adapter that was merged; without one, only the model's own loss is measured.
        vocabulary: the tokens that the file keeps; by default all.
        importance: the importance that the file was quantized with.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.
    """
    shipped, warnings = Path(conversion.output), list[str]()
    ids = SourceIds(conversion.base.id, conversion.adapter.id if conversion.adapter else "")
    try:
        with temporary_folder("fidelity") as folder:
            _check_space(folder, shipped, adapted=adapter is not None)

            def model(title: str, **options: Any) -> Path:
                target = folder / f"{title}.gguf"
                convert(base, target, ids=ids, threads=threads, progress=stage(title), **options)
                return target

            others: dict[str, Path | None] = {}
            reference = model(f"reference {PRECISION}", quantization=PRECISION, adapter=adapter)
            if adapter is not None:
                others["base"] = model(f"base {PRECISION}", quantization=PRECISION)
                others["shipped_base"] = model(
                    "base quantized alike", quantization=shipped, vocabulary=vocabulary, importance=importance
                )
                others["adapter"] = _export(adapter, base, vocabulary, folder / "adapter.gguf", ids, warnings)
            models = model_sources(reference, shipped, **others)
            report = run_fidelity(models, tokens=POSITIONS, threads=threads, progress=stage("fidelity"))
            return FidelityCheck(_shorten_paths(report, folder), warnings)
    except (ThirteenError, OSError) as error:
        return FidelityCheck(None, [f"fidelity was not measured: {error}"])


def _check_space(folder: Path, shipped: Path, *, adapted: bool) -> None:
    """Raise OutputError if the models do not fit on the disk; an exported adapter is negligible."""
    header = read_header(shipped)
    metadata_bytes = header.file_bytes - sum(tensor.nbytes for tensor in header.tensors.values())
    precise_bytes = 2 * header.weights + metadata_bytes  # in PRECISION
    needed = 2 * precise_bytes + header.file_bytes if adapted else precise_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder.parent}: needs {needed:,} bytes of scratch space, but {free:,} are free")


def _export(  # noqa: PLR0913, PLR0917 - inputs of the conversion
    adapter: Path,
    base: Path,
    vocabulary: VocabularyList | None,
    target: Path,
    ids: SourceIds,
    warnings: list[str],
) -> Path | None:
    """Export the adapter as a run-time LoRA; if it has no such form, add a warning and return None."""
    try:
        export_adapter(adapter, base, target, adapter_id=ids.adapter, base_id=ids.base, vocabulary=vocabulary)
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

    return replace(report, files=report.files.map(shorten_file))
