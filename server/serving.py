"""A served model: from a request to the server's end."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import RequestError
from ..files.trusted_files import file_stamp
from ..models.resolve import ModelFiles
from ..runtime.engine.engine import Engine
from ..runtime.engine_options import EngineOptions
from ..runtime.plan import EnginePlan
from .access import log_to_stderr
from .config import ListenConfig, RequestLimits
from .drain_server import adapters_by_model, run_server
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

    def models(self, files: ModelFiles) -> Mapping[str, str]:
        """The adapter of each model, by the name that clients use."""
        return adapters_by_model(self.name or files.model.stem, files.adapters)


def serve_here(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve until a signal arrives, and return it; `announce` gets a line when connections are accepted.

    Raises:
        ThirteenError: the model cannot be loaded, or the address is taken.
        ClosedError: the engine failed, and the server has drained.
    """
    files, loader = request.find(), EngineLoader(request.engine)
    log_to_stderr(request.log)
    engine = loader.load(files)
    assert engine, "nothing was loaded before"
    if engine.notice:
        announce(engine.notice)
    models = request.models(files)
    service = EngineService(engine, models, request.limits, lambda: loader.load(request.find()))
    try:
        return run_server(service, request.listen, lambda url: announce(serving_line(models, url)))
    finally:
        service.engine.close()


def serving_line(models: Iterable[str], url: str) -> str:
    """The line that tells where which models are served."""
    return f"serving {', '.join(models)} at {url}"


class EngineLoader:
    """Loads the engine of a server, and again when its files have changed."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._stamps: list[str] = []

    def load(self, files: ModelFiles) -> Engine | None:
        """Load the engine and warm it up; None if the files are those of the last time."""
        if (stamps := [*map(file_stamp, (files.model, *files.adapters.values()))]) == self._stamps:
            return None
        options = replace(self._options, adapters=files.adapters)
        engine = Engine(EnginePlan.make(files.model, options))
        try:
            _warm_up(engine)
        except BaseException:
            engine.close()
            raise
        self._stamps = stamps
        return engine


def _warm_up(engine: Engine) -> None:
    """Read and compile what the first client need not wait for."""
    with suppress(RequestError):  # the template refuses it
        if engine.plan.embeds:
            engine.embed(["What is 1 + 1?"])
        engine.answer("What is 1 + 1?", max_tokens=2)
        engine.clear_prefix_cache()
