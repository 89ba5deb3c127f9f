"""Handle of a submitted request: its pieces as they come, its answer at the end, and abort."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from typing import Any

from ..answer import Answer, VoteTally, with_confidence
from ..arithmetic.calculator import check_steps, is_verified
from ..arithmetic.final_answer import final_answer, format_number
from ..arithmetic.grounding import is_grounded
from ..forks import ForkCheck
from ..outcome import Outcome, Signal
from ..request import Request, SequenceEnd, TokenLogprob
from .runner import SequenceUpdate


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of an answer; the last piece also carries the whole answer.

    Attributes:
        text: characters that became final since the last piece.
        tokens: tokens sampled or inserted since the last piece; their text may follow in a later one.
        logprobs: log-probabilities of these tokens, and with Request.report_end of the token that ended them,
            if the request asks for them.
        answer: the whole answer, None while there may be more.
        tally: the votes so far, if there are new ones; of a question that is answered several times.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    answer: Answer | None = None
    tally: VoteTally | None = None


class Handle:
    """A submitted request, for any thread and any event loop.

    Iterating with `for` or `async for` yields the pieces as they come; several iterators share them. Leaving
    the loop early aborts the request. `answer()` and `await` wait for the whole answer.

    Attributes:
        width: how many sequences run for it at once, at most.
    """

    width = 1

    def __init__(self, abort: Callable[[], None], request: Request) -> None:
        self._abort, self._request = abort, request
        self._changed = Signal()
        self._updates: deque[SequenceUpdate] = deque()  # not yet taken by an iterator
        self._text: list[str] = []
        self._listeners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
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

    def put(self, update: SequenceUpdate) -> None:
        """Receive an update from the engine."""
        self._text.append(update.text)
        self._updates.append(update)
        if update.end:
            self._end.set_result(update.end)
        self._notify()

    def fail(self, failure: Exception) -> None:
        """Receive the failure of the request from the engine."""
        self._end.set_failure(failure)
        self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for loop, event in tuple(self._listeners):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(event.set)

    def wait(self, timeout: float | None = None) -> SequenceEnd:
        """Wait for the end.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: the request has not ended in time; it continues.
            ModelFileError: the computation failed.
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
                self._changed.wait_for(lambda: self._updates or self.done)
                updates, done = self._take_updates()
                if not updates and not done:  # another iterator took them
                    continue
                yield (piece := self._piece(updates))
                last = piece.answer is not None
        finally:
            self.abort()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        self._fork.check()
        listener = (asyncio.get_running_loop(), event := asyncio.Event())
        self._listeners.append(listener)
        try:
            last = False
            while not last:
                event.clear()
                updates, done = self._take_updates()
                if not updates and not done:
                    await event.wait()
                    continue
                if not updates or updates[-1].end:
                    await asyncio.to_thread(self.answer)
                yield (piece := self._piece(updates))
                last = piece.answer is not None
        finally:
            self._listeners.remove(listener)
            self.abort()

    def _take_updates(self) -> tuple[list[SequenceUpdate], bool]:
        """Take the updates so far; True if there will be no more."""
        done, updates = self.done, []
        while self._updates:
            try:
                updates.append(self._updates.popleft())
            except IndexError:  # another iterator took the last one
                break
        return updates, done

    def _piece(self, updates: list[SequenceUpdate]) -> Piece:
        tokens = tuple(token for update in updates for token in update.tokens)
        logprobs = tuple(logprob for update in updates for logprob in update.logprobs)
        ended = not updates or updates[-1].end is not None
        answer = self.answer() if ended else None
        return Piece("".join(update.text for update in updates), tokens, logprobs, answer)

    @cached_property
    def _answer(self) -> Answer:
        end, text = self.wait(0), "".join(self._text)
        number, equations = final_answer(text), check_steps(text)
        value = None if number is None else format_number(number)
        verified = is_verified(equations, value)
        request = self._request
        answer = Answer(
            value=value,
            text=text,
            stop_reason=end.stop_reason,
            usage=end.usage,
            timings=end.timings,
            steps=equations,
            verified=verified,
            foreign_share=request.foreign_share,
            grounded=verified and is_grounded(equations, request.question),
        )
        return with_confidence(answer, request.min_confidence)
