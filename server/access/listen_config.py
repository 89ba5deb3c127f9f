"""Where a server listens, and who may use it."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import OptionError
from .api_keys import ApiKeys


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
