"""Peak memory of a process, which psutil reports on Windows only."""

import re
from pathlib import Path

import psutil

_PROC = Path("/proc/self")


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
    return status_bytes("VmHWM", Path(f"/proc/{pid}"))


def status_bytes(name: str, proc: Path = _PROC) -> int | None:
    """Read a size from a process' status in /proc, such as VmHWM, the peak RSS; None where it is missing."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", (proc / "status").read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
