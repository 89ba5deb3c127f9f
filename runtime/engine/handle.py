"""Handle of a submitted request: its pieces as they come, its answer at the end, and abort."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from typing import Any

from ..answer import Answer, Piece, SequenceEnd

Grade = Callable[[str, SequenceEnd], Answer]


class Handle:
    """A submitted request, for any thread and any event loop.

    Iterating with `for` or `async for` yields the pieces as they come; several iterators share them. Leaving
    the loop early aborts the request. `answer()` and `await` wait for the whole answer.
    """

    def __init__(self, abort: Callable[[], None], grade: Grade) -> None:
        """Wait for pieces; put() and fail() receive them.

        `abort` ends the request within one step; `grade` makes the answer of the whole text and its end, in a
        thread that waits for it.
        """
        self._abort, self._grade = abort, grade
        self._listeners: list[Callable[[], None]] = []  # of threads and event loops that iterate
        self._pieces: deque[Piece] = deque()  # not yet taken by an iterator
        self._text: list[str] = []
        # No future: Ctrl-C in a waiting thread could leave its lock taken, which the compute thread needs.
        self._end: SequenceEnd | Exception | None = None
        self._callbacks: list[Callable[[Handle], object]] = []

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._end is not None

    def abort(self) -> None:
        """End the request within one step; does nothing if it has ended."""
        if not self.done:
            self._abort()

    def add_done_callback(self, callback: Callable[["Handle"], object]) -> None:
        """Call `callback` with this handle at the end, or now if it has ended.

        It runs in the compute thread: it must be short, and must not wait for this engine.
        """
        self._callbacks.append(callback)
        if self.done:
            self._call_back()

    def _call_back(self) -> None:
        """Call each callback once, also if another thread does so at the same time."""
        with suppress(IndexError):  # there are no more
            while True:
                self._callbacks.pop(0)(self)

    def put(self, piece: Piece) -> None:
        """Receive a piece, without the answer; it is the last one if it has an end."""
        self._text.append(piece.text)
        self._pieces.append(piece)
        self._end = piece.end
        self._wake()

    def fail(self, failure: Exception) -> None:
        """Receive the failure of the request instead of its last piece."""
        self._end = failure
        self._wake()

    def _wake(self) -> None:
        for listener in tuple(self._listeners):
            listener()
        if self.done:
            self._call_back()

    def wait(self, timeout: float | None = None) -> SequenceEnd:
        """Wait for the end, or until a TimeoutError; raises the failure of the computation."""
        if not self.done:
            ended: SimpleQueue[Handle] = SimpleQueue()
            self.add_done_callback(ended.put)
            try:
                ended.get(timeout=timeout)
            except Empty:
                raise TimeoutError("the request has not ended") from None
        if isinstance(self._end, Exception):
            raise self._end
        assert self._end, "it has ended"
        return self._end

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer; see wait()."""
        self.wait(timeout)
        return self._answer

    @cached_property
    def _answer(self) -> Answer:
        return self._grade("".join(self._text), self.wait())

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._wait().__await__()

    async def _wait(self) -> Answer:
        try:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            self.add_done_callback(lambda _: _set_in(loop, ended))
            await ended.wait()
            return await asyncio.to_thread(self.answer)  # checks the equations, which takes a while
        finally:
            self.abort()

    def __iter__(self) -> Iterator[Piece]:
        changed: SimpleQueue[None] = SimpleQueue()  # no lock, which Ctrl-C could leave taken
        with self._listening(partial(changed.put, None)):
            done = False
            while not done:
                done, pieces = self.done, self._take()
                if pieces or done:
                    yield Piece.joined(pieces, self.answer() if done else None)
                else:
                    changed.get()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        with self._listening(partial(_set_in, loop, changed)):
            done = False
            while not done:
                changed.clear()
                done, pieces = self.done, self._take()
                if pieces or done:
                    yield Piece.joined(pieces, await asyncio.to_thread(self.answer) if done else None)
                else:
                    await changed.wait()

    @contextmanager
    def _listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call a listener at each piece, and abort the request at the end of the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
            self.abort()

    def _take(self) -> list[Piece]:
        pieces = list[Piece]()
        with suppress(IndexError):  # there are no more
            while True:
                pieces.append(self._pieces.popleft())
        return pieces


def _set_in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(event.set)
