"""What the server does with clients that are slow, wrong, hostile, or too many."""

import json
import logging
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep

import gguf
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.request import Request
from thirteen.runtime.server.access_middleware import LOOPBACK
from thirteen.runtime.server.api_keys import ApiKeys
from thirteen.runtime.server.request_limits import RequestLimits
from thirteen.runtime.server.serve import ListenConfig, model_names

from .serving import TIMEOUT_S, opened, served

JSON = {"Content-Type": "application/json"}
WORK = {"prompt": "a", "max_tokens": 2}
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/answer", "/v1/check")


@pytest.fixture(scope="module")
def engine(tiny):
    with opened(tiny, slots=2, queue=2, context=256) as engine:
        yield engine


@pytest.fixture
def serving(engine):
    """serving(**options): an HTTP client of a server with these."""
    with ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(served(engine, name="tiny", **options))
            client = stack.enter_context(server.http())
            client.server = server
            return client

        yield start
    assert engine.load.running == engine.load.waiting == 0, "a slot leaks"


@contextmanager
def connected(client):
    with socket.create_connection(("127.0.0.1", client.server.port), timeout=TIMEOUT_S) as connection:
        yield connection


def request(path="/v1/completions", body=WORK):
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def endless(engine):
    return Request(engine.plain("a"), 10**6, ignore_end=True)


def error(response, status):
    assert response.status_code == status, response.text
    told = response.json()["error"]
    assert told.keys() == {"message", "type", "param", "code"} and told["message"]
    return told


def test_what_is_not_there_is_told_in_openais_shape(serving):
    client = serving()
    assert error(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error(client.get("/v1/models/nobody"), 404)["code"] == "model_not_found"
    wrong = client.get("/v1/check")
    assert error(wrong, 405)["code"] == "method_not_allowed" and wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("path", POSTS)
def test_only_json_is_read(serving, path):
    client = serving()
    assert error(client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    assert error(client.post(path, content=b"{}"), 415)
    assert error(client.post(path, content=b"{}", headers=JSON | {"Content-Encoding": "gzip"}), 415)
    for body in (b"", b"{", b"\xff", b'{"n": NaN}', b"[" * 100_000, b'{"n": 1' + b"0" * 5000 + b"}"):
        assert error(client.post(path, content=body, headers=JSON), 400), body[:20]
    assert error(client.post(path, content=b"[]", headers=JSON), 422)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_large_is_refused_and_the_client_hears_it(serving, path):
    client = serving(bounds=RequestLimits(body_bytes=1000))
    assert "1000" in error(client.post(path, content=b" " * 5_000_000, headers=JSON), 413)["message"]
    assert error(client.post(path, content=(b" " * 600 for _ in range(3)), headers=JSON), 413)
    assert client.post("/v1/check", json={"claim": "1 + 1 = 2"}).json()["verified"]


def test_a_thousand_random_bodies_do_no_harm(serving):
    client, chance = serving(), random.Random(13)
    valid = json.dumps(
        {"messages": [{"role": "user", "content": "é"}], "prompt": "a", "max_tokens": 1, "n": 2}
    ).encode()
    statuses = set()
    for number in range(1000):
        body = bytearray(chance.randbytes(chance.randrange(60)) if number % 2 else valid)
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body) + 1) :][:1] = chance.randbytes(1)
        statuses.add(client.post(POSTS[number % 4], content=bytes(body), headers=JSON).status_code)
    assert statuses <= {200, 400, 404, 422}
    assert client.post("/v1/completions", json=WORK).status_code == 200


def test_bytes_that_are_not_http_do_no_harm(serving):
    client, chance = serving(), random.Random(13)
    for _ in range(100):
        with connected(client) as connection:
            connection.sendall(chance.randbytes(200) + b"\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    with connected(client) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "begun", [b"", b"POST /v1/completions HT", request()[:-20]], ids=["nothing", "header", "body"]
)
def test_who_sends_too_slowly_is_hung_up_on_and_holds_up_nobody(serving, begun):
    client = serving(bounds=RequestLimits(idle_s=1))
    with connected(client) as connection:
        start = monotonic()
        connection.sendall(begun)
        assert client.post("/v1/completions", json=WORK).elapsed.total_seconds() < 0.9
        trickled(connection, begun)
        assert 0.9 < monotonic() - start < 5


def trickled(connection, begun):
    """Send a byte now and then, until the other side hangs up."""
    connection.settimeout(0.2)
    while True:
        try:
            if begun:
                connection.sendall(b" ")
            if not connection.recv(100):
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return


def test_who_does_not_read_is_hung_up_on(serving):
    client, asked = serving(bounds=RequestLimits(idle_s=1)), 40
    state = client.server.listener.server_state
    client.server.bound.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
    )  # of what is accepted from now on
    body = {"prompt": "a", "max_tokens": 256, "stream": True, "logprobs": 5, "temperature": 1}
    with connected(client) as connection:
        connection.sendall(request(body=body) * asked)
        end = monotonic() + 30
        while not state.connections and monotonic() < end:
            sleep(0.01)
        while state.connections and monotonic() < end:
            sleep(0.01)
        assert not state.connections and state.total_requests < asked


def test_a_kept_connection_serves_again_and_again(serving):
    client = serving(bounds=RequestLimits(idle_s=1))
    with connected(client) as connection:
        for _ in range(4):
            connection.sendall(request("/v1/check", {"claim": "1 + 1 = 2"}))
            told = b""
            while b'"verified":true' not in told:
                told += (came := connection.recv(10_000))
                assert came, "it is hung up on"
            sleep(0.4)


def test_beyond_the_queue_is_429_and_all_or_nothing(serving, engine):
    client = serving()
    held = [engine.submit(endless(engine)) for _ in range(3)]
    full = client.post("/v1/completions", json=WORK | {"n": 2})
    assert error(full, 429)["code"] == "rate_limit_exceeded" and int(full.headers["retry-after"]) >= 1
    for handle in held:
        handle.abort()
    while engine.load.running or engine.load.waiting:
        sleep(0.01)
    assert client.post("/v1/completions", json=WORK | {"n": 4}).status_code == 200, "a place leaks"


def test_while_draining_no_work_is_taken(serving, engine):
    client = serving()
    assert client.get("/ready").status_code == 200
    desk = client.server.desk
    (running,) = desk.submit([endless(engine)])
    client.server.listener.drain()
    assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
    for path, body in (("completions", WORK), ("answer", {"question": "a"})):
        refused = client.post(f"/v1/{path}", json=body)
        assert error(refused, 503) and refused.headers["retry-after"]
    assert not running.done
    running.abort()


def test_what_does_not_end_is_ended_after_a_while_and_told_of(serving):
    client = serving(bounds=RequestLimits(drain_s=0))
    seeds = (WORK | {"max_tokens": 256, "temperature": 1, "seed": seed} for seed in range(100))
    long = next(body for body in seeds if _cut(client, body))
    with ThreadPoolExecutor() as threads:
        asked = [
            threads.submit(client.post, "/v1/completions", json=long | {"stream": s}) for s in (True, False)
        ]
        while len(client.server.desk._open) < 2:
            sleep(0.001)
        client.server.desk.abort()
        stream, whole = (one.result() for one in asked)
    assert error(whole, 503)["message"] == "the server is ending"
    assert json.loads(stream.text.split("data: ")[-1])["error"]["message"] == "the server is ending"


def _cut(client, body):
    """Whether an answer goes on as long as it may."""
    return client.post("/v1/completions", json=body).json()["choices"][0]["finish_reason"] == "length"


def test_without_a_key_nothing_is_told(serving):
    client = serving(keys=["right-key", "another"])
    for path in ("/v1/models", "/metrics", "/v1/models/tiny", "/v1/nothing"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "right-key"},
        ):
            refused = client.get(path, headers=headers)
            assert error(refused, 401)["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
    for path in POSTS:
        assert error(client.post(path, json={}), 401)
    for key in ("right-key", "another"):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for path in ("/health", "/ready", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_a_client_of_openai_meets_its_own_error_for_a_wrong_key(serving):
    import openai

    client = serving(keys=["right-key"])
    with client.server.openai("wrong") as wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    with client.server.openai("right-key") as right:
        assert [model.id for model in right.models.list()] == ["tiny"]


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\n\n  one  \ntwo\n")
    keys = ApiKeys.from_file(path)
    assert keys.hold(b"Bearer one") and keys.hold(b"bearer two")
    assert not keys.hold(b"Bearer # ours") and not keys.hold(b"Bearer") and not keys.hold(b"")
    for content, reason in ((b"# none\n", "no key"), (b"\xff", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=reason):
            ApiKeys.from_file(path)
    with pytest.raises(RequestError, match="No such file"):
        ApiKeys.from_file(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_a_key_or_a_word(host):
    with pytest.raises(RequestError, match="--api-key-file"):
        ListenConfig(host, 1)
    assert ListenConfig(host, 1, insecure=True).hosts is None
    assert ListenConfig(host, 1, keys=ApiKeys(["k"])).hosts is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_none(host):
    assert host in ListenConfig(host, 1).hosts


def test_a_page_that_calls_this_machine_by_its_own_name_is_refused(serving):
    """DNS rebinding: the browser takes the page's own name for same-origin, wherever it points."""
    client = serving(hosts=LOOPBACK)
    for host in ("evil.example", "evil.example:8080", "", "[", "127.0.0.1.evil.example"):
        assert error(client.get("/v1/models", headers={"Host": host}), 403)
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_pages_from_elsewhere_may_ask_only_if_named(serving):
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    ask["Access-Control-Request-Headers"] = "authorization,content-type"
    allowed = "access-control-allow-origin"
    closed, named = serving(), serving(origins=["https://app.example"], keys=["k"])
    assert allowed not in closed.options("/v1/answer", headers=ask).headers
    assert allowed not in closed.get("/v1/models", headers=ask).headers
    preflight = named.options("/v1/answer", headers=ask)
    assert preflight.status_code == 200 and preflight.headers[allowed] == "https://app.example"
    assert named.get("/v1/models", headers=ask).headers[allowed] == "https://app.example", (
        "errors can be read too"
    )
    assert (
        allowed not in named.options("/v1/answer", headers=ask | {"Origin": "https://evil.example"}).headers
    )


def test_prompts_and_answers_are_logged_only_if_wanted(serving, caplog):
    def logged(client):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            client.post("/v1/completions", json=WORK | {"prompt": "my secret"})
            client.post("/v1/answer", json={"question": "my secret", "max_tokens": 2})
            with client.stream(
                "POST", "/v1/answer", json={"question": "my secret", "max_tokens": 2, "stream": True}
            ) as s:
                s.read()
        return caplog.text.count("my secret")

    assert logged(serving()) == 0
    assert logged(serving(log_prompts=True)) == 3


def test_requests_and_tokens_are_counted(serving):
    client = serving()
    assert client.post("/v1/completions", json=WORK | {"temperature": 1, "seed": 4}).status_code == 200
    assert client.post("/v1/completions", json={"prompt": 1}).status_code == 422
    assert client.get("/secret/path").status_code == 404
    text = client.get("/metrics").text
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert told['thirteen_requests_total{path="/v1/completions",status="200"}'] == "1.0"
    assert told['thirteen_requests_total{path="/v1/completions",status="422"}'] == "1.0"
    assert told['thirteen_requests_total{path="other",status="404"}'] == "1.0" and "secret" not in text
    assert told["thirteen_completion_tokens_total"] == "2.0" and told["thirteen_prompt_tokens_total"] == "2.0"
    assert (
        told["thirteen_first_token_seconds_count"] == "1.0" and told["thirteen_token_seconds_count"] == "1.0"
    )
    assert told["thirteen_slots"] == "2.0" and told["thirteen_queue"] == "0.0"
    assert float(told["process_resident_memory_bytes"]) > 1e7


def test_names_of_models_are_each_given_once():
    assert model_names("m", {"a": 1}) == {"m": "base", "a": "a"}
    with pytest.raises(RequestError, match="--name"):
        model_names("m", {"m": 1})


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ 'x' * 10 ** 9 }}",
    ],
    ids=["spins", "reaches out", "fills the memory"],
)
def test_a_hostile_template_harms_nobody(tmp_path, write_tiny, template):
    key = {"tokenizer.chat_template": (template, gguf.GGUFValueType.STRING, None)}
    with ExitStack() as stack:
        engine = stack.enter_context(opened(write_tiny(tmp_path / "hostile.gguf", key), context=256))
        http = stack.enter_context(stack.enter_context(served(engine)).http())
        threads = stack.enter_context(ThreadPoolExecutor())
        asked = threads.submit(http.post, "/v1/answer", json={"question": "a"})
        while not asked.done():
            assert http.post("/v1/check", json={"claim": "1 + 1 = 2"}).elapsed.total_seconds() < 1
        assert "the chat template failed" in error(asked.result(), 400)["message"]
        assert http.post("/v1/completions", json=WORK).status_code == 200
