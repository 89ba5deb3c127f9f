"""Request of a conversion, and its inputs: fetched, measured and chosen."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..convert.pipeline import DEFAULT_TYPE, SAME_TYPES, ConversionReport, convert
from ..convert.provenance import SourceIds, provenance_name
from ..convert.quantize.costs import costs_for, ordinary_costs, read_costs
from ..convert.quantize.file_size import parse_file_size
from ..convert.quantize.size_planner import PREFERENCES, SizeTarget
from ..convert.source.architecture import OUTPUT
from ..convert.source.checkpoint import FLOATS, Checkpoint, open_checkpoint
from ..convert.tensors import count_weights, parse_type
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import RequestError, refuse_options
from ..files.output import check_target
from ..files.progress import Progress, Run, Stage, no_progress, when_needed
from ..models.resolve import resolve_sources
from .importance_cache import NORMAL, THOROUGH, cached_importance, check_thoroughness
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
        threads: number of threads that compute.
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
    threads: int | None = None

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        for one, other in (("type", "size"), ("costs", "target")):
            if getattr(self, one) and getattr(self, other):
                raise RequestError(f"{self._text(one)} and {self._text(other)} exclude each other")
        if self.size is None:
            refuse_options(self, "requires --size", "target", "prefer", "costs")
            if self.vocabulary == "auto":
                raise RequestError("--vocabulary auto requires --size")
        elif parse_file_size(self.size).unit is None and self.vocabulary == "auto":
            raise RequestError(
                f"{self._text('size')}: --vocabulary auto requires a size in bytes, such as 600MB"
            )
        if self.vocabulary is None and self.vocabulary_texts:
            raise RequestError("--vocabulary-texts requires --vocabulary with a number of tokens")
        if self.importance:
            refuse_options(self, "--importance is given, so none is measured", "calibration")
        if self.prefer not in PREFERENCES:
            raise RequestError(f"{self._text('prefer')}: must be quality or speed")
        check_thoroughness(self.thoroughness or NORMAL)
        self._check_named()

    def _check_named(self) -> None:
        if self.type not in (None, SAME_TYPES) and parse_type(self.type, SAME_TYPES) in FLOATS:
            if self.thoroughness:
                raise RequestError("--effort: nothing is rounded in blocks")
            refuse_options(self, "nothing is rounded in blocks", "calibration", "importance")
        if self.target is not None:
            costs_for(self.target)
        if self.costs:
            read_costs(self.costs)
        if self.importance and self.thoroughness not in (None, THOROUGH):
            raise RequestError(f"--effort {self.thoroughness}: --importance is given, so none is measured")
        for path in filter(None, (self.importance, self.calibration, self.vocabulary_texts)):
            if not path.exists():
                raise RequestError(f"{path}: no such file")

    def _text(self, field: str) -> str:
        return f"--{field} {getattr(self, field)}"

    @property
    def search_scales(self) -> bool:
        """Whether the scales of blocks are searched."""
        return self.thoroughness == THOROUGH

    @property
    def ids(self) -> SourceIds:
        """Names of the base and the adapter in the provenance."""
        return SourceIds(provenance_name(self.base), provenance_name(self.adapter or ""))

    @property
    def files(self) -> Iterator[Path]:
        """The files and folders that are read, as far as they are here."""
        names = ("base", "adapter", "vocabulary")
        paths = (self.vocabulary_texts, self.importance, self.calibration, self.costs)
        yield from (Path(name) for name in (getattr(self, one) for one in names) if name and _exists(name))
        yield from filter(None, paths)


@dataclass(frozen=True)
class ConversionInputs:
    """Inputs of a conversion: what its request names, fetched, measured and chosen.

    Attributes:
        request: the request.
        base: the base's file or folder.
        adapter: the adapter's PEFT folder.
        quantization: the type, or the size with what its plan aims for.
        importance: importance file.
        vocabulary: the tokens that the file keeps; None for all.
        losses: what the file is predicted to lose by number of tokens, where this number was chosen.
    """

    request: ConversionRequest
    base: Path
    adapter: Path | None
    quantization: str | SizeTarget
    importance: Path | None
    vocabulary: VocabularyList | None
    losses: tuple[SizeLoss, ...]

    def convert(self, output: Path, progress: Progress = no_progress) -> ConversionReport:
        """Write the file."""
        return convert(
            self.base,
            output,
            quantization=self.quantization,
            importance=self.importance,
            adapter=self.adapter,
            vocabulary=self.vocabulary,
            search_scales=self.request.search_scales,
            ids=self.request.ids,
            threads=self.request.threads,
            progress=progress,
        )


def resolve_inputs(request: ConversionRequest, stage: Stage = lambda name: no_progress) -> ConversionInputs:
    """Fetch, measure and choose what a request names.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    request.check()
    threads, texts = request.threads, request.vocabulary_texts
    if request.output:
        check_target(request.output, *request.files)
    found = resolve_sources(request.base, request.adapter, Run(threads, stage))
    base, adapter = found.base, found.adapter
    if request.size and not request.vocabulary:
        _check_possible(request.size, open_checkpoint(base))
    kept, losses = None, tuple[SizeLoss, ...]()
    if request.vocabulary not in (None, "auto"):
        kept = resolve_vocabulary(request.vocabulary, base, texts=texts, threads=threads, stage=stage)
    target = _size_target(request, stage)
    importance = request.importance
    if importance is None and (target or request.calibration or request.thoroughness):
        importance = cached_importance(
            base,
            adapter,
            calibration=request.calibration,
            thoroughness=request.thoroughness or NORMAL,
            threads=threads,
            stage=stage,
        )
    if request.vocabulary == "auto":
        assert target and importance, "see check()"
        kept, losses = choose_vocabulary_size(
            base, target, importance, adapter=adapter, texts=texts, threads=threads, stage=stage
        )
    quantization = target or request.type or DEFAULT_TYPE
    return ConversionInputs(request, base, adapter, quantization, importance, kept, losses)


def _check_possible(size: str, base: Checkpoint) -> None:
    """Refuse what is far too small before anything is measured; the plan knows the exact limits."""
    weights = count_weights(spec for spec in base.specs.values() if spec.target != OUTPUT)
    smallest = weights * _BITS_MIN // 8
    if parse_file_size(size).file_bytes(weights) < smallest:
        raise RequestError(f"--size {size}: cannot be met: {weights:,} weights take over {smallest:,} bytes")


def _size_target(request: ConversionRequest, stage: Stage) -> SizeTarget | None:
    if request.size is None:
        return None
    if request.costs:
        table = read_costs(request.costs)
    elif request.target:
        table = costs_for(request.target)
    else:
        from ..quality.costs.machine_costs import machine_costs  # noqa: PLC0415 - other costs need none of it

        table = machine_costs(when_needed(stage, "types"))
    return SizeTarget(parse_file_size(request.size), request.prefer, ordinary_costs(table))


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for a code that is too long
