"""The process that listens: a socket, its end by a signal, and what is still running then."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ...errors import RequestError
from .engine_service import EngineService
from .request_limits import CLOSING_S, CONNECTIONS_MAX, HEADER_BYTES_MAX, RequestLimits
from .timeout_protocol import TimeoutProtocol

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody can connect before something listens.

    Raises:
        RequestError: it is not an address of this machine, or taken.
    """
    with ExitStack() as undo:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # With its protocol named, asyncio knows it for TCP, and sends what is there without delay.
            bound = undo.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except (OSError, UnicodeError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RequestError(f"{host} port {port}: {reason}") from None
        undo.pop_all()
    return bound


class DrainServer(uvicorn.Server):
    """uvicorn, which on a signal still listens, refusing work, until what runs has ended or its time is up.

    Attributes:
        ended_by: the first signal.
    """

    def __init__(
        self,
        app: ASGIApp,
        desk: EngineService,
        bounds: RequestLimits,
        listening: Callable[[], None] | None = None,
    ) -> None:
        """Prepare to listen.

        Args:
            app: what answers.
            desk: where requests are handed in.
            bounds: of connections.
            listening: called when connections and signals are taken in.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=TimeoutProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS_MAX,
                h11_max_incomplete_event_size=HEADER_BYTES_MAX,
                timeout_keep_alive=bounds.idle_s,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self._desk, self._drain_s = desk, bounds.drain_s
        self._listening = listening
        self._deadline = 0.0
        self.ended_by: int | None = None

    def drain(self) -> None:
        """Take no more work, and end when what runs has ended or its time is up."""
        self._deadline = monotonic() + self._drain_s
        self._desk.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self._listening:
            self._listening()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; uvicorn asks ten times a second."""
        if self._desk.draining and not self.should_exit:
            late = monotonic() >= self._deadline
            if late:
                self._desk.abort()
            self.should_exit = late or self._desk.idle
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on a signal, and end at once on a second one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take in a signal."""
        if self.ended_by is None:
            self.ended_by = sig
            self.drain()
        else:
            self._deadline = 0.0
