"""What this process may use of the machine: memory and processors, also by the limits of control groups.

Control groups (version 2) are Linux's; elsewhere there are none.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from ..files.processors import usable_processors

ROOT = Path("/")  # parent of the /proc and /sys that describe the groups
_SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def available_bytes(root: Path = ROOT) -> int:
    """Bytes left for this process; page cache, which the system drops when needed, counts as free."""
    available: int = psutil.virtual_memory().available
    left = (limit - used for limit, used in memory_limits(root))
    return max(0, min([available, *left]))


def default_threads() -> int:
    """Return the number of physical cores, or of processors whose time the control group grants, if less.

    Inference is bound by memory bandwidth and vector units, which hardware threads of a core share.
    """
    return min(physical_cores(), usable_threads())


def usable_threads() -> int:
    """Return the number of usable processors, or of those whose time the control group grants, if less."""
    return max(1, min([usable_processors(), *map(round, processor_limits())]))


def physical_cores(root: Path = ROOT) -> int:
    """Number of physical cores in this process's affinity mask.

    Only Linux reports which processors share a core: elsewhere the machine's cores, or the mask if smaller.
    """
    if hasattr(os, "sched_getaffinity"):
        return len({_core(cpu, root) for cpu in os.sched_getaffinity(0)})
    return min(psutil.cpu_count(logical=False) or usable_processors(), usable_processors())


def _core(cpu: int, root: Path) -> str:
    try:  # not core_id, which begins again in each cluster of an Arm processor
        return (root / _SIBLINGS.format(cpu)).read_text()
    except OSError:
        return str(cpu)  # no /sys, as in some containers: every processor counts


def memory_limits(root: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of the process's group and of each of its parents that has a limit.

    Page cache does not count as used, but shared memory and files in a tmpfs, which cannot be dropped.
    """
    for folder in _folders(root):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield limit, used - (int(stat["file"]) - int(stat["shmem"]))


def processor_limits(root: Path = ROOT) -> Iterator[float]:
    """Yield the processors' worth of time of the process's group and of each of its parents with a limit."""
    for folder in _folders(root):
        with suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            yield quota / period


def _folders(root: Path) -> Iterator[Path]:
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                base = root / "sys/fs/cgroup"
                inner = base / line.removeprefix("0::/")
                yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(base))
