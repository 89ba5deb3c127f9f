"""Memory that this process can still allocate: of the machine, its control groups, its limits."""

import os
from pathlib import Path

import psutil

from .control_groups import ROOT, memory_limits
from .resource_limits import address_space_limit

_STACK_BYTES = 8 << 20  # address space of a thread's stack, unless a limit says otherwise
_ARENA_BYTES = 64 << 20  # glibc's malloc arena of the engine's own thread
_TABLES_BYTES = 60 << 20  # llama.cpp's graphs and late Python imports; most of it is never touched


def available_bytes(root: Path = ROOT) -> int:
    """Return the bytes left for this process.

    Page cache does not count as used: the system drops it when the memory is needed.

    Args:
        root: parent of the /proc and /sys that describe the control groups.
    """
    available: list[int] = [psutil.virtual_memory().available]
    available += [limit - used for limit, used in memory_limits(root)]
    if (limit := address_space_limit()) is not None:
        available.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(available))


def reserved_bytes(threads: int) -> int:
    """Return the address space that is reserved but hardly filled, stacks included; 0 without RLIMIT_AS."""
    if address_space_limit() is None:
        return 0
    arena = 0 if os.environ.get("MALLOC_ARENA_MAX") == "1" else _ARENA_BYTES
    return (threads + 1) * _STACK_BYTES + arena + _TABLES_BYTES
