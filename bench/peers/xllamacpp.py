"""xllamacpp as a peer: llama.cpp's server with its own prebuilt kernels, inside a Python process."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib.metadata import version
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from ...errors import RequestError, one_line
from ...files.gguf_header import Header
from .peer import PeerWorkload, RequestPeer, random_tokens

_TIMEOUT_S = 600


class XllamacppPeer(RequestPeer):
    """The server with its own defaults, but for context, slots, threads and the reuse of prefixes."""

    name = "xllamacpp"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load the model.

        Raises:
            RequestError: xllamacpp cannot read the file.
        """
        import xllamacpp  # noqa: PLC0415 - only if it is a peer

        super().__init__(workload)
        self.version = version("xllamacpp")
        self._vocabulary = len(model.metadata["tokenizer.ggml.tokens"])
        params = xllamacpp.CommonParams()
        params.model.path = str(model.path)
        params.n_parallel = workload.sequences
        params.n_ctx = workload.context * workload.sequences
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = workload.threads
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise RequestError(f"xllamacpp: {model.path}: {one_line(error)}") from None
        self._address = urlsplit(self._server.listening_address).netloc

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
                for event in _events(connection.getresponse()):
                    times.append(perf_counter())
                    written = event.get("tokens_predicted", 0)
            except (OSError, HTTPException) as error:
                raise RequestError(f"xllamacpp: {one_line(error)}") from None
        if written != tokens:
            raise RequestError(f"xllamacpp: wrote {written} tokens instead of {tokens}")
        return times


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    if response.status != HTTPStatus.OK:
        raise RequestError(f"xllamacpp: status {response.status}: {response.read(200)!r}")
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))
