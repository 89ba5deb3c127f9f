"""The server with clients that are slow, wrong, hostile or too many."""

import asyncio
import gc
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event
from time import monotonic, sleep

import httpx
import pytest
from thirteen.errors import FileError, RequestError
from thirteen.runtime.request import Request
from thirteen.server.access.access_middleware import LOOPBACK_HOSTS
from thirteen.server.access.api_keys import FILE_BYTES_MAX, ApiKeys
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.engine_service import Client, EngineService
from thirteen.server.metrics import Metrics
from thirteen.server.serve import ListenConfig
from thirteen.server.served_models import ServedModels

from ..waiting import wait_until
from .serving import TIMEOUT_S, halted, open_engine, serve_engine

pytestmark = pytest.mark.slow

KEY = "k" * 20
JSON = {"Content-Type": "application/json"}
WORK = {"prompt": "a", "max_tokens": 2}
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/answer", "/v1/check")


@pytest.fixture(scope="module")
def engine(tiny):
    with open_engine(tiny, slots=2, queue=2, context=256) as engine:
        yield engine


@pytest.fixture
def serving(engine):
    """serving(**options): start a server with these options and return an HTTP client."""
    with ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(serve_engine(engine, name="tiny", **options))
            client = stack.enter_context(server.http())
            client.running = server
            return client

        yield start
    assert engine.load.running == engine.load.waiting == 0, "leaked a slot"


@pytest.fixture(scope="module")
def client(engine):
    """An HTTP client of one server for all tests that need no options."""
    with serve_engine(engine, name="tiny") as server, server.http() as client:
        client.running = server
        yield client


@contextmanager
def connected(client):
    with socket.create_connection(("127.0.0.1", client.running.port), timeout=TIMEOUT_S) as connection:
        yield connection


def request(path="/v1/completions", body=WORK):
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def endless(engine):
    return Request(engine.encode_text("a"), 10**6, ignore_end=True)


def error(response, status):
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert body.keys() == {"message", "type", "param", "code"} and body["message"]
    return body


def test_unknown_path_model_or_method_has_openais_error_format(client):
    assert error(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error(client.get("/v1/models/nobody"), 404)["code"] == "model_not_found"
    wrong = client.get("/v1/check")
    assert error(wrong, 405)["code"] == "method_not_allowed" and wrong.headers["allow"] == "POST"


def test_oversized_body_is_413_and_the_client_receives_it(serving):
    client = serving(limits=RequestLimits(body_bytes=1000))
    assert "1000" in error(client.post("/v1/answer", content=b" " * 5_000_000, headers=JSON), 413)["message"]
    assert error(client.post("/v1/answer", content=(b" " * 600 for _ in range(3)), headers=JSON), 413)


@pytest.mark.parametrize("path", POSTS)
def test_body_must_be_json(client, path):
    assert error(client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    assert error(client.post(path, content=b"{}"), 415)
    assert error(client.post(path, content=b"{}", headers=JSON | {"Content-Encoding": "gzip"}), 415)
    assert error(client.post(path, content=b"", headers=JSON), 400)
    assert error(client.post(path, content=b"[]", headers=JSON), 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_ollamas_api_takes_a_body_of_any_type_but_from_a_page(client, kind):
    """Ollama's own examples with curl name none, and a page of another site may send these unasked."""
    headers = {"Content-Type": kind} if kind else {}
    body = b'{"model": "tiny"}'
    assert client.post("/api/show", content=body, headers=headers).status_code == 200
    for origin in ("https://evil.example", "null"):
        assert client.post("/api/show", content=body, headers=headers | {"Origin": origin}).status_code == 415


@pytest.mark.parametrize("first", ["Content-Length: 57", "transfer-encoding: chunked"])
def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(client, first):
    """RFC 9112, 6.1: a proxy may go by the other length, and take the hidden request for the body."""
    second = "Transfer-Encoding: chunked" if first.startswith("C") else "content-length: 57"
    lines = ["POST /v1/check HTTP/1.1", "Host: localhost", "Content-Type: application/json", first, second]
    head = "\r\n".join([*lines, "", ""])
    hidden = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(client) as connection:
        connection.sendall((head + hidden).encode())
        received = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert received.startswith(b"HTTP/1.1 400 ") and b"connection: close" in received.lower()
    assert received.count(b"HTTP/1.1") == 1, "the hidden request was answered"
    assert b"exclude each other" in received
    assert client.post("/v1/check", json={"claim": "1 + 1 = 2"}).json()["verified"]


@pytest.mark.exhaustive  # it takes the time of the limit
@pytest.mark.parametrize(
    "start", [b"", b"POST /v1/completions HT", request()[:-20]], ids=["nothing", "header", "body"]
)
def test_slow_request_is_disconnected_and_delays_no_other(serving, start):
    client = serving(limits=RequestLimits(idle_s=1))
    with connected(client) as connection:
        began = monotonic()
        connection.sendall(start)
        assert client.post("/v1/completions", json=WORK).elapsed.total_seconds() < 0.9
        trickle_until_closed(connection, start)
        assert 0.9 < monotonic() - began < 5


def trickle_until_closed(connection, start):
    """Send a byte every 0.2 s until the server closes the connection."""
    connection.settimeout(0.2)
    while True:
        try:
            if start:
                connection.sendall(b" ")
            if not connection.recv(100):
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return


@pytest.mark.exhaustive
def test_client_that_does_not_read_is_disconnected(serving):
    client, sent = serving(limits=RequestLimits(idle_s=1)), 40
    state = client.running.server.server_state
    client.running.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    body = {"prompt": "a", "max_tokens": 256, "stream": True, "logprobs": 5, "temperature": 1}
    with connected(client) as connection:
        connection.sendall(request(body=body) * sent)
        wait_until(lambda: state.connections)
        wait_until(lambda: not state.connections)
        assert state.total_requests < sent


@pytest.mark.exhaustive
@pytest.mark.parametrize("stream", [False, True])
def test_client_that_reads_slowly_receives_the_whole_response(serving, stream):
    """It was disconnected unless it had read nearly everything within the time."""
    client = serving(limits=RequestLimits(idle_s=1))
    client.running.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = {"prompt": "a", "max_tokens": 120, "n": 4, "logprobs": 5, "temperature": 1, "seed": 1}
    content, received, began = request(body=body | {"stream": stream}), b"", monotonic()
    content = content.replace(b"Host", b"Connection: close\r\nHost")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT_S)
        connection.connect(("127.0.0.1", client.running.port))
        connection.sendall(content)
        while data := connection.recv(4096):
            received += data
            sleep(0.1 if stream else 0.15)
    assert monotonic() - began > 2, "the response is too small for this test"
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}}}"), received[-100:]


def test_full_queue_is_429_and_submission_is_all_or_nothing(client, engine):
    handles = [engine.submit(endless(engine)) for _ in range(3)]
    full = client.post("/v1/completions", json=WORK | {"n": 2})
    assert error(full, 429)["code"] == "rate_limit_exceeded" and int(full.headers["retry-after"]) >= 1
    for handle in handles:
        handle.abort()
    wait_until(lambda: not (engine.load.running or engine.load.waiting))
    assert client.post("/v1/completions", json=WORK | {"n": 4}).is_success, "leaked a place in the queue"


def test_more_answers_than_places_are_refused_for_good(client):
    """An idle server answered 429, "2 requests run and 2 wait", whenever it was asked again."""
    refused = error(client.post("/v1/completions", json=WORK | {"n": 5}), 400)
    assert refused["message"] == "5 prompts or answers in one request, at most 4 here"


def test_a_request_that_is_cancelled_while_it_is_prepared_is_aborted(engine):
    """Ray cancels the task when the client disconnects: the answer ran on to its end."""
    service, preparing, go_on = EngineService(engine, Metrics(lambda: [engine])), Event(), Event()

    def prepare():
        preparing.set()
        assert go_on.wait(TIMEOUT_S)
        return [endless(engine)]

    async def cancel():
        task = asyncio.create_task(service.submit(Client("c", ""), 0, 1, prepare))
        await asyncio.to_thread(preparing.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not service.idle
        go_on.set()
        async with asyncio.timeout(TIMEOUT_S):
            while not service.idle:
                await asyncio.sleep(0.01)

    asyncio.run(cancel())
    assert engine.load.running == 0


def test_a_client_that_leaves_a_whole_answer_is_no_error(serving, caplog):
    """The server's log had a traceback for each."""
    client = serving()
    with halted(), pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=WORK | {"n": 2}, timeout=0.2)
    wait_until(lambda: client.running.service.idle)
    gc.collect()
    assert not [r for r in caplog.records if r.name == "asyncio"]


def test_clients_of_aborted_requests_receive_503(serving):
    client = serving(limits=RequestLimits(drain_s=0))
    bodies = (WORK, WORK | {"stream": True}, WORK | {"stream": True, "n": 2})
    with halted(), ThreadPoolExecutor() as threads:
        futures = [threads.submit(client.post, "/v1/completions", json=body) for body in bodies]
        wait_until(lambda: len(client.running.service._unfinished) == 4)
        client.running.service.abort_all()
        whole, *streams = (future.result() for future in futures)
    assert error(whole, 503)["message"] == "the server is shutting down"
    for stream in streams:
        last = json.loads(stream.text.split("data: ")[-1])
        assert last["error"]["message"] == "the server is shutting down"


def test_api_key_is_required(serving):
    client = serving(keys=["right-key", "another"])
    for path in ("/v1/models", "/metrics", "/v1/models/tiny", "/v1/nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right-key"}):
            response = client.get(path, headers=headers)
            assert error(response, 401)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
    for path in POSTS:
        assert error(client.post(path, json={}), 401)
    for key in ("right-key", "another"):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for path in ("/health", "/ready", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_keys_file(tmp_path):
    path = tmp_path / "keys"
    first, second = KEY.replace("k", "1"), KEY.replace("k", "2")
    path.write_text(f"# ours\n\n  {first}  \nalice: {second}\n")
    keys = ApiKeys.from_file(path)
    one, two = (keys.identify(f"bearer {key}".encode()) for key in (first, second))
    assert one != two == keys.identify(f"Bearer {second}".encode())
    assert [keys.name(key) for key in (one, two)] == ["line 3", "alice"]
    assert [keys.identify(value) for value in (b"Bearer # ours", b"Bearer", b"", b"one")] == [None] * 4
    long = "é".encode() * (FILE_BYTES_MAX // 2) + b"\n" + KEY.encode()  # fewer characters than bytes
    short = f"{KEY}\n{KEY[1:]}".encode()
    for content, reason in (
        (short, "line 2: a key of 19 characters, at least 20"),
        (b"# none\n", "no key"),
        (b"\xff", "UTF-8"),
        (long, "more than 1,048,576 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=reason):
            ApiKeys.from_file(path)
        with pytest.raises(FileError, match=reason):
            keys.reload()
        assert keys.name(two) == "alice", "a bad file leaves the keys as they were"
    with pytest.raises(FileError, match="No such file"):
        ApiKeys.from_file(tmp_path / "missing")
    path.write_bytes(b"\xef\xbb\xbf" + first.encode())  # Windows' editors write a byte order mark
    keys.reload()
    assert (keys.name(one), keys.name(two)) == ("line 1", None)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_a_key_file_that_all_can_read_is_warned_of(tmp_path):
    path = tmp_path / "keys"
    path.write_text("one")
    for mode, warned in ((0o644, True), (0o604, True), (0o640, False), (0o600, False)):
        path.chmod(mode)
        assert bool(ApiKeys.warnings(path)) is warned
    assert ApiKeys.warnings(tmp_path / "missing") == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_public_address_requires_a_key_or_insecure(host):
    with pytest.raises(RequestError, match="give api_key_file, or insecure"):
        ListenConfig(host, 1)
    assert ListenConfig(host, 1, insecure=True).allowed_hosts is None
    assert ListenConfig(host, 1, keys=ApiKeys(["k"])).allowed_hosts is None


def test_foreign_host_header_is_403(serving):
    """DNS rebinding: a foreign page whose domain resolves to this machine is same-origin for the browser."""
    client = serving(allowed_hosts=LOOPBACK_HOSTS)
    for host in ("evil.example", "evil.example:8080", "", "[", "127.0.0.1.evil.example"):
        assert error(client.get("/v1/models", headers={"Host": host}), 403)
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_cors_allows_configured_origins_what_openais_client_asks_for(serving):
    """It sends headers of its own, and some browsers ask before a page reaches a private network."""
    header = "access-control-allow-origin"
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-os",
        "Access-Control-Request-Private-Network": "true",
    }
    closed, allowing = serving(), serving(origins=["https://app.example"], keys=["k"])
    assert header not in closed.options("/v1/chat/completions", headers=asked).headers
    foreign = asked | {"Origin": "https://evil.example"}
    assert header not in allowing.options("/v1/chat/completions", headers=foreign).headers
    unauthorized = allowing.get("/v1/models", headers=asked)
    assert unauthorized.headers[header] == asked["Origin"], "the page can read errors too"
    preflight = allowing.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 200 and preflight.headers[header] == asked["Origin"]
    allowed = preflight.headers["access-control-allow-headers"]
    assert allowed == asked["Access-Control-Request-Headers"]
    assert preflight.headers["access-control-allow-private-network"] == "true"


def test_an_unexpected_error_is_a_response_like_others_and_logged_once(serving, monkeypatch, caplog):
    """It had no CORS headers, was not counted, and had two tracebacks in the log."""

    def fail(*_):
        raise ZeroDivisionError("my secret")

    monkeypatch.setattr(ServedModels, "resolve_model", fail)
    client = serving(origins=["https://app.example"])
    response = client.post("/v1/completions", json=WORK, headers={"Origin": "https://app.example"})
    assert response.status_code == 500 and "secret" not in response.text
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["x-content-type-options"] == "nosniff"
    counted = 'thirteen_requests_total{path="/v1/completions",status="500"} 1.0'
    assert counted in client.get("/metrics").text
    assert caplog.text.count("Traceback") == 1 and "my secret" in caplog.text


def test_metrics(serving):
    client = serving()
    assert client.post("/v1/completions", json=WORK | {"temperature": 1, "seed": 4}).status_code == 200
    assert client.post("/v1/completions", json={"prompt": 1}).status_code == 422
    assert client.get("/secret/path").status_code == 404
    text = client.get("/metrics").text
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert metrics['thirteen_requests_total{path="/v1/completions",status="200"}'] == "1.0"
    assert metrics['thirteen_requests_total{path="/v1/completions",status="422"}'] == "1.0"
    assert metrics['thirteen_requests_total{path="other",status="404"}'] == "1.0" and "secret" not in text
    expected = {"completion_tokens_total": 2, "prompt_tokens_total": 2, "first_token_seconds_count": 1}
    expected |= {"token_seconds_count": 1, "slots": 2, "queue": 0}
    assert {name: float(metrics[f"thirteen_{name}"]) for name in expected} == expected
    assert float(metrics["process_resident_memory_bytes"]) > 1e7
