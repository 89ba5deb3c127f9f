"""`thirteen mcp` with the official client, over a real process: tools, bad input, and its end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters
from thirteen.runtime.options import Options
from thirteen.server.mcp import create_server

from ..waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
PROTOCOL = "2025-06-18"
QUESTION = "Repeat exactly: 12 * 13 ="
STORY = {"question": "Tell a long story of 3 bears.", "effort": "high"}


@pytest.fixture(scope="module")
def command(smollm2):
    options = ("--context", "512", "--threads", "1")
    return [sys.executable, "-m", "thirteen", "mcp", str(smollm2), *options]


@pytest.fixture(scope="module")
def call(command):
    """call(method, …): a method of the official client, for tests without an event loop."""
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Client(server)) as client:
        yield lambda method, *args: portal.call(getattr(client, method), *args)


def value(call, name, **arguments):
    """The result of a call, of which the text says the same."""
    result = call("call_tool", name, arguments)
    (content,) = result.content
    assert not result.is_error and json.loads(content.text) == result.structured_content
    return result.structured_content


def test_solve(call):
    solve, check = call("list_tools").tools
    assert (solve.name, check.name) == ("solve", "check_arithmetic")
    assert (solve.input_schema["required"], check.input_schema["required"]) == (["question"], ["text"])
    found = value(call, "solve", question=QUESTION)
    step = {"expression": "12 * 13", "claimed": "156", "computed": "156", "ok": True}
    assert (found["value"], found["verified"]) == ("156", True) and found["steps"][0].items() >= step.items()
    assert "12 * 13 = 156" in found["text"] and found["complete"]


def test_a_solution_that_is_cut_off_says_so(tool_server, say):
    """Its last value looked like the final one, and it was verified."""

    async def solve(options):
        async with Client(create_server(tool_server.service.engine, options)) as client:
            return (await client.call_tool("solve", {"question": "How many?"})).structured_content

    say("1 + 1 = 2. 2 + 2 = 4")
    for max_tokens, complete in ((11, False), (50, True)):
        found = asyncio.run(solve(Options(calculator=False, max_tokens=max_tokens)))
        assert (found["verified"], found["complete"]) == (True, complete)


def test_check_arithmetic(call):
    text = "Café: 12 * 13 = 156, so 2 + 2 = 5. 20% of 85 = 18. Then x + 2 = 7 m."
    found = value(call, "check_arithmetic", text=text)
    assert found["unchecked"] == ["20% of 85 = 18.", "Then x + 2 = 7 m."]
    steps = [(step["expression"], step["computed"], step["ok"]) for step in found["steps"]]
    assert steps == [("12 * 13", "156", True), ("2 + 2", "4", False)]


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("solve", {}, "question\n  Field required"),
        ("solve", {"question": " \n"}, "solve: the question is empty"),
        ("solve", {"question": "x" * 32_769}, "question\n  String should have at most 32768 characters"),
        ("solve", {"question": "x", "effort": "most"}, "effort\n  Input should be 'low', 'medium' or 'high'"),
    ],
)
def test_bad_input_is_an_error_that_the_caller_can_correct(call, name, arguments, problem):
    result = call("call_tool", name, arguments)
    (content,) = result.content
    assert result.is_error and problem in content.text and len(content.text) < 400


@contextmanager
def server_process(command):
    """The server, with a client's first words said; yields it and a function that sends."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:

        def send(**message):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()

        try:
            start = {"protocolVersion": PROTOCOL, "capabilities": {}}
            send(id=1, method="initialize", params=start | {"clientInfo": {"name": "test", "version": "1"}})
            assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "thirteen"
            send(method="notifications/initialized")
            yield process, send
        finally:
            process.kill()


@pytest.mark.exhaustive
def test_it_ends_when_its_input_ends_though_it_is_busy(command):
    with server_process(command) as (process, send):
        send(id=2, method="tools/call", params={"name": "solve", "arguments": STORY})
        server = psutil.Process(process.pid)
        children, start_s = server.children(recursive=True), server.cpu_times().user
        wait_until(lambda: server.cpu_times().user > start_s + 0.5)  # it is busy
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        replies = [json.loads(line) for line in output.splitlines()]
        assert not any("result" in reply for reply in replies), "it did not wait for the answer"
        assert psutil.wait_procs(children, timeout=TIMEOUT_S)[1] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_though_its_input_is_open(command, number):
    with server_process(command) as (process, _):
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == -number


FAILING = "from thirteen.runtime.engine.runner import Runner; Runner.step = None; import thirteen.__main__"


@pytest.mark.exhaustive
def test_a_failed_engine_ends_it_though_its_input_is_open(command):
    """It answered every later call "the engine is closed"."""
    with server_process([sys.executable, "-c", FAILING, *command[3:]]) as (process, send):
        send(id=2, method="tools/call", params={"name": "solve", "arguments": {"question": QUESTION}})
        replies = [json.loads(line) for line in process.stdout]
        (answer,) = (reply for reply in replies if reply.get("id") == 2)
        assert answer["result"]["isError"]
        assert process.wait(TIMEOUT_S) == 1
        assert "error: the engine has failed: the server ends\n" in process.stderr.read()


def test_without_the_extra_a_line_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['mcp'] = None; sys.argv[1:] = ['mcp']; import thirteen.__main__"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: thirteen mcp needs the package mcp: install the extra `mcp`")
