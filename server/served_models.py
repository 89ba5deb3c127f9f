"""The models of a server by name: those of one engine, or several that are loaded on demand.

Several are unloaded when they are idle, or when others need their memory.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Self

from anyio import to_thread

from ..errors import OptionError
from ..files.gguf.header import Header
from ..files.gguf.metadata import MERGED_ADAPTER
from ..runtime.effort import Effort
from ..runtime.engine.engine import Engine
from ..runtime.request import BASE
from .engine_service import EngineService, unlogged
from .http_errors import HttpError
from .metrics import Metrics

DEFAULT_MODEL = "default"  # a name of the first model, whatever its own is
IDLE_S = 300.0  # after so long without a request a model is unloaded, as Ollama does
_ROOM_S = 0.05  # between looks at whether a model has become unused

_log = logging.getLogger(__name__)


class ServedModels:
    """The models of a server, each with the service of its engine while that is in memory.

    Attributes:
        models: engine adapter of each served model name; the first model is the default.
        metrics: Prometheus counters.
        draining: whether the server is shutting down and rejects new requests.
        services: services of the models that are in memory, by name.
        load_changed: loads the engine anew; None if its files have not changed.
    """

    def __init__(self, models: Mapping[str, str], *, kept_places: int = 0) -> None:
        self.models, self.draining = models, False
        self.services: OrderedDict[str, EngineService] = OrderedDict()
        # Those whose files have changed, until their last request has ended, with their engines' bytes.
        self._retired: dict[EngineService, int] = {}
        self.load_changed: Callable[[], Engine | None] = lambda: None
        self._kept_places = kept_places
        self._used_at: dict[str, float] = {}  # when models that are unloaded were last asked for
        self.metrics = Metrics(lambda: {service.engine for service in self.services.values()})

    @classmethod
    def on_engine(cls, engine: Engine, models: Mapping[str, str], *, kept_places: int = 0) -> Self:
        """The base model of an engine and its adapters; see EngineService for `kept_places`."""
        served = cls(models, kept_places=kept_places)
        served._serve(engine)
        return served

    def _serve(self, engine: Engine) -> None:
        service = EngineService(engine, self.metrics, kept_places=self._kept_places)
        self._retired |= dict.fromkeys(self.services.values(), 0)
        self.services.update(dict.fromkeys(self.models, service))

    async def reload(self) -> None:
        """Load what has changed on disk; requests end on what they began with.

        Raises:
            ThirteenError: a file cannot be loaded; everything is as it was.
        """
        if engine := await to_thread.run_sync(self.load_changed):
            self._serve(engine)

    @property
    def _loaded(self) -> list[EngineService]:
        return [*self.services.values(), *self._retired]

    async def _close_retired(self) -> bool:
        """Close the engines that are not served any more and unused; False if there is none."""
        unused = [service for service in self._retired if service.unused]
        for service in unused:
            del self._retired[service]
            await to_thread.run_sync(service.engine.close)
        return bool(unused)

    def close(self) -> None:
        """Unload all models; the server has ended."""
        for service in self._loaded:
            service.engine.close()

    @property
    def failed(self) -> bool:
        """Whether the server can answer nothing any more."""
        return any(service.engine.closed for service in self.services.values())

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return all(service.idle for service in self._loaded)

    @property
    def ready(self) -> bool:
        """Whether new requests are accepted."""
        return not self.draining and not self.failed

    async def use(self, name: str) -> EngineService:
        """The service of a model; it stays until its `pinned` is lowered by one.

        Raises:
            HttpError: 503 the server is shutting down.
            ThirteenError: see ModelPool.
        """
        if self.draining:
            raise HttpError(503, "the server is shutting down")
        service = await self._service(name)
        service.pinned += 1
        return service

    def waits(self, name: str) -> bool:
        """Whether use() of a model would wait now."""
        return False

    async def _service(self, name: str) -> EngineService:
        return self.services[name]

    def abort_all(self) -> None:
        """Abort all unfinished requests."""
        for service in self._loaded:
            service.abort_all()

    async def tend(self) -> None:
        """Unload what is not used any more; to be called now and then."""
        await self._close_retired()

    def default_effort(self, name: str, answers: int) -> Effort:
        """Effort that the page chooses, of at most so many answers.

        Low while the model is not loaded, and with an adapter: one can make answers so short that votes,
        which follow worked examples, take many times as long.
        """
        service = self.services.get(name)
        if service is None or self.models[name] != BASE or MERGED_ADAPTER in self.header(name).fields:
            return Effort.LOW
        effort = service.engine.default_effort
        return effort if effort.rule.answers <= answers else Effort.LOW

    def header(self, name: str) -> Header:
        """Header of a model's file."""
        return self.services[name].engine.model.header

    def files(self, name: str) -> Sequence[Path]:
        """Files of a model, and of its adapter if it has one."""
        return self.services[name].engine.files(self.models[name])

    def expires_at(self, name: str) -> float | None:
        """Unix time at which a loaded model is unloaded if nobody asks for it; None is never."""
        return time() + self._used_at[name] + IDLE_S - monotonic() if name in self._used_at else None

    def resolve_model(self, name: str | None) -> tuple[str, str]:
        """Name and engine adapter of a model; None and "default" are the first model.

        Raises:
            HttpError: 404 there is no such model.
        """
        if name is None or (name == DEFAULT_MODEL and name not in self.models):
            name = next(iter(self.models))
        if name not in self.models:
            raise HttpError(
                404, f"the model {name[:100]!r} does not exist", code="model_not_found", param="model"
            )
        return name, self.models[name]


@dataclass(frozen=True)
class PooledModel:
    """A model that can be loaded.

    Attributes:
        header: header of its file.
        nbytes: memory that it needs.
        load: loads it.
        stamp: differs when the file has changed.
    """

    header: Header
    nbytes: int
    load: Callable[[], Engine]
    stamp: object = None


@dataclass(eq=False)
class _Turn:
    """A model's turn at being loaded.

    Attributes:
        waiting: requests that wait for it.
        held: the model that is loaded, pinned until all of them have it.
        task: loads it.
    """

    waiting: int = 0
    held: EngineService | None = None
    task: "asyncio.Future[None] | None" = None


class ModelPool(ServedModels):
    """Models that are loaded when they are asked for; `services` has the least recently used first."""

    def __init__(
        self, find: Callable[[], Mapping[str, PooledModel]], memory_bytes: int, *, kept_places: int = 0
    ) -> None:
        """Load nothing yet.

        Args:
            find: finds the models by name; again when they are to be reloaded.
            memory_bytes: limit of the memory of all loaded ones together.
            kept_places: see EngineService.

        Raises:
            OptionError: a model needs more than the limit.
        """
        self._find, self._memory_bytes = find, memory_bytes
        self._pooled = self._found()
        super().__init__(dict.fromkeys(self._pooled, BASE), kept_places=kept_places)
        self._changing = asyncio.Lock()
        self._crowded = False  # whether a model waits for memory
        self._turns: dict[str, _Turn] = {}

    def _found(self) -> Mapping[str, PooledModel]:
        models = self._find()
        for name, model in models.items():
            if model.nbytes > self._memory_bytes:
                needed, limit = (f"{nbytes / 1e6:,.0f} MB" for nbytes in (model.nbytes, self._memory_bytes))
                raise OptionError("memory", f"{name} needs {needed}, more than the limit", limit)
        return models

    async def reload(self) -> None:
        """Find the models anew: those whose files have changed are loaded when they are asked for."""
        found = await to_thread.run_sync(self._found)
        async with self._changing:
            for name, old in self._pooled.items():
                if found[name].stamp != old.stamp and (service := self.services.pop(name, None)):
                    self._retired[service] = old.nbytes
            self._pooled = found

    @property
    def failed(self) -> bool:
        """A failed engine is replaced when its model is asked for."""
        return False

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return not self._changing.locked() and super().idle

    def header(self, name: str) -> Header:
        """Header of a model's file."""
        return self._pooled[name].header

    def files(self, name: str) -> Sequence[Path]:
        """The model's file."""
        return (self.header(name).path,)

    def waits(self, name: str) -> bool:
        """Whether use() of a model would wait now: it is not loaded, or another waits for memory."""
        return self._crowded or not self._ready(name)

    async def _service(self, name: str) -> EngineService:
        """The service of a model, which is loaded if it is not, when it is its turn.

        Where the models in use leave it too little memory, what is asked of these later waits for their own
        turns, so that they become unused.

        Raises:
            ThirteenError: the model cannot be loaded.
        """
        while self.waits(name):
            turn = self._turns.setdefault(name, _Turn())
            turn.task = turn.task or unlogged(asyncio.ensure_future(self._take(name, turn)))
            turn.waiting += 1
            try:
                await asyncio.shield(turn.task)
            finally:
                turn.waiting -= 1
                if turn.held and not turn.waiting:
                    turn.held.pinned -= 1
            if self._ready(name):
                break
        self.services.move_to_end(name)
        self._used_at[name] = monotonic()
        return self.services[name]

    async def _take(self, name: str, turn: _Turn) -> None:
        """Load a model when it is its turn."""
        async with self._changing:
            try:
                if not self._ready(name):
                    await self._load(name, turn)
            finally:
                self._crowded = False
                del self._turns[name]
            if turn.waiting:  # else the next turn could unload it before they have it
                turn.held = self.services[name]
                turn.held.pinned += 1

    async def tend(self) -> None:
        """Unload the models that have been idle for long; to be called now and then."""
        if self._changing.locked():
            return
        async with self._changing:
            await super().tend()
            for name, service in list(self.services.items()):
                if not service.unused:
                    self._used_at[name] = monotonic()
                elif monotonic() - self._used_at[name] > IDLE_S:
                    await self._unload(name)

    def _ready(self, name: str) -> bool:
        return name in self.services and not self.services[name].engine.closed

    async def _load(self, name: str, turn: _Turn) -> None:
        """Load a model; not if it needs memory that others have, and all that asked for it have left."""
        if name in self.services:  # its engine has failed
            await self._unload(name)
        while self._memory_bytes - self._used_bytes < self._pooled[name].nbytes:
            if not turn.waiting:
                return
            if await self._close_retired():
                continue
            if victim := next((one for one, service in self.services.items() if service.unused), None):
                await self._unload(victim)
                continue
            self._crowded = True
            await asyncio.sleep(_ROOM_S)
        began = monotonic()
        engine = await to_thread.run_sync(self._pooled[name].load)
        self.services[name] = EngineService(engine, self.metrics, kept_places=self._kept_places)
        self._used_at[name] = monotonic()  # also where all that asked for it have left
        _log.info("loaded %s in %.1f s", name, monotonic() - began)

    async def _unload(self, name: str) -> None:
        service = self.services.pop(name)
        await to_thread.run_sync(service.engine.close)
        _log.info("unloaded %s", name)

    @property
    def _used_bytes(self) -> int:
        return sum(self._pooled[name].nbytes for name in self.services) + sum(self._retired.values())
