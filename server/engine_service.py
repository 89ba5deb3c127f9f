"""The engine of a server, and the HTTP requests that it answers."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from ..files.gguf.header import MERGED_ADAPTER
from ..runtime.answer import Answer, Piece, SequenceEnd, StopReason
from ..runtime.engine.engine import Engine
from ..runtime.engine.handle import Handle
from ..runtime.options import BASE, Effort, Request
from .config import ANYONE, ApiKey, RequestLimits
from .http_errors import CLIENT_CLOSED_REQUEST, HttpError
from .metrics import Metrics

DEFAULT_MODEL = "default"  # a name of the first model, whatever its own is
_TAG = ":latest"  # what Ollama's clients add to a name without a tag
_RETRY_AFTER_MAX_S = 60  # OpenAI's clients take longer times for none
_MEAN_ANSWERS = 8  # answers over which the mean time of one is taken
_ENDING_S = 10.0  # in which an answer that was aborted ends


@dataclass(eq=False)
class Call:
    """An HTTP request while it is answered: what its endpoint, the log and the metrics know of it.

    Attributes:
        engine: the engine that answers it, also if another one replaces that meanwhile.
        embedded_tokens: tokens of the texts that it embeds.
        ignored: names of the fields of its body that have no effect.
        status: status of the response; 0 before that begins.
        complete: whether the whole response has been sent.
        error: what ended a response that had begun.
    """

    service: "EngineService"
    request: HttpRequest
    key: ApiKey = ANYONE
    model: str = ""
    adapter: str = BASE
    handles: Sequence[Handle] = ()
    embedded_tokens: int = 0
    ignored: dict[str, None] = field(default_factory=dict)
    status: int = 0
    complete: bool = False
    error: HttpError | None = None

    def __post_init__(self) -> None:
        self.engine, self._aborted = self.service.engine, False

    @property
    def outcome(self) -> int:
        """Status for the log and the metrics, which also tells how a stream ended."""
        if self.error:
            return self.error.status
        return self.status if self.complete else CLIENT_CLOSED_REQUEST

    def choose_model(self, name: str | None) -> None:
        """Choose the model by its name.

        Raises:
            HttpError: 404 there is no such model, 403 the key may not use it, 503 the server shuts down.
        """
        self.model, self.adapter = self.service.resolve_model(name)
        allowed = self.key.limits.adapters
        if allowed is not None and self.adapter not in (BASE, *allowed):
            raise HttpError(403, f"this API key may not use the model {self.model!r}", param="model")
        if self.service.draining:
            raise HttpError(503, "the server is shutting down")

    def max_tokens(self, default: int, **asked: int | None) -> int:
        """Maximum tokens of an answer: the first of these fields with a value, within the server's limit."""
        given = {name: tokens for name, tokens in asked.items() if tokens is not None}
        limit = min(self.service.limits.max_tokens, self.engine.context)
        self.ignored |= {name: None for name, tokens in given.items() if tokens > limit}
        return min(next(iter(given.values()), default), limit)

    async def submit(self, prepare: Callable[[], Sequence[Request]]) -> None:
        """Prepare requests in a worker thread, and submit all or none; see Engine.submit_all().

        A thread cannot be stopped: if the call is aborted meanwhile, they are submitted and then aborted.
        """

        def run() -> None:
            self.engine.check_places()  # before anything is prepared in vain
            self.handles = self.engine.submit_all(prepare())
            if self._aborted:
                self.abort()

        await to_thread.run_sync(run, limiter=self.service.preparing)

    async def pieces(self, silence_s: float) -> AsyncIterator[tuple[int, Piece] | None]:
        """Pieces of the answers in order of arrival, each with its answer's index; None after a silence."""
        iterators = [aiter(handle) for handle in self.handles]
        coming = {asyncio.ensure_future(anext(one, None)): index for index, one in enumerate(iterators)}
        try:
            while coming:
                come, _ = await asyncio.wait(coming, timeout=silence_s, return_when=FIRST_COMPLETED)
                if not come:
                    yield None
                for future in sorted(come, key=coming.__getitem__):  # OpenAI's client needs the order
                    index, piece = coming.pop(future), future.result()
                    if piece:
                        _check_completed(piece.answer)
                        coming[asyncio.ensure_future(anext(iterators[index], None))] = index
                        yield index, piece
        finally:
            for future in coming:
                future.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    async def whole_pieces(self) -> list[Piece]:
        """Wait for all answers, each as one piece; ClientDisconnect if the client leaves first."""
        leaving = asyncio.create_task(self._abort_when_left())
        try:
            answers = await asyncio.gather(*self.handles)
            if leaving.done():
                raise ClientDisconnect
            for answer in answers:
                _check_completed(answer)
        finally:
            leaving.cancel()
        return [await anext(aiter(handle)) for handle in self.handles]  # all are done: a piece is everything

    async def _abort_when_left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.abort()

    async def check_connected(self) -> None:
        """Raise ClientDisconnect if the client has left."""
        if await self.request.is_disconnected():
            raise ClientDisconnect

    def abort(self) -> None:
        """Abort the answers that have not ended, and those that are being prepared."""
        self._aborted = True
        for handle in self.handles:
            handle.abort()

    async def ends(self) -> list[SequenceEnd]:
        """The ends of the answers; one that was aborted ends within a step."""
        ends = []
        for handle in self.handles:
            with suppress(Exception):  # it has failed
                if not handle.done:
                    await to_thread.run_sync(handle.wait, _ENDING_S)
                ends.append(handle.wait())
        return ends


def _check_completed(answer: Answer | None) -> None:
    if answer and answer.stop_reason is StopReason.ABORTED:
        raise HttpError(503, "the server is shutting down")


class EngineService:
    """The engine of a server, and the HTTP requests that it answers.

    Attributes:
        engine: the engine that answers new requests.
        models: engine adapter of each served model name; the first model is the default.
        limits: limits of requests.
        metrics: Prometheus metrics.
        draining: whether the server is shutting down and refuses new requests.
        preparing: lets one request at a time be prepared, or check arithmetic.
        scoring: lets one request at a time score or embed texts.
    """

    def __init__(
        self,
        engine: Engine,
        models: Mapping[str, str],
        limits: RequestLimits | None = None,
        load_changed: Callable[[], Engine | None] = lambda: None,
    ) -> None:
        """Start without requests; `load_changed` loads the engine anew if its files have changed."""
        self.engine, self.models, self.limits = engine, models, limits or RequestLimits()
        self.metrics, self.draining = Metrics(lambda: self.engine), False
        self.preparing, self.scoring = CapacityLimiter(1), CapacityLimiter(1)
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

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return not self._calls

    def abort_all(self) -> None:
        """Abort all unfinished requests."""
        for call in self._calls:
            call.abort()

    def default_effort(self, name: str) -> Effort:
        """Effort that the page chooses.

        Low with an adapter: one can make answers so short that votes, which follow worked examples, take many
        times as long.
        """
        adapted = self.models[name] != BASE or MERGED_ADAPTER in self.engine.model.header.fields
        effort = self.engine.default_effort
        return Effort.LOW if adapted or effort.rule.answers > self.limits.answers else effort

    def resolve_model(self, name: str | None) -> tuple[str, str]:
        """Name and engine adapter of a model; None and "default" are the first; HttpError 404 for others."""
        name, names = name or DEFAULT_MODEL, {DEFAULT_MODEL: next(iter(self.models))}
        names |= {known: known for known in self.models}
        known = names.get(name) or names.get(name.removesuffix(_TAG))
        if not known:
            message = f"the model {name[:100]!r} does not exist; this server has {', '.join(self.models)}"
            raise HttpError(404, message, code="model_not_found", param="model")
        return known, self.models[known]

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
        return min(max(ceil(rounds * self._answer_s), 1), _RETRY_AFTER_MAX_S)
