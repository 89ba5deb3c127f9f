"""The server as a process: how it begins, how it ends, and the README's examples as they are printed."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import httpx
import pytest

from ...commands import Commands

TIMEOUT_S = 60
README = Path(__file__).parents[3] / "README.md"
APPS = README.parent / "docs/apps.md"
LONG = {"prompt": "a", "max_tokens": 256, "temperature": 1, "seed": 1, "n": 16, "stream": True}


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    line: str
    url: str

    def ended(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def running(model: Path, *options: object) -> Iterator[Running]:
    """The command `thirteen serve` at a free port."""
    words = [sys.executable, "-m", "thirteen", "serve", str(model), "--port", "0", "--threads", "1", *options]
    with subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            yield Running(process, line, line.split()[-1])
        finally:
            process.kill()


def test_it_says_where_it_serves_what(tiny):
    with running(tiny, "--name", "mine") as server:
        assert re.fullmatch(r"serving mine at http://127\.0\.0\.1:\d+\n", server.line)
        listed = httpx.get(f"{server.url}/v1/models").json()
        assert [model["id"] for model in listed["data"]] == ["mine"]
        refused = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"})
        assert refused.status_code == 403, "on this machine without a key, only its own names are answered"
        assert server.ended(signal.SIGTERM) == 0
        assert server.process.stderr.read() == ""


def test_when_it_is_ended_what_runs_is_finished_and_no_more_is_taken(tiny):
    with running(tiny, "--context", 256) as server, ThreadPoolExecutor() as threads:
        stream = threads.submit(_streamed, server.url)
        _until(lambda: _metric(server.url, "thirteen_slots_used") > 0)
        server.process.send_signal(signal.SIGTERM)
        sleep(0.02)
        refused = httpx.post(f"{server.url}/v1/completions", json=LONG)
        assert (refused.status_code, httpx.get(f"{server.url}/ready").status_code) == (503, 503)
        assert not stream.done(), "it shows nothing if all had ended before"
        ends = [chunk["choices"][0]["finish_reason"] for chunk in stream.result()]
        assert len([end for end in ends if end]) == LONG["n"]
        assert server.process.wait(TIMEOUT_S) == 0


def test_interrupted_it_ends_as_every_command_does(tiny):
    with running(tiny) as server:
        assert server.ended(signal.SIGINT) == 130
        assert server.process.stderr.read() == "interrupted\n"


def _streamed(url):
    """The chunks of a stream that ends as it should."""
    with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=TIMEOUT_S) as response:
        *chunks, done, nothing = "".join(response.iter_text()).split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def _metric(url, name):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def _until(holds):
    while not holds():
        sleep(0.005)


def test_what_cannot_be_served_is_one_line(tiny, tmp_path):
    with Commands() as thirteen, socket.create_server(("127.0.0.1", 0)) as taken:
        for options, reason in (
            (["--host", "0.0.0.0"], "0.0.0.0 is reached from other machines"),
            (["--api-key-file", tmp_path / "none"], "none: No such file"),
            (["--port", taken.getsockname()[1]], "in use"),
            (["--host", "256.1.1.1", "--insecure"], "256.1.1.1 port 8080"),
            (["--adapter", "file.gguf"], "give NAME=ADAPTER"),
            (["--adapter", "tiny=file.gguf"], "the model itself has this name"),
            (["--adapter", f"other={tmp_path / 'none.gguf'}"], "none.gguf"),
            (["--profile", "toaster"], "'toaster' is not one of"),
            (["--drain-seconds", "-1"], "drain"),
        ):
            done = thirteen("serve", tiny, *options)
            assert done.status == 2 and reason in done.stderr, (options, done)
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done


@pytest.fixture(scope="module")
def examples():
    """The code of the README's section on serving and of the page for app builders, by its language."""
    section = README.read_text("utf-8").split("\n### Serve it\n")[1].split("\n### ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section + APPS.read_text("utf-8"), re.DOTALL)


def test_the_example_in_python_works_as_printed(examples, smollm2, tmp_path):
    (code,) = [code for kind, code in examples if kind == "python"]
    (tmp_path / "my-model.gguf").symlink_to(smollm2)
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\S+ (True|False)\n", done.stdout)


@pytest.mark.parametrize(
    ("language", "program"), [("sh", ["bash", "-e"]), ("js", ["node", "--input-type=module"])]
)
def test_the_readmes_examples_work_as_printed(examples, smollm2, language, program):
    if not shutil.which(program[0]):
        pytest.skip(f"there is no {program[0]}")
    found = [code for kind, code in examples if kind == language and "127.0.0.1:8080/" in code]
    assert found
    with running(smollm2) as server:
        for code in found:
            here = code.replace("http://127.0.0.1:8080", server.url)
            done = subprocess.run(
                program, check=False, input=here, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            assert done.returncode == 0, done.stderr
            assert "156" in done.stdout, done.stdout
            if language == "sh":
                assert json.loads(done.stdout)["verified"] is True
