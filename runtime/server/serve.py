"""`thirteen serve`: a model behind HTTP, from its file to the end of the process."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import RequestError
from ..request import BASE
from .access_middleware import LOOPBACK
from .api_keys import ApiKeys
from .app import application
from .drain_server import DrainServer, bind
from .engine_service import EngineService
from .request_limits import RequestLimits


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where a server listens, and to whom.

    Attributes:
        host: an address or name of this machine.
        port: 0 takes a free one.
        keys: of those who may ask; None is everyone.
        insecure: whether everyone may ask from other machines too.
        origins: the web origins whose pages may ask.

    Raises:
        RequestError: other machines could ask without a key.
    """

    host: str
    port: int
    keys: ApiKeys | None = None
    insecure: bool = False
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (self.loopback or self.keys or self.insecure):
            raise RequestError(
                f"{self.host} is reached from other machines: give --api-key-file, or --insecure to let "
                "everyone ask"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The names by which it may be asked for; None where a key, or nothing, protects it."""
        return tuple(dict.fromkeys((*LOOPBACK, self.host))) if self.loopback and not self.keys else None


def url(host: str, port: int) -> str:
    """Where a server at an address is."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def model_names(name: str, adapters: Mapping[str, Path]) -> dict[str, str]:
    """The engine's adapters by the names of the models that clients see; the base comes first.

    Raises:
        RequestError: two have the same name.
    """
    if name in adapters:
        raise RequestError(f"--adapter {name}: the model itself has this name (see --name)")
    return {name: BASE, **{adapter: adapter for adapter in adapters}}


def serve(
    desk: EngineService, doorway: ListenConfig, bounds: RequestLimits, listening: Callable[[str], None]
) -> int | None:
    """Serve until a signal comes, and then until what runs has ended or its time is up.

    Args:
        desk: what answers.
        doorway: where to listen.
        bounds: of requests.
        listening: called with the address once it can be connected to.

    Returns:
        The signal.

    Raises:
        RequestError: the address is not one of this machine, or taken.
    """
    bounds = bounds.within(desk.engine.context)
    app = application(desk, bounds, keys=doorway.keys, hosts=doorway.hosts, origins=doorway.origins)
    with bind(doorway.host, doorway.port) as bound:
        address = url(*bound.getsockname()[:2])
        listener = DrainServer(app, desk, bounds, partial(listening, address))
        listener.run([bound])
    return listener.ended_by
