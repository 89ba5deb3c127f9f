"""Handle of a submitted request: its pieces as they come, its answer at the end, and abort."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cached_property
from threading import Thread
from typing import Any

from ..answer import Answer, Piece
from ..forks import ForkCheck
from ..outcome import Outcome, Signal
from ..request import SequenceEnd


class Handle:
    """A submitted request, for any thread and any event loop.

    Iterating with `for` or `async for` yields the pieces as they come; several iterators share them. Leaving
    the loop early aborts the request. `answer()` and `await` wait for the whole answer.

    Attributes:
        width: how many sequences run for it at once, at most.
    """

    def __init__(
        self,
        abort: Callable[[], None],
        grade: Callable[[str, SequenceEnd], Answer],
        place: Callable[[], int] = lambda: 0,
        width: int = 1,
    ) -> None:
        """Wait for pieces; put() and fail() receive them.

        `abort` ends the request within one step; `grade` makes the answer of the whole text and its end, in a
        thread that waits for it.
        """
        self._abort, self._grade, self._place, self.width = abort, grade, place, width
        self._changed = Signal()
        self._pieces: deque[Piece] = deque()  # not yet taken by an iterator
        self._text: list[str] = []
        self._end: Outcome[SequenceEnd] = Outcome()
        self._fork = ForkCheck()

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._end.done

    @property
    def failed(self) -> bool:
        """Whether the request has ended because the computation failed."""
        return self._end.failure is not None

    @property
    def place(self) -> int:
        """Place in the queue, by arrival: 1 is the next; 0 if it has a slot, or has ended."""
        return self._place()

    def abort(self) -> None:
        """End the request within one step; does nothing if it has ended.

        Dispatcher posts it to Runner.abort(); Scheduler.finish() frees the slot.
        """
        if not self.done:
            self._abort()

    def add_done_callback(self, callback: Callable[["Handle"], None]) -> None:
        """Call `callback` with this handle at the end, in a thread of its own: it may wait, ask and close."""

        def start() -> None:
            Thread(target=callback, args=(self,), name="thirteen-callback", daemon=True).start()

        self._end.call_at_end(start)

    def call_at_end(self, callback: Callable[["Handle"], None]) -> None:
        """Call `callback` with this handle at the end, in the engine's thread, or now if it has ended.

        No other sequence is computed meanwhile, and what waits for the engine waits for ever.
        """
        self._end.call_at_end(lambda: callback(self))

    def put(self, piece: Piece) -> None:
        """Receive a piece, without the answer; it is the last one if it has an end."""
        self._text.append(piece.text)
        self._pieces.append(piece)
        if piece.end:
            self._end.set_result(piece.end)
        self._changed.notify_all()

    def fail(self, failure: Exception) -> None:
        """Receive the failure of the request, instead of its last piece."""
        self._end.set_failure(failure)
        self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> SequenceEnd:
        """Wait for the end, at most for so many seconds.

        Raises:
            TimeoutError: the request has not ended in time; it continues.
            FileError: the computation failed.
            RequestError: this process was forked after the request was submitted.
        """
        self._fork.check()
        return self._end.result(timeout)

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer; see wait()."""
        self.wait(timeout)
        return self._answer

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._wait().__await__()

    async def _wait(self) -> Answer:
        self._fork.check()
        try:
            await self._end.wait()
            return await asyncio.to_thread(self.answer)  # checks the equations, which takes a while
        finally:
            self.abort()

    def __iter__(self) -> Iterator[Piece]:
        self._fork.check()
        try:
            last = False
            while not last:
                self._changed.wait_for(lambda: self._pieces or self.done)
                pieces, done = self._take()
                if not pieces and not done:  # another iterator took them
                    continue
                yield (piece := self._join(pieces))
                last = piece.answer is not None
        finally:
            self.abort()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        self._fork.check()
        try:
            with self._changed.event() as changed:
                last = False
                while not last:
                    changed.clear()
                    pieces, done = self._take()
                    if not pieces and not done:
                        await changed.wait()
                        continue
                    if not pieces or pieces[-1].end:
                        await asyncio.to_thread(self.answer)
                    yield (piece := self._join(pieces))
                    last = piece.answer is not None
        finally:
            self.abort()

    def _take(self) -> tuple[list[Piece], bool]:
        """Take the pieces so far; True if there will be no more."""
        done, pieces = self.done, list[Piece]()
        while self._pieces:
            try:
                pieces.append(self._pieces.popleft())
            except IndexError:  # another iterator took the last one
                break
        return pieces, done

    def _join(self, pieces: list[Piece]) -> Piece:
        ended = not pieces or pieces[-1].end
        return Piece.joined(pieces, self.answer() if ended else None)

    @cached_property
    def _answer(self) -> Answer:
        return self._grade("".join(self._text), self._end.result(0))
