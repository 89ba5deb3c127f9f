"""Threads that compute with NumPy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from .processors import usable_processors


@contextmanager
def worker_pool(threads: int | None, blas_threads: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Open a pool whose pending jobs are cancelled when the block ends, also after an error.

    Args:
        threads: number of threads; by default one per processor.
        blas_threads: threads of BLAS for each; more would compete with the pool.
    """
    pool = ThreadPoolExecutor(threads or usable_processors())
    try:
        with threadpool_limits(blas_threads):
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)
