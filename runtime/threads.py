"""Default number of threads: one per physical core that this process may use.

Inference is bound by memory bandwidth and vector units, which hardware threads of a core share.
"""

import os
from pathlib import Path

from ..files.processors import usable_processors
from .control_groups import processor_limits

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


def default_threads() -> int:
    """Return the number of physical cores, or of processors whose time the control group grants, if less."""
    return max(1, min([physical_cores(), *map(round, processor_limits())]))


def physical_cores() -> int:
    """Return the number of physical cores in this process's affinity mask.

    Only Linux reports which processors share a core. Elsewhere it is the machine's number of cores, or the
    size of the mask if that is smaller.
    """
    if hasattr(os, "sched_getaffinity"):
        return len({_core(cpu) for cpu in os.sched_getaffinity(0)})
    import psutil  # noqa: PLC0415 - for the systems that need it

    return min(psutil.cpu_count(logical=False) or usable_processors(), usable_processors())


def _core(cpu: int) -> tuple[str, ...]:
    topology = Path(_TOPOLOGY.format(cpu))
    try:
        return tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)  # no /sys, as in some containers: every processor counts
