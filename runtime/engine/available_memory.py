"""How much memory this process can still take, as Linux tells: in the machine, its group, its limits."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
_STACK = 8 << 20  # bytes of address space that a thread's stack takes where no limit says otherwise
_ARENA = 64 << 20  # that glibc takes for what the engine's own thread allocates
_TABLES = 60 << 20  # that llama.cpp takes for graphs and Python for what it imports late, most never touched
_UNLIMITED = 1 << 60  # cgroup v1 writes a number of pages near 2**63 for none


def available_bytes(root: Path = _ROOT) -> int | None:
    """What is left for this process; None where the system does not tell.

    Pages of files do not count as taken: the system drops them where their memory is wanted.

    Args:
        root: under which /proc and /sys are.
    """
    left = [*_of_machine(root), *_of_group(root), *_of_address_space(root)]
    return max(0, min(left)) if left else None


def reserved_bytes(threads: int) -> int:
    """Address space that is taken and hardly filled, also for threads; none where it is not limited."""
    limit = _address_limit()
    if limit is None:
        return 0
    arena = 0 if os.environ.get("MALLOC_ARENA_MAX") == "1" else _ARENA
    return (threads + 1) * _STACK + arena + _TABLES


def _of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError):
        found = re.search(
            r"^MemAvailable: +(\d+) kB", (root / "proc/meminfo").read_text("utf-8"), re.MULTILINE
        )
        if found:
            yield int(found[1]) << 10


def _of_group(root: Path) -> Iterator[int]:
    """Of the control group that this process is in, and of those around it."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _of_folders(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
                yield from _of_folders(root / "sys/fs/cgroup/memory", path, *names)


def _of_folders(base: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    inner = base / path.lstrip("/")
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # no such file, or "max"
            most = int((folder / limit).read_text())
            stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
            if most < _UNLIMITED:
                yield most - int((folder / usage).read_text()) + int(stat.get(cache, 0))
        if folder == base:
            return


def _of_address_space(root: Path) -> Iterator[int]:
    limit = _address_limit()
    if limit is not None:
        with suppress(OSError):
            pages = int((root / "proc/self/statm").read_text("utf-8").split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")


def _address_limit() -> int | None:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
