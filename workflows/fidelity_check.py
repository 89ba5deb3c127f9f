"""Fidelity of a converted file to the model in high precision.

The models to compare with are temporary files in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..bench.environment import ModelFile, ModelSource
from ..bench.fidelity.fidelity import Role, run_fidelity
from ..bench.fidelity.fidelity_report import FidelityReport
from ..convert.convert import convert
from ..convert.quantization import Like, Uniform
from ..convert.recipe import Recipe
from ..files.progress import QUIET, Run
from ..files.temporary_folder import temporary_folder
from .importance_cache import PRECISION

POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


def check_fidelity(recipe: Recipe, run: Run = QUIET) -> FidelityReport:
    """Measure what a converted file retains of the model and of its adapter, if it has one.

    Args:
        recipe: what the file was made from.
        run: how it runs.

    Raises:
        OutputError: the temporary files do not fit on the disk.
        ThirteenError: an input is invalid, or a model's logits are not finite.
    """
    with comparison_models(recipe, run) as models:
        progress = run.stage("fidelity")
        fidelity = run_fidelity(models, tokens=POSITIONS, threads=run.threads, progress=progress)
        return _shorten_paths(fidelity, models["reference"].model.parent)


@contextmanager
def comparison_models(recipe: Recipe, run: Run = QUIET) -> Iterator[dict[Role, ModelSource]]:
    """Make the models that a converted file is compared with; they are removed at the end of the block.

    Yields:
        The files by role, all but the converted one in one temporary folder.
    """
    shipped, precise = recipe.output, Recipe(recipe.base, quantization=Uniform(PRECISION), ids=recipe.ids)
    assert shipped is not None, "it was converted"
    with temporary_folder("fidelity") as folder:

        def made(title: str, other: Recipe) -> ModelSource:
            convert(replace(other, output=folder / f"{title}.gguf"), run, title)
            return ModelSource(folder / f"{title}.gguf")

        reference = made(f"reference {PRECISION}", replace(precise, adapter=recipe.adapter))
        models: dict[Role, ModelSource] = {"reference": reference, "shipped": ModelSource(shipped)}
        if recipe.adapter is not None:
            models["base"] = made(f"base {PRECISION}", precise)
            alike = replace(recipe, adapter=None, quantization=Like(shipped))
            models["shipped_base"] = made("base quantized alike", alike)
        yield models


def _shorten_paths(report: FidelityReport, folder: Path) -> FidelityReport:
    """Replace the paths of temporary files in `folder` by their names."""

    def shorten(file: ModelFile) -> ModelFile:
        path = Path(file.path)
        return replace(file, path=path.name) if path.parent == folder else file

    return replace(
        report,
        reference=shorten(report.reference),
        base=report.base and shorten(report.base),
        shipped_base=report.shipped_base and shorten(report.shipped_base),
    )
