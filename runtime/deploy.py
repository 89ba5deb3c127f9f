"""`thirteen serve --ray`: a fleet on a cluster, by Ray Serve, from its files to the end of the command."""

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..errors import ModelFileError, RequestError
from ..gguf_file import read_header
from .bounds import CLOSING_S
from .cluster import LOCAL, Files, connected, room_for
from .cores import default_threads
from .door import Door
from .fleet import Fleet, Replica
from .profile import PROFILES
from .serve import Doorway

APPLICATION = "thirteen"
_TICK_S = 1.0
_ONGOING_MAX = 10_000  # requests that a door hands on at once
_HEALTH_S = 5.0  # between two looks at a replica's health
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Size:
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
    def of(cls, fleet: Fleet, replicas: int, most: int | None) -> "Size":
        """That of so many replicas of a fleet.

        Raises:
            RequestError: `most` is less than `replicas`.
        """
        if most is not None and most < replicas:
            raise RequestError(f"--max-replicas {most}: fewer than --replicas {replicas}")
        options = fleet.engine
        slots = options["slots"] or PROFILES[options["profile"]].slots
        return cls(replicas, most, options["threads"] or default_threads().decode, slots, options["queue"])

    @property
    def options(self) -> dict[str, Any]:
        """As Ray Serve has them."""
        if self.most is None:
            return {"num_replicas": self.replicas}
        bounds = {"min_replicas": self.replicas, "max_replicas": self.most}
        return {"autoscaling_config": bounds | {"target_ongoing_requests": self.slots}}


def deploy(  # noqa: PLR0913 - what, how much of it, and where
    address: str,
    model: Path,
    adapters: Mapping[str, Path],
    *,
    fleet: Fleet,
    size: Size,
    doorway: Doorway,
    listening: Callable[[str], None],
) -> int | None:
    """Serve a model on a cluster until a signal comes, or another command deploys its own there.

    Where a fleet is there already, its replicas are replaced one after the other, each once it has answered
    what it had begun.

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
        RequestError: the cluster cannot be reached, or has no room.
        ModelFileError: no replica could be begun.
    """
    for path in (model, *adapters.values()):
        read_header(path)  # a bad file is known before anything begins
    with connected(address) as ray:
        from ray import serve  # noqa: PLC0415

        if (room := room_for(ray, size.threads)) < size.replicas:
            raise RequestError(f"--replicas {size.replicas}: the cluster has room for {room} of them")
        quiet = {"log_level": logging.ERROR, "enable_access_log": False}
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            proxy_location="HeadOnly" if doorway.loopback else "EveryNode",
            http_options={"host": doorway.host, "port": doorway.port},
            logging_config=quiet,
        )
        files = Files(ray, model, *adapters.values())
        try:
            serve.run(
                _application(serve, fleet, files, tuple(adapters), size),
                name=APPLICATION,
                route_prefix="/",
                logging_config=quiet,
            )
        except RuntimeError as error:
            raise ModelFileError(f"--ray {address}: no replica began: {_cause(serve, error)}") from None
        return _watch(
            ray, serve, lambda: listening(f"http://{doorway.host}:{doorway.port}"), address == LOCAL
        )


def _application(serve: Any, fleet: Fleet, files: Files, adapters: tuple[str, ...], size: Size) -> Any:
    replicas = serve.deployment(
        Replica,
        ray_actor_options={"num_cpus": size.threads},
        max_ongoing_requests=2 * size.slots,
        max_queued_requests=size.queue,
        health_check_period_s=_HEALTH_S,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=fleet.bounds.drain_s + CLOSING_S,
        max_constructor_retry_count=1,
        **size.options,
    )
    door = serve.deployment(
        Door,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_ONGOING_MAX,
        max_surge_percent=100,  # the next one is there before this one goes
    )
    return door.bind(replicas.bind(fleet, files, adapters), fleet.models, fleet.bounds.body_bytes)


class Owner:
    """An actor of the cluster that knows which command has deployed last."""

    def __init__(self) -> None:
        self._token = ""

    def take(self, token: str) -> None:
        """This command has deployed."""
        self._token = token

    def token(self) -> str:
        """Of the last command."""
        return self._token


def _watch(ray: Any, serve: Any, listening: Callable[[], None], own_cluster: bool) -> int | None:
    """Wait for a signal, and then end the fleet; or for another command to take over."""
    mine = token_hex()
    options = {"name": "owner", "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    owner = ray.remote(Owner).options(**options).remote()
    ray.get(owner.take.remote(mine))
    came = threading.Event()
    by: list[int] = []

    def end(number: int, _: object) -> None:
        by.append(number)
        came.set()

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        listening()
        while not came.wait(_TICK_S):
            if ray.get(owner.token.remote()) != mine:
                return None
        serve.delete(APPLICATION)
        ray.kill(owner)
        if own_cluster or not serve.status().applications:
            serve.shutdown()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return by[0]


def _cause(serve: Any, error: Exception) -> str:
    """Why a deployment failed, in a line: what the replica raised, if it told."""
    found = serve.status().applications.get(APPLICATION)
    told = [found.message, *(d.message for d in found.deployments.values())] if found else []
    lines = [line.strip() for text in (*told, str(error)) for line in text.splitlines()]
    raised = [line for line in lines if "Error: " in line]
    return raised[-1] if raised else next(iter(lines), type(error).__name__)
