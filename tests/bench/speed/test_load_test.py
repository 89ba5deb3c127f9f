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
def server(said=None, status=200, models=b'{"data": [{"id": "m"}]}'):
    """A server that says the same to everyone; what it was asked is in `asked`."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.say(200, models)

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.say(status, stream(TEXT, USAGE) if said is None else said)

        def say(self, status, data):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


def test_servers_take_turns_with_the_same_questions():
    seen = []
    with server() as (one, asked), server() as (other, likewise):
        report = run_load_test(
            [one, other], load=LOAD, rounds=2, progress=lambda done, total: seen.append((done, total))
        )
    assert seen == [(n, 4) for n in range(1, 5)]
    questions = [[body["messages"][0]["content"] for body in side] for side in (asked, likewise)]
    assert sorted(questions[0]) == sorted(questions[1])
    assert len(set(questions[0])) == 3 * 3 * 2, "every question is new: no cache can answer"
    assert {body["model"] for body in asked} == {"m"}
    assert all(served.tokens_per_s > 0 and served.first_s > 0 for served in report.servers)
    assert report.servers[0].tokens_ratio.estimate == 1
    assert load_test_table(report).row_count == 2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": 503, "said": b"too many"}, "/v1/chat/completions: status 503: too many"),
        ({"said": b"data: {\n\n"}, "does not answer as OpenAI's servers do"),
        ({"said": b"data: {}\n\n"}, "does not answer as OpenAI's servers do"),
        ({"said": stream(USAGE)}, "its stream had no text"),
        ({"models": b"[]"}, "does not answer as OpenAI's servers do"),
        ({"models": b'{"data": []}'}, "does not answer as OpenAI's servers do"),
    ],
)
def test_a_server_that_does_not_do_is_named(how, said):
    with server(**how) as (url, _), pytest.raises(RequestError, match=said) as caught:
        run_load_test([url], load=LOAD, rounds=1)
    assert url in str(caught.value)


@pytest.mark.parametrize("said", [stream(TEXT, USAGE), stream(*[TEXT] * 5)])
def test_tokens_are_what_a_server_tells_or_else_its_pieces(said):
    with server(said=said) as (url, _):
        assert _ask(url, "m", "Why?", LOAD).tokens == 5


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "https://127.0.0.1", "http://", "http://127.0.0.1:1"])
def test_a_place_where_no_server_is_is_named(url):
    with pytest.raises(RequestError, match="http"):
        run_load_test([url], load=LOAD, rounds=1)
