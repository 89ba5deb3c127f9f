"""`thirteen serve --ray`: deploy a model with Ray Serve, and take it down when the command ends."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..files.gguf.header import read_header
from ..runtime.llama.load_probe import probe_model_files
from ..runtime.plan.options import EngineOptions, default_settings
from ..server.access.request_limits import CLOSING_S
from ..server.serve import ListenConfig, base_url
from .deployment_owner import Ownership
from .ray_session import SharedFiles, error_line, ray_session, worker_capacity
from .replica import Replica, ReplicaConfig
from .router import Router

APPLICATION = "thirteen"
_OWNER_POLL_S = 1.0
_SHUTDOWN_POLL_S = 0.2
_HEALTH_CHECK_S = 5.0
_ROUTER_REQUESTS_MAX = 10_000  # requests that a router forwards at once
# Ray Serve's 5 s are too few for a busy machine, and it kills what a command waits for.
_PATIENT = {"runtime_env": {"env_vars": {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "55"}}}
_QUIET = {"log_level": logging.ERROR, "enable_access_log": False}
# Windows has no SIGHUP.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A Ray cluster that serves.

    Attributes:
        address: HOST:PORT of its head, `auto`, or `local` to start one.
        insecure: whether it may lack token authentication.
        replicas: number of replicas, or the minimum with autoscaling.
        max_replicas: maximum with autoscaling; None turns it off.

    Raises:
        OptionError: `max_replicas` is less than `replicas`.
    """

    address: str
    insecure: bool = False
    replicas: int = 1
    max_replicas: int | None = None

    def __post_init__(self) -> None:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise OptionError("max_replicas", f"fewer than {{replicas}} {self.replicas}", self.max_replicas)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model to serve on a cluster.

    Attributes:
        model: a GGUF file.
        adapters: engine adapter name -> LoRA in a GGUF file.
        config: configuration of the replicas.
        cluster: the cluster that serves.

    Raises:
        RequestError: the port is 0, or an option of the engines is invalid.
    """

    model: Path
    adapters: Mapping[str, Path]
    config: ReplicaConfig
    cluster: ClusterOptions

    def __post_init__(self) -> None:
        if not self.config.listen.port:
            raise OptionError("port", "a cluster deployment needs a fixed port", 0)
        default_settings(self.config.engine)

    @property
    def files(self) -> tuple[Path, ...]:
        """The model and its adapters."""
        return (self.model, *self.adapters.values())

    @property
    def threads(self) -> int:
        """Threads of a replica."""
        return default_settings(self.config.engine).threads

    def replica_options(self, capacity: int) -> dict[str, Any]:
        """Return Ray Serve's options for the replicas, on a cluster with room for `capacity` of them."""
        slots, cluster = default_settings(self.config.engine).slots, self.cluster
        has_room_for_both = capacity >= 2 * cluster.replicas  # then new replicas start before old ones stop
        options: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": self.threads},
            "max_ongoing_requests": slots,  # the others wait where they can still change the replica
            "max_queued_requests": max(self.config.engine["queue"], 1),
            "max_surge_percent": 100 if has_room_for_both else 0,
        }
        if cluster.max_replicas is None:
            return options | {"num_replicas": cluster.replicas}
        return options | {
            "autoscaling_config": {
                "min_replicas": cluster.replicas,
                "max_replicas": cluster.max_replicas,
                "target_ongoing_requests": slots,
            }
        }

    def application(self, ray: Any, serve: Any, capacity: int) -> Any:
        """Build the Ray Serve application: routers in front of the replicas."""
        drain_s = self.config.limits.drain_s + CLOSING_S
        settings = default_settings(self.config.engine)  # a node would take its own number of threads
        threads = EngineOptions(threads=settings.threads, adaptive_threads=settings.adaptive_threads)
        config = replace(self.config, engine=self.config.engine | threads)
        replicas = serve.deployment(
            Replica,
            health_check_period_s=_HEALTH_CHECK_S,
            max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=_SHUTDOWN_POLL_S,
            graceful_shutdown_timeout_s=drain_s,
            **self.replica_options(capacity),
        )
        routers = serve.deployment(
            Router,
            num_replicas=1 if self.config.listen.loopback else sum(node["Alive"] for node in ray.nodes()),
            ray_actor_options={"num_cpus": 0},
            max_ongoing_requests=_ROUTER_REQUESTS_MAX,
            max_surge_percent=100,  # a new router starts before the old one stops
            graceful_shutdown_wait_loop_s=_SHUTDOWN_POLL_S,
            graceful_shutdown_timeout_s=drain_s + CLOSING_S,
        )
        files = SharedFiles(ray, *self.files)
        return routers.bind(replicas.bind(config, files, tuple(self.adapters)), config)


def deploy(deployment: Deployment, on_listening: Callable[[str], None]) -> int | None:
    """Serve a model on a cluster until a signal arrives or another command deploys there.

    An existing deployment is updated: its replicas are replaced one after the other, each when it has
    finished its requests. If the update fails or is interrupted, what is left belongs to the earlier command.

    Args:
        deployment: what to serve, and where.
        on_listening: called with the server's URL when the replicas are ready.

    Returns:
        The signal; None if another command took over.

    Raises:
        OptionError: the cluster cannot be reached, has too few processors, listens at another address or is
            lost, or no replica could be started.
        FileError: a file is invalid.
    """
    cluster, listen = deployment.cluster, deployment.config.listen
    for path in deployment.files:
        read_header(path)  # an invalid file fails before anything starts
    probe_model_files(deployment.model, deployment.adapters.values())  # the replicas do not repeat it
    with ray_session(cluster.address, insecure=cluster.insecure) as ray:
        from ray import serve  # noqa: PLC0415 - an extra

        capacity = worker_capacity(ray, deployment.threads, cluster.replicas)
        ownership = Ownership(ray)
        failures = (RuntimeError, TimeoutError, ray.exceptions.RayError, serve.exceptions.RayServeException)
        with _signals_raised() as ignore_signals:
            try:
                _check_listens_there(listen)  # nothing is announced if another address is in use
                ownership.prepare()
                _start_serve(serve, listen)
                application = deployment.application(ray, serve, capacity)
                serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
                ownership.commit()
                on_listening(base_url(listen.host, listen.port))
                while ownership.held:
                    time.sleep(_OWNER_POLL_S)
            except failures as error:
                raise OptionError("ray", _failure_line(serve, error, failures), cluster.address) from None
            except _SignalError as received:
                return received.number
            finally:
                ignore_signals()  # a second signal must not interrupt the shutdown
                if ownership.release():
                    _shut_down(serve, failures)
    return None


def _start_serve(serve: Any, listen: ListenConfig) -> None:
    """Start Ray Serve unless it runs.

    Raises:
        OptionError: it runs, and listens at another address.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly" if listen.loopback else "EveryNode",
        http_options={"host": listen.host, "port": listen.port},
        logging_config=_QUIET,
        controller_options=_PATIENT,
    )
    _check_listens_there(listen)  # another command may have started it meanwhile


def _check_listens_there(listen: ListenConfig) -> None:
    """Raise OptionError if Ray Serve runs and listens at another address."""
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - no public API tells the address

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    running = client.http_config
    if (running.host, running.port) != (listen.host, listen.port):
        found = f"{running.host}:{running.port}"
        reason = f"Ray Serve already listens at {found} on this cluster: use that address, or stop it"
        raise OptionError("port", f"{reason} (serve shutdown)", listen.port)


def _shut_down(serve: Any, failures: tuple[type[Exception], ...]) -> None:
    """Delete the deployment after its running requests; stop Ray Serve if it has no other application."""
    with suppress(*failures):  # nothing can be done if Ray Serve has failed
        serve.delete(APPLICATION)
        if not serve.status().applications:
            serve.shutdown()


def _failure_line(serve: Any, error: Exception, failures: tuple[type[Exception], ...]) -> str:
    """Return why a deployment failed, in one line: what a replica raised, if Ray Serve reports it."""
    messages: list[str] = []
    with suppress(*failures):  # Ray Serve may have failed itself
        if status := serve.status().applications.get(APPLICATION):
            messages = [status.message, *(each.message for each in status.deployments.values())]
    return error_line(RuntimeError("\n".join((str(error), *messages))))


class _SignalError(BaseException):
    """A signal was received."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals_raised() -> Iterator[Callable[[], None]]:
    """Raise _SignalError on signals in the block; yields a function that ignores them from then on.

    Those that are ignored already, as by nohup, stay so.
    """

    def raise_signal(number: int, _: object) -> None:
        raise _SignalError(number)

    def ignore() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, raise_signal) for number in heard}
    try:
        yield ignore
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
