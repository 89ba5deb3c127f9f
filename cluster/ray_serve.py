"""`thirteen serve --ray`: the server's application as a Ray Serve deployment, with an engine per replica."""

import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from starlette.applications import Starlette

from ..errors import FileError, OptionError
from ..server.config import ListenConfig, base_url
from .ray_session import error_line, ray_session, worker_capacity

APPLICATION = "thirteen"
_OWNER_KEY = b"thirteen serve --ray"
_POLL_S = 1.0
# Ray Serve's 5 s are too few for a busy machine, and it kills what a command waits for.
_PATIENT = {"runtime_env": {"env_vars": {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "55"}}}
_QUIET = {"log_level": logging.ERROR, "enable_access_log": False}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that a cluster serves.

    Attributes:
        make_app: makes the application on the node of a replica, with its engine as `app.state.engine`.
        listen: where Ray Serve listens.
        replicas: number of replicas.
        threads: threads of a replica.
        slots: answers that a replica computes at once.
        queue: requests that wait.
        drain_s: time in seconds for running answers to finish when a replica stops.
    """

    make_app: Callable[[], Starlette]
    listen: ListenConfig
    replicas: int
    threads: int
    slots: int
    queue: int
    drain_s: int

    def application(self, serve: Any, *, has_spare_room: bool) -> Any:
        """Build the Ray Serve application; with spare room, new replicas start before old ones stop."""
        make_app = self.make_app

        def make() -> Starlette:  # Ray Serve calls functions on the replica, but pickles other callables
            return make_app()

        return serve.deployment(
            serve.ingress(make)(Replica),
            num_replicas=self.replicas,
            ray_actor_options={"num_cpus": self.threads},
            max_ongoing_requests=self.slots,  # the others wait where they can still change the replica
            max_queued_requests=max(self.queue, 1),
            max_surge_percent=100 if has_spare_room else 0,
            max_constructor_retry_count=1,
            graceful_shutdown_timeout_s=self.drain_s,
        ).bind()


class Replica:
    """What Ray Serve asks of a replica besides its application, which it adds as `app`."""

    app: Starlette

    def check_health(self) -> None:
        """Raise FileError if the engine has failed; Ray Serve then replaces the replica."""
        if self.app.state.engine.closed:
            raise FileError("the engine has failed")


def serve_on_ray(deployment: Deployment, address: str, on_listening: Callable[[str], None]) -> int | None:
    """Serve a model on a cluster until a signal arrives or another command deploys there.

    An existing deployment is updated: its replicas are replaced one after the other, each when it has
    finished its requests. If the update fails, what is left belongs to the earlier command.

    Args:
        deployment: what to serve.
        address: address of the cluster; see ray_session().
        on_listening: called with the server's URL when the replicas are ready.

    Returns:
        The signal; None if another command took over.

    Raises:
        OptionError: the cluster cannot be reached, has too few processors, listens at another address or is
            lost, or no replica could be started.
    """
    listen = deployment.listen
    if not listen.port:
        raise OptionError("port", "a cluster deployment needs a fixed port", 0)
    with ray_session(address) as ray:
        from ray import serve  # noqa: PLC0415 - an extra

        capacity = worker_capacity(ray, deployment.threads, deployment.replicas)
        application = deployment.application(serve, has_spare_room=capacity >= 2 * deployment.replicas)
        failures = (RuntimeError, TimeoutError, ray.exceptions.RayError, serve.exceptions.RayServeException)
        signals, owner, started = _raise_once_on_signals(), _Owner(), False
        try:
            _start_serve(serve, listen)
            started = True
            serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
            owner.take()
            on_listening(base_url(listen.host, listen.port))
            while owner.is_this_command():
                time.sleep(_POLL_S)
        except failures as error:
            raise OptionError("ray", _failure_line(serve, error, failures), address) from None
        except KeyboardInterrupt:
            pass
        finally:
            with suppress(*failures):  # nothing can be done if the cluster has failed
                if started and owner.release():
                    _take_down(serve)
    return signals[0] if signals else None


def _raise_once_on_signals() -> list[int]:
    """Raise KeyboardInterrupt on the first signal, in place of Ray's handlers; returns those received.

    Further ones must not interrupt the shutdown. Those that are ignored already, as by nohup, stay so.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if not received[1:]:
            raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    return received


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
    try:
        socket.create_connection((listen.host, listen.port)).close()
    except OSError:
        reason = "Ray Serve listens at another address on this cluster: use that, or stop it"
        raise OptionError("port", f"{reason} (serve shutdown)", listen.port) from None


class _Owner:
    """The command that deployed last, by a token in the cluster's store of keys and values."""

    def __init__(self) -> None:
        from ray.experimental import internal_kv  # noqa: PLC0415 - an extra

        self._store, self._token = internal_kv, token_hex().encode()

    def take(self) -> None:
        self._store._internal_kv_put(_OWNER_KEY, self._token, overwrite=True)

    def is_this_command(self) -> bool:
        return bool(self._store._internal_kv_get(_OWNER_KEY) == self._token)

    def release(self) -> bool:
        """Whether the deployment ends with this command: it is its own, or nobody's."""
        if self._store._internal_kv_get(_OWNER_KEY) not in {self._token, None}:
            return False
        self._store._internal_kv_del(_OWNER_KEY)
        return True


def _take_down(serve: Any) -> None:
    """Delete the deployment after its running requests; stop Ray Serve if it has no other application."""
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
