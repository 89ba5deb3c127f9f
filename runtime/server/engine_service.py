"""The desk between HTTP and the engine: which model is meant, whether work is taken, what has been taken."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request as HttpRequest

from ..answer import Answer
from ..engine.engine import Engine
from ..engine.handle import Handle, Piece
from ..engine.majority_vote import MajorityVote
from ..request import Request, StopReason
from .http_errors import HttpError
from .metrics import Metrics

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The client has hung up."""


class EngineService:
    """Where requests are handed in.

    Attributes:
        engine: what answers.
        models: the engine's adapters by the names that clients have for the models; the first is the default.
        metrics: what is counted.
        draining: whether no more work is taken.
    """

    def __init__(self, engine: Engine, models: Mapping[str, str], *, log_prompts: bool = False) -> None:
        self.engine, self.models, self.metrics = engine, models, Metrics(engine)
        self.draining = False
        self._log_prompts = log_prompts
        if log_prompts and not _log.handlers:
            _log.addHandler(logging.StreamHandler())
            _log.setLevel(logging.INFO)
        self._open: set[Handle] = set()
        # A template is run by one thread, so that it does not hold up the loop; its bounds are the process's.
        self._thread = CapacityLimiter(1)

    @property
    def ready(self) -> bool:
        """Whether work is taken."""
        return not self.draining and not self.engine.closed

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered."""
        return not self._open

    def abort(self) -> None:
        """End all that is being answered."""
        for handle in list(self._open):
            handle.abort()

    def model(self, name: str | None) -> tuple[str, str]:
        """A model's name, that of the default if None is given, and the adapter that it stands for.

        Raises:
            RefusalError: there is none of this name.
        """
        if name is None:
            name = next(iter(self.models))
        if name not in self.models:
            raise HttpError(
                404, f"the model {name[:100]!r} does not exist", code="model_not_found", param="model"
            )
        return name, self.models[name]

    async def prepare(self, work: Callable[[], T]) -> T:
        """Have prompts made by a thread, one after the other.

        Raises:
            RefusalError: no work is taken.
        """
        if not self.ready:
            raise HttpError(503, "the server is ending" if self.draining else "the engine has failed")
        return await to_thread.run_sync(work, limiter=self._thread)

    def submit(self, requests: Sequence[Request]) -> list[Handle]:
        """Hand in some requests: all, or none.

        Raises:
            RequestError: one cannot be run.
            BusyError: there is no place for them.
        """
        handles = self.engine.submit_all(requests)
        self.watch(handles)
        return handles

    def watch(self, handles: Sequence[Handle]) -> None:
        """Count some answers when they end, and know of them until then."""
        for handle in handles:
            self._open.add(handle)
            handle.when_done(self._ended)

    def note(self, prompt: object, answers: Sequence[Answer]) -> None:
        """Log what was asked and answered, if that is wanted."""
        if self._log_prompts:
            _log.info(json.dumps({"prompt": prompt, "answers": [answer.text for answer in answers]}))

    def _ended(self, handle: Handle) -> None:
        self._open.discard(handle)
        self.metrics.count_answer(handle)


def finished(answer: Answer) -> Answer:
    """An answer that has come to its end.

    Raises:
        RefusalError: it was ended because the server ends.
    """
    if answer.stop_reason is StopReason.ABORTED:
        raise HttpError(503, "the server is ending")
    return answer


async def pieces(handle: Handle) -> AsyncIterator[Piece]:
    """The pieces of an answer.

    Raises:
        RefusalError: it was ended because the server ends.
    """
    async for piece in handle:
        if piece.answer:
            finished(piece.answer)
        yield piece


async def merged_pieces(handles: Sequence[Handle]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of several answers as they come, each with the number of its answer."""
    if len(handles) == 1:  # as mostly: no task and no queue between the engine and the client
        async for piece in pieces(handles[0]):
            yield 0, piece
        return
    news: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue()

    async def follow(number: int, handle: Handle) -> None:
        try:
            async for piece in pieces(handle):
                news.put_nowait((number, piece))
        except Exception as failure:
            news.put_nowait(failure)

    tasks = [asyncio.create_task(follow(*numbered)) for numbered in enumerate(handles)]
    try:
        left = len(tasks)
        while left:
            came = await news.get()
            if isinstance(came, Exception):
                raise came
            left -= came[1].answer is not None
            yield came
    finally:
        for task in tasks:
            task.cancel()


async def whole_answers(request: HttpRequest, handles: Sequence[Handle]) -> list[Piece] | Disconnected:
    """All answers, each as one piece, unless the client hangs up before, or the server ends them.

    Raises:
        RefusalError: the answers were ended because the server ends.
    """
    ends = await unless_disconnected(request, asyncio.gather(*handles), handles)
    if isinstance(ends, Disconnected):
        return ends
    for answer in ends:
        finished(answer)
    return [await _all_of(handle) for handle in handles]


async def voted_answer(request: HttpRequest, poll: MajorityVote) -> Answer | Disconnected:
    """The answer that wins; see whole_answers()."""
    answer = await unless_disconnected(request, asyncio.ensure_future(_waited(poll)), poll.handles)
    return answer if isinstance(answer, Disconnected) else finished(answer)


async def unless_disconnected(
    request: HttpRequest, work: "asyncio.Future[T]", handles: Sequence[Handle]
) -> T | Disconnected:
    """Wait for some work, or end it when the client hangs up."""
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else Disconnected()
    finally:
        gone.cancel()
        work.cancel()
        for handle in handles:
            handle.abort()


async def _left(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _waited(poll: MajorityVote) -> Answer:
    return await poll


async def _all_of(handle: Handle) -> Piece:
    async for piece in handle:
        return piece  # everything is there, so the first piece is the last
    raise AssertionError("an answer has a piece")
