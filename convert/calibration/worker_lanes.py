"""Threads of calibration, and lanes of work whose sums do not depend on the number of threads."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from ...files.worker_pool import worker_pool

# Sequence i adds to the sums of lane i % LANES, and the lanes are added up in order.
LANES = 4


def lane_pool(threads: int) -> AbstractContextManager[ThreadPoolExecutor]:
    """Open a pool of one thread per lane at most; pending work is cancelled when the block ends.

    Args:
        threads: compute threads. Up to LANES, each has BLAS for itself: that wastes less time than BLAS
            threads that wait for each other after every product.
    """
    return worker_pool(min(threads, LANES), max(1, threads // LANES))
