"""Number of threads while other programs use the processors: fewer at once, more again when it is quiet.

The threads of a batch wait for each other at barriers, spinning. Where another program takes one of their
processors, all of them wait for the thread that has lost it: on two cores, two threads beside one busy
program decode at a third of their speed and at times far below, where one thread keeps two thirds.
"""

import os
from collections.abc import Callable
from time import perf_counter, process_time, sleep

import psutil

_WINDOW_S = 0.03  # computing time that is judged at once
_LOST_MAX = 0.15  # of the time that threads which never wait for a processor would get
_LOST_PROCESSORS_MAX = 0.4  # processors' worth of time, which is less with many threads
_ROUNDING = 0.3  # processors: what short disturbances and the clocks' steps may take from a free one
_WAIT_S, _WAIT_MAX_S = 0.25, 1.0  # between looks at the idle processors
# After a pause without a batch the past says nothing, and a prompt may be a single long batch: a short look,
# of a few ticks of the idle clock.
_PAUSE_S, _LOOK_S = 0.25, 0.03


def idle_seconds() -> float:
    """Time that the usable processors have been idle, added up, since an arbitrary moment."""
    times = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        # psutil leaves out processors that are offline, and so their numbers.
        numbers = usable if len(times) == len(usable) else range(len(times))
        times = [time for number, time in zip(numbers, times, strict=True) if number in usable] or times
    return sum(float(time.idle) for time in times)


class ThreadGovernor:
    """The limit of threads for the next batch, by what those of the last batches really got."""

    def __init__(self, maximum: int) -> None:
        self.maximum = self.limit = maximum
        self._wall_s = self._granted_s = self._wanted_s = 0.0  # of the batches since the last judgement
        self._wait_s, self._raised_at, self._ended_at = _WAIT_S, -_WAIT_MAX_S, perf_counter()
        self._look = (0.0, 0.0, 0.0)  # time, own and idle processor time when the limit was last looked at

    def resume(self) -> None:
        """Look at the processors anew, if no batch has run for a while and some threads are unused."""
        if self.limit < self.maximum and perf_counter() - self._ended_at > _PAUSE_S:
            self._look = self._now()
            sleep(_LOOK_S)
            self._raise()

    def run(self, compute: Callable[[], int], threads: int) -> int:
        """Compute a batch with `threads` threads, and adapt the limit to what they got."""
        start, granted = perf_counter(), process_time()
        result = compute()
        self._ended_at = perf_counter()
        wall_s = self._ended_at - start
        self._wall_s += wall_s
        self._granted_s += process_time() - granted
        self._wanted_s += wall_s * threads
        if self._wall_s >= _WINDOW_S:
            self._adapt()
            self._wall_s = self._granted_s = self._wanted_s = 0.0
        return result

    def _adapt(self) -> None:
        lost_s = self._wanted_s - self._granted_s
        if self.limit > 1 and lost_s > min(_LOST_MAX * self._wanted_s, _LOST_PROCESSORS_MAX * self._wall_s):
            self._lower(int(self._granted_s / self._wall_s + _ROUNDING))
        elif self.limit < self.maximum and perf_counter() - self._look[0] >= self._wait_s:
            self._raise()

    def _lower(self, processors: int) -> None:
        self.limit = max(1, min(processors, self.limit - 1))
        again = perf_counter() - self._raised_at < _WAIT_MAX_S  # the last attempt to use more was wrong
        self._wait_s = min(2 * self._wait_s, _WAIT_MAX_S) if again else _WAIT_S
        self._look = self._now()

    def _raise(self) -> None:
        """Use the processors that were idle since the last look, beside those that this process used."""
        before, self._look = self._look, self._now()
        elapsed, own, idle = (now - then for now, then in zip(self._look, before, strict=True))
        free = int((own + idle) / elapsed + _ROUNDING)
        if free > self.limit:
            self.limit, self._raised_at = min(free, self.maximum), self._look[0]

    def _now(self) -> tuple[float, float, float]:
        return perf_counter(), process_time(), idle_seconds()
