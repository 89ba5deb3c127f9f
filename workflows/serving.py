"""A served model: from a request to the server's end, on this machine or on a Ray cluster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..cluster.deploy import ClusterSize, Deployment, deploy
from ..cluster.replica import ReplicaConfig
from ..runtime.engine.config import EngineOptions
from ..runtime.engine.engine import Engine
from ..server.engine_service import EngineService
from ..server.request_limits import RequestLimits
from ..server.request_log import log_to_stderr
from ..server.serve import KEPT_PLACES, ListenConfig, run_server, served_models
from .default_model import short_name


@dataclass(frozen=True)
class ClusterOptions:
    """A Ray cluster that serves.

    Attributes:
        address: HOST:PORT of its head, `auto`, or `local` to start one.
        insecure: whether it may lack token authentication.
        replicas: number of engines.
        max_replicas: number of engines up to which it scales; None for no scaling.
    """

    address: str
    insecure: bool = False
    replicas: int = 1
    max_replicas: int | None = None


@dataclass(frozen=True)
class ServingRequest:
    """What to serve, and how.

    Attributes:
        model: the GGUF.
        adapters: GGUF LoRAs by the name under which they are served.
        name: name of the model; by default short_name() of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engines, without files; `queue` is required.
        cluster: the cluster that serves; None serves here.
    """

    model: Path
    adapters: Mapping[str, Path]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    cluster: ClusterOptions | None = None


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
    models = served_models(request.name or short_name(request.model), request.adapters)
    listen, limits = request.listen, request.limits

    def on_listening(url: str) -> None:
        announce(f"serving {', '.join(models)} at {url}")

    log_to_stderr()
    if request.cluster is None:
        keeping = EngineOptions(adapters=request.adapters, queue=request.engine["queue"] + KEPT_PLACES)
        with Engine(request.model, **request.engine | keeping) as engine:
            service = EngineService(engine, models, kept_places=KEPT_PLACES)
            return run_server(service, listen, limits, on_listening)
    cluster = request.cluster
    config = ReplicaConfig(models, request.engine, limits, listen.keys, listen.allowed_hosts, listen.origins)
    size = ClusterSize.from_config(config, cluster.replicas, cluster.max_replicas)
    deployment = Deployment(request.model, request.adapters, config, size, listen)
    return deploy(cluster.address, deployment, on_listening, insecure=cluster.insecure)
