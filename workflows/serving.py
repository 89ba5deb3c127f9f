"""Served models: from a request to the server's end, on this machine or on a Ray cluster."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..cluster.deploy import ClusterOptions, Deployment, deploy
from ..cluster.replica import ReplicaConfig
from ..errors import RequestError
from ..runtime.engine.engine import Engine
from ..runtime.llama.gguf_checks import read_model_header
from ..runtime.machine.available_memory import available_bytes
from ..runtime.plan.memory import estimate_memory
from ..runtime.plan.options import EngineOptions, default_settings
from ..server.access.request_limits import RequestLimits
from ..server.request_log import log_to_stderr
from ..server.serve import KEPT_PLACES, ListenConfig, adapters_by_model, run_server
from ..server.served_models import ModelPool, PooledModel, ServedModels


@dataclass(frozen=True)
class ServingRequest:
    """Models to serve, and the way of serving them.

    Attributes:
        model: the GGUF.
        adapters: GGUF LoRAs by the name under which they are served.
        name: name of the model; by default that of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engines, without files; `queue` is required.
        cluster: the cluster that serves; None serves here.
        others: further GGUFs, without adapters.
        memory_bytes: limit of the memory of all models together, if there are several; None for what is
            available.
    """

    model: Path
    adapters: Mapping[str, Path]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    cluster: ClusterOptions | None = None
    others: Sequence[Path] = ()
    memory_bytes: int | None = None


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
    if request.others:
        return _serve_several(request, announce)
    models = adapters_by_model(request.name or request.model.stem, request.adapters)
    listen, limits = request.listen, request.limits

    on_listening = _announcing(models, announce)
    log_to_stderr()
    if request.cluster is None:
        keeping = EngineOptions(adapters=request.adapters, queue=request.engine["queue"] + KEPT_PLACES)
        with Engine(request.model, **request.engine | keeping) as engine:
            if engine.notice:
                announce(engine.notice)
            _warm_up(engine)
            service = ServedModels.on_engine(engine, models, kept_places=KEPT_PLACES)
            return run_server(service, listen, limits, on_listening)
    config = ReplicaConfig(models, request.engine, limits, listen)
    return deploy(Deployment(request.model, request.adapters, config, request.cluster), on_listening)


def _warm_up(engine: Engine) -> None:
    """Answer a question, so that the first client need not wait for what is read and compiled once."""
    with suppress(RequestError):  # the template refuses it
        engine.answer("What is 1 + 1?", max_tokens=2)
        engine.clear_prefix_cache()


def _serve_several(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve several models, which are loaded when they are asked for."""
    models: dict[str, PooledModel] = {}
    for path in (request.model, *request.others):
        (name,) = adapters_by_model(path.stem, {})
        if name in models:
            raise RequestError(f"{path}: another model has the name {name}")
        models[name] = _pooled(path, request.engine)
    limits = request.limits.for_context(default_settings(request.engine).context)
    pool = ModelPool(models, request.memory_bytes or available_bytes(), kept_places=KEPT_PLACES)
    log_to_stderr()
    try:
        return run_server(pool, request.listen, limits, _announcing(models, announce))
    finally:
        pool.close()


def _announcing(names: Iterable[str], announce: Callable[[str], None]) -> Callable[[str], None]:
    """The callback with the URL of a server that accepts connections."""
    return lambda url: announce(f"serving {', '.join(names)} at {url}")


def _pooled(path: Path, options: EngineOptions) -> PooledModel:
    header = read_model_header(path)
    keeping = EngineOptions(queue=options["queue"] + KEPT_PLACES)
    nbytes = estimate_memory(header, default_settings(options)).total_bytes
    return PooledModel(header, nbytes, partial(Engine, path, **options | keeping))
