"""llama.cpp's HTTP server as a peer, in whatever program it runs."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import perf_counter
from typing import Any

from ...errors import RequestError, one_line
from .peer import PeerWorkload, RequestPeer, random_tokens

_TIMEOUT_S = 600


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
