"""The threads of a conversion."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from ..files.processors import usable_processors


@contextmanager
def worker_pool(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Open a pool whose pending jobs are cancelled when the block ends, also after an error."""
    pool = ThreadPoolExecutor(threads or usable_processors())
    try:
        with threadpool_limits(1):  # BLAS threads would compete with the pool
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)
