"""A conversion whose names are resolved: what is missing is measured, the file is written and compared."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..bench.fidelity.fidelity_report import FidelityReport
from ..convert.convert import ConversionReport, convert, plan
from ..convert.layout import FileLayout
from ..convert.recipe import Recipe
from ..errors import ThirteenError
from ..files.progress import QUIET, Run
from .fidelity_check import check_fidelity
from .importance_cache import Calibration, cached_importance, measure_importance
from .vocabulary.vocabulary_choice import choose_vocabulary
from .vocabulary.vocabulary_size import SizeLoss, choose_vocabulary_size

AUTO = "auto"  # as many tokens as lose the least


@dataclass(frozen=True)
class Conversion:
    """A recipe, and what is measured for it.

    Attributes:
        recipe: what the file is made from, as far as nothing is measured for it.
        calibration: what its importance is measured on; None if that is given, or not needed.
        tokens: the number of tokens to choose, or AUTO; None to choose none.
        texts: passages of one's own to choose them on.
        compared: whether the file is compared with F16.
    """

    recipe: Recipe
    calibration: Calibration | None = None
    tokens: str | None = None
    texts: Path | None = None
    compared: bool = False

    def measured(self, run: Run = QUIET) -> tuple[Recipe, tuple[SizeLoss, ...]]:
        """Measure the importance, and choose the tokens.

        Returns:
            The recipe, and what its file is predicted to lose; see ConversionResult.

        Raises:
            ThirteenError: an input is invalid.
        """
        recipe, base = self.recipe, self.recipe.open_base()
        if self.tokens is not None and self.tokens != AUTO:
            kept = choose_vocabulary(base, int(self.tokens), self.texts, run)
            recipe = replace(recipe, vocabulary=kept)
        if self.calibration:
            if recipe.importance:
                measure_importance(base, recipe.adapter, recipe.importance, self.calibration, run)
            else:
                importance = cached_importance(base, recipe.adapter, self.calibration, run)
                recipe = replace(recipe, importance=importance)
        if self.tokens != AUTO:
            return recipe, ()
        best, losses = choose_vocabulary_size(recipe, base, self.texts, run)
        return replace(recipe, vocabulary=best), losses


@dataclass(frozen=True)
class ConversionResult:
    """A converted file.

    Attributes:
        conversion: report of the conversion.
        fidelity: how near the file is to the model in high precision; None if that was not measured.
        losses: what the file is predicted to lose by number of tokens, where this number was chosen.
        warnings: messages for the user.
    """

    conversion: ConversionReport
    fidelity: FidelityReport | None
    losses: tuple[SizeLoss, ...]
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
    recipe, losses = conversion.measured(run)
    report, fidelity = convert(recipe, run), None
    warnings = list(report.warnings)
    if conversion.compared:
        try:
            fidelity = check_fidelity(recipe, run)
        except (ThirteenError, OSError) as error:
            warnings.append(f"fidelity was not measured: {error}")
    return ConversionResult(report, fidelity, losses, warnings)


def run_plan(conversion: Conversion, run: Run = QUIET) -> tuple[FileLayout, tuple[SizeLoss, ...], list[str]]:
    """Lay out a file without writing it.

    Returns:
        The layout; what the file is predicted to lose, see ConversionResult; and messages for the user.

    Raises:
        ThirteenError: an input is invalid, or the size cannot be met.
    """
    recipe, losses = conversion.measured(run)
    layout, warnings = plan(recipe, run)
    return layout, losses, warnings
