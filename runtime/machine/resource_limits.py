"""Limits on what this process may use; Windows has none of them."""

import os
import sys
from math import ceil
from pathlib import Path
from time import process_time

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def lower_limit(name: str, value: int) -> None:
    """Lower a limit, such as "RLIMIT_CORE", to `value`, where the system has it."""
    number = getattr(resource, name, None)
    if number is not None:
        soft, hard = resource.getrlimit(number)
        resource.setrlimit(number, (_at_most(value, soft, hard), hard))


def address_space_limit() -> int | None:
    """The limit of the address space in bytes, if there is one."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def limit_address_space(nbytes: int) -> None:
    """Limit the address space to `nbytes` more than the process has now; on Linux only."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        lower_limit("RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + nbytes)


def limit_processor_time(seconds: int) -> None:
    """Let the process compute for `seconds` more, then end it with SIGXCPU; a later call begins anew."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_at_most(ceil(process_time()) + seconds, hard), hard))


def _at_most(value: int, *limits: int) -> int:
    return min([value, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])
