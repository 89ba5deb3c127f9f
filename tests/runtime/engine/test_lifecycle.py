"""An engine's life with forks, Ctrl-C and the end of the process: nothing hangs, and the model is freed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import get_ident, main_thread
from time import sleep

import pytest
from thirteen.runtime import compute
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.llama_cpp_library import LLAMA_CPP

from ...repeats import REPEATS
from ..fakes import TIMEOUT_S

pytestmark = pytest.mark.slow


def run_program(*words, seconds=TIMEOUT_S):
    """Run Python in a process of its own; returns the lines of its output, and its errors."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


FORK = """
import os, sys
from thirteen import Engine, ThirteenError

engine = Engine(sys.argv[1], threads=2, context=64)
request = engine.request("a", max_tokens=2)
engine.submit(request).answer()
handle = engine.stream("b", max_tokens=40)
if not (child := os.fork()):
    for action in (
        lambda: engine.answer("a", max_tokens=2),
        lambda: engine.submit(request),
        lambda: engine.logits([1, 2]),
        lambda: engine.embed(["a"]),
        lambda: Engine(sys.argv[1], threads=2, context=64),
        engine.close,
    ):
        try:
            print(action(), flush=True)
        except ThirteenError as error:
            print(type(error).__name__, flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(engine.answer("a", max_tokens=2).usage.completion_tokens, handle.wait())
engine.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_gets_errors_and_its_parent_goes_on(tiny):
    lines, _ = run_program("-c", FORK, tiny)
    assert lines[:6] == [*["ClosedError"] * 5, "None"]
    assert lines[6].startswith("2 ")


ENDING = """
import atexit, sys, threading

def ask():
    print([thread.name for thread in threading.enumerate() if "compute" in thread.name])
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
next(iter(engine.stream("a", max_tokens=50)))
handles = [engine.stream("b", max_tokens=50) for _ in range(8)]
"""


def test_nothing_computes_when_the_interpreter_ends_and_who_asks_then_gets_an_error(tiny):
    """It crashed in native code, or waited for ever."""
    lines, _ = run_program("-c", ENDING, tiny)
    assert lines == ["[]", *["the process is ending and computes nothing any more"] * 2]


DROPPED = """
import gc, sys, time, warnings
from psutil import Process
from thirteen import Engine

def megabytes():
    return Process().memory_info().rss / 1e6

warnings.simplefilter("always", ResourceWarning)
for number in range(3):
    engine = Engine(sys.argv[1], threads=1, slots=4, prefix_bytes=0)
    handle = engine.stream("a", max_tokens=2) if number else None
    if number == 2:
        engine.itself = engine  # in a cycle, which the garbage collector ends
    opened, end = megabytes(), time.monotonic() + 30
    del engine
    if handle:
        print(handle.answer().stop_reason)
    while megabytes() > opened - 100 and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    print(time.monotonic() < end)
engine = Engine(sys.argv[2], threads=1)
handles = [engine.stream("b", max_tokens=50) for _ in range(8)]
del engine, handles[1:]  # the interpreter ends while the others go on
"""


@pytest.mark.exhaustive
def test_engines_that_are_dropped_give_their_memory_back_after_their_requests(smollm2, tiny):
    lines, errors = run_program("-c", DROPPED, smollm2, tiny)
    assert lines == ["True", *["length", "True"] * 2]
    assert errors.count(f"ResourceWarning: unclosed engine of {smollm2}") == 3


@contextmanager
def interrupts():
    """Let SIGALRM do what Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_during_answers_leaves_the_engine_working(engine):
    """It could leave a lock taken that the compute thread needs: every later answer hung."""
    random, interrupted = Random(13), 0
    with interrupts():
        for _ in range(60 * REPEATS):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 2e-2))
                for _ in engine.stream("a", max_tokens=100):
                    pass
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert engine.stream("b", max_tokens=1).answer(TIMEOUT_S).usage.completion_tokens
    assert interrupted > 10


@pytest.mark.exhaustive
def test_many_threads_neither_hang_nor_crash_an_engine_that_is_closed_meanwhile(tiny):
    script = Path(__file__).with_name("concurrent_clients.py")
    assert run_program(script, tiny, 2 * REPEATS, seconds=TIMEOUT_S * REPEATS) == ([], "")


# The calls of the library that may open a parallel region.
PARALLEL = ("load_model", "new_context", "decode", "load_adapter")


def test_what_is_called_after_an_interrupt_comes_after_the_interrupted_call():
    """SIGTERM freed the model under a batch that was being computed."""
    ended = []

    def interrupted():
        signal.pthread_kill(main_thread().ident, signal.SIGALRM)
        sleep(0.1)
        ended.append(True)

    with interrupts():
        with pytest.raises(KeyboardInterrupt):
            compute.call(interrupted)
        assert compute.call(lambda: [*ended]) == [True]


def test_engines_that_other_threads_load_compute_in_one(tiny, loras, monkeypatch):
    """Models were loaded in the caller's thread, where repacking for AMX made a second team."""
    calls = set()  # of functions, and the threads that call them
    computing = compute.call(get_ident)

    def recorded(name, function):
        return lambda *args, **options: calls.add((name, get_ident())) or function(*args, **options)

    for name in PARALLEL:
        monkeypatch.setattr(LLAMA_CPP, name, recorded(name, getattr(LLAMA_CPP, name)))

    def use(adaptive_threads):
        adapters = {"other": loras["a"]}
        with Engine(tiny, adapters=adapters, context=64, adaptive_threads=adaptive_threads) as engine:
            engine.answer("1 + 1?", max_tokens=3)
            engine.prompt_logprobs((1, 2, 3))
            engine.logits((1, 2, 3))
            engine.answer("1 + 1?", max_tokens=3, adapter="other")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(use, (False, True)))
    assert calls == {(name, computing) for name in PARALLEL}
