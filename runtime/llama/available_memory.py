"""Memory that this process can still allocate: of the machine, its control groups, its limits."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_ROOT = Path("/")
_STACK_BYTES = 8 << 20  # address space of a thread's stack, unless a limit says otherwise
_ARENA_BYTES = 64 << 20  # glibc's malloc arena of the engine's own thread
_TABLES_BYTES = 60 << 20  # llama.cpp's graphs and late Python imports; most of it is never touched
_UNLIMITED = 1 << 60  # cgroup v1 writes a number of pages near 2**63 for no limit


def available_bytes(root: Path = _ROOT) -> int:
    """Return the bytes left for this process.

    Page cache does not count as used: the system drops it when the memory is needed.

    Args:
        root: parent of the /proc and /sys that describe the control groups.
    """
    machine: int = psutil.virtual_memory().available
    return max(0, min([machine, *_cgroup_bytes(root), *_address_space_bytes()]))


def reserved_bytes(threads: int) -> int:
    """Return the address space that is reserved but hardly filled, stacks included; 0 without RLIMIT_AS."""
    if _address_limit() is None:
        return 0
    arena = 0 if os.environ.get("MALLOC_ARENA_MAX") == "1" else _ARENA_BYTES
    return (threads + 1) * _STACK_BYTES + arena + _TABLES_BYTES


def _cgroup_bytes(root: Path) -> Iterator[int]:
    """Yield the bytes left in the control group of this process and in each of its parents."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                files = ("memory.max", "memory.current", "file")
                yield from _folder_bytes(root / "sys/fs/cgroup", path, *files)
            elif "memory" in controllers.split(","):
                files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
                yield from _folder_bytes(root / "sys/fs/cgroup/memory", path, *files)


def _folder_bytes(base: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    inner = base / path.lstrip("/")
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit_bytes = int((folder / limit).read_text())
            stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
            if limit_bytes < _UNLIMITED:
                yield limit_bytes - int((folder / usage).read_text()) + int(stat.get(cache, 0))
        if folder == base:
            return


def _address_space_bytes() -> Iterator[int]:
    limit = _address_limit()
    if limit is not None:
        yield limit - psutil.Process().memory_info().vms


def _address_limit() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
