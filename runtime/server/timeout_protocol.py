"""One connection of a client, which cannot hold it for ever by being slow."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimeoutProtocol(H11Protocol):
    """uvicorn's connection, closed where a request does not come or a response is not read.

    A request, its header and its body, is to have come within the time of uvicorn's `timeout_keep_alive`
    from its first byte, the first one of a connection from when that was made. Of a response, something is
    to be read within the same time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arrival: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._expecting = True  # whether the next byte is the first of a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._arrival, self._reading):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in some bytes of a request."""
        if self._expecting:
            self._expecting = False
            self._await_request()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._expecting = True
        self._await_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read what there is for it."""
        super().pause_writing()
        self._reading = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._reading:
            self._reading.cancel()
        super().resume_writing()

    def _await_request(self) -> None:
        if self._arrival:
            self._arrival.cancel()
        self._arrival = self.loop.call_later(self.timeout_keep_alive, self._check_arrival)

    def _check_arrival(self) -> None:
        answering = self.cycle and not self.cycle.more_body and not self.cycle.response_complete
        if not answering:
            self.transport.abort()
