"""A conversion, and the fidelity of its file to the model in high precision.

The models to compare with are temporary files in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...convert.convert import ConversionReport, convert
from ...convert.recipe import Like, Recipe, Uniform
from ...errors import ThirteenError
from ...files.cache_folder import temporary_folder
from ...files.progress import QUIET, Run
from ...models.conversion import Conversion
from ..environment import ModelSource
from .comparison import Role
from .fidelity import FidelityReport, run_fidelity

# BF16 would round a small adapter away; F16 has three bits more of mantissa.
PRECISION = "F16"
POSITIONS = 1024  # about ten texts; with fewer texts, the intervals would be too narrow


@dataclass(frozen=True)
class ConversionResult:
    """A converted file.

    Attributes:
        conversion: report of the conversion.
        fidelity: how near the file is to the model in high precision; None if that was not measured.
        warnings: messages for the user.
    """

    conversion: ConversionReport
    fidelity: FidelityReport | None
    warnings: list[str]


def run_conversion(conversion: Conversion, run: Run = QUIET) -> ConversionResult:
    """Merge an adapter into a base, quantize the result, write it as a GGUF and compare it with F16.

    A failure of the comparison is a warning, not an error: the file is complete.

    Args:
        conversion: what to convert; its recipe has an output.
        run: how it runs.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    recipe = conversion.measured(run)
    report, fidelity = convert(recipe, run), None
    warnings = list(report.warnings)
    if conversion.compared:
        try:
            fidelity = _check_fidelity(recipe, run)
        except (ThirteenError, OSError) as error:
            warnings.append(f"fidelity was not measured: {error}")
    return ConversionResult(report, fidelity, warnings)


def _check_fidelity(recipe: Recipe, run: Run) -> FidelityReport:
    """Measure what a converted file retains of the model and of its adapter, if it has one."""
    with _comparison_models(recipe, run) as models:
        progress = run.stage("fidelity")
        report = run_fidelity(models, tokens=POSITIONS, threads=run.threads, progress=progress)
    temporary = {role: getattr(report, role) for role in models if role != "shipped"}
    named = {role: replace(file, path=Path(file.path).name) for role, file in temporary.items()}
    return replace(report, **named)


@contextmanager
def _comparison_models(recipe: Recipe, run: Run) -> Iterator[dict[Role, ModelSource]]:
    """Make the models that a converted file is compared with, in one temporary folder."""
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
