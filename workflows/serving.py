"""Served models: from a request to the server's end, on this machine or on a Ray cluster."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from ..cluster.deploy import ClusterOptions, Deployment, deploy
from ..cluster.replica import ReplicaConfig
from ..errors import RequestError
from ..files.trusted_files import FileState
from ..runtime.engine.engine import Engine
from ..runtime.llama.gguf_checks import read_model_header
from ..runtime.machine.available_memory import available_bytes
from ..runtime.plan.memory import estimate_memory
from ..runtime.plan.options import EngineOptions, default_settings
from ..server.access.request_limits import RequestLimits
from ..server.request_log import LogForm, log_to_stderr
from ..server.serve import KEPT_PLACES, ListenConfig, adapters_by_model, run_server
from ..server.served_models import ModelPool, PooledModel, ServedModels
from .model_files import ModelFiles


@dataclass(frozen=True)
class ServingRequest:
    """Models to serve, and the way of serving them.

    Attributes:
        find: finds the files of the models, now or again: one with its adapters, or several without.
        name: name of the model; by default that of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engines, without files; `queue` is required.
        cluster: the cluster that serves; None serves here.
        memory_bytes: limit of the memory of all models together, if there are several; None for what is
            available.
        log: form of the log.
    """

    find: Callable[[], Sequence[ModelFiles]]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    cluster: ClusterOptions | None = None
    memory_bytes: int | None = None
    log: LogForm = "text"


def run_serving(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve until a signal arrives.

    Args:
        request: what to serve.
        announce: called with a line when connections are accepted.

    Returns:
        The signal that ended the server.

    Raises:
        ThirteenError: the model cannot be loaded, the address is taken, or the cluster cannot be reached.
        EngineFailedError: the engine failed, and the server has drained.
    """
    first, *others = found = request.find()
    if others:
        return _serve_several(request, found, announce)
    models = adapters_by_model(request.name or first.model.stem, first.adapters)
    listen, limits = request.listen, request.limits

    on_listening = _announcing(models, announce)
    log_to_stderr(request.log)
    if request.cluster is None:
        loader = _Loader(request.engine)
        engine = loader.load(first)
        assert engine, "nothing was loaded before"
        if engine.notice:
            announce(engine.notice)
        service = ServedModels.on_engine(engine, models, kept_places=KEPT_PLACES)
        service.load_changed = lambda: loader.load(*request.find())
        with closing(service):
            return run_server(service, listen, limits, on_listening)
    config = ReplicaConfig(models, request.engine, limits, listen)
    return deploy(Deployment(first.model, first.adapters, config, request.cluster), on_listening)


class _Loader:
    """Loads the engine of a server, and again when its files have changed."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._states: list[FileState] = []

    def load(self, files: ModelFiles) -> Engine | None:
        """Load the engine and warm it up; None if the files are those of the last time."""
        if (states := [*map(FileState.now, (files.model, *files.adapters.values()))]) == self._states:
            return None
        keeping = EngineOptions(adapters=files.adapters, queue=self._options["queue"] + KEPT_PLACES)
        engine = Engine(files.model, **self._options | keeping)
        try:
            _warm_up(engine)
        except BaseException:
            engine.close()
            raise
        self._states = states
        return engine


def _warm_up(engine: Engine) -> None:
    """Read and compile what the first client need not wait for."""
    with suppress(RequestError):  # the template refuses it
        if engine.plan.embeds:
            engine.embed(["What is 1 + 1?"])
        engine.answer("What is 1 + 1?", max_tokens=2)
        engine.clear_prefix_cache()


def _serve_several(
    request: ServingRequest, first: Sequence[ModelFiles], announce: Callable[[str], None]
) -> int | None:
    """Serve several models, which are loaded when they are asked for."""
    names: list[str] = []
    for files in first:
        (name,) = adapters_by_model(files.model.stem, {})
        if name in names:
            raise RequestError(f"{files.model}: another model has the name {name}")
        names.append(name)
    finds = chain([first], iter(request.find, None))

    def find() -> dict[str, PooledModel]:
        found = [_pooled(files.model, request.engine) for files in next(finds)]
        return dict(zip(names, found, strict=True))

    limits = request.limits.for_context(default_settings(request.engine).context)
    pool = ModelPool(find, request.memory_bytes or available_bytes(), kept_places=KEPT_PLACES)
    log_to_stderr(request.log)
    with closing(pool):
        return run_server(pool, request.listen, limits, _announcing(names, announce))


def _announcing(names: Iterable[str], announce: Callable[[str], None]) -> Callable[[str], None]:
    """The callback with the URL of a server that accepts connections."""
    return lambda url: announce(f"serving {', '.join(names)} at {url}")


def _pooled(path: Path, options: EngineOptions) -> PooledModel:
    header = read_model_header(path)
    keeping = EngineOptions(queue=options["queue"] + KEPT_PLACES)
    nbytes = estimate_memory(header, default_settings(options)).total_bytes
    return PooledModel(header, nbytes, partial(Engine, path, **options | keeping), FileState.now(path))
