"""`thirteen serve --ray`: the server's application as a Ray Serve deployment, with an engine per replica."""

import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any

from starlette.applications import Starlette

from ..errors import FileError, OptionError
from ..models.resolve import ModelFiles
from ..runtime.batch.ray_session import error_line, ray_session, worker_capacity
from ..runtime.llama.model import read_model_header
from .access import log_to_stderr
from .app import create_app
from .config import ListenConfig, base_url
from .engine_service import EngineService
from .serving import ServingRequest, serving_line

APPLICATION = "thirteen"
_OWNER_KEY = b"thirteen serve --ray"  # of the token of the command that deployed last
_POLL_S = 1.0
# Ray Serve's 5 s are too few for a busy machine, and it kills what a command waits for.
_PATIENT = {"runtime_env": {"env_vars": {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "55"}}}
_QUIET = {"log_level": logging.ERROR, "enable_access_log": False}


class Replica:
    """What Ray Serve asks of a replica besides its application, which it adds as `app`."""

    app: Starlette

    def check_health(self) -> None:
        """Raise FileError if the engine has failed; Ray Serve then replaces the replica."""
        if self.app.state.engine.closed:
            raise FileError("the engine has failed")


def serve_on_ray(request: ServingRequest, address: str, announce: Callable[[str], None]) -> int | None:
    """Serve a model on a cluster until a signal arrives or another command deploys there.

    An existing deployment is updated: its replicas are replaced one after the other, each when it has
    finished its requests. If the update fails, what is left belongs to the earlier command.

    Args:
        request: what to serve.
        address: address of the cluster; see ray_session().
        announce: gets a line when the replicas are ready.

    Returns:
        The signal; None if another command took over.

    Raises:
        OptionError: the cluster cannot be reached, has too few processors, listens at another address or is
            lost, or no replica could be started.
    """
    files, listen = request.find(), request.listen
    log_to_stderr(request.log)
    read_model_header(files.model)  # an invalid file fails before anything starts
    if not listen.port:
        raise OptionError("port", "a cluster deployment needs a fixed port", 0)
    models, settings = request.models(files), request.engine.settings()
    with ray_session(address) as ray:
        from ray import serve  # noqa: PLC0415 - an extra
        from ray.experimental import internal_kv as store  # noqa: PLC0415

        capacity = worker_capacity(ray, settings.threads, request.replicas)
        application = _application(
            serve, request, files.absolute(), has_spare_room=capacity >= 2 * request.replicas
        )
        failures = (RuntimeError, TimeoutError, ray.exceptions.RayError, serve.exceptions.RayServeException)
        signals, token, is_first = _raise_once_on_signals(), token_hex().encode(), False
        try:
            _start_serve(serve, listen)
            is_first = APPLICATION not in serve.status().applications
            serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
            is_first = False
            store._internal_kv_put(_OWNER_KEY, token, overwrite=True)
            announce(serving_line(models, base_url(listen.host, listen.port)))
            while store._internal_kv_get(_OWNER_KEY) == token:
                time.sleep(_POLL_S)
        except failures as error:
            raise OptionError("ray", _failure_line(serve, error, failures), address) from None
        except KeyboardInterrupt:
            pass
        finally:
            with suppress(*failures):  # nothing can be done if the cluster has failed
                if is_first or store._internal_kv_get(_OWNER_KEY) == token:
                    serve.delete(APPLICATION)  # after its running requests
                    if not serve.status().applications:
                        serve.shutdown()
    return signals[0] if signals else None


def _application(serve: Any, request: ServingRequest, files: ModelFiles, *, has_spare_room: bool) -> Any:
    """Build the Ray Serve application; with spare room, new replicas start before old ones stop."""
    settings = request.engine.settings()  # a node would take its own number of threads
    options = replace(request.engine, threads=settings.threads, adaptive_threads=settings.adaptive_threads)

    def make() -> Starlette:  # Ray Serve calls functions on the replica, but pickles other callables
        return _make_app(replace(request, engine=options), files)

    return serve.deployment(
        serve.ingress(make)(Replica),
        num_replicas=request.replicas,
        ray_actor_options={"num_cpus": settings.threads},
        max_ongoing_requests=settings.slots,  # the others wait where they can still change the replica
        max_queued_requests=max(options.queue, 1),
        max_surge_percent=100 if has_spare_room else 0,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=request.limits.drain_s,
    ).bind()


def _make_app(request: ServingRequest, files: ModelFiles) -> Starlette:
    """The application of a replica; a node that lacks the paths of the files finds them by their names."""
    models = request.models(files)
    if not all(path.exists() for path in (files.model, *files.adapters.values())):
        files = request.find()
    engine = request.load(files)
    app = create_app(EngineService(engine, models, request.limits), request.listen)
    app.state.engine = engine
    return app


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
    """Start Ray Serve unless it runs; OptionError if it listens at another address."""
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


def _failure_line(serve: Any, error: Exception, failures: tuple[type[Exception], ...]) -> str:
    """Return why a deployment failed, in one line: what a replica raised, if Ray Serve reports it."""
    messages: list[str] = []
    with suppress(*failures):  # Ray Serve may have failed itself
        if status := serve.status().applications.get(APPLICATION):
            messages = [status.message, *(each.message for each in status.deployments.values())]
    return error_line(RuntimeError("\n".join((str(error), *messages))))
