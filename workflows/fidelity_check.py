"""Fidelity of a converted file to the model in high precision.

The models to compare with are temporary files in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..convert.adapter.export import export_adapter
from ..convert.convert import convert
from ..convert.quantization import Like, Uniform
from ..convert.recipe import Recipe
from ..errors import FileError
from ..files.progress import QUIET, Run
from ..files.temporary_folder import temporary_folder
from ..quality.environment import ModelFile
from ..quality.fidelity.fidelity import FidelityReport, run_fidelity
from ..quality.fidelity.model_roles import ModelSource, Role, model_sources
from .importance_cache import PRECISION

POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


def check_fidelity(recipe: Recipe, run: Run = QUIET) -> tuple[FidelityReport, list[str]]:
    """Measure what a converted file retains of the model and of its adapter, if it has one.

    Args:
        recipe: what the file was made from.
        run: how it runs.

    Returns:
        The report, and what could not be measured, and why.

    Raises:
        OutputError: the temporary files do not fit on the disk.
        ThirteenError: an input is invalid, or a model's logits are not finite.
    """
    with comparison_models(recipe, run) as (models, warnings):
        progress = run.stage("fidelity")
        fidelity = run_fidelity(models, tokens=POSITIONS, threads=run.threads, progress=progress)
        return _shorten_paths(fidelity, models["reference"].model.parent), warnings


@contextmanager
def comparison_models(
    recipe: Recipe, run: Run = QUIET
) -> Iterator[tuple[dict[Role, ModelSource], list[str]]]:
    """Make the models that a converted file is compared with; they are removed at the end of the block.

    Yields:
        The files by role, all but the converted one in one temporary folder; and what cannot be compared, and
        why.
    """
    shipped, precise = recipe.output, Recipe(recipe.base, quantization=Uniform(PRECISION), ids=recipe.ids)
    assert shipped is not None, "it was converted"
    with temporary_folder("fidelity") as folder:

        def made(title: str, other: Recipe) -> Path:
            convert(replace(other, output=folder / f"{title}.gguf"), run, title)
            return folder / f"{title}.gguf"

        others, warnings = dict[str, Path | None](), list[str]()
        reference = made(f"reference {PRECISION}", replace(precise, adapter=recipe.adapter))
        if recipe.adapter is not None:
            others["base"] = made(f"base {PRECISION}", precise)
            alike = replace(recipe, adapter=None, quantization=Like(shipped))
            others["shipped_base"] = made("base quantized alike", alike)
            others["adapter"] = _export(recipe.adapter, recipe, folder / "adapter.gguf", warnings)
        yield model_sources(reference, shipped, **others), warnings


def _export(adapter: Path, recipe: Recipe, target: Path, warnings: list[str]) -> Path | None:
    """Export the adapter as a run-time LoRA; if it has no such form, add a warning and return None."""
    try:
        export_adapter(adapter, recipe.base, target, ids=recipe.ids, vocabulary=recipe.vocabulary)
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
