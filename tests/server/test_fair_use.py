"""Clients that share a server: none learns of another, delays it, or keeps it out."""

import asyncio
import re
import select
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from time import sleep

import pytest
from thirteen.runtime.llama.model import Model
from thirteen.runtime.request import Request
from thirteen.server import drain_server, streams
from thirteen.server.access import timeout_protocol
from thirteen.server.access.access_middleware import LOOPBACK_HOSTS
from thirteen.server.access.request_limits import client_address
from thirteen.server.engine_service import Client

from ..repeats import REPEATS
from ..waiting import wait_until
from .serving import TIMEOUT_S, halted, open_engine, serve_engine

pytestmark = pytest.mark.slow

WORK = {"prompt": "a", "max_tokens": 2}


@pytest.fixture(scope="module")
def engine(tiny):
    with open_engine(tiny, slots=2, queue=30, context=256) as engine:
        yield engine


@pytest.fixture
def serving(engine):
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve_engine(engine, name="tiny", **options))


def cached_tokens(server, key, text):
    with server.openai(key) as client:
        messages = [{"role": "user", "content": text}]
        usage = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1).usage
    return usage.prompt_tokens_details.cached_tokens


def test_a_key_learns_nothing_of_another_keys_prompts(serving):
    """40 requests read a number in another key's prompt."""
    secret = "the code of the safe in the hall is 4711, and no other"
    guesses = [secret, secret[:-5], secret[:40], "x" + secret, secret.replace("4711", "4712"), "a question"]
    probes = [(f"key-{number}", guess) for number, guess in enumerate(guesses * REPEATS)]
    server = serving(keys=["ours", *(key for key, _ in probes)])
    assert cached_tokens(server, "ours", secret) == 0
    assert {cached_tokens(server, key, guess) for key, guess in probes} == {0}
    assert cached_tokens(server, "ours", secret) > len(secret)


@pytest.fixture
def tokenized(monkeypatch):
    """The lengths of the texts that are tokenized."""
    lengths, tokenize = [], Model.tokenize

    def spy(model, text, **options):
        lengths.append(len(text))
        return tokenize(model, text, **options)

    monkeypatch.setattr(Model, "tokenize", spy)
    return lengths


def test_prompts_that_can_never_fit_are_refused_before_they_are_tokenized(serving, tokenized):
    server, long = serving(), "a" * 900_000
    with server.http() as client:
        for path, body in {
            "completions": {"prompt": long},
            "answer": {"question": long},
            "chat/completions": {"messages": [{"role": "user", "content": long}]},
        }.items():
            response = client.post(f"/v1/{path}", json=body)
            assert response.status_code == 400
            assert re.search(r"\b9000\d\d bytes", response.json()["error"]["message"])  # the roles count too
        assert max(tokenized, default=0) < 10_000
        assert client.post("/v1/completions", json=WORK).status_code == 200


def test_requests_beyond_the_queue_are_refused_before_they_are_prepared(serving, tokenized):
    server, waiting = serving(), [Request((1,), 1)] * 32
    with server.http() as client:
        with halted():
            asyncio.run(server.service.submit(Client("another", ""), 0, 32, lambda: waiting))
            refused = client.post("/v1/completions", json=WORK)
        assert (refused.status_code, tokenized) == (429, [])
        wait_until(lambda: server.service.idle)
        assert client.post("/v1/completions", json=WORK).status_code == 200 and tokenized == [1]


def test_a_key_that_fills_the_queue_keeps_no_other_key_out(serving):
    """Another key waited 15 s beside 500 clients: the queue was full whenever it asked."""
    server, body = serving(keys=["greedy", "other"], kept_places=4), WORK | {"max_tokens": 240}
    with server.http() as http, ThreadPoolExecutor(60) as pool:

        def ask(key, body):
            headers = {"Authorization": f"Bearer {key}"}
            return http.post("/v1/completions", json=body, headers=headers).status_code

        flood = [pool.submit(ask, "greedy", body) for _ in range(60)]
        assert any(one.result() == 429 for one in as_completed(flood))  # the queue is full
        for _ in range(3):
            assert ask("other", WORK) == 200
        waiting = [one for one in flood if not one.done()]
        assert len(waiting) > 10, "the greedy key's requests wait, not the other's"
    assert {one.result() for one in flood} == {200, 429}


@pytest.fixture
def few_connections(monkeypatch):
    monkeypatch.setattr(drain_server, "CONNECTIONS_MAX", 8)
    monkeypatch.setattr(timeout_protocol, "FIRST_BYTE_S", TIMEOUT_S)


def idle_connection(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)


def test_a_new_connection_ends_the_one_that_is_idle_for_longest(serving, few_connections):
    """Room was made one connection too late: until then every request got 503."""
    server = serving()
    with ExitStack() as stack:
        idle = [stack.enter_context(idle_connection(server)) for _ in range(8)]
        with server.http() as client:
            assert client.post("/v1/completions", json=WORK).status_code == 200
        assert idle[0].recv(1) == b""
        idle[7].settimeout(0.2)
        with pytest.raises(TimeoutError):
            idle[7].recv(1)


def test_a_running_answer_is_not_ended_for_a_new_connection(serving, few_connections):
    server = serving()
    with ExitStack() as stack, server.openai() as client:
        chunks = iter(
            client.completions.create(model="tiny", prompt="a", max_tokens=200, stream=True, temperature=0)
        )
        next(chunks)
        for _ in range(20):
            stack.enter_context(idle_connection(server))
        assert list(chunks)[-1].choices[0].finish_reason


REFUSED = (
    b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\x00\xff no HTTP\r\n\r\n",
)


@pytest.fixture
def slow_refusals(monkeypatch):
    """Five refusals at once, then one in a second."""
    monkeypatch.setattr(timeout_protocol, "REFUSALS_PER_S", 1)
    monkeypatch.setattr(timeout_protocol, "BURST_S", 5)


def refused_connections(server, stack):
    """60 connections with a request of each kind that is refused."""
    connections = [stack.enter_context(idle_connection(server)) for _ in range(60)]
    for number, connection in enumerate(connections):
        connection.sendall(REFUSED[number % len(REFUSED)])
    return connections


def test_refused_requests_delay_those_who_send_them(serving, slow_refusals):
    """Beside 500 connections whose requests were refused, an answer took 30 s."""
    server = serving(allowed_hosts=LOOPBACK_HOSTS, keys=["ours"])
    with ExitStack() as stack, server.http() as client:
        refused = refused_connections(server, stack)
        client.headers["Authorization"] = "Bearer ours"
        for _ in range(10):
            assert client.post("/v1/completions", json=WORK).status_code == 200
        assert client.get("/v1/nothing").status_code == 404, "an honest mistake"
        answered, _, _ = select.select(refused, [], [], 0)
        assert 0 < len(answered) < 40
        assert {each.recv(100)[9:12] for each in answered} <= {b"400", b"403"}


def test_delayed_refusals_make_room_for_new_connections(serving, slow_refusals, few_connections):
    server = serving(allowed_hosts=LOOPBACK_HOSTS)
    with ExitStack() as stack, server.http() as client:
        assert client.post("/v1/completions", json=WORK).status_code == 200
        refused_connections(server, stack)
        connections = server.server.server_state.connections
        # A connection whose refusal is still being made cannot be ended.
        wait_until(lambda: not any(each._responding for each in tuple(connections)))
        with server.http() as new:
            assert new.post("/v1/completions", json=WORK).status_code == 200
        assert len(connections) <= 8


def test_one_address_cannot_take_all_connections(serving, monkeypatch):
    monkeypatch.setattr(timeout_protocol, "CONNECTIONS_PER_ADDRESS_MAX", 4)
    monkeypatch.setattr(timeout_protocol, "is_loopback", lambda host: False)
    server = serving()
    with ExitStack() as stack:
        idle = [stack.enter_context(idle_connection(server)) for _ in range(5)]
        assert idle[0].recv(1) == b""


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_has_one_address(host, address):
    """One with a /64 of IPv6 had 2^64, and loopback was another machine if mapped to IPv6."""
    assert client_address(host) == address


def test_a_connection_that_sends_nothing_is_ended_soon(serving, monkeypatch):
    monkeypatch.setattr(timeout_protocol, "FIRST_BYTE_S", 0.2)
    with idle_connection(serving()) as connection:
        assert connection.recv(1) == b""


def test_a_stream_that_waits_tells_its_place_until_it_begins(tiny, monkeypatch):
    """Clients and proxies give a silent connection up."""
    monkeypatch.setattr(streams, "COMMENT_S", 0.2)
    asked = {"max_tokens": 3, "stream": True}
    first, second = ({"messages": [{"role": "user", "content": c * 9}]} | asked for c in "ab")
    vote = {"question": "12 * 13?", "effort": "medium"} | asked

    def comments(path, body):
        with server.http() as http, http.stream("POST", path, json=body) as response:
            events = "".join(response.iter_text()).split("\n\n")
        found = [event for event in events if event.startswith(":")]
        assert events[: len(found)] == found and len(events) > len(found) + 1
        return found[0]

    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(tiny, slots=1, queue=30, context=256))
        server, threads = stack.enter_context(serve_engine(engine)), stack.enter_context(ThreadPoolExecutor())
        with halted():
            streamed = [threads.submit(comments, "/v1/chat/completions", first)]
            wait_until(lambda: engine.load.running == 1)
            streamed += [threads.submit(comments, "/v1/chat/completions", second)]
            wait_until(lambda: engine.load.waiting == 1)
            streamed += [threads.submit(comments, "/v1/answer", vote)]
            wait_until(lambda: engine.load.waiting == 5)
            sleep(0.5)
        places = [": computing", ": place 1 in the queue", ": place 2 in the queue"]
        assert [stream.result() for stream in streamed] == places
