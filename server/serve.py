"""Runs the HTTP server for `thirteen serve`: listen address, served models, and the server loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import EngineFailedError, OptionError
from ..runtime.request import BASE
from .access.access_middleware import LOOPBACK_HOSTS
from .access.api_keys import ApiKeys
from .access.request_limits import RequestLimits, is_loopback
from .app import create_app
from .drain_server import DrainServer, bind_socket
from .served_models import ServedModels

KEPT_PLACES = 16  # of the queue, for clients that have no other request


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Listen address and access rules.

    Attributes:
        host: local address or host name.
        port: TCP port; 0 picks a free one.
        keys: accepted API keys; None disables authentication.
        insecure: whether other machines may connect without a key.
        origins: origins allowed by CORS.

    Raises:
        RequestError: other machines could connect without a key.
    """

    host: str
    port: int
    keys: ApiKeys | None = None
    insecure: bool = False
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (self.loopback or self.keys or self.insecure):
            remedy = "give {api_key_file}, or {insecure} to serve without keys"
            raise OptionError("host", f"accepts connections from other machines: {remedy}", self.host)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or is_loopback(self.host)

    @property
    def allowed_hosts(self) -> tuple[str, ...] | None:
        """Accepted names in the Host header; None accepts any, because keys or nothing protect the server."""
        return tuple(dict.fromkeys((*LOOPBACK_HOSTS, self.host))) if self.loopback and not self.keys else None


def base_url(host: str, port: int) -> str:
    """URL of a server; an IPv6 address is put in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def adapters_by_model(name: str, adapters: Mapping[str, Path]) -> dict[str, str]:
    """Engine adapter of each served model name: the base model first, then one model per adapter.

    Raises:
        RequestError: an adapter has the name of the base model, or a name is not UTF-8.
    """
    for each in (name, *adapters):
        try:
            each.encode()
        except UnicodeEncodeError:
            raise OptionError("name", "is not UTF-8: give another", ascii(each)) from None
    if name in adapters:
        raise OptionError("adapter", "the base model already has this name; see {name}", name)
    return {name: BASE, **{adapter: adapter for adapter in adapters}}


def run_server(
    service: ServedModels, listen: ListenConfig, limits: RequestLimits, on_listening: Callable[[str], None]
) -> int | None:
    """Serve until a signal arrives, then drain; when it accepts connections, `on_listening` gets the URL.

    Returns:
        The signal that ended the server.

    Raises:
        RequestError: the address is not local or already in use.
        EngineFailedError: the engine failed, and the server has drained.
    """
    for served in service.services.values():
        limits = limits.for_context(served.engine.context)
    app = create_app(
        service, limits, keys=listen.keys, allowed_hosts=listen.allowed_hosts, origins=listen.origins
    )
    with bind_socket(listen.host, listen.port) as bound:
        url = base_url(*bound.getsockname()[:2])
        server = DrainServer(app, service, limits, partial(on_listening, url), listen.keys)
        server.run([bound])
    if server.engine_failed:
        raise EngineFailedError("the engine has failed: the server ends")
    return server.exit_signal
