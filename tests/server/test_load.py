"""The server with clients that are wrong, leave, or are too many, and with an engine that fails."""

import asyncio
import gc
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import sleep

import httpx
import pytest
from starlette.requests import Request as HttpRequest
from thirteen.cli import main as cli
from thirteen.runtime.answer import Timings
from thirteen.runtime.llama.model import Model
from thirteen.runtime.options import BASE, Effort, Options, Request
from thirteen.server.api import core
from thirteen.server.config import ApiKeys, ListenConfig, RequestLimits
from thirteen.server.engine_service import Call, EngineService
from thirteen.server.serving import run_server

from ..waiting import wait_until
from .serving import TIMEOUT_S, WORK, halted, open_engine, refused, serve_engine

pytestmark = pytest.mark.slow

ENDLESS = Request((1,), Options(max_tokens=10**6, ignore_end=True))
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(engine):
    """An HTTP client of one server for all tests that need no options."""
    with serve_engine(engine, name="tiny") as server, server.http() as client:
        client.running = server
        yield client


def metrics(client):
    lines = client.running.service.metrics.render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def counted(client, status):
    label = f'thirteen_requests_total{{key="",path="/v1/completions",status="{status}"}}'
    return float(metrics(client).get(label, 0))


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "code"),
    [
        ("GET", "/v1/nothing", None, {}, 404, "not_found"),
        ("GET", "/v1/models/nobody", None, {}, 404, "model_not_found"),
        ("GET", "/v1/check", None, {}, 405, "method_not_allowed"),
        ("POST", "/v1/check", b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/v1/check", b"{}", {}, 415, "unsupported_media_type"),
        ("POST", "/v1/check", b"{}", JSON | {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("POST", "/v1/completions", b"", JSON, 400, "invalid_request"),
        ("POST", "/v1/completions", b"[]", JSON, 422, "invalid_value"),
        ("POST", "/v1/answer", b" " * 5_000_000, JSON, 413, "request_too_large"),
    ],
)
def test_a_wrong_request_has_openais_error_format(client, method, path, content, headers, status, code):
    response = client.request(method, path, content=content, headers=headers)
    assert refused(response, status)["code"] == code
    if status == 405:
        assert response.headers["allow"] == "POST"
    if code == "model_not_found":
        assert "the model 'nobody' does not exist; this server has tiny" in response.text


def test_a_body_without_a_length_is_limited_too(serving):
    client = serving(limits=RequestLimits(body_bytes=1000))
    assert refused(client.post("/v1/answer", content=(b" " * 600 for _ in range(3)), headers=JSON), 413)


def test_ollamas_api_takes_a_body_of_any_type_but_from_a_page(client):
    """Ollama's own examples with curl name none, and a page of another site may send these unasked."""
    for headers in ({}, {"Content-Type": "text/plain"}):
        ask = partial(client.post, "/api/show", content=b'{"model": "tiny"}')
        assert ask(headers=headers).status_code == 200
        assert ask(headers=headers | {"Origin": "https://evil.example"}).status_code == 415


def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(client):
    """RFC 9112, 6.1: a proxy may go by the other length, and take the hidden request for the body."""
    lines = ["POST /v1/check HTTP/1.1", "Host: localhost", "Content-Length: 57", "Transfer-Encoding: chunked"]
    hidden = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(("\r\n".join([*lines, "", ""]) + hidden).encode())
        received = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert received.startswith(b"HTTP/1.1 400 ") and b"connection: close" in received.lower()
    assert received.count(b"HTTP/1.1") == 1, "the hidden request was answered"


def test_submission_is_all_or_nothing(client, engine):
    """An idle server answered 429, "2 requests run and 2 wait", whenever it was asked for more."""
    handles = [engine.submit(ENDLESS) for _ in range(7)]
    full = client.post("/v1/completions", json=WORK | {"n": 2})
    assert refused(full, 429)["code"] == "rate_limit_exceeded" and int(full.headers["retry-after"]) >= 1
    for handle in handles:
        handle.abort()
    wait_until(lambda: not (engine.load.running or engine.load.waiting))
    assert client.post("/v1/completions", json=WORK | {"n": 8}).is_success, "leaked a place in the queue"
    too_many = refused(client.post("/v1/completions", json=WORK | {"n": 9}), 400)
    assert too_many["message"] == "9 requests at once: slots and queue hold 8"


def test_a_full_queue_refuses_before_it_prepares_and_says_when_to_ask_again(serving, engine, monkeypatch):
    """It always said 1 s while the queue needed 36, and clients gave up."""
    monkeypatch.setattr(Model, "tokenize", None)
    client = serving()
    end = replace(engine.submit(Request((1,), Options(max_tokens=2))).wait(), timings=Timings(1.0, 1.0, 8.0))
    client.running.service.note_ends([end])
    with halted(4):
        handles = engine.submit_all([ENDLESS] * 8)
        wait_until(lambda: engine.load.running == 4)
        full = client.post("/v1/completions", json=WORK)
        assert refused(full, 429)
        assert full.headers["retry-after"] == "18", "two rounds of 9 s"
        for handle in handles:
            handle.abort()


def test_prompts_that_can_never_fit_are_refused_before_they_are_tokenized(client, monkeypatch):
    monkeypatch.setattr(Model, "tokenize", None)
    too_many = refused(client.post("/v1/completions", json={"prompt": "a" * 900_000}), 400)
    assert "900000 bytes" in too_many["message"]


def test_a_request_that_is_cancelled_while_it_is_prepared_is_aborted(engine):
    """Ray cancels the task when the client disconnects: the answer ran on to its end."""
    call = Call(EngineService(engine, {"tiny": BASE}), HttpRequest({"type": "http"}))

    def prepare():
        call.abort()  # as the middleware does, while a thread prepares
        return [ENDLESS]

    asyncio.run(call.submit(prepare))
    wait_until(lambda: not (engine.load.running or engine.load.waiting))


def test_a_client_that_leaves_is_499_in_log_and_metrics_and_no_error(serving, caplog):
    """Streams that clients dropped were 200 in the metrics; the log had a traceback for each whole answer."""
    caplog.set_level("INFO", logger="thirteen.server")
    client = serving()
    with halted(), pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=WORK | {"n": 2}, timeout=0.2)
    with client.stream("POST", "/v1/completions", json=WORK | {"max_tokens": 250, "stream": True}) as stream:
        next(stream.iter_lines())
    wait_until(lambda: counted(client, 499) == 2)
    gc.collect()
    assert [r.fields["status"] for r in caplog.records if hasattr(r, "fields")] == [499, 499]
    assert not [r for r in caplog.records if r.name == "asyncio"]


def test_answers_that_a_shutdown_ends_are_503_in_response_log_and_metrics(serving, engine, caplog):
    """Streams were 200 in the log."""
    caplog.set_level("INFO", logger="thirteen.server")
    client = serving()
    bodies = (WORK, WORK | {"stream": True}, WORK | {"stream": True, "n": 2})
    with halted(), ThreadPoolExecutor() as threads:
        futures = [threads.submit(client.post, "/v1/completions", json=body) for body in bodies]
        wait_until(lambda: engine.load.running + engine.load.waiting == 4)
        wait_until(lambda: client.running.service.abort_all() or all(future.done() for future in futures))
        whole, *streams = (future.result() for future in futures)
    assert refused(whole, 503)["message"] == "the server is shutting down"
    assert all("the server is shutting down" in stream.text for stream in streams)
    wait_until(lambda: counted(client, 503) == 3)
    assert [r.fields["status"] for r in caplog.records if hasattr(r, "fields")] == [503] * 3


def test_a_stream_that_waits_gets_comments_until_it_begins(serving, engine, monkeypatch):
    """Clients and proxies give a silent connection up."""
    monkeypatch.setattr(core, "COMMENT_S", 0.2)

    client = serving()
    with ThreadPoolExecutor() as threads:
        with halted():
            body = WORK | {"stream": True}
            streams = [threads.submit(client.post, "/v1/completions", json=body) for _ in range(5)]
            wait_until(lambda: engine.load == (4, 1))
            sleep(0.5)
        blocks = [stream.result().text.split("\n\n") for stream in streams]
    assert [first for first, *_ in blocks] == [": computing"] * 5
    assert all(block[-2:] == ["data: [DONE]", ""] for block in blocks)


def test_an_unexpected_error_is_a_response_like_others_and_logged_once(serving, monkeypatch, caplog):
    """It had no CORS headers, was not counted, and had two tracebacks in the log."""

    def fail(*_):
        raise ZeroDivisionError("my secret")

    monkeypatch.setattr(EngineService, "resolve_model", fail)
    client = serving(origins=["https://app.example"])
    response = client.post("/v1/completions", json=WORK, headers={"Origin": "https://app.example"})
    assert response.status_code == 500 and "secret" not in response.text
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["x-content-type-options"] == "nosniff"
    wait_until(lambda: counted(client, 500) == 1)
    assert caplog.text.count("Traceback") == 1 and "my secret" in caplog.text


def test_metrics_by_path_status_and_key(serving, tmp_path):
    (tmp_path / "keys").write_text(f"app: {'k' * 20}")
    client = serving(keys=ApiKeys(tmp_path / "keys"))
    client.headers["Authorization"] = f"Bearer {'k' * 20}"
    assert client.post("/v1/completions", json=WORK | {"temperature": 1, "seed": 4}).status_code == 200
    assert client.post("/v1/completions", json={"prompt": 1}).status_code == 422
    assert client.get("/secret/path").status_code == 404
    wait_until(lambda: any('status="404"' in name for name in metrics(client)))  # counted after the response
    found = metrics(client)
    expected = {
        'requests_total{key="app",path="/v1/completions",status="200"}': 1,
        'requests_total{key="app",path="/v1/completions",status="422"}': 1,
        'requests_total{key="",path="other",status="404"}': 1,
        'completion_tokens_total{key="app"}': 2,
        'prompt_tokens_total{key="app"}': 2,
        "first_token_seconds_count": 1,
        "token_seconds_count": 1,
        "slots": 4,
        "queue": 0,
    }
    assert {name: float(found[f"thirteen_{name}"]) for name in expected} == expected
    assert float(found["process_resident_memory_bytes"]) > 1e7 and "secret" not in str(found)


def test_the_page_chooses_medium_for_a_cheap_model_without_adapter(tiny):
    with open_engine(tiny) as engine:
        models = {"tiny": BASE, "math": "math"}
        eight, seven = (EngineService(engine, models, RequestLimits(answers=most)) for most in (8, 7))
        assert eight.default_effort("tiny") is Effort.MEDIUM
        assert eight.default_effort("math") is seven.default_effort("tiny") is Effort.LOW
        engine.model.header.fields["thirteen.adapter.id"] = None
        assert eight.default_effort("tiny") is Effort.LOW


def test_a_failed_engine_ends_the_server_after_its_responses_with_status_1(tiny, say, monkeypatch, capsys):
    """The process answered 503 for ever, and nothing restarted it."""
    say(ZeroDivisionError())
    with open_engine(tiny) as engine, ThreadPoolExecutor() as threads:
        service, responses = EngineService(engine, {"tiny": BASE}), []
        post = partial(threads.submit, httpx.post, json=WORK, timeout=TIMEOUT_S)

        def serve(**_):
            run_server(service, ListenConfig(), lambda url: responses.append(post(f"{url}/v1/completions")))

        monkeypatch.setattr(cli, "app", serve)
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert responses[0].result().status_code == 500
    assert end.value.code == 1
    assert capsys.readouterr().err.endswith("error: the engine has failed: the server ends\n")
