"""xllamacpp as a peer: llama.cpp's server with its own prebuilt kernels, inside a Python process."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib.metadata import version
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from ...errors import RequestError, one_line
from ...files.gguf_header import Header
from .peer import PeerWorkload, random_tokens

_TIMEOUT_S = 600


class XllamacppPeer:
    """The server with its own defaults, but for context, slots, threads and the reuse of prefixes."""

    name = "xllamacpp"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load the model.

        Raises:
            RequestError: xllamacpp cannot read the file.
        """
        import xllamacpp  # noqa: PLC0415 - only if it is a peer

        self.version, self._workload = version("xllamacpp"), workload
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

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round."""
        work = self._workload
        times = self._times(round_number, work.prompt_tokens, 1 + work.decode_tokens)
        prefill_s, decode_s = times[1] - times[0], times[-1] - times[1]
        if work.depth != work.prompt_tokens:
            times = self._times(round_number, work.depth, 1 + work.decode_tokens)
            decode_s = times[-1] - times[1]
        first = round_number * work.sequences
        with ThreadPoolExecutor(work.sequences) as clients:
            start = perf_counter()
            seeds = range(first, first + work.sequences)
            list(clients.map(lambda seed: self._times(seed, work.short_prompt, 1 + work.short_answer), seeds))
            together_s = perf_counter() - start
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

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
