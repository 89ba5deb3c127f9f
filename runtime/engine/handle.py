"""What a caller has of a request: its pieces as they come, its answer at the end, and the way to end it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from threading import Condition
from typing import Any

from ..answer import Answer
from ..arithmetic.calculator import check_steps, is_verified
from ..arithmetic.final_answer import final_answer, format_number
from ..request import SequenceEnd, TokenLogprob
from .loop_waker import LoopWaker, waker_of
from .runner import SequenceUpdate


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer; the last piece also carries the whole.

    Attributes:
        text: what is certain since the last piece.
        tokens: those since the last piece; their text may still be coming.
        logprobs: of each of these tokens, if the request wants them.
        answer: the whole answer, None while there may be more.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    answer: Answer | None = None


class Handle:
    """A request that the engine has taken in. Any thread may use it, and any event loop.

    Iterating, with `for` or `async for`, gives the pieces as they come; each goes to one taker. Leaving the
    loop early aborts the request. `answer()` and `await` wait for the whole.
    """

    def __init__(self, abort: Callable[[], None]) -> None:
        self._abort = abort
        self._changed = Condition()
        self._news: list[SequenceUpdate] = []
        self._text: list[str] = []
        self._listening: list[tuple[LoopWaker, asyncio.Event]] = []
        self._end: Future[SequenceEnd] = Future()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._end.done()

    @property
    def failed(self) -> bool:
        """Whether it has ended because the computation failed."""
        return self.done and self._end.exception() is not None

    def abort(self) -> None:
        """End it within a step; nothing happens if it has ended already."""
        if not self.done:
            self._abort()

    def when_done(self, call: Callable[["Handle"], None]) -> None:
        """Have something called with this at its end, by the engine's thread, or now if it has ended."""
        self._end.add_done_callback(lambda _: call(self))

    def put(self, update: SequenceUpdate) -> None:
        """Take in news; only for the engine."""
        with self._changed:
            self._news.append(update)
            self._text.append(update.text)
            if update.end:
                self._end.set_result(update.end)
            self._wake()

    def fail(self, failure: Exception) -> None:
        """Take in that there will be no answer; only for the engine."""
        with self._changed:
            self._end.set_exception(failure)
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for bell, came in self._listening:
            bell.ring(came)

    def wait(self, timeout: float | None = None) -> SequenceEnd:
        """Wait for the end.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it has not ended within the time; it goes on.
            ModelFileError: the computation failed.
        """
        return self._end.result(timeout)

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer; see wait()."""
        self.wait(timeout)
        return self._answer

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._wait().__await__()

    async def _wait(self) -> Answer:
        try:
            await asyncio.shield(asyncio.wrap_future(self._end))
            return self._answer
        finally:
            self.abort()

    def __iter__(self) -> Iterator[Piece]:
        try:
            last = False
            while not last:
                with self._changed:
                    self._changed.wait_for(lambda: self._news or self.done)
                    news = self._take()
                yield (piece := self._piece(news))
                last = piece.answer is not None
        finally:
            self.abort()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        listening = (waker_of(asyncio.get_running_loop()), came := asyncio.Event())
        with self._changed:
            self._listening.append(listening)
        try:
            last = False
            while not last:
                came.clear()
                with self._changed:
                    news, done = self._take(), self.done
                if not news and not done:
                    await came.wait()
                    continue
                yield (piece := self._piece(news))
                last = piece.answer is not None
        finally:
            with self._changed:
                self._listening.remove(listening)
            self.abort()

    def _take(self) -> list[SequenceUpdate]:
        news, self._news = self._news, []
        return news

    def _piece(self, news: list[SequenceUpdate]) -> Piece:
        tokens = tuple(token for update in news for token in update.tokens)
        logprobs = tuple(logprob for update in news for logprob in update.logprobs)
        ended = not news or news[-1].end is not None
        answer = self.answer() if ended else None
        return Piece("".join(update.text for update in news), tokens, logprobs, answer)

    @cached_property
    def _answer(self) -> Answer:
        """The whole answer, once it has ended."""
        end, text = self.wait(0), "".join(self._text)
        number, equations = final_answer(text), check_steps(text)
        value = None if number is None else format_number(number)
        return Answer(
            value=value,
            text=text,
            stop_reason=end.stop_reason,
            usage=end.usage,
            timings=end.timings,
            steps=equations,
            verified=is_verified(equations, value),
        )
