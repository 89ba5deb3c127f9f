"""Peak memory of a process, which psutil reports on Windows only."""

import re
from pathlib import Path

import psutil


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
