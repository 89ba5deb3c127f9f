"""Load test of running servers with OpenAI's chat completions API, several of them in alternation.

python lab/clients.py URL [URL ...] [--clients 8] [--questions 4] [--max-tokens 64] [--rounds 8]

The first server is compared with the others.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import httpx
import numpy as np
from thirteen.bench.environment import Table
from thirteen.bench.rounds import ProgressCounter, alternating_order
from thirteen.cli.console import out, progress_bar
from thirteen.stats.intervals import paired_ratio, ratio_level


def run_round(http: httpx.Client, url: str, given: argparse.Namespace, number: int) -> tuple[float, float]:
    """Tokens per second of all clients, and the 95th percentile of the seconds to the first text."""
    models = http.get(f"{url}/v1/models").raise_for_status().json()
    body = {
        "model": models["data"][0]["id"],
        "max_tokens": given.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    def run_client(client: int) -> list[tuple[float, int]]:
        first = 100 + (number * given.clients + client) * given.questions
        texts = (f"What is {first + n} times 13? Explain at length." for n in range(given.questions))
        return [ask(http, url, body | {"messages": [{"role": "user", "content": text}]}) for text in texts]

    start = perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        answers = [answer for answers in pool.map(run_client, range(given.clients)) for answer in answers]
    took_s = perf_counter() - start
    firsts_s, tokens = zip(*answers, strict=True)
    return sum(tokens) / took_s, float(np.quantile(firsts_s, 0.95))


def ask(http: httpx.Client, url: str, body: dict[str, object]) -> tuple[float, int]:
    """Seconds to the first text of a streamed answer, and its tokens (its chunks if no usage is reported)."""
    start, first_s, reported, chunks = perf_counter(), 0.0, 0, 0
    with http.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    first_s, chunks = first_s or perf_counter() - start, chunks + 1
                reported = (chunk.get("usage") or {}).get("completion_tokens") or reported
    assert chunks, f"{url}: its stream had no text"
    return first_s, reported or chunks


def main() -> None:
    """Print the throughput and the time to the first text of each server, after a warm-up of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL")
    for name, number in (("--clients", 8), ("--questions", 4), ("--max-tokens", 64), ("--rounds", 8)):
        parser.add_argument(name, type=int, default=number)
    given = parser.parse_args()
    urls, rounds = given.urls, given.rounds
    rates, firsts_s = np.empty((2, len(urls), rounds))
    with httpx.Client(timeout=600) as http, progress_bar("clients") as progress:
        for url in urls:
            run_round(http, url, given, rounds)  # warm-up, with questions of its own
        advance = ProgressCounter(progress, rounds * len(urls))
        for number in range(rounds):
            for server in alternating_order(len(urls), number):
                rates[server, number], firsts_s[server, number] = run_round(http, urls[server], given, number)
                advance()
    title = f"{given.clients} clients, {given.questions} questions each, up to {given.max_tokens} tokens"
    caption = f"medians of {rounds} rounds; ratios: the first server over this one ({ratio_level(rounds)})"
    columns = ("", "tokens/s", "ratio", "first text, 95th percentile, s", "ratio")
    rows = list[tuple[str, ...]]()
    for url, rate, first_s in zip(urls, rates, firsts_s, strict=True):
        ratios = [paired_ratio(own, base).text(3) for own, base in ((rate, rates[0]), (first_s, firsts_s[0]))]
        rows.append((url, f"{np.median(rate):.1f}", ratios[0], f"{np.median(first_s):.3f}", ratios[1]))
    out.print(Table(title, columns, tuple(rows), (caption,)))


if __name__ == "__main__":
    main()
