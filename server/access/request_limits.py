"""Limits of a single client's use of the server."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import RequestError, shorten
from ...files.json_file import decode_utf8, read_bounded
from ...runtime.plan.options import QUEUE

CONNECTIONS_MAX = 512  # a connection is a file descriptor, and 1,024 is the usual limit of a process
CONNECTIONS_PER_ADDRESS_MAX = 256  # of another machine; this machine's processes share one address
FIRST_BYTE_S = 5  # time for the first byte of a request after connecting
HEADER_BYTES_MAX = 1 << 14  # browsers and proxies send a few thousand bytes
_FILE_BYTES_MAX = 1 << 14
CLOSING_S = 5  # time to send finished responses during shutdown


class RequestLimits(BaseModel):
    """Limits of requests and connections; the file of `serve --config` has these keys.

    Attributes:
        queue: waiting answers; beyond these, 429 is returned to clients that have one.
        body_bytes: maximum size of a request body.
        max_tokens: maximum completion tokens of one answer; see for_context().
        answers: maximum answers of one request: those that vote, choices, or prompts times choices.
        idle_s: maximum time in seconds to receive a whole request, to send any part of a response, and to
            keep an idle connection open.
        drain_s: time in seconds for running answers to finish when the server shuts down.
        strict: whether fields without effect, and numbers of tokens above max_tokens, are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queue: int = Field(default=QUEUE, ge=0, le=1_000_000)
    body_bytes: int = Field(default=1 << 20, ge=1)
    max_tokens: int = Field(default=1 << 20, ge=1)
    answers: int = Field(default=24, ge=1, le=64)
    idle_s: int = Field(default=30, ge=1)
    drain_s: int = Field(default=30, ge=0)
    strict: bool = False

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the limits from a TOML file; those that it lacks have their defaults.

        Raises:
            ThirteenError: the file is unreadable, too large, not TOML, or has an unknown key or a bad value.
        """
        text = decode_utf8(read_bounded(path, _FILE_BYTES_MAX), str(path))
        try:
            limits = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of a number with too many digits
            raise RequestError(f"{path}: not TOML: {error}") from None
        try:
            return cls.model_validate(limits)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
        key, value = problem["loc"][0], shorten(problem["input"])
        if problem["type"] == "extra_forbidden":
            raise RequestError(f"{path}: {key} is not one of {', '.join(cls.model_fields)}")
        raise RequestError(f"{path}: {key} {problem['msg'].replace('Input should', 'must')}, not {value}")

    def for_context(self, context: int) -> Self:
        """The limits with max_tokens capped at the context length."""
        return self.model_copy(update={"max_tokens": min(self.max_tokens, context)})


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
