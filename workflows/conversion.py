"""A conversion from a request to a measured file: names are resolved, a recipe is made and carried out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..convert.convert import ConversionReport, convert, plan
from ..convert.fit_size import PREFERENCES, FitSize
from ..convert.layout import FileLayout
from ..convert.merged_checkpoint import MergeReport, merge_checkpoint
from ..convert.quantization import SAME_TYPES, Quantization, Same, Uniform
from ..convert.quantize.costs import costs_for, ordinary_costs, read_costs
from ..convert.recipe import Recipe
from ..convert.size_text import parse_file_size
from ..convert.source.architecture import OUTPUT
from ..convert.source.checkpoint import FLOATS, Checkpoint, open_checkpoint
from ..convert.tensors import count_weights, parse_type
from ..errors import OptionError, RequestError, ThirteenError, refuse_options
from ..files.output import check_empty, check_target
from ..files.progress import QUIET, Run
from ..models.adapter import Sources, resolve_sources
from ..models.texts import calibration_texts
from ..quality.fidelity.fidelity import FidelityReport
from .fidelity_check import check_fidelity
from .importance_cache import NORMAL, THOROUGH, Calibration, cached_importance, check_thoroughness
from .vocabulary.vocabulary_choice import resolve_vocabulary
from .vocabulary.vocabulary_size import SizeLoss, choose_vocabulary_size

_BITS_MIN = 2  # a weight has more in each type of a plan


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """Options of a conversion.

    Attributes:
        base: catalogue name, hub id, folder of safetensors, or GGUF.
        output: the GGUF to write; None to plan one.
        adapter: PEFT folder, hub id, catalogue name, or short code.
        type: ggml type, or `same` for those of the base; by default Q4_K.
        size: maximum file size instead of a type: 600MB, 572MiB or 3.9bpw.
        vocabulary: tokens to keep: their number, the file of a list, or `auto` for as many as lose the least.
        vocabulary_texts: texts of one's own to choose these tokens on.
        importance: importance file; by default it is measured once where it is needed, and cached.
        calibration: texts to measure it on.
        thoroughness: how much of them is read: quick, normal or thorough, which also searches the scales of
            blocks.
        target: processors to plan for; by default this one, whose costs are measured on first use.
        prefer: `quality` or `speed`; by default between the two.
        costs: file of costs that `bench types` measured.
        fidelity: whether to compare the file with F16; by default with an adapter only.
    """

    base: str
    output: Path | None = None
    adapter: str | None = None
    type: str | None = None
    size: str | None = None
    vocabulary: str | None = None
    vocabulary_texts: Path | None = None
    importance: Path | None = None
    calibration: Path | None = None
    thoroughness: str | None = None
    target: str | None = None
    prefer: str | None = None
    costs: Path | None = None
    fidelity: bool | None = None

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        for one, other in (("type", "size"), ("costs", "target")):
            if getattr(self, one) and getattr(self, other):
                raise OptionError(one, f"cannot be given with {{{other}}}", getattr(self, one))
        if self.size is None:
            refuse_options(self, "requires {size}", "target", "prefer", "costs")
            if self.vocabulary == "auto":
                raise OptionError("vocabulary", "requires {size}", "auto")
        elif parse_file_size(self.size).unit is None and self.vocabulary == "auto":
            raise OptionError("size", "{vocabulary} auto requires a size in bytes, such as 600MB", self.size)
        if self.vocabulary is None and self.vocabulary_texts:
            raise OptionError("vocabulary_texts", "requires {vocabulary} with a number of tokens")
        if self.importance:
            refuse_options(self, "{importance} is given, so none is measured", "calibration")
        if self.prefer not in PREFERENCES:
            raise OptionError("prefer", "must be quality or speed", self.prefer)
        check_thoroughness(self.thoroughness or NORMAL)
        self._check_named()

    def _check_named(self) -> None:
        if self.type not in (None, SAME_TYPES) and parse_type(self.type, SAME_TYPES) in FLOATS:
            refuse_options(self, "nothing is rounded in blocks", "thoroughness", "calibration", "importance")
        if self.target is not None:
            costs_for(self.target)
        if self.costs:
            read_costs(self.costs)
        if self.importance and self.thoroughness not in (None, THOROUGH):
            raise OptionError("thoroughness", "{importance} is given, so none is measured", self.thoroughness)
        for path in filter(None, (self.importance, self.calibration, self.vocabulary_texts)):
            if not path.exists():
                raise RequestError(f"{path}: no such file")

    @property
    def search_scales(self) -> bool:
        """Whether the scales of blocks are searched."""
        return self.thoroughness == THOROUGH

    @property
    def files(self) -> Iterator[Path]:
        """The files and folders that are read, as far as they are here."""
        names = ("base", "adapter", "vocabulary")
        paths = (self.vocabulary_texts, self.importance, self.calibration, self.costs)
        yield from (Path(name) for name in (getattr(self, one) for one in names) if name and _exists(name))
        yield from filter(None, paths)


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


def run_conversion(request: ConversionRequest, run: Run = QUIET) -> ConversionResult:
    """Merge an adapter into a base, quantize the result, write it as a GGUF and compare it with F16.

    A failure of the comparison is a warning, not an error: the file is complete.

    Args:
        request: what to convert; `output` is required.
        run: how it runs.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    if request.output is None:
        raise RequestError("a conversion needs an output")
    recipe, losses = make_recipe(request, resolve_names(request, run), run)
    conversion = convert(recipe, run)
    warnings, fidelity = list(conversion.warnings), None
    if recipe.adapter is not None if request.fidelity is None else request.fidelity:
        try:
            fidelity, missing = check_fidelity(recipe, run)
            warnings += missing
        except (ThirteenError, OSError) as error:
            warnings.append(f"fidelity was not measured: {error}")
    return ConversionResult(conversion, fidelity, losses, warnings)


def run_plan(
    request: ConversionRequest, run: Run = QUIET
) -> tuple[FileLayout, tuple[SizeLoss, ...], list[str]]:
    """Lay out a file of a given size without writing it.

    Args:
        request: what to convert; `size` is required.
        run: how it runs.

    Returns:
        The layout; what the file is predicted to lose, see ConversionResult; and messages for the user.

    Raises:
        ThirteenError: an input is invalid, or the size cannot be met.
    """
    if request.size is None:
        raise RequestError("a plan needs a size")
    recipe, losses = make_recipe(request, resolve_names(request, run), run)
    layout, warnings = plan(recipe, run)
    return layout, losses, warnings


def run_merge(request: ConversionRequest, output: Path, run: Run = QUIET) -> MergeReport:
    """Merge an adapter into a base, and write a folder of safetensors.

    Args:
        request: what to merge: `base` and `adapter`.
        output: a folder that does not exist or is empty.
        run: how it runs.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    check_empty(output)
    found = resolve_names(request, run)
    assert found.adapter is not None, "a merge has one"
    return merge_checkpoint(found.base, found.adapter, output, ids=found.ids, progress=run.stage("merge"))


def resolve_names(request: ConversionRequest, run: Run = QUIET) -> Sources:
    """Check a request, and find its base and its adapter.

    Raises:
        ThirteenError: a field is invalid, a name is unknown, or the output cannot be written.
    """
    request.check()
    if request.output:
        check_target(request.output, *request.files)
    return resolve_sources(request.base, request.adapter, run)


def make_recipe(
    request: ConversionRequest, found: Sources, run: Run = QUIET
) -> tuple[Recipe, tuple[SizeLoss, ...]]:
    """Measure and choose what a conversion needs besides its base and its adapter.

    Returns:
        The recipe, and what its file is predicted to lose; see ConversionResult.

    Raises:
        ThirteenError: an input is invalid.
    """
    opened, texts = open_checkpoint(found.base), request.vocabulary_texts
    kept, importance = None, request.importance
    if request.vocabulary not in (None, "auto"):
        kept = resolve_vocabulary(request.vocabulary, opened, texts, run)
    elif request.size and not request.vocabulary:
        _check_possible(request.size, opened)
    quantization = _quantization(request, run)
    if importance is None and (request.size or request.calibration or request.thoroughness):
        calibration = Calibration(request.calibration or calibration_texts(), request.thoroughness or NORMAL)
        importance = cached_importance(opened, found.adapter, calibration, run)
    recipe = Recipe(
        found.base,
        request.output,
        quantization,
        adapter=found.adapter,
        vocabulary=kept,
        importance=importance,
        search_scales=request.search_scales,
        ids=found.ids,
    )
    if request.vocabulary != "auto":
        return recipe, ()
    kept, losses = choose_vocabulary_size(recipe, opened, texts, run)
    return replace(recipe, vocabulary=kept), losses


def _check_possible(size: str, base: Checkpoint) -> None:
    """Refuse what is far too small before anything is measured; the plan knows the exact limits."""
    weights = count_weights(spec for spec in base.specs.values() if spec.target != OUTPUT)
    smallest = weights * _BITS_MIN // 8
    if parse_file_size(size).file_bytes(weights) < smallest:
        raise OptionError("size", f"cannot be met: {weights:,} weights take over {smallest:,} bytes", size)


def _quantization(request: ConversionRequest, run: Run) -> Quantization:
    if request.size is None:
        if request.type == SAME_TYPES:
            return Same()
        return Uniform(request.type) if request.type else Uniform()
    if request.costs:
        table = read_costs(request.costs)
    elif request.target:
        table = costs_for(request.target)
    else:
        from ..quality.costs.machine_costs import machine_costs  # noqa: PLC0415 - other costs need none of it

        table = machine_costs(run.when_needed("types"))
    return FitSize(parse_file_size(request.size), request.prefer, ordinary_costs(table))


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for a code that is too long
