"""Whether the host of a download answers, before a library tries it again for half a minute."""

import socket
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import OfflineError

_CONNECT_S = 3.0


def check_host(url: str) -> None:
    """Raise OfflineError, which names the host, unless it or the proxy for it takes a connection in 3 s."""
    try:
        parts, proxies = urlsplit(url), getproxies()
        if not (host := parts.hostname):
            return
        proxy = None if proxy_bypass(host) else proxies.get(parts.scheme) or proxies.get("all")
        end = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else parts
    except ValueError as error:
        raise OfflineError(f"{url} or the proxy for it is no valid address ({error})") from None
    replies: SimpleQueue[str | None] = SimpleQueue()  # what is wrong, None for a connection; "" is the end

    def connect(family: int, kind: int, protocol: int, _: str, address: Any) -> None:
        try:
            with socket.socket(family, kind, protocol) as one:
                one.settimeout(_CONNECT_S)
                one.connect(address)
            replies.put(None)
        except OSError as error:
            replies.put(_reason(error))

    def connect_all() -> None:  # in a thread, as the resolver of names has no bound on its time
        try:
            port = end.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(end.scheme, 80)
            found = socket.getaddrinfo(end.hostname or "", port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            replies.put(_reason(error))
            found = []
        # One address of each family at once: where IPv6 leads nowhere, IPv4 may lead to the host.
        first = {address[0]: address for address in reversed(found)}.values()
        threads = [Thread(target=connect, args=address, daemon=True) for address in first]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        replies.put("")

    Thread(target=connect_all, daemon=True).start()
    problem, deadline = f"no answer in {_CONNECT_S:.0f} s", monotonic() + _CONNECT_S
    with suppress(Empty):
        while reply := replies.get(timeout=max(0, deadline - monotonic())):
            problem = reply
        if reply is None:
            return
    through = "" if end is parts else f" through the proxy {end.hostname}"
    raise OfflineError(f"{host} cannot be reached{through} ({problem})")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
