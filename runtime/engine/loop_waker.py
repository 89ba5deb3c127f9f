"""Wakes tasks of an event loop from another thread, once for all that happened since the loop last woke."""

import asyncio
from contextlib import suppress
from threading import Lock
from weakref import WeakKeyDictionary, ref


class LoopWaker:
    """One of a loop. Each waking costs the loop a turn, which it takes from a thread that computes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._lock = Lock()  # of what is due
        self._due: list[asyncio.Event] = []

    def ring(self, event: asyncio.Event) -> None:
        """Set an event of the loop soon, from any thread; nothing happens if the loop is closed."""
        with self._lock:
            self._due.append(event)
            first = len(self._due) == 1
        if first and (loop := self._loop()):
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        with self._lock:
            due, self._due = self._due, []
        for event in due:
            event.set()


_bells: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWaker] = WeakKeyDictionary()
_lock = Lock()  # of these


def waker_of(loop: asyncio.AbstractEventLoop) -> LoopWaker:
    """The bell of a loop."""
    with _lock:
        return _bells.setdefault(loop, LoopWaker(loop))
