"""Distillation from a fake teacher on a real socket."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from thirteen.errors import DownloadError, OutputError, RequestError, ThirteenError
from thirteen.learn.distill import DistillResult, Teacher, distill_solutions, read_key
from thirteen.models.rows import TrainingRow, read_rows

from ..commands import Commands

ROWS = [TrainingRow(f"What is {n} and {n}?", "", str(2 * n)) for n in range(2, 8)]


class Endpoint(BaseHTTPRequestHandler):
    """Doubles numbers, but wrongly for 5; after `good` responses it returns `then`."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Authorization"), None))
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body))
        question = body["messages"][-1]["content"]
        number = int(question.split()[2])
        result = 99 if number == 5 else 2 * number
        response = {
            "choices": [{"message": {"content": f"It is {number}+{number} = {result}.\n#### {result}"}}]
        }
        status, raw = 200, json.dumps(response).encode()
        if len(self.server.requests) > self.server.good:
            status, raw = self.server.then
        self.send_response(status)
        if status == 302:
            self.send_header("Location", raw.decode())
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def endpoint(good=1_000, then=(200, b"")):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.requests, server.good, server.then = [], good, then
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_right_solutions_are_saved_with_their_teacher(tmp_path):
    out = tmp_path / "out.jsonl"
    with endpoint() as (server, url):
        done = distill_solutions(ROWS, Teacher(url, "wise", key="secret"), out)
    assert done == DistillResult(kept=5, wrong=1, resumed=0)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["answer"] for line in lines] == ["4", "6", "8", "12", "14"]
    assert {line["teacher"] for line in lines} == {"wise"}
    assert read_rows(out)[0] == TrainingRow(ROWS[0].question, "It is 2+2 = 4.\n#### 4", "4")
    path, key, body = server.requests[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "wise")


def test_a_resumed_run_repeats_no_request(tmp_path):
    out = tmp_path / "out.jsonl"
    with endpoint(good=4, then=(500, b"")) as (server, url):
        with pytest.raises(DownloadError, match="the teacher returns 500"):
            distill_solutions(ROWS, Teacher(url, "wise"), out)
        with out.open("a") as file:
            file.write('{"question": "What is 6')  # left by a killed run
        server.good = 1_000
        done = distill_solutions(ROWS, Teacher(url, "wise"), out)
    assert done == DistillResult(kept=5, wrong=1, resumed=4)
    questions = [body["messages"][-1]["content"] for _, _, body in server.requests]
    assert len(questions) == 7 and len(set(questions)) == 6


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 1}}]}']
)
def test_a_response_without_a_completion_is_an_error(tmp_path, raw):
    with (
        endpoint(good=0, then=(200, raw)) as (_, url),
        pytest.raises(DownloadError, match="no chat completion"),
    ):
        distill_solutions(ROWS, Teacher(url, "wise"), tmp_path / "out.jsonl")


def test_half_a_character_of_a_teacher_is_replaced(tmp_path):
    """Cut off at its limit of tokens, a solution ended the run with UnicodeEncodeError."""
    raw = b'{"choices": [{"message": {"content": "It is 4. \\ud83d"}}]}'
    out = tmp_path / "out.jsonl"
    with endpoint(good=0, then=(200, raw)) as (_, url):
        distill_solutions(ROWS[:1], Teacher(url, "wise"), out)
    assert read_rows(out)[0].solution == "It is 4. ?"


@pytest.mark.parametrize(("reason", "kept"), [("length", 0), ("stop", 1)])
def test_a_solution_that_was_cut_off_is_wrong(tmp_path, reason, kept):
    """Its last number was often the answer by chance, and its end was missing."""
    choice = {"message": {"content": "It is 4"}, "finish_reason": reason}
    out = tmp_path / "out.jsonl"
    with endpoint(good=0, then=(200, json.dumps({"choices": [choice]}).encode())) as (_, url):
        done = distill_solutions(ROWS[:1], Teacher(url, "wise"), out)
    assert done == DistillResult(kept=kept, wrong=1 - kept, resumed=0)


def test_a_key_is_read_without_its_newline(tmp_path):
    (tmp_path / "key").write_bytes(b"sk-1234\r\n")
    assert read_key(tmp_path / "key") == "sk-1234"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfek", "schlüssel".encode(), b"one\ntwo", b"a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused(tmp_path, content):
    """It raised UnicodeDecodeError, UnicodeEncodeError or ValueError."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(RequestError, match="key: must hold one API key in printable ASCII characters"):
        read_key(tmp_path / "key")


def test_the_key_does_not_follow_a_redirect(tmp_path):
    """urllib repeated the Authorization header to the host that a redirect named."""
    with (
        endpoint() as (other, elsewhere),
        endpoint(good=0, then=(302, elsewhere.encode())) as (_, url),
        pytest.raises(DownloadError, match="the teacher returns 302"),
    ):
        distill_solutions(ROWS, Teacher(url, "wise", key="secret"), tmp_path / "out.jsonl")
    assert other.requests == []


def test_an_unreachable_teacher_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match="cannot be reached"):
        distill_solutions(ROWS, Teacher("http://127.0.0.1:9/v1", "wise"), tmp_path / "out.jsonl")
    with pytest.raises(DownloadError, match="an endpoint must start with"):
        Teacher("file:///etc/passwd", "wise")


def test_a_run_does_not_resume_from_other_files(tmp_path):
    with endpoint() as (_, url):
        (tmp_path / "other").write_text("[1]\n")
        with pytest.raises(
            ThirteenError, match="line 1: not a JSON object with question, answer and teacher"
        ):
            distill_solutions(ROWS, Teacher(url, "wise"), tmp_path / "other")
        with pytest.raises(OutputError, match="cannot write"):
            distill_solutions(ROWS, Teacher(url, "wise"), tmp_path / "missing" / "out.jsonl")


@pytest.mark.parametrize(
    ("model", "answer", "says"),
    [
        ("other", "10", "line 1: its teacher is 'wise', not 'other'"),
        ("wise", "99", "its answer is '10', not '99'"),
    ],
)
def test_a_run_does_not_resume_with_another_teacher_or_answer(tmp_path, model, answer, says):
    """The old solutions stayed, and the report named the new teacher."""
    out = tmp_path / "out.jsonl"
    with endpoint() as (server, url):
        distill_solutions(ROWS, Teacher(url, "wise"), out)
        rows = [replace(row, answer=answer) if row.answer == "10" else row for row in ROWS]
        before = len(server.requests)
        with pytest.raises(ThirteenError, match=f"{says}: choose a new output"):
            distill_solutions(rows, Teacher(url, model), out)
        assert len(server.requests) == before


@pytest.mark.parametrize("url", ["http://host/\u00fc", "http://a..b/v1", "http://[::1/v1"])
def test_a_url_that_cannot_be_requested_is_refused(url):
    """It was taken for a response without a completion."""
    with pytest.raises(DownloadError, match="must have a valid host name, and a path in ASCII"):
        Teacher(url, "wise")


@pytest.mark.parametrize(("data", "output"), [("in", "in"), ("out.wrong.jsonl", "out"), ("in", "key")])
def test_an_input_is_never_an_output(tmp_path, thirteen, data, output):
    """A last line without a newline was cut off from the questions."""
    text = json.dumps({"question": "How many?", "answer": "7"})
    for name in (data, "key"):
        (tmp_path / name).write_text(text)
    flags = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "wise", "--key-file", tmp_path / "key")
    done = thirteen("distill", tmp_path / data, "-o", tmp_path / output, *flags)
    assert done.status == 2 and "is an input of this command" in done.stderr, done
    assert (tmp_path / data).read_text() == (tmp_path / "key").read_text() == text


@pytest.mark.slow
def test_the_command_prints_the_counts(tmp_path):
    data = tmp_path / "questions.jsonl"
    data.write_text(
        "".join(json.dumps({"question": row.question, "answer": row.answer}) + "\n" for row in ROWS)
    )
    with Commands() as thirteen, endpoint() as (_, url):
        out = tmp_path / "out.jsonl"
        done = thirteen("distill", data, "--endpoint", url, "--model", "wise", "-o", out, "--json")
        assert json.loads(done.stdout) == {
            "output": str(out), "teacher": "wise", "kept": 5, "wrong": 1, "resumed": 0,
        }  # fmt: skip
        data.write_text('{"question": "Why?"}\n')
        assert (
            "line 1: 'answer' is missing"
            in thirteen("distill", data, "--endpoint", url, "--model", "wise", "-o", out).stderr
        )
