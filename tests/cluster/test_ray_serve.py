"""Serving on a Ray cluster: the API of one server, and updates without failed requests."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ..background_server import free_port
from ..commands import Commands
from ..runtime.gguf_adapters import write_lora
from ..waiting import wait_until
from .ray_cluster import kill, processes, serving

pytestmark = pytest.mark.ray

TIMEOUT_S = 90
REPLICA = "ray::ServeReplica:thirteen:Replica"


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def port():
    return free_port()


@contextmanager
def running(cluster: Any, port: int, model: Path, *options: object) -> Iterator[Running]:
    words = (model, "--ray", cluster.address, "--port", port, "--threads", 1, "--replicas", 2, *options)
    with serving(*words) as process:
        yield Running(process, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def server(cluster, port, tiny, lora):
    config = lora.with_name("limits.toml")
    config.write_text("body_bytes = 4000")
    with running(cluster, port, tiny, "--adapter", f"other={lora}", "--config", config) as server:
        yield server
        assert server.stop(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    return write_lora(tmp_path_factory.mktemp("lora") / "other.gguf", seed=3)


def test_the_official_client_chats_and_streams_with_every_model(server):
    client, texts = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0), {}
    for model in ("tiny", "other"):
        body: Any = {"model": model, "messages": [{"role": "user", "content": "1 + 1?"}], "max_tokens": 8}
        whole = client.chat.completions.create(**body)
        stream = client.chat.completions.create(**body, stream=True)
        texts[model] = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert texts[model] == whole.choices[0].message.content
    assert texts["tiny"] != texts["other"]
    assert [model.id for model in client.models.list()] == ["tiny", "other"]


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/answer", json={"question": "1 + 1?", **body}, timeout=TIMEOUT_S)


def test_invalid_requests_get_the_errors_of_one_server(server):
    unknown_model = ask(server.url, model="no")
    assert (unknown_model.status_code, unknown_model.json()["error"]["code"]) == (404, "model_not_found")
    assert ask(server.url, question="?" * 5000).status_code == 413
    foreign_host = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}, timeout=TIMEOUT_S)
    assert foreign_host.status_code == 403
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


@dataclass
class Load:
    """Answers of concurrent clients that send requests without a pause."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def on(self, url: str, clients: int = 3) -> Iterator[None]:
        ended = threading.Event()
        threads = [threading.Thread(target=self._send, args=(url, n, ended)) for n in range(clients)]
        for thread in threads:
            thread.start()
        yield
        ended.set()
        for thread in threads:
            thread.join()

    def _send(self, url: str, number: int, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                stream = self.answers % 2 == 0
                response = ask(url, question=f"What is {number} + 1?", max_tokens=12, stream=stream)
                assert response.status_code == 200 and '"value"' in response.text, response.text
                self.answers += 1
            except (httpx.HTTPError, AssertionError) as failure:
                self.failures.append(repr(failure))


def test_invalid_arguments_give_a_one_line_error_and_the_deployment_stays(
    cluster, port, server, tiny, tmp_path
):
    model = tmp_path / "no.gguf"
    model.write_bytes(b"no model, but longer than a header would be")
    on_cluster = ("--ray", cluster.address, "--threads", 1)
    cases: tuple[tuple[tuple[object, ...], str], ...] = (
        ((model, *on_cluster), f"error: {model}: "),
        ((tiny, *on_cluster, "--replicas", 3), "error: --ray: no room for 3 workers of 1 --threads on nodes"),
        ((tiny, *on_cluster, "--port", 0), "error: --port 0: a cluster deployment needs a fixed port"),
        ((tiny, *on_cluster, "--port", port + 1), f"error: --port {port + 1}: Ray Serve listens at another"),
        ((tiny, "--replicas", 2), "error: --replicas: requires --ray"),
    )
    with Commands() as thirteen:
        for words, message in cases:
            done = thirteen("serve", *words)
            assert done.status == 2
            assert done.stderr.startswith(message), done.stderr
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).status_code == 200
    assert server.process.poll() is None


def replicas(without: int | None = None) -> set[int]:
    """Wait for two replicas, none of them `without`. What a replica forks has its name for a moment."""
    wait_until(lambda: len(now := processes(REPLICA)) == 2 and without not in now, TIMEOUT_S, 0.2)
    return processes(REPLICA)


def test_a_dead_replica_is_replaced(server):
    victim = min(replicas())
    kill(victim)
    replicas(without=victim)
    assert [ask(server.url, max_tokens=4).status_code for _ in range(8)] == [200] * 8


def test_a_rolling_update_under_load_fails_no_request_and_ends_the_first_command(
    cluster, port, server, write_tiny, tmp_path
):
    new = write_tiny(tmp_path / "new.gguf", {"general.name": "other"})
    old, load = processes(REPLICA), Load()
    with ExitStack() as clients:
        clients.enter_context(load.on(server.url))
        _wait_for_answers(load, 12)
        with running(cluster, port, new, "--name", "new") as updated:
            assert server.process.wait(TIMEOUT_S) == 0
            wait_until(lambda: not old & processes(REPLICA), TIMEOUT_S, 0.2)
            _wait_for_answers(load, load.answers + 12)
            assert httpx.get(f"{updated.url}/v1/models").json()["data"][0]["id"] == "new"
            clients.close()
            assert load.failures == []
            stream = threading.Thread(target=_stream, args=(updated, completed := []))
            stream.start()
            time.sleep(0.3)
            assert updated.stop(signal.SIGINT) == 130
            stream.join()
            assert completed == [True], "running requests finish first"


def _wait_for_answers(load: Load, count: int) -> None:
    wait_until(lambda: load.answers >= count or load.failures, TIMEOUT_S, 0.1)
    assert load.answers >= count, load.failures


def _stream(server: Running, completed: list[bool]) -> None:
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
        completed.append("data: [DONE]" in list(response.iter_lines()))
