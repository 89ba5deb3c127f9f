"""Servers that speak OpenAI's chat completions, under as many clients at once, in turns."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np
from rich.table import Table
from rich.text import Text

from ...errors import RequestError
from ...files.progress import Progress, no_progress
from ...runtime.request import check_integer
from ...stats.interval import Interval
from ...stats.paired_ratio import RATIO_LEVEL, paired_ratio
from ..harness.schedule import ProgressCounter, alternating_order

ROUNDS = 8
_TIMEOUT_S = 600.0
_LINE_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """What the clients do in a round.

    Attributes:
        clients: at once.
        questions: of each, one after the other.
        max_tokens: of an answer.
    """

    clients: int = 8
    questions: int = 4
    max_tokens: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_integer(f"bench: {name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """One streamed answer: seconds to its first text, and its tokens; its pieces where it does not tell."""

    first_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ServerResult:
    """One server.

    Attributes:
        url: where it is.
        tokens_per_s: of all clients together, the median over the rounds.
        first_s: the 95th percentile of the seconds to the first text.
        tokens_ratio: of the first server's tokens a second to its own, paired by round.
        first_ratio: of the first server's 95th percentile to its own, likewise.
    """

    url: str
    tokens_per_s: float
    first_s: float
    tokens_ratio: Interval
    first_ratio: Interval


@dataclass(frozen=True, slots=True)
class LoadTestReport:
    """All that was measured; dataclasses.asdict makes it JSON."""

    load: ClientLoad
    rounds: int
    servers: tuple[ServerResult, ...]


def run_load_test(
    urls: Sequence[str],
    *,
    load: ClientLoad | None = None,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> LoadTestReport:
    """Measure servers that are running already.

    Args:
        urls: of each, as http://127.0.0.1:8080; the first is compared with the others.
        load: of a round.
        rounds: in each, every server has a turn, in reverse order every other round, after one warm-up.
        progress: called with what is done and how much there is in all.

    Raises:
        RequestError: a number is out of bounds, a server cannot be reached, or does not stream as it should.
    """
    check_integer("bench: rounds", rounds, 1)
    load = load or ClientLoad()
    rates, firsts = np.empty((2, rounds, len(urls)))
    models = [_model(url) for url in urls]
    for url, model in zip(urls, models, strict=True):
        _round(url, model, load, rounds)  # a warm-up, with questions that no round has
    tick = ProgressCounter(progress, rounds * len(urls))
    for number in range(rounds):
        for place in alternating_order(len(urls), number):
            rates[number, place], firsts[number, place] = _round(urls[place], models[place], load, number)
            tick()
    servers = tuple(
        ServerResult(
            url,
            float(np.median(rates[:, place])),
            float(np.median(firsts[:, place])),
            paired_ratio(rates[:, place], rates[:, 0]),
            paired_ratio(firsts[:, place], firsts[:, 0]),
        )
        for place, url in enumerate(urls)
    )
    return LoadTestReport(load, rounds, servers)


def _round(url: str, model: str, load: ClientLoad, number: int) -> tuple[float, float]:
    """All clients once: tokens a second, and the 95th percentile of the seconds to the first text."""

    def client(place: int) -> list[StreamedAnswer]:
        first = (number * load.clients + place) * load.questions
        return [_ask(url, model, f"What is {100 + first + n} times 13?", load) for n in range(load.questions)]

    began = perf_counter()
    with ThreadPoolExecutor(load.clients) as clients:
        said = [answer for answers in clients.map(client, range(load.clients)) for answer in answers]
    took = perf_counter() - began
    return sum(answer.tokens for answer in said) / took, float(np.quantile([a.first_s for a in said], 0.95))


def _ask(url: str, model: str, question: str, load: ClientLoad) -> StreamedAnswer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{question} Explain at length."}],
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first_s, told, pieces = perf_counter(), None, None, 0
    for text, usage in _chunks(url, json.dumps(body)):
        if text and first_s is None:
            first_s = perf_counter() - began
        pieces += text
        told = usage or told
    if first_s is None:
        raise RequestError(f"{url}: its stream had no text")
    return StreamedAnswer(first_s, told or pieces)


def _model(url: str) -> str:
    """The name of the first model of a server."""
    with _understood(url), closing(_connection(url)) as connection:
        response = _asked(url, connection, "GET", "/v1/models", None)
        return str(json.loads(response.read(_LINE_MAX))["data"][0]["id"])


def _chunks(url: str, body: str) -> Iterator[tuple[bool, int | None]]:
    """Of each event of a streamed completion: whether it has text, and the tokens of all if it tells them."""
    with _understood(url), closing(_connection(url)) as connection:
        response = _asked(url, connection, "POST", "/v1/chat/completions", body)
        while line := response.readline(_LINE_MAX):
            data = line.removeprefix(b"data: ").strip()
            if data and data != line.strip() and data != b"[DONE]":
                chunk = json.loads(data)
                text = any(choice["delta"].get("content") for choice in chunk["choices"])
                yield text, (chunk.get("usage") or {}).get("completion_tokens")


def _connection(url: str) -> HTTPConnection:
    place = urlsplit(url)
    if place.scheme != "http" or not place.hostname:
        raise RequestError(f"{url!r}: not of the form http://host:port")
    return HTTPConnection(place.hostname, place.port or 80, timeout=_TIMEOUT_S)


def _asked(url: str, connection: HTTPConnection, method: str, path: str, body: str | None) -> HTTPResponse:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != HTTPStatus.OK:
        said = response.read(300).decode("utf-8", "replace")
        raise RequestError(f"{url}{path}: status {response.status}: {' '.join(said.split())}")
    return response


@contextmanager
def _understood(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way, or in what a server says, into one error that names it."""
    try:
        yield
    except (OSError, HTTPException) as failure:
        raise RequestError(f"{url}: {failure or type(failure).__name__}") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise RequestError(f"{url}: it does not answer as OpenAI's servers do") from None


def load_test_table(report: LoadTestReport) -> Table:
    """A row for each server."""
    load = report.load
    out = Table(
        title=f"{load.clients} clients, {load.questions} questions each, up to {load.max_tokens} tokens",
        caption=Text(
            f"medians of {report.rounds} rounds; ratios: the first server's over its ({RATIO_LEVEL})"
        ),
        caption_justify="left",
    )
    out.add_column("")
    for title in ("tokens/s", "ratio", "95 % of first texts within, s", "ratio"):
        out.add_column(title, justify="right")
    for server in report.servers:
        out.add_row(
            Text(server.url),
            f"{server.tokens_per_s:.1f}",
            server.tokens_ratio.text(3),
            f"{server.first_s:.3f}",
            server.first_ratio.text(3),
        )
    return out
