"""Several models by name: loaded on demand, unloaded when idle or when others need their memory."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from anyio import to_thread

from ..errors import BusyError, RequestError
from ..files.gguf.header import Header
from ..runtime.engine.engine import Engine
from ..runtime.request import BASE
from .engine_service import EngineService, ServedModels
from .http_errors import HttpError
from .metrics import Metrics

IDLE_S = 300.0  # after so long without a request a model is unloaded, as Ollama does
_ENDING_S = 0.2  # a client has read a response before its request ends here

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PooledModel:
    """A model that can be loaded.

    Attributes:
        header: header of its file.
        nbytes: memory that it needs.
        load: loads it.
    """

    header: Header
    nbytes: int
    load: Callable[[], Engine]


class ModelPool(ServedModels):
    """Services of the models that are loaded, the least recently used first.

    Attributes:
        models: engine adapter of each served model name; the first model is the default.
        metrics: Prometheus counters of all models.
    """

    def __init__(self, models: Mapping[str, PooledModel], memory_bytes: int, *, kept_places: int = 0) -> None:
        """Load nothing yet.

        Args:
            models: the models by name.
            memory_bytes: limit of the memory of all loaded ones together.
            kept_places: see EngineService.

        Raises:
            RequestError: a model needs more than the limit.
        """
        for name, model in models.items():
            if model.nbytes > memory_bytes:
                needed, limit = (f"{nbytes / 1e6:,.0f} MB" for nbytes in (model.nbytes, memory_bytes))
                raise RequestError(
                    f"{name} needs {needed} of memory, more than the limit of {limit}: see --memory"
                )
        self._loaded: OrderedDict[str, EngineService] = OrderedDict()
        super().__init__(
            dict.fromkeys(models, BASE), Metrics(lambda: [one.engine for one in self._loaded.values()])
        )
        self._pooled, self._memory_bytes, self._kept_places = models, memory_bytes, kept_places
        self._used_at: dict[str, float] = {}
        self._changing = asyncio.Lock()

    @property
    def failed(self) -> bool:
        """A failed engine is replaced when its model is asked for."""
        return False

    @property
    def idle(self) -> bool:
        """Whether all accepted requests have finished."""
        return not self._changing.locked() and all(service.idle for service in self._loaded.values())

    def abort_all(self) -> None:
        """Abort all unfinished requests."""
        for service in self._loaded.values():
            service.abort_all()

    def header(self, name: str) -> Header:
        """Header of a model's file."""
        return self._pooled[name].header

    @property
    def loaded(self) -> Mapping[str, Engine]:
        """Engines of the loaded models."""
        return {name: service.engine for name, service in self._loaded.items()}

    async def use(self, name: str) -> EngineService:
        """The service of a model, which is loaded if it is not; it stays until it is unpinned.

        Raises:
            HttpError: 503 the server is shutting down.
            BusyError: the models that are in use leave it no memory.
            ThirteenError: the model cannot be loaded.
        """
        if self.draining:
            raise HttpError(503, "the server is shutting down")
        if not self._ready(name):
            async with self._changing:
                if not self._ready(name):
                    await self._load(name)
        self._loaded.move_to_end(name)
        self._used_at[name] = monotonic()
        service = self._loaded[name]
        service.pinned += 1
        return service

    async def tend(self) -> None:
        """Unload the models that have been idle for long; to be called now and then."""
        if self._changing.locked():
            return
        async with self._changing:
            for name, service in list(self._loaded.items()):
                if not service.unused:
                    self._used_at[name] = monotonic()
                elif monotonic() - self._used_at[name] > IDLE_S:
                    await self._unload(name)

    def close(self) -> None:
        """Unload all models; the server has ended."""
        for service in self._loaded.values():
            service.engine.close()

    def _ready(self, name: str) -> bool:
        return name in self._loaded and not self._loaded[name].engine.closed

    async def _load(self, name: str) -> None:
        if name in self._loaded:  # its engine has failed
            await self._unload(name)
        while self._memory_bytes - self._used_bytes < self._pooled[name].nbytes:
            if (victim := self._unused()) is None:
                await asyncio.sleep(_ENDING_S)
                victim = self._unused()
            if victim is None:
                raise BusyError(f"the models in use leave too little memory for {name}: see --memory")
            await self._unload(victim)
        began = monotonic()
        engine = await to_thread.run_sync(self._pooled[name].load)
        self._loaded[name] = EngineService(
            engine, {name: BASE}, kept_places=self._kept_places, metrics=self.metrics
        )
        _log.info("loaded %s in %.1f s", name, monotonic() - began)

    def _unused(self) -> str | None:
        """The model that has been unused for longest, if there is one."""
        return next((name for name, service in self._loaded.items() if service.unused), None)

    async def _unload(self, name: str) -> None:
        service = self._loaded.pop(name)
        await to_thread.run_sync(service.engine.close)
        _log.info("unloaded %s", name)

    @property
    def _used_bytes(self) -> int:
        return sum(self._pooled[name].nbytes for name in self._loaded)
