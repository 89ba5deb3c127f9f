"""Whether the host of a download answers, before a library tries it again for half a minute."""

import socket
from threading import Thread
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
    problems: list[str | None] = []

    def connect() -> None:  # in a thread, as the resolver of names has no bound on its time
        try:
            port = end.port or {"https": 443, "socks5": 1080}.get(end.scheme, 80)
            socket.create_connection((end.hostname or "", port), _CONNECT_S).close()
            problems.append(None)
        except (OSError, ValueError) as error:
            problems.append(getattr(error, "strerror", None) or str(error))

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_S)
    if (problem := problems[0] if problems else f"no answer in {_CONNECT_S:.0f} s") is not None:
        through = "" if end is parts else f" through the proxy {end.hostname}"
        raise OfflineError(f"{host} cannot be reached{through} ({problem})")
