"""Serving on a Ray cluster: the API of one server, routing by prefix, and updates without failed requests."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from thirteen.cluster.deploy import ClusterSize
from thirteen.cluster.deployment_owner import OwnerActor
from thirteen.cluster.replica import ReplicaConfig
from thirteen.cluster.router import Router, RoutingKey
from thirteen.errors import RequestError
from thirteen.runtime.request import BASE
from thirteen.server.api_keys import ApiKeys

from ..commands import Commands
from ..server.serving import open_engine, serve_engine
from .ray_cluster import kill, processes, two_nodes

pytestmark = pytest.mark.ray

TIMEOUT_S = 90
MODELS = {"tiny": BASE, "other": "other"}
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
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def port() -> int:
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
def server(cluster: Any, port: int, tiny: Path, lora: Path) -> Iterator[Running]:
    with running(cluster, port, tiny, "--adapter", f"other={lora}", "--body-bytes", 4000) as server:
        yield server
        assert server.stop(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    from ..runtime.conftest import tensors
    from ..runtime.gguf_adapters import MATRICES, write_factors

    shapes = {name: tensors()[name].shape for name in MATRICES}
    draw = np.random.default_rng(3).normal
    factors = {name: (draw(0, 0.3, (1, i)), draw(0, 0.3, (o, 1))) for name, (o, i) in shapes.items()}
    return write_factors(tmp_path_factory.mktemp("lora") / "other.gguf", factors)


def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_the_official_client_chats_and_streams_with_every_model(server: Running) -> None:
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


def test_a_conversation_returns_to_the_replica_with_its_prefix(server: Running) -> None:
    """With random routing, about four of eight conversations on two replicas would."""
    cached = []
    for number in range(8):
        messages = [{"role": "user", "content": f"Conversation {number} is about a number, {number}."}]
        for _ in range(2):
            time.sleep(0.25)  # Ray Serve updates its routers ten times a second
            completion: Any = client(server).chat.completions.create(
                model="tiny",
                messages=messages,
                max_tokens=4,
                temperature=0,  # type: ignore[arg-type]
            )
            messages += [
                {"role": "assistant", "content": "So it is."},
                {"role": "user", "content": "And then?"},
            ]
        cached.append(completion.usage.prompt_tokens_details.cached_tokens > 40)
    assert sum(cached) >= 7


def test_invalid_requests_get_the_errors_of_one_server(server: Running) -> None:
    unknown_model = httpx.post(
        f"{server.url}/v1/answer", json={"question": "?", "model": "no"}, timeout=TIMEOUT_S
    )
    assert (unknown_model.status_code, unknown_model.json()["error"]["code"]) == (404, "model_not_found")
    too_large = httpx.post(f"{server.url}/v1/answer", json={"question": "?" * 5000}, timeout=TIMEOUT_S)
    assert too_large.status_code == 413
    foreign_host = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}, timeout=TIMEOUT_S)
    assert foreign_host.status_code == 403
    assert httpx.get(f"{server.url}/nowhere", timeout=TIMEOUT_S).status_code == 404
    invalid_json = httpx.post(f"{server.url}/v1/answer", content=b"{", timeout=TIMEOUT_S)
    assert invalid_json.status_code in {400, 415}
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).json() == {"status": "ok"}
    assert "Thirteen" in httpx.get(f"{server.url}/", timeout=TIMEOUT_S).text


def test_a_disconnected_client_frees_its_slot(server: Running) -> None:
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    for _ in range(4):
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
            next(response.iter_lines())
    deadline = time.monotonic() + 20
    while any(_uses_slots(server) for _ in range(6)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(_uses_slots(server) for _ in range(6))


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


def test_another_listen_address_is_rejected_and_the_deployment_stays(
    cluster: Any, port: int, server: Running, tiny: Path
) -> None:
    with Commands() as thirteen:
        done = thirteen("serve", tiny, "--ray", cluster.address, "--port", port + 1, "--threads", 1)
    assert done.status == 2
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port + 1}: Ray Serve already listens")
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


def test_a_dead_replica_is_replaced(server: Running) -> None:
    victim = min(replicas())
    kill(victim)
    replicas(without=victim)
    for _ in range(8):
        body = {"question": "1 + 1?", "max_tokens": 4}
        assert httpx.post(f"{server.url}/v1/answer", json=body, timeout=TIMEOUT_S).status_code == 200


def test_a_rolling_update_under_load_fails_no_request_and_ends_the_first_command(
    cluster: Any, port: int, server: Running, write_tiny: Any, tmp_path: Path
) -> None:
    import numpy as np

    random = np.random.default_rng(7)
    new = write_tiny(
        tmp_path / "new.gguf", {}, {"token_embd.weight": random.normal(0, 0.3, (259, 64)).astype(np.float32)}
    )
    old = set(processes(REPLICA))
    with Load(server) as load:
        _wait_for_answers(load, 30)
        with running(cluster, port, new, "--name", "new") as updated:
            assert server.process.wait(TIMEOUT_S) == 0
            deadline = time.monotonic() + TIMEOUT_S
            while old & set(processes(REPLICA)) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not old & set(processes(REPLICA))
            _wait_for_answers(load, len(load.statuses) + 30)
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
    deadline = time.monotonic() + TIMEOUT_S
    while len(load.statuses) < count and not load.failures and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(load.statuses) >= count, load.failures


def _stream(server: Running, completed: list[bool]) -> None:
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
        completed.append("data: [DONE]" in list(response.iter_lines()))


def test_invalid_arguments_give_a_one_line_error(cluster: Any, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "no.gguf"
    model.write_bytes(b"no model, but longer than a header would be")
    for words, message in (
        ((model, "--ray", cluster.address), f"error: {model}: "),
        (
            (tiny, "--ray", cluster.address, "--replicas", 3, "--threads", 1),
            "error: --ray: 3 workers requested, but the nodes have room for 2",
        ),
        (
            (tiny, "--ray", cluster.address, "--port", 0),
            "error: --port 0: a cluster deployment needs a fixed port",
        ),
        ((tiny, "--ray", cluster.address, "--profile", "x"), "error: profile: 'x' is not one of"),
        (
            (tiny, "--replicas", 2),
            "error: Invalid value: --replicas, --max-replicas and --ray-insecure require --ray",
        ),
    ):
        with Commands() as thirteen:
            done = thirteen("serve", *words)
        assert done.status == 2
        assert done.stderr.startswith(message), done.stderr


def test_a_deployment_ends_with_the_command_that_deployed_last_only() -> None:
    owner = OwnerActor()
    owner.prepare("a")
    owner.commit("a")
    owner.prepare("b")
    assert owner.current() == "a"
    owner.commit("b")
    assert not owner.release("a")
    owner.prepare("c")
    assert not owner.release("c"), "c failed, and the deployment is b's"
    assert owner.current() == "b"
    assert owner.release("b")
    owner.prepare("d")
    assert owner.release("d"), "d failed, and there is no other deployment"


def test_commands_that_deploy_at_once_are_all_known() -> None:
    """A commit erased the announcement of another command, and Ctrl-C then deleted what that deployed."""
    owner = OwnerActor()
    owner.prepare("a")
    owner.prepare("b")
    owner.commit("a")
    assert not owner.release("a"), "b is deploying"
    owner.commit("b")
    assert owner.release("b")
    owner.prepare("c")
    owner.prepare("d")
    assert not owner.release("d"), "d failed, but c is deploying"
    owner.commit("c")
    assert owner.release("c")


def test_a_command_that_was_killed_while_it_deployed_is_forgotten() -> None:
    owner = OwnerActor()
    owner.prepare("killed")
    owner.prepare("a")
    owner.commit("a")
    assert owner.release("a")


def test_a_failed_update_ends_the_deployment_if_the_first_command_has_ended() -> None:
    owner = OwnerActor()
    owner.commit("a")
    owner.prepare("b")
    assert not owner.release("a"), "b is about to take over"
    assert owner.release("b")


IDLE_SERVE = """
import sys
import ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
print("started", flush=True)
sys.stdin.readline()
controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
ray.get(controller.check_alive.remote(), timeout=30)
print("alive", flush=True)
serve.shutdown()
"""


def test_a_command_that_is_refused_leaves_the_ray_serve_of_another(
    cluster: Any, port: int, tiny: Path
) -> None:
    """It stopped Ray Serve where that had no application yet: the other command was loading its model."""
    command = [sys.executable, "-c", IDLE_SERVE, cluster.address, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "started\n"
        with Commands() as thirteen:
            done = thirteen("serve", tiny, "--ray", cluster.address, "--port", port + 1, "--threads", 1)
        assert (done.status, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "Ray Serve already listens" in done.stderr
        assert other.communicate("\n", TIMEOUT_S)[0].startswith("alive\n")


def test_serve_options_follow_from_the_size() -> None:
    config = ReplicaConfig(MODELS, {"profile": "server", "slots": None, "threads": 2, "queue": 64})
    few, many = (ClusterSize.from_config(config, 2, None).serve_options(capacity) for capacity in (3, 4))
    assert (few["num_replicas"], few["ray_actor_options"]) == (2, {"num_cpus": 2})
    assert (few["max_surge_percent"], many["max_surge_percent"]) == (0, 100)
    assert ClusterSize.from_config(config, 1, 4).serve_options(4)["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 8,
    }
    with pytest.raises(RequestError, match="--max-replicas 1: fewer than --replicas 2"):
        ClusterSize.from_config(config, 2, 1)


class Stream:
    """A replica's response, or its failure."""

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[list[dict[str, Any]]]:
        if self._failure:
            raise self._failure
        yield [{"type": "http.response.start", "status": 200, "headers": []}]

    def cancel(self) -> None:
        """Nothing runs."""


class Replicas:
    """A deployment's handle, whose replicas fail in turn and then respond."""

    def __init__(self, *failures: Exception) -> None:
        self.respond, self._failures = self, list(failures)

    def options(self, **_: object) -> "Replicas":
        return self

    def remote(self, *_: object) -> Stream:
        return Stream(self._failures.pop(0) if self._failures else None)


def routed(
    *failures: Exception, headers: dict[str, str] | None = None, method: str = "POST", **config: Any
) -> httpx.Response:
    """Response of a router, which is called as Ray Serve calls it."""
    router = Router(Replicas(*failures), ReplicaConfig(MODELS, **config))

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        response = await router(Request(scope, receive))
        await response(scope, receive, send)

    async def send_request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(serve), base_url="http://test") as client:
            return await client.request(method, "/v1/answer", headers=headers, json={})

    return asyncio.run(send_request())


def routed_status(*failures: Exception) -> int:
    return routed(*failures).status_code


def test_a_request_whose_replica_dies_goes_to_another_once() -> None:
    from ray.exceptions import RayActorError

    assert routed_status(RayActorError()) == 200
    with pytest.raises(RayActorError):
        routed_status(RayActorError(), RayActorError())


def test_a_request_that_no_replica_takes_is_429() -> None:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError

    full = BackPressureError(num_queued_requests=8, max_queued_requests=8)
    assert routed_status(full) == routed_status(RayActorError(), full) == 429


ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    "Access-Control-Request-Private-Network": "true",
}


def test_a_preflight_gets_the_response_of_one_server(tiny: Path) -> None:
    """It was 401, because a browser sends it without the API key: no page could use the API."""
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(tiny, context=256))
        server = stack.enter_context(serve_engine(engine, keys=["key"], origins=[ORIGIN]))
        http = stack.enter_context(server.http())
        for method, headers, status in (
            ("OPTIONS", PREFLIGHT, 200),
            ("OPTIONS", PREFLIGHT | {"Origin": "https://evil.example"}, 400),
            ("POST", {"Origin": ORIGIN}, 401),
        ):
            one = http.request(method, "/v1/answer", headers=headers, json={})
            response = routed(method=method, headers=headers, keys=ApiKeys(["key"]), origins=[ORIGIN])
            assert response.status_code == one.status_code == status
            del one.headers["date"]  # its server's
            assert response.headers == one.headers


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=9)}
    ),
    max_size=6,
)


@given(messages=MESSAGES, more=MESSAGES, model=st.sampled_from([*MODELS, "unknown", None]))
def test_the_next_turn_is_routed_to_the_same_replica(messages: Any, more: Any, model: str | None) -> None:
    first, next_ = (
        RoutingKey.from_body(json.dumps({"messages": conversation, "model": model}).encode(), MODELS)
        for conversation in (messages, [*messages, *more, {"role": "user", "content": "And?"}])
    )
    if any(message["role"] == "user" for message in messages):
        assert next_.route in first.keys
        assert set(first.keys) == set(next_.keys)
    adapter = ("adapter other",) if model == "other" else ()
    assert first.keys[: len(adapter)] == adapter
    assert first.route in ("", *first.keys)


def test_a_body_of_any_depth_has_a_routing_key() -> None:
    """Writing JSON takes more of the stack than reading it, so some bodies could be read and not written."""
    for depth in range(1, sys.getrecursionlimit() + 100):
        content = "[" * depth + "]" * depth
        body = f'{{"messages": [{{"role": "user", "content": {content}}}]}}'.encode()
        assert isinstance(RoutingKey.from_body(body, MODELS), RoutingKey)


def test_routes_differ_by_first_message_and_adapter() -> None:
    def route(*contents: str, model: str = "tiny") -> str:
        messages = [{"role": "user", "content": content} for content in contents]
        return RoutingKey.from_body(json.dumps({"messages": messages, "model": model}).encode(), MODELS).route

    assert route("a") == ""
    assert route("a", model="other") == route("a", model="other:latest") == "adapter other"
    assert route("a", model="tiny:latest") == route("a", model="other:v2") == ""
    assert len({route("a", "c"), route("b", "c"), route("a", "c", model="other")}) == 3
    assert route("a", "c", model="other") == route("a", "c", model="other:latest")
    assert route("a", "c") == route("a", "d", "e")
