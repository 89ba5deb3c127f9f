"""Times of an honest client alone, and beside 500 connections whose requests are refused.

python lab/hostile.py MODEL [--seconds 30]

Hostile clients send requests with a foreign Host header, of invalid JSON, with two lengths, or of no HTTP,
each as soon as the last one is answered. Impatient ones connect anew instead of waiting for the answer. The
honest client connects, and asks for /health, the list of models and one token. `cores` is the server's share.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Event, Process
from multiprocessing.synchronize import Event as EventType
from statistics import median
from threading import Thread
from time import monotonic, sleep

import httpx
import psutil

CONNECTIONS = 500
PATIENCE_S = 30
_ANSWER = b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REFUSED = (
    b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    _ANSWER + b"Content-Length: 3\r\n\r\n{x}",
    _ANSWER + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\x00\xff no HTTP\r\n\r\n",
)
ASKED = {"/health": None, "/v1/models": None, "/v1/completions": {"prompt": "a", "max_tokens": 1}}


async def attack(port: int, request: bytes, impatient: bool, end: EventType) -> None:
    """Send a request again and again, on the same connection while it lasts."""
    while not end.is_set():
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(request)
                    while not impatient and await reader.read(1 << 16):
                        writer.write(request)
            writer.close()


def attack_all(port: int, impatient: bool, end: EventType) -> None:
    """Attack with all connections, until the end."""

    async def run() -> None:
        await asyncio.gather(
            *(attack(port, REFUSED[n % len(REFUSED)], impatient, end) for n in range(CONNECTIONS))
        )

    asyncio.run(run())


@contextmanager
def attacked(port: int, impatient: bool) -> Iterator[None]:
    """Attack from another process during the block."""
    end = Event()
    process = Process(target=attack_all, args=(port, impatient, end), daemon=True)
    process.start()
    sleep(3)
    try:
        yield
    finally:
        end.set()
        process.kill()


def measure(url: str, server: psutil.Process, seconds: float) -> dict[str, float]:
    """Median and maximum of each request in milliseconds, and the server's share of a core."""
    times: dict[str, list[float]] = {path: [] for path in ASKED}
    used, began = sum(server.cpu_times()[:2]), monotonic()
    while (elapsed := monotonic() - began) < seconds or not elapsed:
        with httpx.Client(base_url=url, timeout=120) as http:  # each round on a connection of its own
            for path, body in ASKED.items():
                sent = monotonic()
                (http.post(path, json=body) if body else http.get(path)).raise_for_status()
                times[path].append((monotonic() - sent) * 1e3)
    found = {
        f"{path} {name} ms": round(of(taken), 1)
        for path, taken in times.items()
        for name, of in (("median", median), ("maximum", max))
    }
    cores = (sum(server.cpu_times()[:2]) - used) / (monotonic() - began)
    return found | {"rounds": len(times["/health"]), "cores": round(cores, 2)}


def main() -> None:
    """Start a server and print a line of JSON for each condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=30, help="of each condition")
    given = parser.parse_args()
    command = [sys.executable, "-m", "thirteen", "serve", given.model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        server = psutil.Process(process.pid)
        url = next(line.split()[-1] for line in process.stderr if "http://" in line)
        Thread(target=process.stderr.read, daemon=True).start()  # its log
        for name in ("alone", "hostile", "impatient", "alone again"):
            if name.startswith("alone"):
                found = measure(url, server, given.seconds)
            else:
                with attacked(int(url.rsplit(":", 1)[1]), name == "impatient"):
                    found = measure(url, server, given.seconds)
            print(json.dumps({"clients": name} | found), flush=True)
        process.terminate()


if __name__ == "__main__":
    main()
