"""The conversion: rows are read, merged in float32, quantized once and written, block by block."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType, LlamaFileType
from threadpoolctl import threadpool_limits

from ..gguf_file import Field
from . import architecture as arch
from . import plan
from .adapter import folder_sha256, foreign_reason, load_adapter, read_config
from .architecture import TensorSpec
from .checkpoint import ROPE_FACTORS, Checkpoint, open_checkpoint
from .delta import Delta
from .plan import TensorPlan
from .quantize import quantize
from .safetensors_file import Rows
from .write import check_target, write_gguf

# Fixed, so that neither the threads' number nor the memory's size can change a single bit of the file.
BLOCK_WEIGHTS = 1 << 20
WINDOW = (
    64  # blocks, of about half a megabyte when done, so that no thread waits for the header or the writer
)

Progress = Callable[[int, int], None]  # weights done, weights in all
_TEXT = GGUFValueType.STRING


@dataclass(frozen=True)
class Source:
    """Where weights came from: the name that the user gave, and the hash of the bytes."""

    id: str
    sha256: str


@dataclass(frozen=True)
class AdapterSource(Source):
    """The adapter, and who merged it: `thirteen` block by block, or `peft` in memory."""

    kind: str
    rank: int | None
    trained: int | None
    merged_by: str


@dataclass(frozen=True)
class Report:
    """What a conversion made, of what, and what is to be known about it."""

    output: str
    sha256: str
    file_bytes: int
    bits_per_weight: float
    types: dict[str, int]  # tensors by type
    base: Source
    base_quantized: dict[str, int]  # the base's own quantized tensors by type
    adapter: AdapterSource | None
    warnings: list[str]
    seconds: float


def convert(  # noqa: PLR0913 - what a conversion can be told, each with its default
    base: Path,
    output: Path,
    *,
    type_: str = "Q4_K",
    adapter: Path | None = None,
    base_id: str = "",
    adapter_id: str = "",
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Merge `adapter` into `base`, quantize to `type_` and write `output`, an ordinary GGUF.

    Args:
        base: a folder of safetensors, or a GGUF.
        output: the GGUF to write; it appears whole or not at all.
        type_: any ggml type, such as Q4_K; rows that do not fit it take llama.cpp's own fallback.
        adapter: a PEFT folder.
        base_id: the base's name in the provenance; its folder's or file's name unless given.
        adapter_id: likewise the adapter's.
        threads: how many threads quantize; as many as the process may use unless given.
        progress: called with the weights done and in all.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input or the target.
    """
    started = time.perf_counter()
    ggml_type = plan.parse_type(type_)
    check_target(output, base, *([adapter] if adapter else []))
    checkpoint = open_checkpoint(base, base_id)
    model = _Model(checkpoint, adapter, adapter_id)
    plans = _plans(checkpoint, ggml_type)
    # Each block's arithmetic stays on its own thread: BLAS threads would only compete with the pool's.
    with _pool(threads or usable_threads()) as pool, threadpool_limits(1):
        hashed = pool.submit(checkpoint.sha256)
        blocks = _blocks(plans, model, pool, progress)  # under way while the metadata is gathered
        fields = _fields(checkpoint, model.source, ggml_type)
        source = Source(checkpoint.id, hashed.result())
        fields |= _provenance({"base.id": source.id, "base.sha256": source.sha256})
        sha256 = write_gguf(output, checkpoint.architecture.name, fields, plans, blocks)
    return Report(
        output=str(output),
        sha256=sha256,
        file_bytes=output.stat().st_size,
        bits_per_weight=8 * sum(p.nbytes for p in plans) / sum(prod(p.shape) for p in plans),
        types=dict(Counter(p.type.name for p in plans)),
        base=source,
        base_quantized=dict(checkpoint.quantized),
        adapter=model.source,
        warnings=model.warnings,
        seconds=time.perf_counter() - started,
    )


def usable_threads() -> int:
    """How many threads this process may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Model:
    """The base with the adapter merged into the rows as they are read, in float32."""

    def __init__(self, base: Checkpoint, folder: Path | None, id_: str) -> None:
        self.base = base
        self.deltas: dict[str, Delta] = {}
        self.source: AdapterSource | None = None
        self.warnings = []
        if base.quantized:
            held = ", ".join(f"{count} {name}" for name, count in base.quantized.items())
            self.warnings.append(
                f"the base was already quantized ({held}): rounding it again adds to that loss"
            )
        if folder is not None:
            self._adopt(folder, id_ or folder.resolve().name)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor, merged."""
        rows = self.base.rows(name, start, stop)
        return self.deltas[name].merge(rows, start) if name in self.deltas else rows

    def _adopt(self, folder: Path, id_: str) -> None:
        reason = foreign_reason(read_config(folder))
        if reason:
            from .peft_merge import PeftMerge  # noqa: PLC0415 - torch, only for those who need it

            self.base = merged = PeftMerge(self.base, folder)
            self.source = AdapterSource(id_, folder_sha256(folder), merged.kind, None, None, "peft")
            self.warnings.append(f"{id_} was merged by PEFT, with the whole model in memory: {reason}")
            return
        adapter = load_adapter(folder, id_)
        adapter.fit(self.base)
        self.deltas = adapter.deltas
        self.source = AdapterSource(
            id_, adapter.sha256, adapter.kind, adapter.rank, adapter.trained, "thirteen"
        )
        if adapter.zeros:
            self.warnings.append(f"{len(adapter.zeros)} of {len(adapter.deltas)} deltas are zero")


def _plans(base: Checkpoint, type_: GGMLQuantizationType) -> list[TensorPlan]:
    plans = plan.uniform(base.specs.values(), type_)
    factors = base.rope_factors
    if factors is not None:
        spec = TensorSpec(ROPE_FACTORS, ROPE_FACTORS, factors.shape)
        plans.append(plan.planned(spec, GGMLQuantizationType.F32))
    return plans


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
    jobs = (
        (pool.submit(_block, p, model, start, stop), (stop - start) * prod(p.shape[1:]))
        for p in plans
        for start, stop in _spans(p, model.base)
    )
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
        return quantize(factors[start:stop], p.type, f"tensor {ROPE_FACTORS!r}")
    spec = model.base.specs[p.source]
    rows = model.rows(p.source, start, stop)
    if spec.heads:
        rows = arch.permute(rows, (stop - start) * spec.heads // spec.shape[0])
    return quantize(rows, p.type, f"tensor {p.source!r}")


def _fields(base: Checkpoint, adapter: AdapterSource | None, type_: GGMLQuantizationType) -> dict[str, Field]:
    """The file's metadata: what a loader needs, the tokenizer, and where the weights came from."""
    u32 = GGUFValueType.UINT32
    fields = {"general.type": Field("model", _TEXT), "general.name": Field(base.id, _TEXT)}
    file_type = LlamaFileType.__members__.get(_FILE_TYPES.get(type_.name, f"MOSTLY_{type_.name}"))
    if file_type is not None:
        fields["general.file_type"] = Field(int(file_type), u32)
    fields["general.quantization_version"] = Field(GGML_QUANT_VERSION, u32)
    provenance = {
        "version": version("thirteen"),
        "quantizer": f"llama-cpp-python {version('llama-cpp-python')}",
        "type": type_.name,
        "base.quantized": ", ".join(base.quantized),
    }
    if adapter:
        provenance |= {
            f"adapter.{key}": str(value) for key, value in asdict(adapter).items() if value is not None
        }
    fields |= _provenance({key: value for key, value in provenance.items() if value})
    return fields | arch.metadata_fields(base.architecture) | base.tokenizer


def _provenance(values: Mapping[str, str]) -> dict[str, Field]:
    return {f"thirteen.{key}": Field(value, _TEXT) for key, value in values.items()}


_FILE_TYPES = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"} | {
    name: f"MOSTLY_{name}_S" for name in ("Q3_K", "Q4_K", "Q5_K")
}
