"""What one client may ask of the server at most, so that there is always something left for the others."""

from dataclasses import dataclass, replace
from typing import Self

from ..request import check_integer

CONNECTIONS_MAX = 512  # open at once; each is a file, of which a process commonly has 1,024
HEADER_BYTES_MAX = 1 << 14  # browsers and proxies send a few thousand
CLOSING_S = 5  # for what has been answered to reach its clients, once the server ends


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The bounds of requests and connections.

    Attributes:
        body_bytes: of a request's body.
        max_tokens: of one answer; see within().
        votes: the most votes, or choices, of one request.
        idle_s: seconds in which a request must have come whole, a client must have read what was sent to it,
            and after which a connection without either is closed.
        drain_s: seconds that running answers have to finish when the server is told to end.
    """

    body_bytes: int = 1 << 20
    max_tokens: int = 1 << 20
    votes: int = 16
    idle_s: int = 30
    drain_s: int = 30

    def __post_init__(self) -> None:
        for name, least in (
            ("max_tokens", 1),
            ("body_bytes", 1),
            ("votes", 1),
            ("idle_s", 1),
            ("drain_s", 0),
        ):
            check_integer(name, getattr(self, name), least)

    def within(self, context: int) -> Self:
        """The same, with no more tokens than a context holds."""
        return replace(self, max_tokens=min(self.max_tokens, context))
