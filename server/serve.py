"""The HTTP server of `thirteen serve`: names of the models, and the server loop."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..errors import EngineFailedError, OptionError
from ..runtime.request import BASE
from .access.listen_config import ListenConfig, base_url
from .access.request_limits import RequestLimits
from .drain_server import DrainServer, bind_socket
from .engine_service import EngineService


def adapters_by_model(name: str, adapters: Mapping[str, Path]) -> dict[str, str]:
    """Engine adapter of each served model name: the base model first, then one model per adapter."""
    for each in (name, *adapters):
        try:
            each.encode()
        except UnicodeEncodeError:
            raise OptionError("name", "is not UTF-8: give another", ascii(each)) from None
    if name in adapters:
        raise OptionError("adapter", "the base model already has this name; see {name}", name)
    return {name: BASE, **{adapter: adapter for adapter in adapters}}


def run_server(
    service: EngineService, listen: ListenConfig, limits: RequestLimits, on_listening: Callable[[str], None]
) -> int | None:
    """Serve until a signal arrives, drain, and return it; `on_listening` gets the URL.

    Raises:
        EngineFailedError: the engine failed, and the server has drained.
    """
    with bind_socket(listen.host, listen.port) as bound:
        url = base_url(*bound.getsockname()[:2])
        server = DrainServer(service, listen, limits, partial(on_listening, url))
        server.run([bound])
    if server.engine_failed:
        raise EngineFailedError("the engine has failed: the server ends")
    return server.exit_signal
