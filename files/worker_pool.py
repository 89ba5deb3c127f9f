"""Threads that compute with NumPy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from .processors import usable_processors


@contextmanager
def worker_pool(threads: int | None, blas_threads: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Open a pool whose pending jobs are cancelled when the block ends, also after an error."""
    pool = ThreadPoolExecutor(threads or usable_processors())
    try:
        with threadpool_limits(blas_threads):
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)
