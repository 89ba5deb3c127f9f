"""Whether a file is in the system's cache, and how to have it leave: for loads that read the disk."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_COLD = 0.05  # of a file, that may still be there: the header is read to find out


def drop_from_page_cache(path: Path) -> bool:
    """Ask the system to let go of a file's pages.

    Returns:
        Whether it did. It need not: not for files that another process has mapped, nor where the disk is
        memory, nor on systems that cannot be asked.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    part = cached_fraction(path)
    return part is not None and part <= _COLD


def cached_fraction(path: Path) -> float | None:
    """The part of a file's pages that are in memory, from 0 to 1; None where the system does not tell."""
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (AttributeError, OSError, TypeError):
        return None
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = np.frombuffer(data, np.uint8)
        pages = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
        failed = mincore(view.ctypes.data, view.size, pages.ctypes.data)
        del view  # else the mapping could not be closed
    return None if failed else float(np.mean(pages & 1))
