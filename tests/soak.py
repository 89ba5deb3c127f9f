"""A server under clients that behave badly, for as long as you like: `make soak`, `python tests/soak.py 300`.

64 clients ask, hang up, read slowly, send too much, nonsense, or wrong keys. What must hold: no answer but
those that such a client is due, every well-formed request answered, no slot held at the end, and memory that
does not grow once the caches are full.
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

import httpx

CLIENTS = 64
KEY = "the-right-key"
GROWTH_MAX = 0.02
_BUSY = (429, 503)
_GAUGES = ("thirteen_slots_used", "thirteen_queue", "process_resident_memory_bytes")

Behaviour = Callable[[httpx.AsyncClient], Awaitable[str]]


def question() -> dict[str, object]:
    """A chat that is another each time, so that the prefix cache has work too."""
    text = f"What is {random.randrange(1000)} * {random.randrange(1000)}?"
    return {"messages": [{"role": "user", "content": text}], "max_tokens": random.randrange(1, 48)}


async def ask(http: httpx.AsyncClient) -> str:
    """Ask, again while there is no place, until there is an answer."""
    body = question()
    while (response := await http.post("/v1/chat/completions", json=body)).status_code in _BUSY:
        await asyncio.sleep(float(response.headers["retry-after"]) * random.random())
    return f"asked: {response.status_code}"


async def stream(http: httpx.AsyncClient, read: float = 1.0, pause_s: float = 0.0) -> str:
    """Ask for a stream, and read some of it, or all."""
    async with http.stream("POST", "/v1/chat/completions", json=question() | {"stream": True}) as response:
        if response.status_code in _BUSY:
            return "streamed: busy"
        last = ""
        async for line in response.aiter_lines():
            await asyncio.sleep(pause_s)
            last = line or last
            if random.random() > read:
                return "hung up: in a stream"
    return (
        f"streamed: {response.status_code} to the end"
        if last == "data: [DONE]"
        else f"streamed: cut at {last}"
    )


async def hang_up(http: httpx.AsyncClient) -> str:
    """Ask, and leave before there is an answer."""
    with suppress(httpx.TimeoutException):
        await http.post("/v1/answer", json={"question": "Tell a story.", "votes": 2}, timeout=random.random())
    return "hung up: before the answer"


async def refused(http: httpx.AsyncClient, status: int, **request: object) -> str:
    """Ask for what is refused."""
    response = await http.post("/v1/chat/completions", **request)
    return (
        f"refused: {response.status_code}" if response.status_code == status else f"not refused by {status}"
    )


JSON = {"Content-Type": "application/json"}
BEHAVIOURS: tuple[Behaviour, ...] = (
    ask,
    ask,
    stream,
    lambda http: stream(http, read=0.9),
    lambda http: stream(http, pause_s=0.05),
    hang_up,
    lambda http: refused(http, 413, content=b" " * (1 << 21), headers=JSON),
    lambda http: refused(http, 401, json=question(), headers={"Authorization": "Bearer wrong"}),
    lambda http: refused(http, 400, content=random.randbytes(200), headers=JSON),
    lambda http: refused(http, 422, json=question() | {"tools": []}),
    lambda http: refused(http, 415, content=b"{}"),
)
DUE = re.compile(r"(asked: 200|streamed: (busy|200 to the end)|hung up: .*|refused: 4\d\d)")


async def misbehave(url: str, until: float, seen: Counter[str]) -> None:
    """One client after the other, each with a connection of its own."""
    while monotonic() < until:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as http:
            seen[await random.choice(BEHAVIOURS)(http)] += 1


async def gauges(url: str) -> dict[str, float]:
    """What the server says of itself."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        lines = (await http.get(f"{url}/metrics")).text.splitlines()
    pairs = (line.split() for line in lines if line.startswith(_GAUGES))
    return {name: float(value) for name, value in pairs}


async def run(url: str, seconds: float) -> dict[str, object]:
    """Let them all loose, and look at the memory meanwhile."""
    seen: Counter[str] = Counter()
    until, memory = monotonic() + seconds, []
    clients = asyncio.gather(*(misbehave(url, until, seen) for _ in range(CLIENTS)))
    while not clients.done():
        await asyncio.wait({clients}, timeout=seconds / 60)
        memory.append((await gauges(url))["process_resident_memory_bytes"])
    await clients
    await asyncio.sleep(1)
    left = await gauges(url)
    quarter = len(memory) // 4
    growth = mean(memory[-quarter:]) / mean(memory[quarter : 2 * quarter]) - 1
    undue = sorted(what for what in seen if not DUE.fullmatch(what))
    idle = left["thirteen_slots_used"] == left["thirteen_queue"] == 0
    return {
        "seen": dict(sorted(seen.items())),
        "undue": undue,
        "idle": idle,
        "memory_bytes": max(memory),
        "memory_growth": growth,
        "ok": not undue and idle and growth <= GROWTH_MAX,
    }


def main() -> int:
    """Start a server, soak it, print what was seen as JSON; the status is 0 if all held."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300
    with NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write(KEY)
        keys.flush()
        options = [
            "--port",
            "0",
            "--profile",
            "phone",
            "--slots",
            "4",
            "--queue",
            "16",
            "--api-key-file",
            keys.name,
        ]
        command = [sys.executable, "-m", "thirteen", "serve", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr
            url = server.stderr.readline().split()[-1]
            told = asyncio.run(run(url, seconds))
            server.terminate()
            told["exit_status"] = server.wait(60)
            told["stderr"] = server.stderr.read()
    print(json.dumps(told, indent=2))
    return 0 if told["ok"] and told["exit_status"] == 0 and not told["stderr"] else 1


if __name__ == "__main__":
    sys.exit(main())
