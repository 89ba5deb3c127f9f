"""Conversion to GGUF: open the base, merge the adapter in float32, plan the file, quantize once and write."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

from gguf import GGUFValueType

from ..files.gguf.header import Field
from ..files.output import check_target
from ..files.progress import QUIET, Progress, Run
from ..files.worker_pool import worker_pool
from .merged_model import MergedModel
from .provenance import BASE_SHA256, AdapterSource, WeightsSource
from .recipe import Recipe
from .tensors import TensorPlan, row_ranges
from .vocabulary.vocabulary_list import vocabulary_of
from .write import FileLayout, write_gguf

_BLOCKS_AHEAD = 16  # quantized ahead of the writer, so that no thread waits for it; about 2 MB each


@dataclass(frozen=True)
class ConversionReport:
    """Result of a conversion."""

    output: Path  # path of the file
    sha256: str  # its hash
    layout: FileLayout  # its tensors, their types and its size
    base: WeightsSource  # origin of the base
    adapter: AdapterSource | None  # origin of the adapter; None without one
    importance: WeightsSource | None  # origin of the importance file; None without one
    vocabulary: dict[str, int] | None  # how many tokens are `kept` `of` how many; None if the file keeps all
    warnings: list[str]  # messages for the user
    seconds: float  # duration of the conversion


def convert(recipe: Recipe, run: Run = QUIET, title: str = "convert") -> ConversionReport:
    """Merge an adapter into a base, quantize the result and write it as a GGUF, atomically.

    Args:
        recipe: what the file is made from; `output` is required.
        run: its stage `title` counts the weights done; with a size, first the matrices measured.
        title: name of the stage.
    """
    started, output, progress = time.perf_counter(), recipe.output, run.stage(title)
    assert output is not None, "a plan has none"
    check_target(output, *filter(None, (recipe.base, recipe.adapter, recipe.importance)))
    model = recipe.open()
    with worker_pool(run.threads) as pool:
        hashed = pool.submit(model.base.sha256)
        layout = recipe.quantization.plan(model, pool, progress)
        model.warn_of_requantization(layout.tensors)
        blocks = _quantized_blocks(layout.tensors, model, pool, progress)
        base = WeightsSource(model.base.id, hashed.result())
        fields = {**layout.fields, BASE_SHA256: Field(base.sha256, GGUFValueType.STRING)}
        sha256 = write_gguf(output, fields, layout.tensors, blocks, source=model.base.path)
    used, kept = model.importance, vocabulary_of(model.base)
    return ConversionReport(
        output=output,
        sha256=sha256,
        layout=layout,
        base=base,
        adapter=model.source,
        importance=WeightsSource(used.path.name, used.sha256) if used else None,
        vocabulary={"kept": len(kept.tokens), "of": kept.of} if kept else None,
        warnings=model.warnings,
        seconds=time.perf_counter() - started,
    )


def plan(recipe: Recipe, run: Run = QUIET) -> tuple[FileLayout, list[str]]:
    """Lay out the file of a recipe without writing it, and collect the warnings for the user."""
    model = recipe.open()
    with worker_pool(run.threads) as pool:
        layout = recipe.quantization.plan(model, pool, run.stage("plan"))
    model.warn_of_requantization(layout.tensors)
    return layout, model.warnings


def _quantized_blocks(
    plans: Sequence[TensorPlan], model: MergedModel, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[bytes]:
    """Start to merge and quantize all tensors, and return their blocks in file order."""
    jobs, total = _submit(plans, model, pool), sum(prod(plan.shape) for plan in plans)
    ahead = deque(islice(jobs, _BLOCKS_AHEAD))

    def in_order() -> Iterator[bytes]:
        done = 0
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
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        if following:  # else all threads would wait for the one that prepares it
            pool.submit(model.prepare, following)
        spec = model.base.specs.get(plan.source)
        for start, stop in row_ranges(plan.shape, spec.heads if spec else 0):
            yield pool.submit(model.quantized, plan, start, stop), (stop - start) * prod(plan.shape[1:])
