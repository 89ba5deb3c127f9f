"""A served model: from a request to the server's end, on this machine or on a Ray cluster."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from starlette.applications import Starlette

from ..errors import RequestError
from ..files.trusted_files import file_stamp
from ..models.resolve import ModelFiles
from ..runtime.engine.engine import Engine
from ..runtime.engine_options import EngineOptions
from ..runtime.llama.model import read_model_header
from ..runtime.plan import EnginePlan
from ..server.access import log_to_stderr
from ..server.app import create_app
from ..server.config import ListenConfig, RequestLimits
from ..server.drain_server import adapters_by_model, run_server
from ..server.engine_service import EngineService
from .ray_serve import Deployment, serve_on_ray


@dataclass(frozen=True)
class ServingRequest:
    """A model to serve, and the way of serving it.

    Attributes:
        find: finds the files of the model and its adapters, now or again.
        name: name of the model; by default that of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engine, without files.
        ray: address of the Ray cluster that serves; None serves here.
        replicas: number of replicas there.
        log: form of the log.
    """

    find: Callable[[], ModelFiles]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    ray: str | None = None
    replicas: int = 1
    log: Literal["text", "json"] = "text"


def run_serving(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve until a signal arrives, and return it; `announce` gets a line when connections are accepted.

    Raises:
        ThirteenError: the model cannot be loaded, the address is taken, or the cluster cannot be reached.
        EngineFailedError: the engine failed, and the server has drained.
    """
    files = request.find()
    models = adapters_by_model(request.name or files.model.stem, files.adapters)
    listen, limits = request.listen, request.limits

    def on_listening(url: str) -> None:
        announce(f"serving {', '.join(models)} at {url}")

    log_to_stderr(request.log)
    if request.ray is None:
        return _serve_here(request, files, models, on_listening, announce)
    read_model_header(files.model)  # an invalid file fails before anything starts
    settings = request.engine.settings()  # a node would take its own number of threads
    options = replace(request.engine, threads=settings.threads, adaptive_threads=settings.adaptive_threads)
    deployment = Deployment(
        make_app=partial(_make_app, replace(request, engine=options), files.absolute(), models),
        listen=listen,
        replicas=request.replicas,
        threads=settings.threads,
        slots=settings.slots,
        queue=options.queue,
        drain_s=limits.drain_s,
    )
    return serve_on_ray(deployment, request.ray, on_listening)


def _serve_here(
    request: ServingRequest,
    files: ModelFiles,
    models: Mapping[str, str],
    on_listening: Callable[[str], None],
    announce: Callable[[str], None],
) -> int | None:
    loader = EngineLoader(request.engine)
    engine = loader.load(files)
    assert engine, "nothing was loaded before"
    if engine.notice:
        announce(engine.notice)
    service = EngineService(engine, models, request.limits, lambda: loader.load(request.find()))
    try:
        return run_server(service, request.listen, on_listening)
    finally:
        service.close()


def _make_app(request: ServingRequest, files: ModelFiles, models: Mapping[str, str]) -> Starlette:
    """The application of a replica; a node that lacks the paths of the files finds them by their names."""
    if not all(path.exists() for path in (files.model, *files.adapters.values())):
        files = request.find()
    engine = Engine(EnginePlan.make(files.model, replace(request.engine, adapters=files.adapters)))
    app = create_app(EngineService(engine, models, request.limits), request.listen)
    app.state.engine = engine
    return app


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
