"""Fidelity of a converted file to the model in high precision, measured right after its conversion."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..bench.fidelity.fidelity import FidelityReport, run_fidelity
from ..bench.fidelity.model_roles import ModelFile
from ..convert.pipeline import ConversionReport
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import ThirteenError
from ..files.progress import Stage, no_progress
from .comparison_models import comparison_models

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
    try:
        with comparison_models(
            conversion,
            base,
            adapter=adapter,
            vocabulary=vocabulary,
            importance=importance,
            threads=threads,
            stage=stage,
        ) as models:
            report = run_fidelity(
                models.sources, tokens=POSITIONS, threads=threads, progress=stage("fidelity")
            )
            return FidelityCheck(_shorten_paths(report, models.folder), models.warnings)
    except (ThirteenError, OSError) as error:
        return FidelityCheck(None, [f"fidelity was not measured: {error}"])


def _shorten_paths(report: FidelityReport, folder: Path) -> FidelityReport:
    """Replace the paths of temporary files in `folder` by their names."""

    def shorten(path: str) -> str:
        return Path(path).name if Path(path).parent == folder else path

    def shorten_file(file: ModelFile) -> ModelFile:
        adapter = file.adapter and replace(file.adapter, path=shorten(file.adapter.path))
        return replace(file, path=shorten(file.path), adapter=adapter)

    return replace(report, files=report.files.map(shorten_file))
