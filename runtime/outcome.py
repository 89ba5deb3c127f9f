"""Waiting for another thread in a way that Ctrl-C can interrupt at any moment.

Ctrl-C raises KeyboardInterrupt between two instructions of the main thread. In the methods of
threading.Condition, which are Python, that may be right after its lock was taken and before anything releases
it; then the thread that computes would wait for the lock for ever. The same holds for what is made of
conditions: Event, Semaphore, and concurrent.futures.Future. Here nothing holds a lock: values are set before
waiters are woken, and each waiter has a queue of its own, whose operations are not interrupted halfway.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Signal:
    """Wakes the threads and the event loops that wait for a condition."""

    def __init__(self) -> None:
        self._wakers: list[Callable[[], None]] = []

    def notify_all(self) -> None:
        """Let all look at their condition again."""
        for wake in tuple(self._wakers):
            wake()

    @contextmanager
    def event(self) -> Iterator[asyncio.Event]:
        """An event of the running loop, which every notification sets."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(event.set)

        self._wakers.append(wake)
        try:
            yield event
        finally:
            self._wakers.remove(wake)

    def wait_for(self, condition: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until the condition holds; False if it did not within `timeout` seconds."""
        if condition():
            return True
        waiter: SimpleQueue[None] = SimpleQueue()
        wake = partial(waiter.put, None)
        end = None if timeout is None else monotonic() + timeout
        self._wakers.append(wake)
        try:
            while not condition():
                waiter.get(timeout=None if end is None else max(end - monotonic(), 0))
        except Empty:
            return bool(condition())
        finally:
            self._wakers.remove(wake)
        return True


class Outcome(Generic[T]):
    """A result that one thread sets, or its failure, and others wait for.

    Attributes:
        done: whether there is a result or a failure.
        failure: the failure; None without one, or while it is not done.
    """

    def __init__(self) -> None:
        self._changed = Signal()
        self._result: T
        self.failure: BaseException | None = None
        self.done = False
        self._callbacks: deque[Callable[[], None]] = deque()

    def set_result(self, result: T) -> None:
        """End with a result."""
        self._result = result
        self._end()

    def set_failure(self, failure: BaseException) -> None:
        """End with a failure, which result() raises."""
        self.failure = failure
        self._end()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result, at most `timeout` seconds.

        Raises:
            TimeoutError: there is none in time.
            BaseException: the failure.
        """
        if not self.wait_done(timeout):
            raise TimeoutError
        if self.failure is not None:
            raise self.failure
        return self._result

    def wait_done(self, timeout: float | None = None) -> bool:
        """Wait until it is done; False if it was not within `timeout` seconds."""
        return self._changed.wait_for(lambda: self.done, timeout)

    async def wait(self) -> None:
        """Wait in an event loop until it is done."""
        with self._changed.event() as ended:
            if not self.done:
                await ended.wait()

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the thread that ends this, or now if it has ended."""
        self._callbacks.append(callback)
        if self.done:
            self._call_all()

    def run(self, function: Callable[[], T]) -> None:
        """End with the result of a function, or with what it raises."""
        try:
            self.set_result(function())
        except BaseException as failure:
            self.set_failure(failure)

    def _end(self) -> None:
        assert not self.done, "it ends once"
        self.done = True
        self._changed.notify_all()
        self._call_all()

    def _call_all(self) -> None:
        """Call what was registered, each callback once, whichever thread takes it."""
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:  # another thread took the last one
                return
            callback()
