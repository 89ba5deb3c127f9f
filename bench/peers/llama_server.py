"""llama.cpp's HTTP server as a peer: in whatever program it runs, or as llama-server in an own process."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import perf_counter, sleep
from typing import Any

from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from ..harness.system_memory import process_peak_rss_bytes
from .peer import PeerWorkload, RequestPeer, random_tokens, vocabulary_size

_TIMEOUT_S = 600  # of a request
_START_S = 300


class CompletionServerPeer(RequestPeer):
    """A peer that answers POST /completion."""

    def __init__(self, address: str, vocabulary: int, workload: PeerWorkload) -> None:
        """Measure the server at `address`, which is "host:port"."""
        super().__init__(workload)
        self._address, self._vocabulary = address, vocabulary

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        times = self._times(seed, prompt_tokens, 1 + decode_tokens)
        return times[1] - times[0], times[-1] - times[1]

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        with ThreadPoolExecutor(work.sequences) as clients:
            start = perf_counter()
            answer = partial(self._times, prompt_tokens=work.short_prompt, tokens=1 + work.short_answer)
            list(clients.map(answer, self._sequence_seeds(round_number)))
            return perf_counter() - start

    def _times(self, seed: int, prompt_tokens: int, tokens: int) -> Sequence[float]:
        """Times of the request and of each event; a token that ends within a character has no event."""
        body = {
            "prompt": random_tokens(seed, prompt_tokens, self._vocabulary),
            "n_predict": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "stream": True,
        }
        times, written = [perf_counter()], 0
        with closing(HTTPConnection(self._address, timeout=_TIMEOUT_S)) as connection:
            try:
                connection.request("POST", "/completion", json.dumps(body))
                for event in self._events(connection.getresponse()):
                    times.append(perf_counter())
                    written = event.get("tokens_predicted", 0)
            except (OSError, HTTPException) as error:
                raise RequestError(one_line(error)) from None
        if written != tokens:
            raise RequestError(f"wrote {written} tokens instead of {tokens}")
        return times

    def _events(self, response: HTTPResponse) -> Iterator[dict[str, Any]]:
        if response.status != HTTPStatus.OK:
            raise RequestError(f"status {response.status}: {response.read(200)!r}")
        for line in response:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))


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
