"""Sets asyncio events from another thread; several of them wake the loop once."""

import asyncio
from contextlib import suppress
from threading import Lock
from weakref import WeakKeyDictionary, ref


class LoopWaker:
    """Wakes one event loop. Each wake-up costs the loop an iteration, taken from the thread that computes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._lock = Lock()  # guards _events
        self._events: list[asyncio.Event] = []

    def set_soon(self, event: asyncio.Event) -> None:
        """Set an event of the loop soon, from any thread; does nothing if the loop is closed."""
        with self._lock:
            self._events.append(event)
            first = len(self._events) == 1
        if first and (loop := self._loop()):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._set_events)

    def _set_events(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        for event in events:
            event.set()


_wakers: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWaker] = WeakKeyDictionary()
_lock = Lock()  # guards _wakers


def waker_of(loop: asyncio.AbstractEventLoop) -> LoopWaker:
    """Return the one waker of a loop."""
    with _lock:
        return _wakers.setdefault(loop, LoopWaker(loop))
