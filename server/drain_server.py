"""uvicorn server that drains on SIGINT or SIGTERM: running requests finish, new ones are rejected.

On SIGHUP it reloads models and keys, and drains if that tells the end of its terminal.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ..errors import RequestError, ThirteenError
from .access.api_keys import ApiKeys
from .access.request_limits import CLOSING_S, CONNECTIONS_MAX, HEADER_BYTES_MAX, RequestLimits
from .access.timeout_protocol import RefusalPace, TimeoutProtocol
from .served_models import ServedModels

if sys.platform == "win32":  # there SO_REUSEADDR would let another process bind the same port
    _BIND_OPTION = socket.SO_EXCLUSIVEADDRUSE
else:
    _BIND_OPTION = socket.SO_REUSEADDR


_TICKS_PER_S = 10  # of uvicorn

_log = logging.getLogger(__name__)


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind a TCP socket; it accepts no connections until it listens.

    Raises:
        RequestError: the address is not local or already in use.
    """
    with ExitStack() as on_error:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # asyncio sets TCP_NODELAY only on sockets created with an explicit protocol.
            bound = on_error.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, _BIND_OPTION, 1)
            bound.bind(address)
        except (OSError, UnicodeError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RequestError(f"{host} port {port}: {reason}") from None
        on_error.pop_all()
    return bound


class DrainServer(uvicorn.Server):
    """uvicorn server with graceful drain.

    After the first signal it still listens, but rejects new requests with 503. It exits when all running
    requests have finished or after `limits.drain_s`. A second signal aborts them at once.

    It also drains when the engine has failed, since it could only reject requests from then on.

    Attributes:
        exit_signal: the first signal received, or None.
        engine_failed: whether the engine failed.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: ServedModels,
        limits: RequestLimits,
        on_listening: Callable[[], None],
        keys: ApiKeys | None,
    ) -> None:
        """Configure the server; `keys` are the application's, which are reloaded with the models.

        `on_listening` is called when it accepts connections and handles signals.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(TimeoutProtocol, pace=RefusalPace()),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS_MAX + 1,  # with so many, a request gets 503
                h11_max_incomplete_event_size=HEADER_BYTES_MAX,
                timeout_keep_alive=limits.idle_s,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self._service, self._drain_s = service, limits.drain_s
        self._on_listening = on_listening
        self._deadline = 0.0
        self._keys, self._terminal = keys, _has_terminal()
        self._hung_up, self._reloading = False, asyncio.Lock()
        self.exit_signal: int | None = None
        self.engine_failed = False

    def drain(self) -> None:
        """Reject new requests and exit when the running ones have finished or their time is up."""
        self._deadline = monotonic() + self._drain_s
        self._service.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows, and ignored under nohup
        if hangup and signal.getsignal(hangup) is not signal.SIG_IGN and current_thread() is main_thread():
            signal.signal(hangup, self._handle_hangup)
        self._on_listening()

    def _handle_hangup(self, number: int, frame: FrameType | None) -> None:
        if self._terminal and not _has_terminal():
            self.handle_exit(number, frame)
        else:
            self._hung_up = True

    async def _reload(self) -> None:
        """Load keys and models anew; what cannot be loaded stays as it was."""
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
        if self._service.failed and not self._service.draining:
            self.engine_failed = True
            self.drain()
        if self._service.draining and not self.should_exit:
            timed_out = monotonic() >= self._deadline
            if timed_out:
                self._service.abort_all()
            self.should_exit = timed_out or self._service.idle
        elif self._hung_up:
            self._hung_up = False
            self._reload_task = asyncio.ensure_future(self._reload())
        elif not counter % _TICKS_PER_S:
            await self._service.tend()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, abort on the second."""
        if self.exit_signal is None:
            self.exit_signal = sig
            self.drain()
        else:
            self._deadline = 0.0


def _has_terminal() -> bool:
    """Whether this process has a terminal that has not been closed."""
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR))
        return True
    return False
