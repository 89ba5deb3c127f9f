"""Serving on a Ray cluster: the API of one server, and updates without failed requests."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ..commands import Commands
from ..runtime.gguf_adapters import write_lora
from ..waiting import wait_until
from .ray_cluster import kill, processes

pytestmark = pytest.mark.ray

TIMEOUT_S = 90
REPLICA = "ray::ServeReplica:thirteen:Replica"


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    stderr: list[str] = field(default_factory=list)

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@contextmanager
def running(cluster: Any, port: int, model: Path, *options: object) -> Iterator[Running]:
    words = ["serve", model, "--ray", cluster.address, "--port", port, "--threads", 1, "--replicas", 2]
    command = [sys.executable, "-m", "thirteen", *map(str, (*words, *options))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        server = Running(process, f"http://127.0.0.1:{port}")
        try:
            for line in process.stderr:
                server.stderr.append(line)
                if line.startswith("serving "):
                    break
            assert server.stderr and server.stderr[-1].startswith("serving "), server.stderr
            yield server
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(cluster, port, tiny, lora):
    config = lora.with_name("limits.toml")
    config.write_text("body_bytes = 4000")
    with running(cluster, port, tiny, "--adapter", f"other={lora}", "--config", config) as server:
        yield server
        assert server.stop(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    return write_lora(tmp_path_factory.mktemp("lora") / "other.gguf", seed=3, rank=1)


def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_the_official_client_chats_and_streams_with_every_model(server):
    texts = {}
    for model in ("tiny", "other"):
        body: Any = {"model": model, "messages": [{"role": "user", "content": "1 + 1?"}], "max_tokens": 8}
        whole = client(server).chat.completions.create(**body)
        stream = client(server).chat.completions.create(**body, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == whole.choices[0].message.content
        texts[model] = text
    assert texts["tiny"] != texts["other"]
    assert [model.id for model in client(server).models.list()] == ["tiny", "other"]


def test_invalid_requests_get_the_errors_of_one_server(server):
    unknown_model = httpx.post(
        f"{server.url}/v1/answer", json={"question": "?", "model": "no"}, timeout=TIMEOUT_S
    )
    assert (unknown_model.status_code, unknown_model.json()["error"]["code"]) == (404, "model_not_found")
    too_large = httpx.post(f"{server.url}/v1/answer", json={"question": "?" * 5000}, timeout=TIMEOUT_S)
    assert too_large.status_code == 413
    foreign_host = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}, timeout=TIMEOUT_S)
    assert foreign_host.status_code == 403
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).json() == {"status": "ok"}
    assert "Thirteen" in httpx.get(f"{server.url}/", timeout=TIMEOUT_S).text


def test_a_disconnected_client_frees_its_slot(server):
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    for _ in range(4):
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
            next(response.iter_lines())
    wait_until(lambda: not any(_uses_slots(server) for _ in range(6)), 20, 0.2)


def _uses_slots(server: Running) -> bool:
    """Whether some slot is in use, in the metrics of a random replica."""
    text = httpx.get(f"{server.url}/metrics", timeout=TIMEOUT_S).text
    return any(
        line.startswith("thirteen_slots_used") and not line.endswith(" 0.0") for line in text.splitlines()
    )


class Load:
    """Concurrent clients that send requests without a pause."""

    def __init__(self, server: Running, clients: int = 3) -> None:
        self._server, self._stopping = server, threading.Event()
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send_requests, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send_requests(self, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            body = {"question": f"What is {number} + {count}?", "max_tokens": 12, "stream": count % 2 == 0}
            try:
                response = httpx.post(f"{self._server.url}/v1/answer", json=body, timeout=TIMEOUT_S)
                response.raise_for_status()
                if body["stream"]:
                    assert "event: answer" in response.text or '"value"' in response.text, response.text
                self.statuses.append(response.status_code)
            except (httpx.HTTPError, AssertionError) as failure:
                self.failures.append(repr(failure))


def test_another_listen_address_is_rejected_and_the_deployment_stays(cluster, port, server, tiny):
    with Commands() as thirteen:
        done = thirteen("serve", tiny, "--ray", cluster.address, "--port", port + 1, "--threads", 1)
    assert done.status == 2
    assert done.stderr.startswith(f"error: --port {port + 1}: Ray Serve listens at another address")
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).status_code == 200
    assert server.process.poll() is None


def replicas(without: int | None = None) -> set[int]:
    """Wait for two replicas, none of them `without`. What a replica forks has its name for a moment."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        now = set(processes(REPLICA))
        if len(now) == 2 and without not in now:
            return now
        time.sleep(0.2)
    raise AssertionError(f"replicas: {now}")


def test_a_dead_replica_is_replaced(server):
    victim = min(replicas())
    kill(victim)
    replicas(without=victim)
    for _ in range(8):
        body = {"question": "1 + 1?", "max_tokens": 4}
        assert httpx.post(f"{server.url}/v1/answer", json=body, timeout=TIMEOUT_S).status_code == 200


def test_a_rolling_update_under_load_fails_no_request_and_ends_the_first_command(
    cluster, port, server, write_tiny, tmp_path
):
    import numpy as np

    random = np.random.default_rng(7)
    new = write_tiny(
        tmp_path / "new.gguf", {}, {"token_embd.weight": random.normal(0, 0.3, (259, 64)).astype(np.float32)}
    )
    old = set(processes(REPLICA))
    with Load(server) as load:
        _wait_for_answers(load, 12)
        with running(cluster, port, new, "--name", "new") as updated:
            assert server.process.wait(TIMEOUT_S) == 0
            wait_until(lambda: not old & set(processes(REPLICA)), TIMEOUT_S, 0.2)
            _wait_for_answers(load, len(load.statuses) + 12)
            assert httpx.get(f"{updated.url}/v1/models").json()["data"][0]["id"] == "new"
            load.__exit__()
            assert load.failures == []
            stream = threading.Thread(target=_stream, args=(updated, completed := []))
            stream.start()
            time.sleep(0.3)
            assert updated.stop(signal.SIGINT) == 130
            stream.join()
            assert completed == [True], "running requests finish first"


def _wait_for_answers(load: Load, count: int) -> None:
    wait_until(lambda: len(load.statuses) >= count or load.failures, TIMEOUT_S, 0.1)
    assert len(load.statuses) >= count, load.failures


def _stream(server: Running, completed: list[bool]) -> None:
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
        completed.append("data: [DONE]" in list(response.iter_lines()))


def test_invalid_arguments_give_a_one_line_error(cluster, tiny, tmp_path):
    model = tmp_path / "no.gguf"
    model.write_bytes(b"no model, but longer than a header would be")
    cases: tuple[tuple[tuple[object, ...], str], ...] = (
        ((model, "--ray", cluster.address), f"error: {model}: "),
        (
            (tiny, "--ray", cluster.address, "--replicas", 3, "--threads", 1),
            "error: --ray: no room for 3 workers of 1 --threads on nodes with 1, 1 processors",
        ),
        (
            (tiny, "--ray", cluster.address, "--port", 0),
            "error: --port 0: a cluster deployment needs a fixed port",
        ),
        ((tiny, "--ray", cluster.address, "--profile", "x"), "error: profile must be one of laptop"),
        ((tiny, "--replicas", 2), "error: --replicas: requires --ray"),
    )
    with Commands() as thirteen:
        for words, message in cases:
            done = thirteen("serve", *words)
            assert done.status == 2
            assert done.stderr.startswith(message), done.stderr
