"""Heavy traffic on the tiny model, with the real library: requests leave nothing behind."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from thirteen.errors import BusyError, RequestError
from thirteen.runtime.engine.dispatcher import EngineLoad
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar.grammar import from_regex
from thirteen.runtime.llama.compute_thread import COMPUTE_THREAD
from thirteen.runtime.request import Request, Sampling, StopReason

from ..gguf_adapters import write_lora

pytestmark = pytest.mark.slow

REQUESTS, CONTEXT = 3600, 64  # one hour at a request per second
GRAMMAR = from_regex(r"[a-c]+\.|#[0-9]{2}")
ADAPTERS = ("base", "a", "b", None)
SHARED = tuple(b"the same prefix of many prompts, ")


def resident_pages():
    return int(Path("/proc/self/statm").read_text("ascii").split()[1])


class Traffic:
    """Random clients of an engine; every request is counted, and its handle is dropped at its end."""

    def __init__(self, engine, seed):
        self.engine, self.random = engine, Random(seed)
        self.running, self.reasons, self.submitted, self.refused = {}, Counter(), 0, Counter()

    def act(self):
        """One random action: a vote, an abort or a request."""
        chance = self.random.random()
        try:
            if chance < 0.02:
                self.vote()
            elif chance < 0.25 and self.running:
                self.random.choice(list(self.running.values())).abort()
            else:
                self.submit()
        except BusyError:
            self.refused["busy"] += 1
            for handle in list(self.running.values())[:1]:
                handle.wait(10)
        except RequestError as error:
            assert "tokens, but the context holds" in str(error)
            self.refused["too long"] += 1

    def submit(self):
        self.count(self.engine.submit(self.request()))

    def vote(self):
        for handle in self.engine.poll("What is 1 + 1?", 3, max_tokens=6).handles:
            self.count(handle)

    def request(self):
        random = self.random
        length = random.choice((1, random.randint(1, 30), random.randint(30, CONTEXT + 2)))
        prefix = SHARED[: random.choice((0, 0, 20, 32))]
        tokens = (*prefix, *random.choices(range(256), k=max(length - len(prefix), 1)))
        grammar = GRAMMAR if random.random() < 0.05 else None
        return Request(
            tokens,
            random.choice((1, random.randint(1, 12), 500 if random.random() < 0.1 else 5)),
            Sampling(random.choice((0, 0.5, 2.0)), seed=random.randint(0, 99)),
            stop=random.choice(((), (), ("e",), ("1", "xyz"))),
            calculator=random.random() < 0.5,
            grammar=grammar,
            adapter=random.choice(ADAPTERS),
            logprobs=random.choice((None, 0, 3)),
            ignore_end=grammar is None and random.random() < 0.5,
        )

    def count(self, handle):
        self.submitted += 1
        self.running[id(handle)] = handle
        handle.call_at_end(self.on_done)

    def on_done(self, handle):
        self.reasons[handle.wait().stop_reason] += 1
        self.running.pop(id(handle), None)


def test_thousands_of_requests_leave_nothing_behind(tiny, tmp_path):
    loras = {name: write_lora(tmp_path / f"{name}.gguf", seed) for seed, name in enumerate("ab")}
    options = {"context": CONTEXT, "slots": 4, "threads": 1, "batch": 48, "queue": 12}
    with Engine(tiny, adapters=loras, prefix_bytes=1 << 18, **options) as engine:
        traffic, peaks = Traffic(engine, seed=13), [0, 0]
        while traffic.submitted < REQUESTS:
            traffic.act()
            if traffic.submitted > REQUESTS // 10:  # by then all allocated memory has been touched
                half = traffic.submitted > REQUESTS // 2
                peaks[half] = max(peaks[half], resident_pages())
        for handle in list(traffic.running.values()):
            handle.wait(10)
        assert engine.load == EngineLoad(0, 0)
        assert not traffic.running and sum(traffic.reasons.values()) == traffic.submitted
        context = engine._runner._context
        assert [context.length(slot) for slot in range(4)] == [0] * 4
        assert engine.answer("1", max_tokens=3).usage.completion_tokens
    assert set(traffic.reasons) == set(StopReason) and set(traffic.refused) == {"busy", "too long"}
    assert peaks[1] <= 1.02 * peaks[0], (
        f"{peaks[0]} pages resident in the first half, {peaks[1]} in the second"
    )
    assert engine._dispatcher not in COMPUTE_THREAD._attached


def test_many_threads_neither_hang_nor_crash_an_engine_that_is_closed_meanwhile(tiny):
    script = Path(__file__).with_name("concurrent_clients.py")
    done = subprocess.run(
        [sys.executable, script, tiny, "40"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
