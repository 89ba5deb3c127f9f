"""Default number of threads: one per physical core that this process may use.

Inference is bound by memory bandwidth and vector units, which hardware threads of a core share.
"""

import os
from pathlib import Path

from ...files.processors import usable_processors
from .control_groups import processor_limits

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def default_threads() -> int:
    """Return the number of physical cores, or of processors whose time the control group grants, if less."""
    return min(physical_cores(), usable_threads())


def usable_threads() -> int:
    """Return the number of usable processors, or of those whose time the control group grants, if less."""
    return max(1, min([usable_processors(), *map(round, processor_limits())]))


def physical_cores() -> int:
    """Return the number of physical cores in this process's affinity mask.

    Only Linux reports which processors share a core. Elsewhere it is the machine's number of cores, or the
    size of the mask if that is smaller.
    """
    if hasattr(os, "sched_getaffinity"):
        return len({_core(cpu) for cpu in os.sched_getaffinity(0)})
    import psutil  # noqa: PLC0415 - for the systems that need it

    return min(psutil.cpu_count(logical=False) or usable_processors(), usable_processors())


def _core(cpu: int) -> str:
    try:  # not core_id, which begins again in each cluster of an Arm processor
        return Path(_SIBLINGS.format(cpu)).read_text()
    except OSError:
        return str(cpu)  # no /sys, as in some containers: every processor counts
