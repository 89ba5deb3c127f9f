"""The processors that this process may use."""

import os


def usable_processors() -> int:
    """The number of processors in this process's affinity mask; hardware threads count one each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
