"""Load test of running servers with OpenAI's chat completions API, several of them in alternation.

python lab/clients.py URL [URL ...] [--clients 8] [--questions 4] [--max-tokens 64] [--rounds 8] [--json]
"""

import argparse
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
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.cli.console import progress_bar, show_report
from thirteen.errors import RequestError
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import Interval
from thirteen.stats.paired_ratio import paired_ratio, ratio_level

ROUNDS = 8
_TIMEOUT_S = 600.0
_LINE_MAX = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """Load on a server in one round.

    Attributes:
        clients: concurrent clients.
        questions: questions of each client, one after the other.
        max_tokens: maximum tokens per answer.
    """

    clients: int = 8
    questions: int = 4
    max_tokens: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_integer(f"bench: {name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """Seconds to the first text of a streamed answer, and its tokens (its chunks if no usage is reported)."""

    first_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ServerResult:
    """Result of one server.

    Attributes:
        url: address of the server.
        tokens_per_s: tokens per second of all clients together, median over the rounds.
        first_s: 95th percentile of the seconds to the first text, median over the rounds.
        tokens_ratio: the first server's tokens per second over this one's, paired by round.
        first_ratio: the first server's 95th percentile over this one's, paired by round.
    """

    url: str
    tokens_per_s: float
    first_s: float
    tokens_ratio: Interval
    first_ratio: Interval


@dataclass(frozen=True, slots=True)
class LoadTestReport:
    """Comparison of servers under one load."""

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
    """Measure running servers in alternation, after a warm-up of each.

    Args:
        urls: addresses such as http://127.0.0.1:8080; the first server is compared with the others.
        load: load of a round.
        rounds: number of rounds; every other one has the reverse order.
        progress: called with the server rounds done and in all.

    Raises:
        RequestError: a number is out of range, or a server cannot be reached or does not stream completions.
    """
    check_integer("bench: rounds", rounds, 1)
    load = load or ClientLoad()
    rates, firsts = np.empty((2, rounds, len(urls)))
    models = [_first_model(url) for url in urls]
    for url, model in zip(urls, models, strict=True):
        _run_round(url, model, load, rounds)  # warm-up, with questions of its own
    advance = ProgressCounter(progress, rounds * len(urls))
    for number in range(rounds):
        for server in alternating_order(len(urls), number):
            rate, first_s = _run_round(urls[server], models[server], load, number)
            rates[number, server], firsts[number, server] = rate, first_s
            advance()
    servers = tuple(
        ServerResult(
            url,
            float(np.median(rates[:, server])),
            float(np.median(firsts[:, server])),
            paired_ratio(rates[:, server], rates[:, 0]),
            paired_ratio(firsts[:, server], firsts[:, 0]),
        )
        for server, url in enumerate(urls)
    )
    return LoadTestReport(load, rounds, servers)


def _run_round(url: str, model: str, load: ClientLoad, number: int) -> tuple[float, float]:
    """Tokens per second of all clients, and the 95th percentile of the seconds to the first text."""

    def run_client(client: int) -> list[StreamedAnswer]:
        first = (number * load.clients + client) * load.questions
        return [_ask(url, model, f"What is {100 + first + n} times 13?", load) for n in range(load.questions)]

    start = perf_counter()
    with ThreadPoolExecutor(load.clients) as pool:
        answers = [answer for answers in pool.map(run_client, range(load.clients)) for answer in answers]
    took_s = perf_counter() - start
    tokens = sum(answer.tokens for answer in answers)
    return tokens / took_s, float(np.quantile([answer.first_s for answer in answers], 0.95))


def _ask(url: str, model: str, question: str, load: ClientLoad) -> StreamedAnswer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{question} Explain at length."}],
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start, first_s, reported, chunks = perf_counter(), None, None, 0
    for has_text, tokens in _stream(url, json.dumps(body)):
        if has_text and first_s is None:
            first_s = perf_counter() - start
        chunks += has_text
        reported = tokens or reported
    if first_s is None:
        raise RequestError(f"{url}: its stream had no text")
    return StreamedAnswer(first_s, reported or chunks)


def _first_model(url: str) -> str:
    with _server_errors(url), closing(_connection(url)) as connection:
        response = _request(url, connection, "GET", "/v1/models", None)
        return str(json.loads(response.read(_LINE_MAX))["data"][0]["id"])


def _stream(url: str, body: str) -> Iterator[tuple[bool, int | None]]:
    """Whether each event of a completion has text, and the completion's tokens if the event reports them."""
    with _server_errors(url), closing(_connection(url)) as connection:
        response = _request(url, connection, "POST", "/v1/chat/completions", body)
        while line := response.readline(_LINE_MAX):
            data = line.removeprefix(b"data: ").strip()
            if data and data != line.strip() and data != b"[DONE]":
                chunk = json.loads(data)
                has_text = any(choice["delta"].get("content") for choice in chunk["choices"])
                yield has_text, (chunk.get("usage") or {}).get("completion_tokens")


def _connection(url: str) -> HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:  # of a port that is none
        host = None
    if not host or parts.scheme != "http" or parts.path.strip("/"):
        raise RequestError(f"{url!r}: not of the form http://host:port")
    return HTTPConnection(host, port, timeout=_TIMEOUT_S)


def _request(url: str, connection: HTTPConnection, method: str, path: str, body: str | None) -> HTTPResponse:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != HTTPStatus.OK:
        text = response.read(300).decode("utf-8", "replace")
        raise RequestError(f"{url}{path}: status {response.status}: {' '.join(text.split())}")
    return response


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
    """Turn connection failures and malformed responses into a RequestError that names the server."""
    try:
        yield
    except (OSError, HTTPException) as failure:
        raise RequestError(f"{url}: {failure or type(failure).__name__}") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise RequestError(f"{url}: its response is not that of OpenAI's chat completions API") from None


def load_test_table(report: LoadTestReport) -> Table:
    """Tabulate the servers."""
    load = report.load
    title = f"{load.clients} clients, {load.questions} questions each, up to {load.max_tokens} tokens"
    level = ratio_level(report.rounds)
    caption = f"medians of {report.rounds} rounds; ratios: the first server over this one ({level})"
    columns = ("", "tokens/s", "ratio", "first text, 95th percentile, s", "ratio")
    table = report_table(title, caption, *columns)
    for server in report.servers:
        table.add_row(
            Text(server.url),
            f"{server.tokens_per_s:.1f}",
            server.tokens_ratio.text(3),
            f"{server.first_s:.3f}",
            server.first_ratio.text(3),
        )
    return table


def main() -> None:
    """Print the throughput and the time to the first text of each server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    load = ClientLoad(given.clients, given.questions, given.max_tokens)
    with progress_bar("clients") as progress:
        report = run_load_test(given.urls, load=load, rounds=given.rounds, progress=progress)
    show_report(given.json, report, load_test_table)


if __name__ == "__main__":
    main()
