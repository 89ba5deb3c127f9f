"""How many threads a computation bound by memory and vector units can use: one for each physical core."""

import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


def physical_cores() -> int:
    """Physical cores that this process may run on; hardware threads of one core count once.

    Where the system does not tell (anywhere but Linux) every processor counts.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_core(cpu) for cpu in os.sched_getaffinity(0)})


def _core(cpu: int) -> tuple[str, ...]:
    topology = Path(_TOPOLOGY.format(cpu))
    try:
        return tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)  # a container without /sys: every processor counts
