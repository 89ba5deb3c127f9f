"""HTTP server of `thirteen serve`. On SIGINT or SIGTERM it drains: requests finish, new ones are refused.

On SIGHUP it reloads model and keys, and drains if that tells the end of its terminal.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

import uvicorn

from ..errors import ClosedError, RequestError, ThirteenError
from .app import create_app
from .config import ListenConfig, base_url
from .engine_service import EngineService

_CONNECTIONS_MAX = 512  # a connection is a file descriptor, and 1,024 is the usual limit of a process
_CLOSING_S = 5  # time to send finished responses

_log = logging.getLogger(__name__)


def bind_socket(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; RequestError if the address is not local or in use."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        bound = socket.create_server(address, family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise RequestError(f"{host} port {port}: {reason}") from None
    # Connections inherit it. asyncio sets it only on sockets that were made for TCP by number.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


class DrainServer(uvicorn.Server):
    """uvicorn server with graceful drain.

    After the first signal it still listens, but refuses new requests with 503. It exits when all running
    requests have finished or after `drain_s` of the limits. A second signal aborts them at once.

    It also drains when the engine has failed, since it could only refuse requests from then on.

    Attributes:
        exit_signal: the first signal received, or None.
    """

    def __init__(
        self, service: EngineService, listen: ListenConfig, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        """Configure the server; `on_listening` is called when it accepts connections."""
        config = uvicorn.Config(
            create_app(service, listen),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=service.limits.idle_s,
            timeout_graceful_shutdown=_CLOSING_S,
        )
        super().__init__(config)
        self._service, self._keys, self._on_listening = service, listen.keys, on_listening
        self._deadline, self._terminal, self._reloading = 0.0, os.isatty(0), asyncio.Lock()
        self.exit_signal: int | None = None

    def drain(self) -> None:
        """Refuse new requests and exit when the running ones have finished or their time is up."""
        self._deadline = monotonic() + self._service.limits.drain_s
        self._service.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup and current_thread() is main_thread():
            if signal.getsignal(hangup) is signal.SIG_IGN:
                _log.info("SIGHUP is ignored, as under nohup: it reloads nothing")
            else:
                asyncio.get_running_loop().add_signal_handler(hangup, self._handle_hangup, hangup)
        self._on_listening()

    def _handle_hangup(self, number: int) -> None:
        if self._terminal and not os.isatty(0):
            self.handle_exit(number, None)
        elif not self._service.draining:
            self._reload_task = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        """Load keys and model anew; what cannot be loaded stays as it was."""
        async with self._reloading:
            began = monotonic()
            try:
                if self._keys:
                    self._keys.reload()
                await self._service.reload()
            except (ThirteenError, OSError) as error:
                _log.error("not reloaded: %s", error)
            else:
                _log.info("reloaded in %.1f s", monotonic() - began)

    async def on_tick(self, counter: int) -> bool:
        """Whether to exit now; uvicorn calls this ten times per second."""
        if self._service.engine.closed and not self._service.draining:
            self.drain()
        if self._service.draining and not self.should_exit:
            timed_out = monotonic() >= self._deadline
            if timed_out:
                self._service.abort_all()
            self.should_exit = timed_out or self._service.idle
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, abort on the second."""
        if self.exit_signal is None:
            self.exit_signal = sig
            self.drain()
        else:
            self._deadline = 0.0


def run_server(
    service: EngineService, listen: ListenConfig, on_listening: Callable[[str], None]
) -> int | None:
    """Serve until a signal arrives, drain, and return it; `on_listening` gets the URL.

    Raises:
        ClosedError: the engine failed, and the server has drained.
    """
    with bind_socket(listen.host, listen.port) as bound:
        url = base_url(*bound.getsockname()[:2])
        server = DrainServer(service, listen, partial(on_listening, url))
        server.run([bound])
    if service.engine.closed:
        raise ClosedError("the engine has failed: the server ends")
    return server.exit_signal
