"""`thirteen serve --ray`: a fleet on a cluster, by Ray Serve, from its files to the end of the command."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from ...errors import ModelFileError, RequestError
from ...files.gguf_header import read_header
from ..profile import profile_named
from ..server.request_limits import CLOSING_S
from ..server.serve import ListenConfig, base_url
from ..threads import default_threads
from .ray_session import LOCAL, SharedFiles, connected, error_line, worker_capacity
from .replica import Replica, ReplicaConfig
from .router import Router

APPLICATION = "thirteen"
_OWNER = "owner"
_TICK_S = 1.0
_LOOK_S = 0.2  # between two looks at whether what is to end has ended
_HEALTH_S = 5.0  # between two looks at a replica's health
_ONGOING_MAX = 10_000  # requests that a door hands on at once
_QUIET = {"log_level": logging.ERROR, "enable_access_log": False}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """How large a fleet is.

    Attributes:
        replicas: at least.
        most: replicas, where the load decides; None always has the same.
        threads: of each.
        slots: of each: so many answers run at once.
        queue: requests that may wait for a place.
    """

    replicas: int
    most: int | None
    threads: int
    slots: int
    queue: int

    @classmethod
    def of(cls, fleet: ReplicaConfig, replicas: int, most: int | None) -> "ClusterSize":
        """That of so many replicas of a fleet.

        Raises:
            RequestError: `most` is less than `replicas`.
        """
        if most is not None and most < replicas:
            raise RequestError(f"--max-replicas {most}: fewer than --replicas {replicas}")
        options = fleet.engine
        slots = options["slots"] or profile_named(options["profile"]).slots
        return cls(replicas, most, options["threads"] or default_threads().decode, slots, options["queue"])

    def options(self, room: int) -> dict[str, Any]:
        """As Ray Serve has them, on a cluster with room for so many replicas."""
        options: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": self.threads},
            "max_ongoing_requests": self.slots,  # others wait where they can still go to another replica
            "max_queued_requests": max(self.queue, 1),
            "max_surge_percent": 100
            if room >= 2 * self.replicas
            else 0,  # if it can be, the next are tried first
        }
        if self.most is None:
            return options | {"num_replicas": self.replicas}
        bounds = {"min_replicas": self.replicas, "max_replicas": self.most}
        return options | {"autoscaling_config": bounds | {"target_ongoing_requests": self.slots}}


def deploy(  # noqa: PLR0913 - what, how much of it, and where
    address: str,
    model: Path,
    adapters: Mapping[str, Path],
    *,
    fleet: ReplicaConfig,
    size: ClusterSize,
    doorway: ListenConfig,
    listening: Callable[[str], None],
) -> int | None:
    """Serve a model on a cluster until a signal comes, or another command deploys its own there.

    Where a fleet is there already, its replicas are replaced one after the other, each once it has answered
    what it had begun. If that fails, or is broken off, what is left of it stays with the command that had it.

    Args:
        address: of the cluster; see cluster.connected().
        model: a GGUF file.
        adapters: LoRAs in GGUF files, by the engine's names for them.
        fleet: what the replicas are.
        size: how many there are, and how large.
        doorway: where to listen, and to whom.
        listening: called with the address once the replicas are ready.

    Returns:
        The signal; None if another command took over.

    Raises:
        RequestError: the cluster cannot be reached, has no room, or listens elsewhere already.
        ModelFileError: no replica could be begun.
    """
    if not doorway.port:
        raise RequestError("--port 0: a fleet has to be told its port")
    for path in (model, *adapters.values()):
        read_header(path)  # a bad file is known before anything begins
    with connected(address) as ray:
        from ray import serve  # noqa: PLC0415

        room = worker_capacity(ray, size.threads, size.replicas)
        owner = _Ownership(ray)
        with _signals() as ended:
            try:
                _start(serve, doorway)
                files = SharedFiles(ray, model, *adapters.values())
                doors = 1 if doorway.loopback else sum(node["Alive"] for node in ray.nodes())
                application = _application(serve, fleet, files, tuple(adapters), size.options(room), doors)
                owner.begin()
                serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
                owner.take()
                listening(base_url(doorway.host, doorway.port))
                while owner.mine():
                    time.sleep(_TICK_S)
            except (RuntimeError, ray.exceptions.RayError) as error:
                raise ModelFileError(f"--ray {address}: {_failure(serve, error)}") from None
            except _EndedError as end:
                return end.number
            finally:
                ended()  # one more signal is not to break this off
                _clear(serve, fleet=owner.leave(), everything=address == LOCAL)
    return None


def _start(serve: Any, doorway: ListenConfig) -> None:
    """Begin Ray Serve, if it is not there; what is there has to listen where this is to.

    Raises:
        RequestError: it listens elsewhere.
    """
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - nothing public tells

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    options = {"host": doorway.host, "port": doorway.port}
    where = "HeadOnly" if doorway.loopback else "EveryNode"
    serve.start(proxy_location=where, http_options=options, logging_config=_QUIET)
    there = _get_global_client().http_config
    if (there.host, there.port) != (doorway.host, doorway.port):
        raise RequestError(
            f"--host {doorway.host} --port {doorway.port}: on this cluster, Ray Serve listens at "
            f"{there.host}:{there.port} already: give that, or end it (serve shutdown)"
        )


def _application(  # noqa: PLR0913, PLR0917 - what makes it
    serve: Any,
    fleet: ReplicaConfig,
    files: SharedFiles,
    adapters: tuple[str, ...],
    options: dict[str, Any],
    doors: int,
) -> Any:
    """So many doors before replicas of these options."""
    drain_s = fleet.bounds.drain_s + CLOSING_S
    replicas = serve.deployment(
        Replica,
        health_check_period_s=_HEALTH_S,
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=_LOOK_S,
        graceful_shutdown_timeout_s=drain_s,
        **options,
    )
    door = serve.deployment(
        Router,
        num_replicas=doors,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_ONGOING_MAX,
        max_surge_percent=100,  # the next one is there before this one goes
        graceful_shutdown_wait_loop_s=_LOOK_S,
        graceful_shutdown_timeout_s=drain_s + CLOSING_S,
    )
    return door.bind(replicas.bind(fleet, files, adapters), fleet)


def _clear(serve: Any, *, fleet: bool, everything: bool) -> None:
    """End the fleet, once its running answers have ended, if it is to; and Ray Serve, if nothing is on it."""
    if fleet:
        serve.delete(APPLICATION)
    if everything or not serve.status().applications:
        serve.shutdown()


def _failure(serve: Any, error: Exception) -> str:
    """Why a deployment failed, in a line: what a replica raised, if it told."""
    found = serve.status().applications.get(APPLICATION)
    told = [found.message, *(d.message for d in found.deployments.values())] if found else []
    return error_line(RuntimeError("\n".join((str(error), *told))))


class Owner:
    """An actor of the cluster that knows which command has deployed last, and which is about to."""

    def __init__(self) -> None:
        self._last, self._next = "", ""

    def begin(self, token: str) -> None:
        """This command is about to deploy."""
        self._next = token

    def take(self, token: str) -> None:
        """It has deployed."""
        self._last, self._next = token, ""

    def leave(self, token: str) -> bool:
        """It ends; whether the fleet is its own, or nobody's, so that it ends as well."""
        if self._next == token:
            self._next = ""
            return not self._last
        if self._last != token:
            return False
        self._last = ""
        return not self._next

    def last(self) -> str:
        """The command that has deployed last; "" if none did since this actor began."""
        return self._last


class _Ownership:
    """This command's part in it; a lost actor changes nothing."""

    def __init__(self, ray: Any) -> None:
        options = {"name": _OWNER, "get_if_exists": True, "lifetime": "detached", "max_restarts": -1}
        self._owner = ray.remote(num_cpus=0)(Owner).options(**options).remote()
        self._ray, self._token, self._begun = ray, token_hex(), False

    def begin(self) -> None:
        self._begun = True
        self._ray.get(self._owner.begin.remote(self._token))

    def take(self) -> None:
        self._ray.get(self._owner.take.remote(self._token))

    def mine(self) -> bool:
        """Whether no other command has deployed."""
        try:
            return self._ray.get(self._owner.last.remote()) in {"", self._token}
        except self._ray.exceptions.RayError:
            return True

    def leave(self) -> bool:
        """End this command's part in it; whether the fleet is to end with it."""
        try:
            return self._begun and bool(self._ray.get(self._owner.leave.remote(self._token)))
        except self._ray.exceptions.RayError:
            return True


class _EndedError(BaseException):
    """A signal has come."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Have signals raise _EndedError; yields what has them ignored from then on."""

    def end(number: int, _: object) -> None:
        raise _EndedError(number)

    def ignore() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
