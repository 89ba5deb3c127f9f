"""Conversion to GGUF: read rows, merge the adapter in float32, quantize once and write, block by block."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

from ..files.gguf.header import Header, read_header
from ..files.output import check_target
from ..files.progress import Progress, no_progress
from ..files.safetensors import Rows
from ..files.worker_pool import worker_pool
from .file_plan import file_specs, plan_for_file_size
from .merged_model import MergedModel
from .provenance import DEFAULT_IDS, AdapterSource, SourceIds, WeightsSource
from .quantize.ggml import quantize_rows
from .quantize.size_planner import Prediction, SizeTarget
from .source.architecture import OUTPUT, ROPE_FACTORS, permute
from .source.checkpoint import Checkpoint, open_checkpoint
from .tensors import GGML_TYPES, TensorPlan, parse_type, plan_like, plan_stored, plan_uniform
from .vocabulary.vocabulary_list import VocabularyList
from .vocabulary.vocabulary_metadata import VocabularySize, vocabulary_size
from .write import write_gguf

# A constant: the file is bit-identical on any machine and with any number of threads.
BLOCK_WEIGHTS = 1 << 22
BLOCKS_AHEAD = 16  # quantized ahead of the writer, so that no thread waits for it; about 2 MB each

DEFAULT_TYPE = "Q4_K"
SAME_TYPES = "same"  # the type that each tensor has in the base


@dataclass(frozen=True)
class ConversionReport:
    """Result of a conversion.

    Attributes:
        output: path of the file.
        sha256: its hash.
        file_bytes: its size.
        bits_per_weight: mean over all tensors, without metadata.
        types: number of tensors by type.
        base: origin of the base.
        adapter: origin of the adapter; None without one.
        importance: origin of the importance file; None without one.
        prediction: loss and speed that were predicted for a size; None without a size.
        vocabulary: how many tokens are kept of how many; None if the file keeps all.
        warnings: messages for the user.
        seconds: duration of the conversion.
    """

    output: str
    sha256: str
    file_bytes: int
    bits_per_weight: float
    types: dict[str, int]
    base: WeightsSource
    adapter: AdapterSource | None
    importance: WeightsSource | None
    prediction: Prediction | None
    vocabulary: VocabularySize | None
    warnings: list[str]
    seconds: float


@dataclass(frozen=True)
class ConversionPlan:
    """Plan of a file of a given size.

    Attributes:
        tensors: the tensors in file order.
        types: number of tensors by type.
        prediction: predicted loss and speed.
        warnings: messages for the user.
    """

    tensors: list[TensorPlan]
    types: dict[str, int]
    prediction: Prediction
    warnings: list[str]


def plan_conversion(  # noqa: PLR0913 - inputs of a conversion
    base: Path,
    target: SizeTarget,
    importance: Path,
    *,
    adapter: Path | None = None,
    vocabulary: VocabularyList | None = None,
    search_scales: bool = False,
    ids: SourceIds = DEFAULT_IDS,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ConversionPlan:
    """Plan a file of a given size without writing it.

    See convert() for the arguments: the planned size is that of a file of the same arguments, ids included.

    Raises:
        ThirteenError: an input is invalid, or the size cannot be met.
    """
    checkpoint = open_checkpoint(base, ids.base)
    model = MergedModel(
        checkpoint, adapter, ids.adapter, vocabulary, importance=importance, search_scales=search_scales
    )
    with worker_pool(threads) as pool:
        tensors, prediction = plan_for_file_size(model, target, pool, progress)
    model.warn_of_requantization(tensors)
    types = Counter(plan.type.name for plan in tensors)
    return ConversionPlan(tensors, dict(types), prediction, model.warnings)


def convert(  # noqa: PLR0913 - options of a conversion, each with its default
    base: Path,
    output: Path,
    *,
    quantization: str | SizeTarget | Path = DEFAULT_TYPE,
    importance: Path | None = None,
    adapter: Path | None = None,
    vocabulary: VocabularyList | None = None,
    search_scales: bool = False,
    ids: SourceIds = DEFAULT_IDS,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ConversionReport:
    """Merge an adapter into a base, quantize the result and write it as a GGUF.

    Args:
        base: a folder of safetensors, or a GGUF.
        output: the GGUF, written atomically.
        quantization: name of a ggml type, with llama.cpp's fallback for rows that its blocks do not divide;
            `same` for the type that each tensor has in the base; a file size, which needs an importance; or a
            GGUF of the same tensors, whose types are copied.
        importance: importance file of the base, or better of the base with this adapter.
        adapter: a PEFT folder.
        vocabulary: the tokens that the file keeps; by default all.
        search_scales: also search the scales of blocks, with the errors that are left after feedback.
        ids: names of base and adapter in the provenance.
        threads: number of worker threads; by default one per usable processor.
        progress: called with the weights done and in all; with a size, first with the matrices measured and
            in all.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    started = time.perf_counter()
    if isinstance(quantization, str) and quantization != SAME_TYPES:
        quantization = parse_type(quantization, SAME_TYPES).name
    inputs = (base, adapter, importance, quantization)
    check_target(output, *(path for path in inputs if isinstance(path, Path)))
    checkpoint = open_checkpoint(base, ids.base)
    asked = read_header(quantization) if isinstance(quantization, Path) else quantization
    model = MergedModel(
        checkpoint,
        adapter,
        ids.adapter,
        vocabulary,
        importance=importance,
        search_scales=search_scales,
        tie=not (isinstance(asked, Header) and OUTPUT in asked.tensors),
    )
    with worker_pool(threads) as pool:
        base_sha256 = pool.submit(checkpoint.sha256)
        plans, prediction = _plan(model, asked, pool, progress)
        model.warn_of_requantization(plans)
        blocks = _quantize(plans, model, pool, progress)  # starts before the tokenizer is read
        fields = model.metadata(_requested(asked), base_sha256.result())
        sha256 = write_gguf(
            output, checkpoint.architecture.name, fields, plans, blocks, source=checkpoint.path
        )
    used = model.importance
    return ConversionReport(
        output=str(output),
        sha256=sha256,
        file_bytes=output.stat().st_size,
        bits_per_weight=8 * sum(p.nbytes for p in plans) / sum(prod(p.shape) for p in plans),
        types=dict(Counter(plan.type.name for plan in plans)),
        base=WeightsSource(model.base.id, base_sha256.result()),
        adapter=model.source,
        importance=WeightsSource(used.path.name, used.sha256) if used else None,
        prediction=prediction,
        vocabulary=vocabulary_size(model.base),
        warnings=model.warnings,
        seconds=time.perf_counter() - started,
    )


def _requested(asked: str | SizeTarget | Header) -> str:
    """Value of thirteen.type: the type or size that was requested."""
    if isinstance(asked, Header):
        return str(asked.metadata.get("thirteen.type", f"like {asked.path.name}"))
    return asked if isinstance(asked, str) else asked.text


def _plan(
    model: MergedModel, asked: str | SizeTarget | Header, pool: ThreadPoolExecutor, progress: Progress
) -> tuple[list[TensorPlan], Prediction | None]:
    """Plan the tensors in file order; with a size, also their predicted loss and speed."""
    if isinstance(asked, SizeTarget):
        return plan_for_file_size(model, asked, pool, progress)
    specs = file_specs(model.base)
    if isinstance(asked, Header):
        return plan_like(specs, asked), None
    if asked == SAME_TYPES:
        types = {name: model.base.stored_type(name) for name in model.base.specs}
        types[ROPE_FACTORS] = GGML_TYPES["F32"]
        return [plan_stored(spec, types[spec.source]) for spec in specs], None
    return plan_uniform(specs, GGML_TYPES[asked]), None


def _quantize(
    plans: Sequence[TensorPlan], model: MergedModel, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[bytes]:
    """Start to quantize all tensors, and return their blocks in file order."""
    jobs = _submit(plans, model, pool)
    ahead = deque(islice(jobs, BLOCKS_AHEAD))

    def in_order() -> Iterator[bytes]:
        total, done = sum(prod(plan.shape) for plan in plans), 0
        while ahead:
            future, weights = ahead.popleft()
            block = future.result()
            ahead.extend(islice(jobs, 1))
            progress(done := done + weights, total)
            yield block

    return in_order()


def _submit(
    plans: Sequence[TensorPlan], model: MergedModel, pool: ThreadPoolExecutor
) -> Iterator[tuple[Future[bytes], int]]:
    """Submit every block; yield its future and its number of weights.

    A tensor is prepared while the tensor before it is quantized. Otherwise all threads would wait for the one
    that prepares it.
    """
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        if following:
            pool.submit(model.prepare, following)
        for start, stop in _row_ranges(plan, model.base):
            yield pool.submit(_block, plan, model, start, stop), (stop - start) * prod(plan.shape[1:])


def _row_ranges(plan: TensorPlan, base: Checkpoint) -> Iterator[tuple[int, int]]:
    """Split a tensor into blocks of about BLOCK_WEIGHTS weights; a permuted one between heads."""
    step = max(1, BLOCK_WEIGHTS // prod(plan.shape[1:]))
    spec = base.specs.get(plan.source)
    if spec and spec.heads:
        head_rows = spec.shape[0] // spec.heads
        step = max(1, step // head_rows) * head_rows
    for start in range(0, plan.shape[0], step):
        yield start, min(start + step, plan.shape[0])


def _block(plan: TensorPlan, model: MergedModel, start: int, stop: int) -> bytes:
    """Quantize rows `start` to `stop` of a tensor."""
    if plan.source == ROPE_FACTORS:
        factors = model.base.rope_factors
        assert factors is not None
        return quantize_rows(factors[start:stop], plan.type, f"tensor {ROPE_FACTORS!r}")
    if (stored := model.stored_rows(plan, start, stop)) is not None:
        return stored
    heads = model.base.specs[plan.source].heads * (stop - start) // plan.shape[0]

    def permuted(rows: Rows) -> Rows:
        return permute(rows, heads) if heads else rows

    rows, delta = model.base.rows(plan.source, start, stop), model.deltas.get(plan.source)
    if delta is None:
        return model.quantizer.quantize(plan, permuted(rows))
    merged = delta.merge(rows.copy(), start)
    return model.quantizer.quantize(plan, permuted(rows), permuted(merged), delta.a)
