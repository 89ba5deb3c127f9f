"""Service between the HTTP routes and an engine: submission, tracking and abort of requests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, TypeVar

from anyio import to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from ..errors import BusyError
from ..runtime.answer import Answer, Piece
from ..runtime.engine.engine import Engine
from ..runtime.engine.handle import Handle
from ..runtime.request import Request, StopReason
from .access.fair_turns import FairTurns
from .http_errors import HttpError
from .metrics import Metrics

Result = TypeVar("Result")


class Client(NamedTuple):
    """Who sends a request.

    Attributes:
        name: the client as far as it is known: by its key, or else by its address.
        namespace: its namespace of the prefix cache; one for all where no keys are set.
    """

    name: str
    namespace: str


class EngineService:
    """Prepares requests, submits them to an engine, and tracks them until they finish.

    Attributes:
        engine: the engine that runs the requests.
        pinned: number of HTTP requests that use it now.
    """

    def __init__(self, engine: Engine, metrics: Metrics, *, kept_places: int = 0) -> None:
        """Start without requests; engines may share the metrics.

        `kept_places` of the engine's queue are for clients that have no other request.
        """
        self.engine, self.pinned = engine, 0
        self._metrics, self._kept_places = metrics, kept_places
        self._unfinished: dict[Handle, str] = {}  # with the client's name
        self._preparing: Counter[str] = Counter()  # by client: requests to submit, and prompts to score
        self._turns, self._scoring_turns = FairTurns(), FairTurns()

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return not (self._unfinished or self._preparing.total())

    @property
    def unused(self) -> bool:
        """Whether nobody would notice if the engine were closed."""
        return self.idle and not self.pinned

    def abort_all(self) -> None:
        """Abort all unfinished requests."""
        for handle in list(self._unfinished):
            handle.abort()

    async def submit(
        self, client: Client, size: int, count: int, prepare: Callable[[], Sequence[Request]]
    ) -> list[Handle]:
        """Prepare requests and submit them to the engine: all of them, or none if it raises.

        A thread cannot be stopped: if this is cancelled, the requests are submitted and then aborted.

        Args:
            client: who asks.
            size: bytes of the request body; a client's smaller requests are prepared first.
            count: number of requests that will be prepared; places for them are reserved meanwhile.
            prepare: makes the requests, in a worker thread: chat template, tokenizer, grammar.

        Raises:
            HttpError: 503 the engine has failed, 400 it has fewer places than requests.
            RequestError: a request is invalid for this engine.
            BusyError: the queue is full.
        """

        async def run() -> list[Handle]:
            with self._reserved(client, count):
                async with self._turns.turn(client.name, size):
                    handles = await to_thread.run_sync(lambda: self.engine.submit_all(prepare()))
                for handle in handles:
                    self._unfinished[handle] = client.name
                    handle.call_at_end(self._on_done)
            return handles

        submitted = asyncio.ensure_future(run())
        try:
            return await asyncio.shield(submitted)
        except asyncio.CancelledError:  # the client has disconnected
            submitted.add_done_callback(_abort)
            raise

    @asynccontextmanager
    async def scoring_turn(self, client: Client, size: int, count: int) -> AsyncIterator[None]:
        """Wait for a turn at scoring prompts, and keep it for the duration of the block.

        Args:
            client: who asks.
            size: bytes of the request body; a client's smaller requests are first.
            count: number of prompts; they take places in the queue meanwhile.

        Raises:
            HttpError: 503 the engine has failed, 400 it has fewer places than prompts.
            BusyError: the queue is full.
        """
        with self._reserved(client, count):
            async with self._scoring_turns.turn(client.name, size):
                yield

    @contextmanager
    def _reserved(self, client: Client, count: int) -> Iterator[None]:
        if self.engine.closed:
            raise HttpError(503, "the engine has failed")
        self._check_places(client, count)
        self._preparing[client.name] += count
        try:
            yield
        finally:
            self._preparing[client.name] -= count
            self._preparing += Counter()  # without the clients that have none

    def _check_places(self, client: Client, count: int) -> None:
        """Raise BusyError unless there are places; the last ones are for clients without a request."""
        plan = self.engine.plan
        places = plan.settings.slots + plan.queue
        if count > places:
            raise HttpError(400, f"{count} prompts or answers in one request, at most {places} here")
        unfinished = dict(self._unfinished)
        if client.name in (*unfinished.values(), *self._preparing):
            places -= self._kept_places
        taken = sum(handle.width for handle in unfinished) + self._preparing.total()
        if taken + count > places:
            raise BusyError(
                f"{taken} of {places} places are taken, {count} more are needed: the queue is full"
            )

    def _on_done(self, handle: Handle) -> None:
        self._unfinished.pop(handle, None)
        self._metrics.count_answer(handle)


def _abort(submitted: asyncio.Future[list[Handle]]) -> None:
    if not submitted.cancelled() and not submitted.exception():
        for handle in submitted.result():
            handle.abort()


def ensure_completed(answer: Answer) -> None:
    """Check that no shutdown aborted the answer.

    Raises:
        HttpError: 503 the answer was aborted.
    """
    if answer.stop_reason is StopReason.ABORTED:
        raise HttpError(503, "the server is shutting down")


async def stream_pieces(handle: Handle) -> AsyncIterator[Piece]:
    """Pieces of an answer as they are generated.

    Raises:
        HttpError: 503 the answer was aborted.
    """
    async for piece in handle:
        if piece.answer:
            ensure_completed(piece.answer)
        yield piece


async def merge_streams(handles: Sequence[Handle]) -> AsyncIterator[tuple[int, Piece]]:
    """Pieces of several answers in order of arrival, each with the index of its answer."""
    if len(handles) == 1:  # the common case needs no task and no queue
        async for piece in stream_pieces(handles[0]):
            yield 0, piece
        return
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
    """Wait for all answers, and abort them when the client disconnects first; each is returned as one piece.

    Raises:
        ClientDisconnect: the client disconnected first.
        HttpError: 503 an answer was aborted.
    """
    try:
        for answer in await until_disconnect(request, asyncio.gather(*handles)):
            ensure_completed(answer)
        return [await anext(aiter(handle)) for handle in handles]  # all are done: a piece is everything
    finally:
        for handle in handles:
            handle.abort()


async def until_disconnect(request: HttpRequest, awaitable: Awaitable[Result]) -> Result:
    """Wait for something, which is cancelled when the client disconnects first; the body has been read.

    Raises:
        ClientDisconnect: the client disconnected first.
    """
    awaited = unlogged(asyncio.ensure_future(awaitable))
    disconnected = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait((awaited, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            raise ClientDisconnect
        return awaited.result()
    finally:
        disconnected.cancel()
        awaited.cancel()


def unlogged(future: asyncio.Future[Result]) -> asyncio.Future[Result]:
    """A future that nobody may await to its end: asyncio logs a failure that nobody has looked at."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _wait_for_disconnect(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
