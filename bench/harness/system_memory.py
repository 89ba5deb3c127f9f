"""What the system holds in memory: of a process, also at its peak, and of a file in the page cache."""

import ctypes
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

_COLD_FRACTION_MAX = 0.05  # of a file: checking reads its header into the cache


def peak_rss_bytes() -> int | None:
    """Peak RSS of this process so far.

    Linux counts it from the start of the program (VmHWM). Its getrusage can report the peak of the parent
    process, so getrusage is for other systems only.
    """
    if peak := process_peak_rss_bytes(psutil.Process().pid):
        return peak
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if psutil.MACOS else peak << 10  # bytes on macOS, else KiB


def process_peak_rss_bytes(pid: int) -> int | None:
    """Peak RSS of another process so far; None where the system does not report it."""
    if psutil.WINDOWS:
        return int(psutil.Process(pid).memory_info().peak_wset)
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) << 10 if found else None


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """Resident memory of a process at one time.

    Attributes:
        rss_bytes: resident set size: all resident pages.
        pss_bytes: proportional set size: a page shared by n processes counts 1/n.
        anonymous_bytes: pages that belong to no file.
    """

    rss_bytes: int
    pss_bytes: int
    anonymous_bytes: int


def read_resident_memory() -> ResidentMemory | None:
    """Read the current resident memory; None where the system does not report it by mapping."""
    if not psutil.LINUX:
        return None
    maps = psutil.Process().memory_maps(grouped=False)
    return ResidentMemory(*(sum(getattr(one, name) for one in maps) for name in ("rss", "pss", "anonymous")))


def resident_file_bytes(path: Path) -> int:
    """Count the resident bytes of a file in the mappings of this process."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum(one.rss for one in maps if one.path == str(path.resolve()))


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
