"""The pace at which the server refuses requests, so that refusals cannot take the time of answers."""

import asyncio
from time import monotonic

from .fair_turns import FairTurns

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
