"""What a conversion is made from: a request whose parts are fetched, measured and chosen."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..convert.pipeline import DEFAULT_TYPE, ConversionReport, convert
from ..convert.quantize.costs import costs_for, ordinary_costs, parse_workload, read_costs
from ..convert.quantize.file_size import parse_file_size
from ..convert.quantize.size_planner import SizeTarget
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..files.output import check_target
from ..files.progress import Progress, Stage, no_progress, when_needed
from ..models.fetch import fetch
from .adapter_resolver import resolve_adapter_folder
from .conversion_request import ConversionRequest
from .importance_cache import DEFAULT_EFFORT, cached_importance
from .vocabulary_choice import resolve_vocabulary
from .vocabulary_size import SizeLoss, choose_vocabulary_size


@dataclass(frozen=True)
class ConversionInputs:
    """What a request names, fetched, measured and chosen.

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
    threads = request.threads
    base, adapter = fetch_base_and_adapter(request.base, request.adapter, request.revision, stage)
    if request.output:
        check_target(request.output, base, *filter(None, (adapter,)), *request.files)
    target = _size_target(request, stage)
    importance = request.importance
    if importance is None and (target or request.calibration or request.effort):
        importance = cached_importance(
            base,
            adapter,
            calibration=request.calibration,
            effort=request.effort or DEFAULT_EFFORT,
            threads=threads,
            stage=stage,
        )
    inputs = ConversionInputs(
        request, base, adapter, target or request.type or DEFAULT_TYPE, importance, None, ()
    )
    if request.vocabulary == "auto":
        return _with_best_vocabulary(inputs, stage)
    if request.vocabulary is None:
        return inputs
    texts = request.vocabulary_texts
    kept = resolve_vocabulary(request.vocabulary, base, texts=texts, threads=threads, stage=stage)
    return replace(inputs, vocabulary=kept)


def fetch_base_and_adapter(
    base: str, adapter: str | None, revision: str | None = None, stage: Stage = lambda name: no_progress
) -> tuple[Path, Path | None]:
    """Find the path of a base, and the PEFT folder of an adapter; both are downloaded if needed."""
    path = fetch(base, revision=revision, kind="base")
    if adapter is None:
        return path, None
    return path, resolve_adapter_folder(adapter, base, progress=when_needed(stage, "basis"))


def _with_best_vocabulary(inputs: ConversionInputs, stage: Stage) -> ConversionInputs:
    request = inputs.request
    assert isinstance(inputs.quantization, SizeTarget) and inputs.importance is not None, "see check()"
    kept, losses = choose_vocabulary_size(
        inputs.base,
        inputs.quantization,
        inputs.importance,
        adapter=inputs.adapter,
        texts=request.vocabulary_texts,
        threads=request.threads,
        stage=stage,
    )
    return replace(inputs, vocabulary=kept, losses=losses)


def _size_target(request: ConversionRequest, stage: Stage) -> SizeTarget | None:
    if request.size is None:
        return None
    if request.costs:
        table = read_costs(request.costs)
    elif request.target:
        table = costs_for(request.target)
    else:
        from .machine_costs import machine_costs  # noqa: PLC0415 - other costs need none of it

        table = machine_costs(when_needed(stage, "types"))
    load = request.workload
    table = table.for_answers(parse_workload(load)) if load else ordinary_costs(table)
    return SizeTarget(parse_file_size(request.size), request.prefer, table)
