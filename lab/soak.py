"""Soak test: a server under misbehaving clients. python lab/soak.py [SECONDS].

500 clients send requests, disconnect, read slowly, hold connections without a word, send oversized or
malformed bodies, or use wrong keys. The test passes if every client receives an expected response, no slot is
in use at the end, and memory stops growing once the caches are full.
"""

import asyncio
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import mean
from tempfile import NamedTemporaryFile
from time import monotonic
from typing import Annotated

import httpx
import typer

CLIENTS = 500
KEY, METRICS_KEY = "the-right-key-of-a-client", "a-key-of-its-own-for-metrics"
MEMORY_GROWTH_MAX = 0.02
_BUSY = (429, 503)
_GAUGES = ("thirteen_slots_used", "thirteen_queue", "process_resident_memory_bytes")

Behaviour = Callable[[httpx.AsyncClient], Awaitable[str]]


def chat_body() -> dict[str, object]:
    """Return a chat request with a random question, so that the prefix cache also has to evict."""
    text = f"What is {random.randrange(1000)} * {random.randrange(1000)}?"
    return {"messages": [{"role": "user", "content": text}], "max_tokens": random.randrange(1, 48)}


async def chat(http: httpx.AsyncClient) -> str:
    """Send a request, and retry while the server is busy."""
    body = chat_body()
    while (response := await http.post("/v1/chat/completions", json=body)).status_code in _BUSY:
        await asyncio.sleep(float(response.headers["retry-after"]) * random.random())
    return f"chat: {response.status_code}"


async def stream(http: httpx.AsyncClient, continue_probability: float = 1.0, delay_s: float = 0.0) -> str:
    """Read a stream, slowly if there is a delay; may disconnect after each line."""
    async with http.stream("POST", "/v1/chat/completions", json=chat_body() | {"stream": True}) as response:
        if response.status_code in _BUSY:
            return "stream: busy"
        last = ""
        async for line in response.aiter_lines():
            await asyncio.sleep(delay_s)
            last = line or last
            if random.random() > continue_probability:
                return "disconnected: in a stream"
    complete = last == "data: [DONE]"
    return f"stream: {response.status_code} complete" if complete else f"stream: cut off at {last}"


async def disconnect(http: httpx.AsyncClient) -> str:
    """Disconnect before the answer is complete."""
    with suppress(httpx.TimeoutException, httpx.NetworkError):
        await http.post(
            "/v1/answer",
            json={"question": "Tell a story of 3 bears.", "effort": "medium"},
            timeout=random.random(),
        )
    return "disconnected: before the answer"


async def hold_connection(http: httpx.AsyncClient) -> str:
    """Connect and say nothing, until the server ends it or patience does."""
    _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    await asyncio.sleep(random.random() * 10)
    writer.close()
    return "disconnected: idle"


async def invalid(
    http: httpx.AsyncClient,
    status: int,
    *,
    body: dict[str, object] | None = None,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """Send an invalid request and compare the status; a busy server may refuse it before it is read."""
    response = await http.post("/v1/chat/completions", json=body, content=content, headers=headers)
    matches = response.status_code in (status, *_BUSY)
    return f"rejected: {status}" if matches else f"{response.status_code} instead of {status}"


JSON = {"Content-Type": "application/json"}
BEHAVIOURS: tuple[Behaviour, ...] = (
    chat,
    chat,
    stream,
    lambda http: stream(http, continue_probability=0.9),
    lambda http: stream(http, delay_s=0.05),
    disconnect,
    hold_connection,
    hold_connection,
    lambda http: invalid(http, 400, body={"messages": [{"role": "user", "content": "word " * 200_000}]}),
    lambda http: invalid(
        http, 400, body=chat_body() | {"max_tokens": 2000, "logprobs": True, "top_logprobs": 20}
    ),
    lambda http: invalid(http, 413, content=b" " * (1 << 21), headers=JSON),
    lambda http: invalid(http, 401, body=chat_body(), headers={"Authorization": "Bearer wrong"}),
    lambda http: invalid(http, 400, content=random.randbytes(200), headers=JSON),
    lambda http: invalid(http, 422, body=chat_body() | {"tools": []}),
    lambda http: invalid(http, 415, content=b"{}"),
)
EXPECTED = re.compile(r"(chat: 200|stream: (busy|200 complete)|disconnected: .*|rejected: 4\d\d)")


async def run_client(url: str, end: float, outcomes: Counter[str]) -> None:
    """Run random behaviours, each with a new connection, which a full server may end."""
    while monotonic() < end:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, verify=False) as http:
            try:
                outcomes[await random.choice(BEHAVIOURS)(http)] += 1
            except httpx.NetworkError:
                outcomes["disconnected: by the server"] += 1


async def read_gauges(url: str) -> dict[str, float]:
    """Read load and memory from the server's metrics."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {METRICS_KEY}"}) as http:
        lines = (await http.get(f"{url}/metrics")).text.splitlines()
    pairs = (line.split() for line in lines if line.startswith(_GAUGES))
    return {name: float(value) for name, value in pairs}


async def soak(url: str, seconds: float) -> dict[str, object]:
    """Run all clients and sample the server's memory."""
    outcomes: Counter[str] = Counter()
    end, memory = monotonic() + seconds, []
    clients = asyncio.gather(*(run_client(url, end, outcomes) for _ in range(CLIENTS)))
    while not clients.done():
        await asyncio.wait({clients}, timeout=seconds / 60)
        memory.append((await read_gauges(url))["process_resident_memory_bytes"])
    await clients
    await asyncio.sleep(1)
    gauges = await read_gauges(url)
    quarter = len(memory) // 4
    growth = mean(memory[-quarter:]) / mean(memory[quarter : 2 * quarter]) - 1
    unexpected = sorted(outcome for outcome in outcomes if not EXPECTED.fullmatch(outcome))
    idle = gauges["thirteen_slots_used"] == gauges["thirteen_queue"] == 0
    return {
        "outcomes": dict(sorted(outcomes.items())),
        "unexpected": unexpected,
        "idle": idle,
        "memory_bytes": max(memory),
        "memory_growth": growth,
        "ok": not unexpected and idle and growth <= MEMORY_GROWTH_MAX,
    }


def main(seconds: Annotated[float, typer.Argument()] = 300) -> None:
    """Start a server, soak it, and print the result as JSON; the exit status is 0 if the test passes."""
    with NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write(f"{KEY}\nmetrics: {METRICS_KEY}\n")
        keys.flush()
        options = ["--port", "0", "--profile", "phone", "--slots", "4", "--api-key-file"]
        command = [sys.executable, "-m", "thirteen", "serve", *options, keys.name]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr
            url = server.stderr.readline().split()[-1]
            result = asyncio.run(soak(url, seconds))
            server.terminate()
            result["exit_status"] = server.wait(60)
            result["stderr"] = server.stderr.read()
    print(json.dumps(result, indent=2))
    sys.exit(not result["ok"] or result["exit_status"] != 0 or bool(result["stderr"]))


if __name__ == "__main__":
    typer.run(main)
