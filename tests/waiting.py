"""Waiting for what other threads and processes do."""

from collections.abc import Callable
from time import monotonic, sleep


def wait_until(condition: Callable[[], object], timeout_s: float = 60, pause_s: float = 0.005) -> None:
    """Wait until a condition holds, which is asked every `pause_s`; fail after `timeout_s`."""
    end = monotonic() + timeout_s
    while not condition():
        assert monotonic() < end, f"not within {timeout_s} s"
        sleep(pause_s)
