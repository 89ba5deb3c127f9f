"""Thread counts: one thread per physical core, or the counts that `thirteen bench tune` measured.

Inference is bound by memory bandwidth and vector units, which hardware threads of a core share. Fewer threads
can be faster where cores are of two kinds or share too little memory bandwidth.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError
from ..files.atomic_write import atomic_write
from ..files.cache_folder import cache_dir
from ..files.processors import usable_processors

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """Threads of decode and of prefill."""

    decode: int
    prefill: int


def default_threads() -> ThreadCounts:
    """Return the saved thread counts, or one thread per core."""
    return saved_threads() or ThreadCounts(physical_cores(), physical_cores())


def saved_threads() -> ThreadCounts | None:
    """Return the saved thread counts; None if there are none that were measured with as many processors."""
    try:
        found = json.loads(_tuning_file().read_bytes())
        if found["processors"] == usable_processors():
            threads = ThreadCounts(int(found["decode"]), int(found["prefill"]))
            if all(1 <= count <= usable_processors() for count in asdict(threads).values()):
                return threads
    except (OSError, OutputError, ValueError, TypeError, KeyError):
        pass  # nothing was measured, or the file is not ours
    return None


def save_threads(threads: ThreadCounts) -> Path:
    """Save thread counts for default_threads().

    Returns:
        The file.

    Raises:
        OutputError: it cannot be written.
    """
    path = _tuning_file()
    with atomic_write(path) as file:
        file.write(json.dumps({"processors": usable_processors()} | asdict(threads)).encode() + b"\n")
    return path


def _tuning_file() -> Path:
    return cache_dir() / "threads.json"


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
