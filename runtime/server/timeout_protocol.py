"""HTTP/1.1 connection with timeouts for slow clients."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that aborts connections of slow clients.

    All timeouts are uvicorn's `timeout_keep_alive`. A request (header and body) must arrive within this time
    after its first byte, and the first request of a connection within this time after connecting. While a
    response is sent, the client must read some of it within this time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._between_requests = True  # the next byte starts a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._start_request_timer()

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
            self._start_request_timer()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Start the timeout of the next request."""
        self._between_requests = True
        self._start_request_timer()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the write timeout: the send buffer is full."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the write timeout: the client has read."""
        if self._write_timer:
            self._write_timer.cancel()
        super().resume_writing()

    def _start_request_timer(self) -> None:
        if self._request_timer:
            self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self.timeout_keep_alive, self._abort_unless_responding)

    def _abort_unless_responding(self) -> None:
        responding = self.cycle and not self.cycle.more_body and not self.cycle.response_complete
        if not responding:
            self.transport.abort()
