"""The conversion: rows are read, merged in float32, quantized once and written, block by block."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType, LlamaFileType
from threadpoolctl import threadpool_limits

from ..errors import OutputError
from ..files.gguf_header import Field, read_header
from ..files.output import check_target
from ..files.processors import usable_processors
from ..files.progress import Progress, no_progress
from ..files.safetensors import Rows
from . import tensors
from .merged_view import AdapterSource, MergedView, WeightsSource
from .quantize.ggml import quantize_rows
from .quantize.importance import read_importance
from .quantize.rounding import RowQuantizer
from .quantize.size_planner import Prediction, SizeTarget, measure_all_types, plan_for_size
from .source import architecture as arch
from .source.checkpoint import ROPE_FACTORS, Checkpoint, open_checkpoint
from .tensors import ALIGNMENT, TensorPlan, TensorSpec
from .write import header_size, write_gguf

# Fixed, so that neither the threads' number nor the memory's size can change a single bit of the file.
BLOCK_WEIGHTS = 1 << 22
WINDOW = 16  # blocks, of about two megabytes when done, so that no thread waits for the writer

DEFAULT_TYPE = "Q4_K"

_TEXT = GGUFValueType.STRING


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion made, of what, and what is to be known about it."""

    output: str
    sha256: str
    file_bytes: int
    bits_per_weight: float
    types: dict[str, int]  # tensors by type
    base: WeightsSource
    base_quantized: dict[str, int]  # the base's own quantized tensors by type
    adapter: AdapterSource | None
    importance: WeightsSource | None
    prediction: Prediction | None
    warnings: list[str]
    seconds: float


@dataclass(frozen=True)
class ConversionPlan:
    """What a conversion to a size would make, without making it."""

    tensors: list[TensorPlan]
    types: dict[str, int]  # tensors by type
    prediction: Prediction
    warnings: list[str]


def plan_conversion(  # noqa: PLR0913 - what a plan can be told
    base: Path,
    wish: SizeTarget,
    importance: Path,
    *,
    adapter: Path | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ConversionPlan:
    """Plan a file of a size; see convert() for what goes in.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input.
    """
    model = _Model(open_checkpoint(base), adapter, "", importance)
    with _pool(threads or usable_processors()) as pool, threadpool_limits(1):
        plans, prediction = _plan_for_size(model, wish, _fields(model, DEFAULT_TYPE), pool, progress)
    return ConversionPlan(plans, _counted(plans), prediction, model.warnings)


def convert(  # noqa: PLR0913 - what a conversion can be told, each with its default
    base: Path,
    output: Path,
    *,
    type_: str | None = None,
    wish: SizeTarget | None = None,
    like: Path | None = None,
    importance: Path | None = None,
    adapter: Path | None = None,
    base_id: str = "",
    adapter_id: str = "",
    threads: int | None = None,
    progress: Progress = no_progress,
) -> ConversionReport:
    """Merge `adapter` into `base`, quantize it and write `output`, an ordinary GGUF.

    At most one of `type_`, `wish` and `like` says what to quantize to.

    Args:
        base: a folder of safetensors, or a GGUF.
        output: the GGUF to write; it appears whole or not at all.
        type_: any ggml type, by default Q4_K; rows that do not fit it take llama.cpp's own fallback.
        wish: a size instead of a type; it takes an importance.
        like: a GGUF of the same model, adapted or not, whose types are taken tensor by tensor.
        importance: an importance file, for the base or, better, for the base with this adapter.
        adapter: a PEFT folder.
        base_id: the base's name in the provenance; its folder's or file's name unless given.
        adapter_id: likewise the adapter's.
        threads: how many threads quantize; as many as the process may use unless given.
        progress: called with the weights done and in all.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input or the target.
    """
    started = time.perf_counter()
    if sum(given is not None for given in (type_, wish, like)) > 1:
        raise OutputError(f"{output}: a type, a size and a file to be like: give one of them")
    ggml_type = tensors.parse_type(type_ or DEFAULT_TYPE)
    check_target(output, *(path for path in (base, adapter, importance, like) if path))
    checkpoint = open_checkpoint(base, base_id)
    model = _Model(checkpoint, adapter, adapter_id, importance)
    prediction = None
    # Each block's arithmetic stays on its own thread: BLAS threads would only compete with the pool's.
    with _pool(threads or usable_processors()) as pool, threadpool_limits(1):
        hashed = pool.submit(checkpoint.sha256)
        if wish is None:
            plans = _plans(checkpoint, tensors.plan_uniform(checkpoint.specs.values(), ggml_type))
            plans, asked = _plans_like(like, plans) if like else (plans, ggml_type.name)
            blocks = _blocks(plans, model, pool, progress)  # under way while the metadata is gathered
            fields = _fields(model, asked)
        else:
            fields = _fields(model, f"{wish.size.text}, {wish.prefer}, {wish.costs.target}")
            plans, prediction = _plan_for_size(model, wish, fields, pool, progress)
            blocks = _blocks(plans, model, pool, progress)
        fields |= _hash(hashed.result())
        sha256 = write_gguf(output, checkpoint.architecture.name, fields, plans, blocks)
    return ConversionReport(
        output=str(output),
        sha256=sha256,
        file_bytes=output.stat().st_size,
        bits_per_weight=8 * sum(p.nbytes for p in plans) / sum(prod(p.shape) for p in plans),
        types=_counted(plans),
        base=WeightsSource(checkpoint.id, hashed.result()),
        base_quantized=dict(checkpoint.quantized),
        adapter=model.source,
        importance=WeightsSource(used.path.name, used.sha256) if (used := model.importance) else None,
        prediction=prediction,
        warnings=model.warnings,
        seconds=time.perf_counter() - started,
    )


class _Model(MergedView):
    """The base with the adapter merged into it, and how its rows are rounded."""

    def __init__(self, base: Checkpoint, folder: Path | None, id_: str, importance: Path | None) -> None:
        self.importance = read_importance(importance) if importance else None
        if self.importance:
            self.importance.check_fits(base.specs.values())
        self.rounding = RowQuantizer(self.importance)
        super().__init__(base, folder, id_)

    def prepare(self, p: TensorPlan) -> None:
        """Compute what all of a tensor's blocks need, so that none has to wait for it."""
        delta = self.deltas.get(p.source)
        self.rounding.prepare(p, None if delta is None else delta.a)


def _plans(base: Checkpoint, plans: list[TensorPlan]) -> list[TensorPlan]:
    """The plans of all that the file holds: also the rotary factors, if there are any."""
    factors = base.rope_factors
    if factors is None:
        return plans
    spec = TensorSpec(ROPE_FACTORS, ROPE_FACTORS, factors.shape)
    return [*plans, tensors.plan_tensor(spec, GGMLQuantizationType.F32)]


def _plans_like(like: Path, plans: list[TensorPlan]) -> tuple[list[TensorPlan], str]:
    """The plans with a file's types, and the type or size that was asked for when it was made."""
    header = read_header(like)
    return tensors.plan_like(plans, header), str(header.metadata.get("thirteen.type", f"like {like.name}"))


def _plan_for_size(
    model: "_Model", wish: SizeTarget, fields: dict[str, Field], pool: ThreadPoolExecutor, progress: Progress
) -> tuple[list[TensorPlan], Prediction]:
    base, importance = model.base, model.importance
    if importance is None:
        raise OutputError(f"--size {wish.size.text}: an importance file is needed to plan by")
    if not importance.sensitivity:
        model.warnings.append(
            f"{importance.path}: no sensitivities were measured: errors count relative to each matrix' output"
        )
    options = measure_all_types(base.specs, model, importance, wish.costs, pool, progress)
    every = _plans(base, tensors.plan_uniform(base.specs.values(), GGMLQuantizationType.F32))
    rest = sum(p.nbytes + -p.nbytes % ALIGNMENT for p in every if p.source not in base.specs)
    overhead = rest + header_size(base.architecture.name, fields | _hash("0" * 64), every)
    plans, prediction = plan_for_size(
        base.specs, options, wish, overhead, measured=bool(importance.sensitivity)
    )
    return _plans(base, plans), prediction


def _counted(plans: list[TensorPlan]) -> dict[str, int]:
    return dict(Counter(p.type.name for p in plans))


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that take up nothing new once the block has ended, well or not."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _blocks(
    plans: list[TensorPlan], model: _Model, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[bytes]:
    """Every tensor's bytes in order, made on the pool from now on, at most WINDOW ahead of the writer."""
    jobs = _jobs(plans, model, pool)
    ahead = deque(islice(jobs, WINDOW))

    def in_order() -> Iterator[bytes]:
        total, done = sum(prod(p.shape) for p in plans), 0
        while ahead:
            future, weights = ahead.popleft()
            block = future.result()
            ahead.extend(islice(jobs, 1))
            progress(done := done + weights, total)
            yield block

    return in_order()


def _jobs(
    plans: list[TensorPlan], model: _Model, pool: ThreadPoolExecutor
) -> Iterator[tuple[Future[bytes], int]]:
    """Every block on the pool, with its weights' number; each tensor's preparation beside the one before it.

    Otherwise all threads would wait for the one that prepares.
    """
    for p, following in zip(plans, [*plans[1:], None], strict=True):
        if following:
            pool.submit(model.prepare, following)
        for start, stop in _spans(p, model.base):
            yield pool.submit(_block, p, model, start, stop), (stop - start) * prod(p.shape[1:])


def _spans(p: TensorPlan, base: Checkpoint) -> Iterator[tuple[int, int]]:
    """Spans of rows of about BLOCK_WEIGHTS each; of whole heads where their rows are permuted."""
    step = max(1, BLOCK_WEIGHTS // prod(p.shape[1:]))
    spec = base.specs.get(p.source)
    if spec and spec.heads:
        head = spec.shape[0] // spec.heads
        step = max(1, step // head) * head
    for start in range(0, p.shape[0], step):
        yield start, min(start + step, p.shape[0])


def _block(p: TensorPlan, model: _Model, start: int, stop: int) -> bytes:
    if p.source == ROPE_FACTORS:
        factors = model.base.rope_factors
        assert factors is not None
        return quantize_rows(factors[start:stop], p.type, f"tensor {ROPE_FACTORS!r}")
    heads = model.base.specs[p.source].heads * (stop - start) // p.shape[0]

    def ordered(rows: Rows) -> Rows:
        return arch.permute(rows, heads) if heads else rows

    rows, delta = model.base.rows(p.source, start, stop), model.deltas.get(p.source)
    merged = None if delta is None else ordered(delta.merge(rows.copy(), start))
    return model.rounding.quantize(p, ordered(rows), merged, None if delta is None else delta.a)


def _fields(model: "_Model", asked: str) -> dict[str, Field]:
    """The file's metadata: what a loader needs, the tokenizer, and where the weights came from.

    `asked` is the type or the size asked for.
    """
    base, adapter = model.base, model.source
    u32 = GGUFValueType.UINT32
    fields = {"general.type": Field("model", _TEXT), "general.name": Field(base.id, _TEXT)}
    # A mix of types by measured loss has no number of its own there; loaders only show it.
    file_type = LlamaFileType.__members__.get(_FILE_TYPES.get(asked, f"MOSTLY_{asked}"))
    if file_type is not None:
        fields["general.file_type"] = Field(int(file_type), u32)
    fields["general.quantization_version"] = Field(GGML_QUANT_VERSION, u32)
    provenance = {
        "version": version("thirteen"),
        "quantizer": f"llama-cpp-python {version('llama-cpp-python')}",
        "type": asked,
        "base.id": base.id,
        "base.quantized": ", ".join(base.quantized),
    }
    if adapter:
        provenance |= {
            f"adapter.{key}": str(value) for key, value in asdict(adapter).items() if value is not None
        }
    if model.importance:
        provenance |= {
            "importance.sha256": model.importance.sha256,
            "importance.datasets": ", ".join(model.importance.datasets),
        }
    fields |= _provenance({key: value for key, value in provenance.items() if value})
    return fields | arch.metadata_fields(base.architecture) | base.tokenizer


def _hash(sha256: str) -> dict[str, Field]:
    return _provenance({"base.sha256": sha256})


def _provenance(values: Mapping[str, str]) -> dict[str, Field]:
    return {f"thirteen.{key}": Field(value, _TEXT) for key, value in values.items()}


_FILE_TYPES = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"} | {
    name: f"MOSTLY_{name}_S" for name in ("Q3_K", "Q4_K", "Q5_K")
}
