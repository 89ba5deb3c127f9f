"""Bounds for code from strangers that runs in this process: on its steps, its time and its memory."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from time import perf_counter
from types import FrameType
from typing import Any

try:
    import resource
except ImportError:  # Windows: there, memory is not bounded
    resource = None  # type: ignore[assignment]

STEPS_MAX = 1 << 20  # lines of Python; a long conversation takes some ten thousand
SECONDS_MAX = 10.0
_turn = RLock()
BYTES_MAX = 1 << 28  # of address space beyond what is in use


class LimitError(Exception):
    """The code has used up its bounds."""


@contextmanager
def limited() -> Iterator[None]:
    """Bound what runs inside, on this thread.

    Raises:
        LimitError: it has run too many lines or too long, whatever it was doing.
        MemoryError: it asked for too much memory (on Linux).
    """
    steps, deadline, before = 0, 0.0, sys.gettrace()

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > STEPS_MAX or perf_counter() > deadline:
            raise LimitError(f"stopped after {min(steps, STEPS_MAX)} steps: it does not seem to end")
        return trace

    with limited_memory():
        deadline = perf_counter() + SECONDS_MAX  # the wait for its turn is not its own time
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Bound the memory that what runs inside may ask for, on Linux; beyond, it meets a MemoryError.

    The bound is the whole process's, so threads take turns here: each leaves what it found.
    """
    if resource is None or sys.platform != "linux":
        yield
        return
    with _turn:
        yield from _bounded()


def _bounded() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    bound = pages * resource.getpagesize() + BYTES_MAX
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([bound, *given]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
