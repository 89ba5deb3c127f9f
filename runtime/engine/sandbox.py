"""Limits for untrusted code that runs in this process: on its steps, its time and its memory."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from time import perf_counter
from types import FrameType
from typing import Any

import psutil

try:
    import resource
except ImportError:  # Windows: memory is not limited there
    resource = None  # type: ignore[assignment]

STEPS_MAX = 1 << 20  # lines of Python; a long conversation takes about ten thousand
SECONDS_MAX = 10.0
BYTES_MAX = 1 << 28  # of address space beyond what is in use
_memory_lock = RLock()


class LimitError(Exception):
    """The code has exceeded a limit."""


@contextmanager
def limited() -> Iterator[None]:
    """Limit the code inside, on this thread.

    Raises:
        LimitError: the code ran more than STEPS_MAX lines or SECONDS_MAX seconds.
        MemoryError: too much memory (on Linux).
    """
    steps, deadline, previous = 0, 0.0, sys.gettrace()

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > STEPS_MAX:
            raise LimitError(f"more than {STEPS_MAX} steps")
        if perf_counter() > deadline:
            raise LimitError(f"more than {SECONDS_MAX:g} seconds")
        return trace

    with limited_memory():
        deadline = perf_counter() + SECONDS_MAX  # waiting for the lock does not count
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(previous)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the memory that the code inside may allocate, on Linux; beyond it gets a MemoryError.

    The limit is the whole process's: threads take turns here, and each restores what it found.
    """
    if resource is None or sys.platform != "linux":
        yield
        return
    with _memory_lock:
        yield from _limited_address_space()


def _limited_address_space() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + BYTES_MAX
    present = [old for old in (soft, hard) if old != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *present]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
