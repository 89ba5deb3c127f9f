"""Blocks of rows: merged and quantized by several threads, and delivered in file order."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod

from ..files.progress import Progress
from .merged_model import MergedModel
from .tensors import TensorPlan

# A constant: the file is bit-identical on any machine and with any number of threads.
BLOCK_WEIGHTS = 1 << 22
BLOCKS_AHEAD = 16  # quantized ahead of the writer, so that no thread waits for it; about 2 MB each


def row_ranges(shape: tuple[int, ...], heads: int = 0) -> Iterator[tuple[int, int]]:
    """Split a tensor into blocks of about BLOCK_WEIGHTS weights; a permuted one between heads."""
    step = max(1, BLOCK_WEIGHTS // prod(shape[1:]))
    if heads:
        head_rows = shape[0] // heads
        step = max(1, step // head_rows) * head_rows
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def quantized_blocks(
    plans: Sequence[TensorPlan], model: MergedModel, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[bytes]:
    """Start to merge and quantize all tensors, and return their blocks in file order."""
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
        spec = model.base.specs.get(plan.source)
        for start, stop in row_ranges(plan.shape, spec.heads if spec else 0):
            yield pool.submit(model.quantized, plan, start, stop), (stop - start) * prod(plan.shape[1:])
