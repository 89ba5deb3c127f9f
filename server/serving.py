"""A served model: from a request to the server's end.

On SIGINT or SIGTERM the server drains: requests finish, new ones are refused. On SIGHUP it reloads model and
keys, and drains if that tells the end of its terminal.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import Literal

import uvicorn

from ..errors import ClosedError, OptionError, RequestError, ThirteenError
from ..files.trusted_files import file_stamp
from ..models.resolve import ModelFiles
from ..runtime.engine.engine import Engine
from ..runtime.engine_options import EngineOptions
from ..runtime.options import BASE
from ..runtime.plan import EnginePlan
from .access import log_to_stderr
from .app import create_app
from .config import ListenConfig, RequestLimits, base_url
from .engine_service import EngineService

_CONNECTIONS_MAX = 512  # a connection is a file descriptor, and 1,024 is the usual limit of a process
_CLOSING_S = 5  # time to send finished responses

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingRequest:
    """A model to serve, and the way of serving it.

    Attributes:
        find: finds the files of the model and its adapters, now or again.
        name: name of the model; by default that of its file.
        listen: listen address and access rules.
        limits: limits of requests and connections.
        engine: options of the engine, without files.
        replicas: number of replicas on a Ray cluster.
        log: form of the log.
    """

    find: Callable[[], ModelFiles]
    name: str | None
    listen: ListenConfig
    limits: RequestLimits
    engine: EngineOptions
    replicas: int = 1
    log: Literal["text", "json"] = "text"

    def models(self, files: ModelFiles) -> dict[str, str]:
        """The adapter of each model, by the name that clients use: first the base, then one per adapter."""
        base = self.name or files.model.stem
        for name in (base, *files.adapters):
            if name.encode(errors="ignore").decode() != name:
                raise OptionError("name", "is not UTF-8: give another", ascii(name))
        if base in files.adapters:
            raise OptionError("adapter", "the base model already has this name; see {name}", base)
        return {base: BASE, **{adapter: adapter for adapter in files.adapters}}

    def load(self, files: ModelFiles) -> Engine:
        """Load the engine, and read and compile what the first client need not wait for."""
        engine = Engine(EnginePlan.make(files.model, replace(self.engine, adapters=files.adapters)))
        try:
            with suppress(RequestError):  # the template refuses it
                if engine.plan.embeds:
                    engine.embed(["What is 1 + 1?"])
                engine.answer("What is 1 + 1?", max_tokens=2)
                engine.clear_prefix_cache()
        except BaseException:
            engine.close()
            raise
        return engine


def serve_here(request: ServingRequest, announce: Callable[[str], None]) -> int | None:
    """Serve until a signal arrives, and return it; `announce` gets a line when connections are accepted.

    Raises:
        ThirteenError: the model cannot be loaded, or the address is taken.
        ClosedError: the engine failed, and the server has drained.
    """
    files = request.find()
    log_to_stderr(request.log)
    models, loaded, engine = request.models(files), _stamps(files), request.load(files)
    if engine.notice:
        announce(engine.notice)

    def load_changed() -> Engine | None:
        nonlocal loaded
        files = request.find()
        if (stamps := _stamps(files)) == loaded:
            return None
        engine, loaded = request.load(files), stamps
        return engine

    service = EngineService(engine, models, request.limits, load_changed)
    try:
        return run_server(service, request.listen, lambda url: announce(serving_line(models, url)))
    finally:
        service.engine.close()


def _stamps(files: ModelFiles) -> list[str]:
    return [*map(file_stamp, (files.model, *files.adapters.values()))]


def serving_line(models: Iterable[str], url: str) -> str:
    """The line that tells where which models are served."""
    return f"serving {', '.join(models)} at {url}"


def bind_socket(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; RequestError if the address is not local or in use."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        bound = socket.create_server(address, family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise RequestError(f"{host} port {port}: {reason}") from None
    # Connections inherit it. asyncio sets it only on sockets that were made for TCP by number.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


class DrainServer(uvicorn.Server):
    """uvicorn server with graceful drain.

    After the first signal it still listens, but refuses new requests with 503. It exits when all running
    requests have finished or after `drain_s` of the limits. A second signal aborts them at once.

    It also drains when the engine has failed, since it could only refuse requests from then on.

    Attributes:
        exit_signal: the first signal received, or None.
    """

    def __init__(
        self, service: EngineService, listen: ListenConfig, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        """Configure the server; `on_listening` is called when it accepts connections."""
        config = uvicorn.Config(
            create_app(service, listen),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=service.limits.idle_s,
            timeout_graceful_shutdown=_CLOSING_S,
        )
        super().__init__(config)
        self._service, self._keys, self._on_listening = service, listen.keys, on_listening
        self._deadline, self._terminal, self._reloading = 0.0, os.isatty(0), asyncio.Lock()
        self.exit_signal: int | None = None

    def drain(self) -> None:
        """Refuse new requests and exit when the running ones have finished or their time is up."""
        self._deadline = monotonic() + self._service.limits.drain_s
        self._service.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup and current_thread() is main_thread():
            if signal.getsignal(hangup) is signal.SIG_IGN:
                _log.info("SIGHUP is ignored, as under nohup: it reloads nothing")
            else:
                asyncio.get_running_loop().add_signal_handler(hangup, self._handle_hangup, hangup)
        self._on_listening()

    def _handle_hangup(self, number: int) -> None:
        if self._terminal and not os.isatty(0):
            self.handle_exit(number, None)
        elif not self._service.draining:
            self._reload_task = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        async with self._reloading:
            began = monotonic()
            try:
                if self._keys:
                    self._keys.reload()
                await self._service.reload()
            except (ThirteenError, OSError) as error:
                _log.error("not reloaded: %s", error)
            else:
                _log.info("reloaded in %.1f s", monotonic() - began)

    async def on_tick(self, counter: int) -> bool:
        """Whether to exit now; uvicorn calls this ten times per second."""
        if self._service.engine.closed and not self._service.draining:
            self.drain()
        if self._service.draining and not self.should_exit:
            timed_out = monotonic() >= self._deadline
            if timed_out:
                self._service.abort_all()
            self.should_exit = timed_out or self._service.idle
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, abort on the second."""
        if self.exit_signal is None:
            self.exit_signal = sig
            self.drain()
        else:
            self._deadline = 0.0


def run_server(
    service: EngineService, listen: ListenConfig, on_listening: Callable[[str], None]
) -> int | None:
    """Serve until a signal arrives, drain, and return it; `on_listening` gets the URL.

    Raises:
        ClosedError: the engine failed, and the server has drained.
    """
    with bind_socket(listen.host, listen.port) as bound:
        url = base_url(*bound.getsockname()[:2])
        server = DrainServer(service, listen, partial(on_listening, url))
        server.run([bound])
    if service.engine.closed:
        raise ClosedError("the engine has failed: the server ends")
    return server.exit_signal
