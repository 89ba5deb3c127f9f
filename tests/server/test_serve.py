"""`thirteen serve` as a process: startup, shutdown, bad options, and the examples of the README."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
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


class ServeProcess(subprocess.Popen):
    """`thirteen serve` on a free port, with the lines that it prints up to the one with its address."""

    def __init__(self, model, *options, **process_options):
        command = [sys.executable, "-m", "thirteen", "serve", model, "--port", 0, "--threads", 1, *options]
        super().__init__(list(map(str, command)), stderr=subprocess.PIPE, text=True, **process_options)
        self.lines = [self.stderr.readline()]
        while not self.lines[-1].startswith("serving "):
            assert self.lines[-1], self.lines
            self.lines.append(self.stderr.readline())
        self.url = self.lines[-1].split()[-1]

    def __exit__(self, *error):
        self.kill()
        super().__exit__(*error)

    def stop(self, number):
        self.send_signal(number)
        return self.wait(TIMEOUT_S)


def test_sigterm_finishes_running_requests_and_rejects_new_ones(tiny):
    options = ("--name", "mine", "--context", 256)
    with ServeProcess(tiny, *options) as server, ThreadPoolExecutor() as threads:
        assert re.fullmatch(r"serving mine at http://127\.0\.0\.1:\d+\n", server.lines[-1])
        stream = threads.submit(_stream_chunks, server.url)
        wait_until(lambda: "\nthirteen_slots_used 0.0" not in httpx.get(f"{server.url}/metrics").text)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        assert httpx.post(f"{server.url}/v1/completions", json=LONG).status_code == 503
        assert not stream.done(), "the stream ended before the test could check it"
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in stream.result()]
        assert len([reason for reason in reasons if reason]) == LONG["n"]
        assert server.wait(TIMEOUT_S) == 0


def test_sighup_loads_model_and_keys_anew_without_refusing_a_request(tiny, write_tiny, tmp_path):
    """It ended the server without a line."""
    model, keys, first, second = tmp_path / "m.gguf", tmp_path / "keys", "a" * 20, "b" * 20
    shutil.copy(tiny, model)
    keys.write_text(f"app: {first}\n")
    keys.chmod(0o600)
    options = ("--api-key-file", keys, "--log", "json", "--slots", 1)
    with ServeProcess(
        model, *options, preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    ) as server:
        ended, statuses = Event(), Counter()

        def ask(**body):
            headers = {"Authorization": f"Bearer {first}", "X-Request-ID": "111"}
            url, asked = f"{server.url}/v1/completions", {"prompt": "a", "max_tokens": 4} | body
            return httpx.post(url, json=asked, headers=headers, timeout=TIMEOUT_S)

        def keep_asking():
            while not ended.is_set():
                statuses[ask().status_code] += 1

        logged = []
        Thread(target=lambda: logged.extend(map(json.loads, server.stderr)), daemon=True).start()
        with ThreadPoolExecutor() as threads, ExitStack() as stack:
            stack.callback(ended.set)
            asking = [threads.submit(keep_asking) for _ in range(3)]
            wait_until(lambda: statuses[200] > 5)
            text = ask().json()["choices"][0]["text"]
            write_tiny(tmp_path / "new.gguf", arrays={"token_embd.weight": np.ones((259, 64), np.float32)})
            (tmp_path / "new.gguf").replace(model)
            keys.write_text(f"app: {first}\nnew: {second}\n")
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: ask().json()["choices"][0]["text"] != text)
        assert [one.result() for one in asking] and set(statuses) == {200}
        models = httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {second}"})
        assert models.status_code == 200, "the new key"
        keys.write_text("short\n")
        server.send_signal(signal.SIGHUP)
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
    with ServeProcess(tiny, preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)) as server:
        assert "SIGHUP is ignored, as under nohup" in server.lines[0]
        server.send_signal(signal.SIGHUP)
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert server.stop(signal.SIGTERM) == 0
        assert server.stderr.read() == ""


@pytest.mark.exhaustive
def test_sigint_exits_with_130(tiny):
    with ServeProcess(tiny) as server:
        assert server.stop(signal.SIGINT) == 130
        assert server.stderr.read() == "interrupted\n"


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
    done = subprocess.run(program, check=False, input=code, cwd=folder, **given)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    return done.stdout


@pytest.mark.exhaustive
def test_python_examples_work(examples, smollm2, tmp_path):
    codes = [code for language, code in examples if language == "python" and "import Engine" in code]
    codes = [code for code in codes if "fastapi" not in code and "embed" not in code]  # of other tests
    assert len(codes) == 3
    (tmp_path / "my-model.gguf").symlink_to(smollm2)
    for code in codes:
        run_code([sys.executable, "-"], code, tmp_path)


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
    with ServeProcess(smollm2) as server:
        for code in codes:
            output = run_code(program, code.replace("http://127.0.0.1:8080", server.url))
            assert "156" in output
            if language == "sh":
                assert json.loads(output)["verified"] is True
