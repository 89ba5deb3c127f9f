"""Where a server listens, who may use it, and the limits of requests."""

import ipaddress
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import OptionError, RequestError
from ..files.json_file import decode_utf8, read_bounded
from ..runtime.engine_options import QUEUE
from .api_keys import ApiKeys, describe_error

_FILE_BYTES_MAX = 1 << 14


class RequestLimits(BaseModel):
    """Limits of requests and connections; the file of `serve --config` has these keys.

    Attributes:
        queue: waiting answers; beyond these, 429 is returned.
        body_bytes: maximum size of a request body.
        max_tokens: maximum completion tokens of one answer; the context is a limit too.
        answers: maximum answers of one request: those that vote, choices, or prompts times choices.
        idle_s: time in seconds for which a connection without a request stays open.
        drain_s: time in seconds for running answers to finish when the server shuts down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queue: int = Field(default=QUEUE, ge=0, le=1_000_000)
    body_bytes: int = Field(default=1 << 20, ge=1)
    max_tokens: int = Field(default=1 << 20, ge=1)
    answers: int = Field(default=24, ge=1, le=64)
    idle_s: int = Field(default=30, ge=1)
    drain_s: int = Field(default=30, ge=0)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the limits from a TOML file; those that it lacks have their defaults.

        Raises:
            ThirteenError: the file is unreadable, too large, not TOML, or has an unknown key or a bad value.
        """
        text = decode_utf8(read_bounded(path, _FILE_BYTES_MAX), str(path))
        try:
            return cls.model_validate(tomllib.loads(text))
        except ValidationError as error:
            raise RequestError(f"{path}: {describe_error(error, cls)}") from None
        except (ValueError, RecursionError) as error:  # also of a number with too many digits
            raise RequestError(f"{path}: not TOML: {error}") from None


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Listen address and access rules.

    Attributes:
        host: local address or host name.
        port: TCP port; 0 picks a free one.
        keys: accepted API keys; None disables authentication.
        insecure: whether other machines may connect without a key; else that raises OptionError.
        origins: origins allowed by CORS, for example "https://example.org"; "*" allows all.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: ApiKeys | None = None
    insecure: bool = False
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (self.loopback or self.keys or self.insecure):
            remedy = "give {api_key_file}, or {insecure} to serve without keys"
            raise OptionError("host", f"accepts connections from other machines: {remedy}", self.host)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def allowed_hosts(self) -> tuple[str, ...] | None:
        """Accepted names in the Host header; None accepts any, because keys or nothing protect the server.

        The check prevents DNS rebinding: a foreign web page points its own name at this machine.
        """
        names = dict.fromkeys(("localhost", "127.0.0.1", "::1", self.host))
        return tuple(names) if self.loopback and not self.keys else None


def base_url(host: str, port: int) -> str:
    """URL of a server; an IPv6 address is put in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
