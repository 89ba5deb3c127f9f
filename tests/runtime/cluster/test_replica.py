"""A fleet on a Ray cluster answers as one server does, keeps what is warm, and is replaced unnoticed."""

import json
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
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.cluster.deploy import ClusterSize, OwnerActor
from thirteen.runtime.cluster.replica import ReplicaConfig
from thirteen.runtime.cluster.router import RoutingKey
from thirteen.runtime.request import BASE

from ...commands import Commands
from .ray_cluster import kill, processes, two_nodes

TIMEOUT_S = 90
MODELS = {"tiny": BASE, "other": "other"}
REPLICA = "ray::ServeReplica:thirteen:Replica"


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)

    def ended(self, number: int) -> int:
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
                server.said.append(line)
                if line.startswith("serving "):
                    break
            assert server.said and server.said[-1].startswith("serving "), server.said
            yield server
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(cluster: Any, port: int, tiny: Path, lora: Path) -> Iterator[Running]:
    with running(cluster, port, tiny, "--adapter", f"other={lora}", "--body-bytes", 4000) as server:
        yield server
        assert server.ended(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    from ..conftest import tensors
    from ..gguf_adapters import MATRICES, write_factors

    shapes = {name: tensors()[name].shape for name in MATRICES}
    draw = np.random.default_rng(3).normal
    factors = {name: (draw(0, 0.3, (1, i)), draw(0, 0.3, (o, 1))) for name, (o, i) in shapes.items()}
    return write_factors(tmp_path_factory.mktemp("lora") / "other.gguf", factors)


def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_the_official_client_chats_and_streams_with_every_model(server: Running) -> None:
    said = {}
    for model in ("tiny", "other"):
        ask: Any = {"model": model, "messages": [{"role": "user", "content": "1 + 1?"}], "max_tokens": 8}
        whole = client(server).chat.completions.create(**ask)
        stream = client(server).chat.completions.create(**ask, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == whole.choices[0].message.content
        said[model] = text
    assert said["tiny"] != said["other"]
    assert [model.id for model in client(server).models.list()] == ["tiny", "other"]


def test_a_conversation_goes_on_where_its_prefix_is_cached(server: Running) -> None:
    """By chance, of eight conversations on two replicas, about four would."""
    warm = []
    for number in range(8):
        messages = [{"role": "user", "content": f"Conversation {number} is about a number, {number}."}]
        for _ in range(2):
            time.sleep(0.25)  # Ray Serve tells its routers ten times a second
            done: Any = client(server).chat.completions.create(
                model="tiny",
                messages=messages,
                max_tokens=4,
                temperature=0,  # type: ignore[arg-type]
            )
            messages += [
                {"role": "assistant", "content": "So it is."},
                {"role": "user", "content": "And then?"},
            ]
        warm.append(done.usage.prompt_tokens_details.cached_tokens > 40)
    assert sum(warm) >= 7


def test_refusals_are_those_of_the_server(server: Running) -> None:
    unknown = httpx.post(f"{server.url}/v1/answer", json={"question": "?", "model": "no"}, timeout=TIMEOUT_S)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    large = httpx.post(f"{server.url}/v1/answer", json={"question": "?" * 5000}, timeout=TIMEOUT_S)
    assert large.status_code == 413
    foreign = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}, timeout=TIMEOUT_S)
    assert foreign.status_code == 403
    assert httpx.get(f"{server.url}/nowhere", timeout=TIMEOUT_S).status_code == 404
    nonsense = httpx.post(f"{server.url}/v1/answer", content=b"{", timeout=TIMEOUT_S)
    assert nonsense.status_code in {400, 415}
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).json() == {"status": "ok"}
    assert "Thirteen" in httpx.get(f"{server.url}/", timeout=TIMEOUT_S).text


def test_a_client_that_leaves_frees_its_slot(server: Running) -> None:
    ask = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    for _ in range(4):
        with httpx.stream("POST", f"{server.url}/v1/completions", json=ask, timeout=TIMEOUT_S) as response:
            next(response.iter_lines())
    deadline = time.monotonic() + 20
    while any(_used(server) for _ in range(6)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(_used(server) for _ in range(6)), "of whichever replica tells"


def _used(server: Running) -> bool:
    text = httpx.get(f"{server.url}/metrics", timeout=TIMEOUT_S).text
    return any(
        line.startswith("thirteen_slots_used") and not line.endswith(" 0.0") for line in text.splitlines()
    )


class Load:
    """Clients that ask without a pause, and what came of it."""

    def __init__(self, server: Running, clients: int = 3) -> None:
        self._server, self._ending = server, threading.Event()
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        count = 0
        while not self._ending.is_set():
            count += 1
            body = {"question": f"What is {number} + {count}?", "max_tokens": 12, "stream": count % 2 == 0}
            try:
                done = httpx.post(f"{self._server.url}/v1/answer", json=body, timeout=TIMEOUT_S)
                done.raise_for_status()
                if body["stream"]:
                    assert "event: answer" in done.text or '"value"' in done.text, done.text
                self.statuses.append(done.status_code)
            except (httpx.HTTPError, AssertionError) as failure:
                self.failures.append(repr(failure))


def test_a_fleet_that_is_to_listen_elsewhere_is_refused_and_the_one_there_stays(
    cluster: Any, port: int, server: Running, tiny: Path
) -> None:
    with Commands() as thirteen:
        done = thirteen("serve", tiny, "--ray", cluster.address, "--port", port + 1, "--threads", 1)
    assert done.status == 2
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port + 1}: on this cluster, Ray Serve")
    assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S).status_code == 200
    assert server.process.poll() is None


def test_a_replica_that_dies_is_replaced(server: Running) -> None:
    before = set(processes(REPLICA))
    assert len(before) == 2
    kill(min(before))
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and len(set(processes(REPLICA)) - {min(before)}) < 2:
        time.sleep(0.2)
    assert len(set(processes(REPLICA))) == 2
    for _ in range(8):
        body = {"question": "1 + 1?", "max_tokens": 4}
        assert httpx.post(f"{server.url}/v1/answer", json=body, timeout=TIMEOUT_S).status_code == 200


def test_a_rolling_update_under_load_fails_no_request_and_the_first_command_ends(
    cluster: Any, port: int, server: Running, write_tiny: Any, tmp_path: Path
) -> None:
    import numpy as np

    random = np.random.default_rng(7)
    new = write_tiny(
        tmp_path / "new.gguf", {}, {"token_embd.weight": random.normal(0, 0.3, (259, 64)).astype(np.float32)}
    )
    old = set(processes(REPLICA))
    with Load(server) as load:
        _answered(load, 30)
        with running(cluster, port, new, "--name", "new") as updated:
            assert server.process.wait(TIMEOUT_S) == 0
            deadline = time.monotonic() + TIMEOUT_S
            while old & set(processes(REPLICA)) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not old & set(processes(REPLICA))
            _answered(load, len(load.statuses) + 30)
            assert httpx.get(f"{updated.url}/v1/models").json()["data"][0]["id"] == "new"
            load.__exit__()
            assert load.failures == []
            stream = threading.Thread(target=_stream, args=(updated, ended := []))
            stream.start()
            time.sleep(0.3)
            assert updated.ended(signal.SIGINT) == 130
            stream.join()
            assert ended == [True], "what runs is finished first"


def _answered(load: Load, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while len(load.statuses) < count and not load.failures and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(load.statuses) >= count, load.failures


def _stream(server: Running, ended: list[bool]) -> None:
    ask = {"prompt": "a", "max_tokens": 200, "stream": True, "n": 8, "temperature": 1}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=ask, timeout=TIMEOUT_S) as response:
        ended.append("data: [DONE]" in list(response.iter_lines()))


def test_what_is_no_model_or_does_not_fit_is_one_line(cluster: Any, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "no.gguf"
    model.write_bytes(b"no model, but longer than a header would be")
    for words, says in (
        ((model, "--ray", cluster.address), f"error: {model}: "),
        (
            (tiny, "--ray", cluster.address, "--replicas", 3, "--threads", 1),
            "error: --ray: 3 are wanted, but the nodes have processors for 2",
        ),
        ((tiny, "--ray", cluster.address, "--port", 0), "error: --port 0: a fleet has to be told its port"),
        ((tiny, "--ray", cluster.address, "--profile", "x"), "error: profile: 'x' is not one of"),
        ((tiny, "--replicas", 2), "error: Invalid value: --replicas and --max-replicas go with --ray"),
    ):
        with Commands() as thirteen:
            done = thirteen("serve", *words)
        assert done.status == 2
        assert done.stderr.startswith(says), done.stderr


def test_a_fleet_ends_with_the_command_that_deployed_last_and_with_no_other() -> None:
    owner = OwnerActor()
    owner.begin("a")
    owner.take("a")
    owner.begin("b")
    assert owner.last() == "a"
    owner.take("b")
    assert not owner.leave("a")
    owner.begin("c")
    assert not owner.leave("c"), "c failed, and what is there is b's"
    assert owner.last() == "b"
    assert owner.leave("b")
    owner.begin("d")
    assert owner.leave("d"), "d failed, and there is nothing else"


def test_what_an_update_leaves_behind_ends_with_it_if_the_first_command_has_ended() -> None:
    owner = OwnerActor()
    owner.take("a")
    owner.begin("b")
    assert not owner.leave("a"), "b is about to take over"
    assert owner.leave("b")


def test_a_fleet_has_bounds_that_make_sense() -> None:
    fleet = ReplicaConfig(MODELS, {"profile": "server", "slots": None, "threads": 2, "queue": 64})
    few, many = (ClusterSize.of(fleet, 2, None).options(room) for room in (3, 4))
    assert (few["num_replicas"], few["ray_actor_options"]) == (2, {"num_cpus": 2})
    assert (few["max_surge_percent"], many["max_surge_percent"]) == (0, 100)
    assert ClusterSize.of(fleet, 1, 4).options(4)["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 8,
    }
    with pytest.raises(RequestError, match="--max-replicas 1: fewer than --replicas 2"):
        ClusterSize.of(fleet, 2, 1)


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=9)}
    ),
    max_size=6,
)


@given(messages=MESSAGES, more=MESSAGES, model=st.sampled_from([*MODELS, "unknown", None]))
def test_the_next_turn_goes_where_the_last_one_went(messages: Any, more: Any, model: str | None) -> None:
    first, then = (
        RoutingKey.of(json.dumps({"messages": said, "model": model}).encode(), MODELS)
        for said in (messages, [*messages, *more, {"role": "user", "content": "And?"}])
    )
    asked = any(message["role"] == "user" for message in messages)
    if asked:
        assert then.route in first.keys
        assert set(first.keys) == set(then.keys)
    adapter = ("adapter other",) if model == "other" else ()
    assert first.keys[: len(adapter)] == adapter
    assert first.route in ("", *first.keys)


@given(
    body=st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.text() | st.integers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_a_body_of_anything_goes_somewhere(body: bytes) -> None:
    assert isinstance(RoutingKey.of(body, MODELS), RoutingKey)


def test_conversations_are_told_apart_by_how_they_begin_and_by_their_adapter() -> None:
    def route(*contents: str, model: str = "tiny") -> str:
        messages = [{"role": "user", "content": content} for content in contents]
        return RoutingKey.of(json.dumps({"messages": messages, "model": model}).encode(), MODELS).route

    assert route("a") == ""
    assert route("a", model="other") == "adapter other"
    assert len({route("a", "c"), route("b", "c"), route("a", "c", model="other")}) == 3
    assert route("a", "c") == route("a", "d", "e")
