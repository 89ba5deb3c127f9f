"""`thirteen serve` as a process: startup, shutdown, bad options, and the examples of the README."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import httpx
import numpy as np
import pytest

from ..commands import Commands
from ..runtime.gguf_adapters import write_lora
from ..waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/serving.md", "docs/apps.md", "docs/engine.md")
LONG = {"prompt": "a", "max_tokens": 256, "temperature": 1, "seed": 1, "n": 16, "stream": True}


@dataclass(frozen=True)
class ServeProcess:
    process: subprocess.Popen[str]
    notes: list[str]
    line: str
    url: str

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def running(model: Path, *options: object, **process_options: object) -> Iterator[ServeProcess]:
    """Run `thirteen serve` on a free port."""
    command = [sys.executable, "-m", "thirteen", "serve", model, "--port", 0, "--threads", 1, *options]
    words = list(map(str, command))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **process_options) as process:
        try:
            notes = []
            while not (line := process.stderr.readline()).startswith("serving "):
                assert line, notes
                notes.append(line)
            yield ServeProcess(process, notes, line, line.split()[-1])
        finally:
            process.kill()


def test_sigterm_finishes_running_requests_and_rejects_new_ones(tiny):
    options = ("--name", "mine", "--context", 256)
    with running(tiny, *options) as server, ThreadPoolExecutor() as threads:
        assert re.fullmatch(r"serving mine at http://127\.0\.0\.1:\d+\n", server.line)
        stream = threads.submit(_stream_chunks, server.url)
        wait_until(lambda: "\nthirteen_slots_used 0.0" not in httpx.get(f"{server.url}/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        assert httpx.post(f"{server.url}/v1/completions", json=LONG).status_code == 503
        assert not stream.done(), "the stream ended before the test could check it"
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in stream.result()]
        assert len([reason for reason in reasons if reason]) == LONG["n"]
        assert server.process.wait(TIMEOUT_S) == 0


@pytest.fixture
def hangs_up():
    """Under nohup SIGHUP is ignored, also by the processes of the tests."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.usefixtures("hangs_up")
def test_sighup_loads_model_and_keys_anew_without_refusing_a_request(tiny, write_tiny, tmp_path):
    """It ended the server without a line."""
    model, keys, first, second = tmp_path / "m.gguf", tmp_path / "keys", "a" * 20, "b" * 20
    shutil.copy(tiny, model)
    keys.write_text(f"app: {first}\n")
    keys.chmod(0o600)
    with running(model, "--api-key-file", keys, "--log", "json", "--slots", 1) as server:
        ended, statuses = Event(), Counter()

        def ask(**body):
            headers = {"Authorization": f"Bearer {first}", "X-Request-ID": "111"}
            url, asked = f"{server.url}/v1/completions", {"prompt": "a", "max_tokens": 4} | body
            return httpx.post(url, json=asked, headers=headers, timeout=TIMEOUT_S)

        def keep_asking():
            while not ended.is_set():
                statuses[ask().status_code] += 1

        def read_log():
            logged.extend(json.loads(line) for line in server.process.stderr)

        logged = []
        Thread(target=read_log, daemon=True).start()

        with ThreadPoolExecutor() as threads, ExitStack() as stack:
            stack.callback(ended.set)
            asking = [threads.submit(keep_asking) for _ in range(3)]
            wait_until(lambda: statuses[200] > 5)
            text = ask().json()["choices"][0]["text"]
            write_tiny(tmp_path / "new.gguf", arrays={"token_embd.weight": np.ones((259, 64), np.float32)})
            (tmp_path / "new.gguf").replace(model)
            keys.write_text(f"app: {first}\nnew: {second}\n")
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: ask().json()["choices"][0]["text"] != text)
            count = statuses[200]
            wait_until(lambda: statuses[200] > count + 5)
        assert [one.result() for one in asking] and set(statuses) == {200}
        models = httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {second}"})
        assert models.status_code == 200, "the new key"
        keys.write_text("short\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("not reloaded" in one.get("message", "") for one in logged))
        assert ask().status_code == 200, "what cannot be loaded stays as it was"
        assert server.stop(signal.SIGTERM) == 0
        line = next(one for one in logged if "request_id" in one)
        expected = {"request_id": "111", "key": "app", "status": 200, "stop_reasons": ["length"]}
        assert line | expected == line
        assert datetime.fromisoformat(line["time"]).tzinfo and line["completion_tokens"] == 4
        assert any(one.get("message", "").startswith("reloaded in") for one in logged)


@pytest.mark.exhaustive
def test_under_nohup_sighup_is_ignored_and_that_is_said(tiny):
    with running(tiny, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as server:
        assert "SIGHUP is ignored, as under nohup" in server.notes[0]
        server.process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert server.stop(signal.SIGTERM) == 0
        assert server.process.stderr.read() == ""


@pytest.mark.exhaustive
def test_sigint_exits_with_130(tiny):
    with running(tiny) as server:
        assert server.stop(signal.SIGINT) == 130
        assert server.process.stderr.read() == "interrupted\n"


def _stream_chunks(url):
    """Chunks of a stream, which must end with [DONE]."""
    with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=TIMEOUT_S) as response:
        *chunks, done, rest = "".join(response.iter_text()).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def test_bad_option_is_a_one_line_error(tiny, tmp_path):
    limits, lora = tmp_path / "limits.toml", write_lora(tmp_path / "lora.gguf", 0)
    limits.write_text("drain_s = -1")
    with Commands() as thirteen, socket.create_server(("127.0.0.1", 0)) as listener:
        for options, reason in (
            (["--host", "0.0.0.0"], "--host 0.0.0.0: accepts connections from other machines"),
            (["--api-key-file", tmp_path / "none"], "none: No such file"),
            (["--port", listener.getsockname()[1]], "in use"),
            (["--adapter", f"tiny={lora}"], "the base model already has this name"),
            (["--adapter", f"other={tmp_path / 'none.gguf'}"], "none.gguf"),
            (["--config", limits], "limits.toml: drain_s must be greater than or equal to 0, not -1"),
        ):
            done = thirteen("serve", tiny, *options)
            assert done.status == 2 and reason in done.stderr, (options, done)
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done


@pytest.fixture(scope="module")
def examples():
    """Language and code of the examples in the documents."""
    texts = [(ROOT / name).read_text("utf-8") for name in DOCUMENTS]
    return [example for text in texts for example in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)]


def run_code(program, code, folder=None):
    given = {"capture_output": True, "text": True, "timeout": TIMEOUT_S}
    return subprocess.run(program, check=False, input=code, cwd=folder, **given)


@pytest.mark.exhaustive
def test_python_examples_work(examples, smollm2, tmp_path):
    codes = [code for language, code in examples if language == "python" and "import Engine" in code]
    codes = [code for code in codes if "fastapi" not in code and "embed" not in code]  # of other tests
    assert len(codes) == 3
    (tmp_path / "my-model.gguf").symlink_to(smollm2)
    for code in codes:
        done = run_code([sys.executable, "-"], code, tmp_path)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("language", "program"),
    [("sh", ["bash", "-e"]), ("js", ["node", "--input-type=module"]), ("python", [sys.executable, "-"])],
)
def test_client_examples_work(examples, smollm2, language, program):
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed")
    codes = [code for lang, code in examples if lang == language and "http://127.0.0.1:8080/" in code]
    assert codes
    with running(smollm2) as server:
        for code in codes:
            local = code.replace("http://127.0.0.1:8080", server.url)
            done = run_code(program, local)
            assert done.returncode == 0, done.stderr
            assert "156" in done.stdout, done.stdout
            if language == "sh":
                assert json.loads(done.stdout)["verified"] is True
