"""Service between the HTTP routes and the engine: models by name, submission, and reload."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from ..errors import BusyError
from ..files.gguf.metadata import MERGED_ADAPTER
from ..runtime.answer import Answer, Piece, SequenceEnd, StopReason
from ..runtime.effort import Effort
from ..runtime.engine.engine import Engine
from ..runtime.engine.handle import Handle
from ..runtime.request import BASE, Request
from .call import Call
from .http_errors import HttpError
from .metrics import Metrics

DEFAULT_MODEL = "default"  # a name of the first model, whatever its own is
RETRY_AFTER_MAX_S = 60  # OpenAI's clients take longer times for none
_MEAN_ANSWERS = 8  # answers over which the mean time of one is taken

Result = TypeVar("Result")


class EngineService:
    """The engine of a server, and the HTTP requests that it answers.

    Attributes:
        engine: the engine that answers new requests.
        models: engine adapter of each served model name; the first model is the default.
        metrics: Prometheus metrics.
        draining: whether the server is shutting down and refuses new requests.
    """

    def __init__(
        self,
        engine: Engine,
        models: Mapping[str, str],
        load_changed: Callable[[], Engine | None] = lambda: None,
    ) -> None:
        """Start without requests; `load_changed` loads the engine anew if its files have changed."""
        self.engine, self.models, self.draining = engine, models, False
        self.metrics = Metrics(lambda: self.engine)
        self._scoring, self._preparing = CapacityLimiter(1), CapacityLimiter(1)
        self._load_changed = load_changed
        self._calls = set[Call]()
        self._answer_s = 0.0

    @contextmanager
    def answering(self, call: Call) -> Iterator[None]:
        """Keep the engine of an HTTP request open until the end of the block."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.remove(call)
            self._close_unused(call.engine)

    async def reload(self) -> None:
        """Load what has changed on disk; requests end on what they began with.

        If a file cannot be loaded (ThirteenError), everything is as it was.
        """
        if engine := await to_thread.run_sync(self._load_changed):
            old, self.engine = self.engine, engine
            self._close_unused(old)

    def _close_unused(self, engine: Engine) -> None:
        """Close an engine that has been replaced, once no request needs it."""
        if engine is not self.engine and all(call.engine is not engine for call in self._calls):
            asyncio.get_running_loop().run_in_executor(None, engine.close)

    def close(self) -> None:
        """Close all engines; the server has ended."""
        for engine in {self.engine, *(call.engine for call in self._calls)}:
            engine.close()

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return not self._calls

    @property
    def failed(self) -> bool:
        """Whether the engine can answer nothing any more."""
        return self.engine.closed

    @property
    def ready(self) -> bool:
        """Whether new requests are accepted."""
        return not self.draining and not self.failed

    def abort_all(self) -> None:
        """Abort all unfinished requests."""
        for call in self._calls:
            for handle in call.handles:
                handle.abort()

    def default_effort(self, name: str, answers: int) -> Effort:
        """Effort that the page chooses, of at most so many answers.

        Low with an adapter: one can make answers so short that votes, which follow worked examples, take many
        times as long.
        """
        if self.models[name] != BASE or MERGED_ADAPTER in self.engine.model.header.fields:
            return Effort.LOW
        effort = self.engine.default_effort
        return effort if effort.rule.answers <= answers else Effort.LOW

    def resolve_model(self, name: str | None) -> tuple[str, str]:
        """Name and engine adapter of a model; None and "default" are the first; HttpError 404 for others."""
        if name is None or (name == DEFAULT_MODEL and name not in self.models):
            name = next(iter(self.models))
        if name not in self.models:
            known = ", ".join(self.models)
            message = f"the model {name[:100]!r} does not exist; this server has {known}"
            raise HttpError(404, message, code="model_not_found", param="model")
        return name, self.models[name]

    async def submit(self, call: Call, prepare: Callable[[], Sequence[Request]]) -> Sequence[Handle]:
        """Prepare the requests of a call in a worker thread, and submit all or none; see Engine.submit_all().

        A thread cannot be stopped: if this is cancelled, the requests are submitted and then aborted.
        """

        def run() -> list[Handle]:
            call.engine.check_places()  # before anything is prepared in vain
            return call.engine.submit_all(prepare())

        submitting = asyncio.ensure_future(to_thread.run_sync(run, limiter=self._preparing))
        try:
            call.handles = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_abort)
            raise
        return call.handles

    @asynccontextmanager
    async def scoring_turn(self) -> AsyncIterator[None]:
        """Wait for a turn at scoring or embedding texts; BusyError if as many wait as the queue holds."""
        if self._scoring.statistics().tasks_waiting >= max(self.engine.plan.queue, 1):
            raise BusyError("the queue is full")
        async with self._scoring:
            yield

    def note_ends(self, ends: Sequence[SequenceEnd]) -> None:
        """Learn from the ends of answers how long one takes."""
        for end in ends:
            took_s = end.timings.prefill_s + end.timings.decode_s
            self._answer_s += (took_s - self._answer_s) / (_MEAN_ANSWERS if self._answer_s else 1)

    @property
    def retry_after_s(self) -> int:
        """Time in whole seconds after which what runs and waits now will have been answered."""
        load = self.engine.load
        rounds = (load.running + load.waiting) / self.engine.plan.settings.slots
        return min(max(ceil(rounds * self._answer_s), 1), RETRY_AFTER_MAX_S)


def _abort(submitting: asyncio.Future[list[Handle]]) -> None:
    if not submitting.cancelled() and not submitting.exception():
        for handle in submitting.result():
            handle.abort()


def ensure_completed(answer: Answer) -> None:
    """Raise HttpError 503 if a shutdown aborted the answer."""
    if answer.stop_reason is StopReason.ABORTED:
        raise HttpError(503, "the server is shutting down")


async def stream_pieces(handle: Handle) -> AsyncIterator[Piece]:
    """Pieces of an answer as they are generated; see ensure_completed()."""
    async for piece in handle:
        if piece.answer:
            ensure_completed(piece.answer)
        yield piece


async def merge_streams(handles: Sequence[Handle]) -> AsyncIterator[tuple[int, Piece]]:
    """Pieces of several answers in order of arrival, each with the index of its answer."""
    queue: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue()

    async def forward(index: int, handle: Handle) -> None:
        try:
            async for piece in stream_pieces(handle):
                queue.put_nowait((index, piece))
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(forward(index, handle)) for index, handle in enumerate(handles)]
    try:
        unfinished = len(tasks)
        while unfinished:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            unfinished -= item[1].answer is not None
            yield item
    finally:
        for task in tasks:
            task.cancel()


async def collect_answers(request: HttpRequest, handles: Sequence[Handle]) -> list[Piece]:
    """Wait for all answers, each returned as one piece; abort them if the client disconnects first."""
    try:
        for answer in await _until_disconnect(request, asyncio.gather(*handles)):
            ensure_completed(answer)
        return [await anext(aiter(handle)) for handle in handles]  # all are done: a piece is everything
    finally:
        for handle in handles:
            handle.abort()


async def _until_disconnect(request: HttpRequest, awaitable: Awaitable[Result]) -> Result:
    """Wait for something, which is cancelled when the client disconnects first; the body has been read."""
    awaited, disconnected = asyncio.ensure_future(awaitable), asyncio.ensure_future(_disconnect(request))
    awaited.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio may log it
    try:
        await asyncio.wait((awaited, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            raise ClientDisconnect
        return awaited.result()
    finally:
        disconnected.cancel()
        awaited.cancel()


async def _disconnect(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
