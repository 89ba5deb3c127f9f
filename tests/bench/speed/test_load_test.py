"""Load test of servers on real sockets that implement, or violate, OpenAI's chat completions API."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from thirteen.bench.speed.load_test import ClientLoad, _ask, load_test_table, run_load_test
from thirteen.errors import RequestError

LOAD = ClientLoad(clients=3, questions=2, max_tokens=5)
TEXT = {"choices": [{"delta": {"content": "x"}}], "usage": None}
USAGE = {"choices": [], "usage": {"completion_tokens": 5}}


def stream(*chunks):
    return (
        b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    )


@contextmanager
def server(body=None, status=200, models=b'{"data": [{"id": "m"}]}'):
    """A server that gives every client the same response; yields its URL and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.respond(200, models)

        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.respond(status, stream(TEXT, USAGE) if body is None else body)

        def respond(self, status, data):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", requests
        finally:
            http.shutdown()
            thread.join()


def test_servers_alternate_and_get_the_same_questions():
    ticks = []
    with server() as (one, requests), server() as (other, other_requests):
        report = run_load_test(
            [one, other], load=LOAD, rounds=2, progress=lambda done, total: ticks.append((done, total))
        )
    assert ticks == [(n, 4) for n in range(1, 5)]
    questions = [[body["messages"][0]["content"] for body in bodies] for bodies in (requests, other_requests)]
    assert sorted(questions[0]) == sorted(questions[1])
    assert len(set(questions[0])) == 3 * 3 * 2, "every question is new: no cache can answer"
    assert {body["model"] for body in requests} == {"m"}
    assert all(result.tokens_per_s > 0 and result.first_s > 0 for result in report.servers)
    assert report.servers[0].tokens_ratio.estimate == 1
    assert load_test_table(report).row_count == 2


MALFORMED = "its response is not that of OpenAI's chat completions API"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"status": 503, "body": b"too many"}, "/v1/chat/completions: status 503: too many"),
        ({"body": b"data: {\n\n"}, MALFORMED),
        ({"body": b"data: {}\n\n"}, MALFORMED),
        ({"body": stream(USAGE)}, "its stream had no text"),
        ({"models": b"[]"}, MALFORMED),
        ({"models": b'{"data": []}'}, MALFORMED),
    ],
)
def test_an_error_names_the_server(response, message):
    with server(**response) as (url, _), pytest.raises(RequestError, match=message) as caught:
        run_load_test([url], load=LOAD, rounds=1)
    assert url in str(caught.value)


@pytest.mark.parametrize("body", [stream(TEXT, USAGE), stream(*[TEXT] * 5)])
def test_tokens_are_the_reported_usage_or_else_the_chunks(body):
    with server(body=body) as (url, _):
        assert _ask(url, "m", "Why?", LOAD).tokens == 5


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "https://127.0.0.1", "http://", "http://127.0.0.1:1"])
def test_an_address_without_a_server_is_named(url):
    with pytest.raises(RequestError, match="http"):
        run_load_test([url], load=LOAD, rounds=1)
