"""A served model: from a request to the server's end."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import OptionError, RequestError
from ..files.trusted_files import file_stamp
from ..models.resolve import ModelFiles
from ..runtime.engine.engine import Engine
from ..runtime.engine_options import EngineOptions
from ..runtime.options import BASE
from ..runtime.plan import EnginePlan
from .access import log_to_stderr
from .config import ListenConfig, RequestLimits
from .drain_server import run_server
from .engine_service import EngineService


@dataclass(frozen=True)
class ServingRequest:
    """A model to serve, and the way of serving it.

    Attributes:
        find: finds the files of the model and its adapters, now or again.
        name: name of the model; by default that of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engine, without files.
        replicas: number of replicas on a Ray cluster.
        log: form of the log.
    """

    find: Callable[[], ModelFiles]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    replicas: int = 1
    log: Literal["text", "json"] = "text"

    def models(self, files: ModelFiles) -> dict[str, str]:
        """The adapter of each model, by the name that clients use: first the base, then one per adapter."""
        base = self.name or files.model.stem
        for name in (base, *files.adapters):
            if name.encode(errors="ignore").decode() != name:
                raise OptionError("name", "is not UTF-8: give another", ascii(name))
        if base in files.adapters:
            raise OptionError("adapter", "the base model already has this name; see {name}", base)
        return {base: BASE, **{adapter: adapter for adapter in files.adapters}}

    def load(self, files: ModelFiles) -> Engine:
        """Load the engine, and read and compile what the first client need not wait for."""
        engine = Engine(EnginePlan.make(files.model, replace(self.engine, adapters=files.adapters)))
        try:
            with suppress(RequestError):  # the template refuses it
                if engine.plan.embeds:
                    engine.embed(["What is 1 + 1?"])
                engine.answer("What is 1 + 1?", max_tokens=2)
                engine.clear_prefix_cache()
        except BaseException:
            engine.close()
            raise
        return engine


def serve_here(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve until a signal arrives, and return it; `announce` gets a line when connections are accepted.

    Raises:
        ThirteenError: the model cannot be loaded, or the address is taken.
        ClosedError: the engine failed, and the server has drained.
    """
    files = request.find()
    log_to_stderr(request.log)
    models, loaded, engine = request.models(files), _stamps(files), request.load(files)
    if engine.notice:
        announce(engine.notice)

    def load_changed() -> Engine | None:
        nonlocal loaded
        files = request.find()
        if (stamps := _stamps(files)) == loaded:
            return None
        engine, loaded = request.load(files), stamps
        return engine

    service = EngineService(engine, models, request.limits, load_changed)
    try:
        return run_server(service, request.listen, lambda url: announce(serving_line(models, url)))
    finally:
        service.engine.close()


def _stamps(files: ModelFiles) -> list[str]:
    return [*map(file_stamp, (files.model, *files.adapters.values()))]


def serving_line(models: Iterable[str], url: str) -> str:
    """The line that tells where which models are served."""
    return f"serving {', '.join(models)} at {url}"
