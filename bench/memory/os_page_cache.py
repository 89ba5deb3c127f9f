"""The operating system's page cache: how much of a file it holds, and dropping a file for a cold start."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_COLD_FRACTION_MAX = 0.05  # of a file: checking reads its header into the cache


def drop_from_page_cache(path: Path) -> bool:
    """Ask the system to drop a file's pages.

    Returns:
        Whether it did. It may refuse: for a file that another process has mapped, for a file system in
        memory, or on a system without posix_fadvise.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    fraction = cached_fraction(path)
    return fraction is not None and fraction <= _COLD_FRACTION_MAX


def cached_fraction(path: Path) -> float | None:
    """The fraction of a file's pages in the page cache, 0 to 1; None on systems without mincore."""
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (AttributeError, OSError, TypeError):
        return None
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = np.frombuffer(data, np.uint8)
        pages = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
        failed = mincore(view.ctypes.data, view.size, pages.ctypes.data)
        del view  # a mapping with a live view cannot be closed
    return None if failed else float(np.mean(pages & 1))
