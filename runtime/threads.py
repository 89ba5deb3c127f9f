"""How many threads a computation bound by memory and vector units can use: one for each physical core.

Where cores are of two kinds, or share too little memory bandwidth, fewer can be quicker: `thirteen bench
tune-threads` measures that, and engines take what it found.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError
from ..files.cache_folder import cache_dir
from ..files.output import output_errors
from ..files.processors import usable_processors

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """How many compute: tokens one after the other, and prompts."""

    decode: int
    prefill: int


def default_threads() -> ThreadCounts:
    """What was measured on as many processors as there are now; else one for each physical core."""
    try:
        found = json.loads(_tuned().read_bytes())
        if found["processors"] == usable_processors():
            threads = ThreadCounts(int(found["decode"]), int(found["prefill"]))
            if 1 <= min(asdict(threads).values()) <= max(asdict(threads).values()) <= usable_processors():
                return threads
    except (OSError, OutputError, ValueError, TypeError, KeyError):
        pass  # nothing was measured, or it was written by something else
    return ThreadCounts(physical_cores(), physical_cores())


def save_threads(threads: ThreadCounts) -> Path:
    """Have default_threads() give these from now on; returns the file that says so.

    Raises:
        OutputError: it cannot be written.
    """
    path = _tuned()
    with output_errors(path):
        path.write_text(json.dumps({"processors": usable_processors()} | asdict(threads)) + "\n", "utf-8")
    return path


def _tuned() -> Path:
    return cache_dir() / "threads.json"


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
