"""An engine's life with forks, callbacks and Ctrl-C: nothing hangs, and the model is freed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event

import gguf
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.model import Model
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.native.native_handle import NativeHandle
from thirteen.runtime.prompt.prompt_encoder import Message

from ...repeats import REPEATS
from ...server.serving import open_engine

pytestmark = pytest.mark.slow

TIMEOUT_S = 60


def run_program(program, *arguments):
    """Run a program in a process of its own; returns its lines."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FORK = """
import os, sys
from thirteen import Engine, ThirteenError

def attempt(name, action):
    try:
        print(name, action() or "done", flush=True)
    except ThirteenError as error:
        print(name, type(error).__name__, flush=True)

engine = Engine(sys.argv[1], threads=2, context=64)
request = engine.request("a", max_tokens=2)
if sys.argv[2] == "used":
    engine.submit(request).answer()
handle = engine.submit(engine.request("b", max_tokens=40))
if not (child := os.fork()):
    attempt("answer", lambda: engine.answer("a", max_tokens=2))
    attempt("submit", lambda: engine.submit(request))
    attempt("wait", lambda: handle.answer() and None)
    attempt("iterate", lambda: list(handle) and None)
    attempt("logits", lambda: engine.logits([1, 2]) and None)
    attempt("tokenize", lambda: engine.model.tokenize("a", special=False, bos=False) and None)
    attempt("new", lambda: Engine(sys.argv[1], threads=2, context=64) and None)
    attempt("close", engine.close)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("parent", engine.answer("a", max_tokens=2).usage.completion_tokens > 0, handle.answer().stop_reason)
engine.close()
"""


LEFT_OPEN = """
import atexit, sys, threading
atexit.register(lambda: print([one.name for one in threading.enumerate() if "engine" in one.name]))
from thirteen import Engine

engine = Engine(sys.argv[1], threads=1, context=64)
next(iter(engine.stream("a", max_tokens=50)))
handles = [engine.stream("b", max_tokens=50) for _ in range(8)]
"""


def test_nothing_computes_when_the_interpreter_ends(tiny):
    """A script that died with requests running crashed in native code instead."""
    assert run_program(LEFT_OPEN, tiny) == ["[]"]


ASKED_LATE = """
import atexit, sys

def ask():
    for action in (engine.answer, lambda _: Engine(sys.argv[1], threads=1, context=64)):
        try:
            print(action("a"))
        except ClosedError as error:
            print(error)
    engine.close()

atexit.register(ask)
from thirteen import Engine
from thirteen.errors import ClosedError

engine = Engine(sys.argv[1], threads=1, context=64)
engine.answer("a", max_tokens=2)
"""


def test_who_asks_when_nothing_computes_any_more_gets_an_error(tiny):
    """The request waited for ever."""
    assert run_program(ASKED_LATE, tiny) == ["the process ends, and computes nothing any more"] * 2


DROPPED = """
import gc, sys, time, warnings
from psutil import Process
from thirteen import Engine
from thirteen.runtime.native.compute_thread import COMPUTE_THREAD

def freed():
    while COMPUTE_THREAD._attached:
        time.sleep(0.01)
    return Process().memory_info().rss / 1e6

warnings.simplefilter("always", ResourceWarning)
for number in range(4):
    engine = Engine(sys.argv[1], threads=1, slots=4, prefix_bytes=0)
    handle = engine.stream("a", max_tokens=2) if number else None
    if number == 2:
        engine.itself = engine  # in a cycle, which the garbage collector ends
    opened = Process().memory_info().rss / 1e6
    del engine
    if handle:
        print(handle.answer().stop_reason)
    gc.collect()
    print(opened > freed() + 100)
    first = freed() if number == 0 else first
print(freed() < first + 100, freed())  # an engine has 570, and the modules that answers need up to 35
engine = Engine(sys.argv[2], threads=1)
handles = [engine.stream("b", max_tokens=50) for _ in range(8)]
del engine, handles[1:]  # the interpreter ends while the others go on
"""


def test_engines_that_are_dropped_give_their_memory_back(smollm2, tiny):
    command = [sys.executable, "-c", DROPPED, smollm2, tiny]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines == ["True", *["length", "True"] * 3]
    assert last.startswith("True")
    assert done.stderr.count(f"ResourceWarning: unclosed engine of {smollm2}") == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("state", ["used", "busy"])
def test_a_forked_child_gets_errors_and_its_parent_goes_on(tiny, state):
    lines = run_program(FORK, tiny, state)
    names = ("answer", "submit", "wait", "iterate", "logits", "tokenize", "new")
    assert lines[:8] == [*(f"{name} RequestError" for name in names), "close done"]
    assert lines[8].startswith("parent True")


def test_callbacks_may_wait_ask_and_close(tiny):
    """They ran in the compute thread: the first deadlocked, and the last left it unusable."""
    results, closed = [], Event()
    with open_engine(tiny, slots=2, context=128) as engine:
        question = engine.request("a", max_tokens=3)

        def ask(handle):
            results.append(handle.answer(TIMEOUT_S))
            results.append(engine.answer("b", max_tokens=3))
            results.append(engine.answer("2 c", effort="medium", max_tokens=3))
            engine.close()
            closed.set()

        engine.submit(question).add_done_callback(ask)
        assert closed.wait(TIMEOUT_S) and len(results) == 3 and engine.closed
    with open_engine(tiny, slots=2, context=128) as again:
        assert again.answer("a", max_tokens=3).usage.completion_tokens


class Natives:
    """Counts the native handles that are open."""

    def __init__(self, monkeypatch):
        self.open = 0
        acquire = NativeHandle.acquire

        def count(native, load, free, log):
            def loaded():
                handle = load()
                self.open += 1
                return handle

            def freed(handle):
                free(handle)
                self.open -= 1

            return acquire(native, loaded, freed, log)

        monkeypatch.setattr(NativeHandle, "acquire", count)


@pytest.mark.parametrize("delay_us", [0, 20, 50, 100, 150, 200, 300, 500, 800, 1200, 2000, 4000])
def test_ctrl_c_during_close_leaves_nothing_open(tiny, monkeypatch, delay_us):
    """A second close() ends what an interrupt before the first prevented."""
    for _ in range(REPEATS):
        natives = Natives(monkeypatch)
        engine = Engine(tiny, threads=1, context=64)
        handle = engine.submit(engine.request("a", max_tokens=60))
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, max(delay_us, 1) / 1e6)
            engine.close()
            Event().wait(0.05)  # the signal may come after it
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            engine.close()
        assert natives.open == 0 and handle.done
        monkeypatch.undo()


def test_ctrl_c_while_a_model_loads_frees_it(tiny, monkeypatch):
    """It stayed in memory for good."""
    natives, loading, load = Natives(monkeypatch), Event(), llama_cpp.llama_model_load_from_file

    def load_slowly(*arguments):
        signal.raise_signal(signal.SIGALRM)
        loading.wait(0.05)
        return load(*arguments)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", load_slowly)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Model(tiny)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert natives.open == 0


def test_ctrl_c_during_answers_leaves_the_engine_working(tiny):
    """It could leave a lock taken that the compute thread needs: every later answer hung."""
    random = Random(13)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    with open_engine(tiny, slots=2, context=128) as engine:
        try:
            for _ in range(60 * REPEATS):
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 2e-2))
                    for _ in engine.submit(engine.request("a", max_tokens=100)):
                        pass
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert (
                    engine.submit(engine.request("b", max_tokens=1)).answer(TIMEOUT_S).usage.completion_tokens
                )
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert interrupted > 10


def test_models_are_loaded_while_templates_are_rendered(tiny, write_tiny, tmp_path):
    source = "{% for n in range(20000) %}{{ messages[0].content }}{% endfor %}"
    key = {"tokenizer.chat_template": (source, gguf.GGUFValueType.STRING, None)}
    path = write_tiny(tmp_path / "slow.gguf", key)
    done = Event()

    def render(_):
        rendered = 0
        while not done.is_set():
            with suppress(RequestError):  # the prompt is too long
                engine.conversation([Message("user", "ab")])
            rendered += 1
        return rendered

    with open_engine(path, context=128) as engine, ThreadPoolExecutor(4) as pool:
        rendering = pool.map(render, range(4))
        try:
            for _ in range(5 * REPEATS):
                with open_engine(tiny, context=128) as other:
                    assert other.answer("a", max_tokens=1).usage.completion_tokens
        finally:
            done.set()
        assert min(rendering) > 0


def test_many_threads_neither_hang_nor_crash_an_engine_that_is_closed_meanwhile(tiny):
    script = Path(__file__).with_name("concurrent_clients.py")
    command = [sys.executable, script, tiny, str(2 * REPEATS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S * REPEATS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
