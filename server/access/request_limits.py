"""Limits of a single client's use of the server."""

import ipaddress
from dataclasses import dataclass, replace
from typing import Self

from ...runtime.validation import check_integer

CONNECTIONS_MAX = 512  # a connection is a file descriptor, and 1,024 is the usual limit of a process
CONNECTIONS_PER_ADDRESS_MAX = 256  # of another machine; this machine's processes share one address
FIRST_BYTE_S = 5  # time for the first byte of a request after connecting
HEADER_BYTES_MAX = 1 << 14  # browsers and proxies send a few thousand bytes
CLOSING_S = 5  # time to send finished responses during shutdown


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of requests and connections.

    Attributes:
        body_bytes: maximum size of a request body.
        max_tokens: maximum completion tokens of one answer; see for_context().
        answers: maximum answers of one request: those that vote, choices, or prompts times choices.
        idle_s: maximum time in seconds to receive a whole request, to send any part of a response, and to
            keep an idle connection open.
        drain_s: time in seconds for running answers to finish when the server shuts down.
        strict: whether fields without effect, and numbers of tokens above max_tokens, are refused.
    """

    body_bytes: int = 1 << 20
    max_tokens: int = 1 << 20
    answers: int = 24
    idle_s: int = 30
    drain_s: int = 30
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("max_tokens", "body_bytes", "answers", "idle_s"):
            check_integer(name, getattr(self, name), 1)
        check_integer("drain_s", self.drain_s, 0)

    def for_context(self, context: int) -> Self:
        """The limits with max_tokens capped at the context length."""
        return replace(self, max_tokens=min(self.max_tokens, context))


def client_address(host: str) -> str:
    """The address by which a client is counted.

    It is the IPv4 address in an IPv4-mapped one, and the /64 of an IPv6 address: its owner has all of them.
    Loopback and link-local addresses remain, and so does what is no address.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    if address.is_loopback or address.is_link_local:
        return host
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def is_loopback(host: str) -> bool:
    """Whether this is an address that only this machine can reach; False for what is no address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
