"""Peak memory of a process."""

import sys
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")


def peak_rss_bytes() -> int | None:
    """Peak RSS of this process so far.

    Linux counts it from the start of the program (VmHWM). Its getrusage can report the peak of the parent
    process, so getrusage is for other systems only.
    """
    if peak := status_bytes("VmHWM"):
        return peak
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # bytes on macOS, else KiB


def process_peak_rss_bytes(pid: int) -> int | None:
    """Peak RSS of another process so far; None where the system has no /proc."""
    return status_bytes("VmHWM", Path(f"/proc/{pid}"))


def status_bytes(name: str, proc: Path = _PROC) -> int | None:
    """Read a size from a process' status in /proc, such as VmHWM, the peak RSS; None where it is missing."""
    try:
        kib = dict(kib_fields((proc / "status").read_text("utf-8"))).get(name)
    except OSError:
        return None
    return None if kib is None else kib << 10


def kib_fields(text: str) -> Iterator[tuple[str, int]]:
    """Name and KiB of each size in a file of /proc."""
    for line in text.splitlines():
        match line.split():
            case [name, number, "kB"]:
                yield name.removesuffix(":"), int(number)
