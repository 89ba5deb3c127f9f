"""HTTP/1.1 connection with timeouts for slow clients, and room for new ones."""

import asyncio
from time import monotonic
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .request_limits import CONNECTIONS_PER_ADDRESS_MAX, FIRST_BYTE_S, client_address, is_loopback


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that aborts connections of slow clients.

    All timeouts but one are uvicorn's `timeout_keep_alive`. A request (header and body) must arrive within
    this time after its first byte, and the next request of a connection within this time after a response.
    In each such interval the client must read some of a response that it has not read. The first byte of a
    connection must arrive within FIRST_BYTE_S.

    When there are CONNECTIONS_MAX, or CONNECTIONS_PER_ADDRESS_MAX from another machine, a new connection ends
    the one that has waited longest without a request to answer.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._between_requests = True  # the next byte starts a request
        self._idle_since = monotonic()  # uvloop's time has milliseconds only
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first byte, and make room for the connection."""
        super().connection_made(transport)
        self._address = client_address(self.client[0]) if self.client else ""
        self._start_request_timer(min(FIRST_BYTE_S, self.timeout_keep_alive))
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timeouts."""
        for timer in (self._request_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Restart the timeout at the first byte of a request."""
        if self._between_requests:
            self._between_requests = False
            self._start_request_timer(self.timeout_keep_alive)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Start the timeout of the next request."""
        self._between_requests, self._idle_since = True, monotonic()
        self._start_request_timer(self.timeout_keep_alive)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the write timeout: the send buffer is full."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """Cancel the write timeout: the send buffer has room."""
        if self._write_timer:
            self._write_timer.cancel()
        super().resume_writing()

    @property
    def _responding(self) -> bool:
        return bool(self.cycle and not self.cycle.more_body and not self.cycle.response_complete)

    def _make_room(self) -> None:
        others = [
            other for other in self.connections if isinstance(other, TimeoutProtocol) and other is not self
        ]
        same = [other for other in others if other._address == self._address]
        too_many_of_one = len(same) >= CONNECTIONS_PER_ADDRESS_MAX and not is_loopback(self._address)
        assert self.limit_concurrency is not None
        if len(self.connections) < self.limit_concurrency and not too_many_of_one:
            return
        idle = [other for other in (same if too_many_of_one else others) if not other._responding]
        if idle:
            oldest = min(idle, key=lambda other: other._idle_since)
            oldest.transport.abort()
            self.connections.discard(oldest)  # uvloop reports its end only after the first bytes of this one
        elif too_many_of_one:
            self.transport.abort()  # else the request gets 503

    def _start_request_timer(self, seconds: float) -> None:
        if self._request_timer:
            self._request_timer.cancel()
        unsent = self.transport.get_write_buffer_size()
        self._request_timer = self.loop.call_later(seconds, self._abort_unless_responding, unsent)

    def _abort_unless_responding(self, unsent: int) -> None:
        if self._responding:
            return
        if self._has_read(unsent):  # the rest of the last response
            self._start_request_timer(self.timeout_keep_alive)
        else:
            self.transport.abort()

    def _start_write_timer(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.timeout_keep_alive, self._abort_unless_read, unsent)

    def _abort_unless_read(self, unsent: int) -> None:
        if self._has_read(unsent):
            self._start_write_timer()
        else:
            self.transport.abort()

    def _has_read(self, unsent: int) -> bool:
        """Whether fewer bytes are unsent now; none are added while writing is paused."""
        return self.transport.get_write_buffer_size() < unsent
