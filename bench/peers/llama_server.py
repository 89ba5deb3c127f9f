"""llama.cpp's own llama-server as a peer, in a process that it starts."""

import re
import socket
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from time import perf_counter, sleep

from ...errors import RequestError
from ...files.gguf.header import Header
from ..harness.peak_memory import process_peak_rss_bytes
from .completion_server import CompletionServerPeer
from .peer import PeerWorkload, vocabulary_size

_START_S = 300


class LlamaServerPeer(CompletionServerPeer):
    """The llama-server on PATH with its own defaults, but for context, slots, threads and `options`."""

    def __init__(self, model: Header, workload: PeerWorkload, options: Sequence[str] = ()) -> None:
        """Start the server and wait until it has loaded the model.

        Raises:
            RequestError: it ends while it loads the file.
        """
        command = "llama-server"
        told = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        found = re.search(r"version: (.+)", told.stdout + told.stderr)
        self.version = found[1] if found else "of unknown version"
        port = _free_port()
        arguments = {
            "--model": str(model.path),
            "--port": str(port),
            "--parallel": str(workload.sequences),
            "--ctx-size": str(workload.context * workload.sequences),
            "--threads": str(workload.threads),
        }
        words = [word for argument in arguments.items() for word in argument]
        self._process = subprocess.Popen(  # noqa: S603 - the user's own
            [command, *words, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        super().__init__(f"127.0.0.1:{port}", vocabulary_size(model), workload)
        try:
            self._wait_until_loaded()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()

    def peak_rss_bytes(self) -> int | None:
        """Peak RSS of the server."""
        return process_peak_rss_bytes(self._process.pid)

    def _wait_until_loaded(self) -> None:
        deadline = perf_counter() + _START_S
        while perf_counter() < deadline:
            if self._process.poll() is not None:
                raise RequestError(f"it ended with status {self._process.returncode}")
            with (
                suppress(OSError, HTTPException),
                closing(HTTPConnection(self._address, timeout=5)) as connection,
            ):
                connection.request("GET", "/health")
                if connection.getresponse().status == HTTPStatus.OK:
                    return
            sleep(0.02)
        raise RequestError(f"it did not load the model within {_START_S} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
