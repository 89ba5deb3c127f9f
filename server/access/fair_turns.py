"""Turns at a job that one request does at a time: clients take turns, each with its smallest first."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

_Waiter = tuple[int, int, "asyncio.Future[None]"]  # size, order of arrival, set when its turn comes


class FairTurns:
    """A lock of an event loop that no client can keep from the others by asking often."""

    def __init__(self) -> None:
        self._busy = False
        # By client, whose turn is next first; each list is a heap.
        self._waiting: dict[str, list[_Waiter]] = {}
        self._arrivals = count()

    @asynccontextmanager
    async def turn(self, client: str, size: int) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the duration of the block."""
        if self._busy:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting.setdefault(client, []), (size, next(self._arrivals), waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():  # the turn had just come
                    self._pass_on()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the turn to the next client that waits."""
        self._busy = False
        while self._waiting:
            client, waiters = next(iter(self._waiting.items()))
            *_, waiter = heapq.heappop(waiters)
            if not waiters or not waiter.done():
                del self._waiting[client]
            if waiter.done():  # cancelled
                continue
            if waiters:
                self._waiting[client] = waiters  # behind the others
            self._busy = True
            waiter.set_result(None)
            return
