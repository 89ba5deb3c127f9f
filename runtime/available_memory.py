"""Memory that this process can still allocate: of the machine, its control groups, its limits."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from .control_groups import ROOT, memory_limits

_STACK_BYTES = 8 << 20  # address space of a thread's stack, unless a limit says otherwise
_ARENA_BYTES = 64 << 20  # glibc's malloc arena of the engine's own thread
_TABLES_BYTES = 60 << 20  # llama.cpp's graphs and late Python imports; most of it is never touched


def available_bytes(root: Path = ROOT) -> int:
    """Return the bytes left for this process.

    Page cache does not count as used: the system drops it when the memory is needed.

    Args:
        root: parent of the /proc and /sys that describe the control groups.
    """
    machine: int = psutil.virtual_memory().available
    groups = (limit - used for limit, used in memory_limits(root))
    return max(0, min([machine, *groups, *_address_space_bytes()]))


def reserved_bytes(threads: int) -> int:
    """Return the address space that is reserved but hardly filled, stacks included; 0 without RLIMIT_AS."""
    if _address_limit() is None:
        return 0
    arena = 0 if os.environ.get("MALLOC_ARENA_MAX") == "1" else _ARENA_BYTES
    return (threads + 1) * _STACK_BYTES + arena + _TABLES_BYTES


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
