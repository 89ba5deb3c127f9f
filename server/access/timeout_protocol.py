"""HTTP/1.1 connection with timeouts for slow clients, delays for refused ones, and room for new ones."""

import asyncio
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .access_middleware import API_KEY
from .fair_turns import FairTurns
from .request_limits import CONNECTIONS_PER_ADDRESS_MAX, FIRST_BYTE_S, client_address, is_loopback

REFUSALS_PER_S = 50
BURST_S = 1  # after a quiet second, so many refusals are not delayed


class RefusalPace:
    """Delays refusals beyond REFUSALS_PER_S; clients take turns."""

    def __init__(self) -> None:
        self._turns = FairTurns()
        self._next = 0.0  # monotonic() at which a refusal is due

    async def wait(self, client: str) -> None:
        """Wait until a request of this client may be refused."""
        async with self._turns.turn(client, 0):
            now = monotonic()
            self._next = max(self._next, now - BURST_S)
            await asyncio.sleep(self._next - now)
            self._next += 1 / REFUSALS_PER_S


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that aborts connections of slow clients.

    All timeouts but one are uvicorn's `timeout_keep_alive`. A request (header and body) must arrive within
    this time after its first byte, and the next request of a connection within this time after a response.
    In each such interval the client must read some of a response that it has not read. The first byte of a
    connection must arrive within FIRST_BYTE_S.

    When there are CONNECTIONS_MAX, or CONNECTIONS_PER_ADDRESS_MAX from another machine, a new connection ends
    the one that has waited longest without a request to answer, first of all one whose refusal is delayed.
    """

    def __init__(self, *args: Any, pace: RefusalPace, **options: Any) -> None:
        super().__init__(*args, **options)
        self._paced_app, self.app, self._pace = self.app, self._run_app, pace
        self._delay: asyncio.Task[None] | None = None  # of a refusal
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
        """Cancel all timeouts and delays."""
        for pending in (self._request_timer, self._write_timer, self._delay):
            if pending:
                pending.cancel()
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

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, when its turn comes."""
        if not self._delayed:  # else the connection ends after that refusal
            self.flow.pause_reading()
            self._start_delay(self._address).add_done_callback(lambda _: self._refuse(msg))

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
        cycle = self.cycle
        return bool(cycle and not cycle.more_body and not cycle.response_complete and not self._delayed)

    @property
    def _delayed(self) -> bool:
        return bool(self._delay and not self._delay.done())

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; a response that is an error waits for its turn."""

        async def send_paced(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await asyncio.wait([self._start_delay(scope.get(API_KEY) or self._address)])
            await send(message)

        await self._paced_app(scope, receive, send_paced)

    def _start_delay(self, client: str) -> asyncio.Task[None]:
        self._delay = self.loop.create_task(self._pace.wait(client))
        return self._delay

    def _refuse(self, reason: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(reason)

    def _make_room(self) -> None:
        assert self.limit_concurrency is not None
        full = len(self.connections) >= self.limit_concurrency
        if not full and is_loopback(self._address):
            return
        others = [each for each in self.connections if isinstance(each, TimeoutProtocol) and each is not self]
        same = [other for other in others if other._address == self._address]
        too_many_of_one = len(same) >= CONNECTIONS_PER_ADDRESS_MAX and not is_loopback(self._address)
        if too_many_of_one:
            others = same
        elif not full:
            return
        ending = next((other for other in others if other._delayed), None)
        if not ending:
            idle = (other for other in others if not other._responding)
            ending = min(idle, key=lambda other: other._idle_since, default=None)
        if ending:
            ending.transport.abort()
            self.connections.discard(ending)  # uvloop reports its end only after the first bytes of this one
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
