"""Limits of this process's control groups, of either version; there are none outside of Linux."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")  # parent of the /proc and /sys that describe the groups
_UNLIMITED = 1 << 60  # version 1 writes a number of pages near 2**63 for no limit
_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes")
# Keys of memory.stat: page cache, and the part of it that is shared memory and files in a tmpfs.
_CACHE, _V1_CACHE = ("file", "shmem"), ("total_cache", "total_shmem")


def memory_limits(root: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of the process's group and of each of its parents that has a limit.

    Page cache does not count as used: the system drops it when the memory is needed. Shared memory and files
    in a tmpfs count: they cannot be dropped.
    """
    for folder, unified in _folders("memory", root):
        files = ("memory.max", "memory.current") if unified else _V1_MEMORY
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit, used = (int((folder / name).read_text()) for name in files)
            stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
            if limit < _UNLIMITED:
                cache, shared = (int(stat.get(key, 0)) for key in (_CACHE if unified else _V1_CACHE))
                yield limit, used - (cache - shared)


def processor_limits(root: Path = ROOT) -> Iterator[float]:
    """Yield the processors' worth of time of the process's group and of each of its parents with a limit."""
    for folder, unified in _folders("cpu", root):
        names = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0:  # -1 is no limit
                yield quota / period


def _folders(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """The folders of the process's group and of its parents, and whether they are of version 2."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = root / "sys/fs/cgroup" / (controller if controllers else "")
            inner = base / path.lstrip("/")
            for folder in (inner, *inner.parents):
                yield folder, not controllers
                if folder == base:
                    break
