"""Threads beside other programs, on a simulated machine: fewer at once, and all of them again soon."""

import os
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest
from thirteen.runtime.llama import thread_governor
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.llama_cpp_library import llama_cpp
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.llama.thread_governor import ThreadGovernor, idle_seconds

STEP_S = 0.008  # of a decode step
AT_ONCE_S = 0.03 + STEP_S  # computing time after which the limit changes, at the earliest
RAISE_MAX_S = 1.0  # between two attempts to use more threads


@dataclass
class Machine:
    """Processors that this process shares with other busy programs, and their clocks."""

    processors: int = 2
    others: int = 0
    wall_s: float = 5000.0
    granted_s: float = 70.0
    idle_s: float = 900.0

    def compute(self, threads, seconds):
        """Threads that spin at their barriers: each program gets its share of the processors."""
        runnable = threads + self.others
        self.wall_s += seconds
        self.granted_s += seconds * threads * min(1.0, self.processors / max(runnable, 1))
        self.idle_s += seconds * max(0, self.processors - runnable)
        return 7

    def steps(self, governor, seconds, step_s=STEP_S):
        """The limit after each step, for some simulated time."""
        end = self.wall_s + seconds
        while self.wall_s < end:
            governor.resume()
            threads = governor.limit
            assert governor.run(lambda threads=threads: self.compute(threads, step_s), threads) == 7
            yield governor.limit


@pytest.fixture
def share(monkeypatch):
    """share(processors, others): a machine whose clocks are those of a governor, and the governor."""

    def share(processors=2, others=0):
        machine = Machine(processors, others)
        clocks = {"perf_counter": "wall_s", "process_time": "granted_s", "idle_seconds": "idle_s"}
        for name, clock in clocks.items():
            monkeypatch.setattr(thread_governor, name, lambda clock=clock: getattr(machine, clock))
        monkeypatch.setattr(thread_governor, "sleep", lambda seconds: machine.compute(0, seconds))
        return machine, ThreadGovernor(processors)

    return share


@pytest.mark.parametrize("processors", [1, 2, 3, 8])
def test_a_quiet_machine_keeps_the_maximum_and_a_lost_processor_lowers_it_at_once(share, processors):
    """With eight, the missing one is a smaller share of what the threads wanted than before."""
    machine, governor = share(processors)
    assert set(machine.steps(governor, 30)) == {processors}
    machine.others = 1
    *_, limit = machine.steps(governor, AT_ONCE_S)
    assert limit == max(1, processors - 1)
    assert set(machine.steps(governor, 10)) == {limit}  # and it stays there


@pytest.mark.parametrize("processors", [2, 3, 4])
@pytest.mark.parametrize("others", [1, 2])
@pytest.mark.parametrize("beside_s", [0.1, 1, 60])
def test_all_threads_run_again_within_two_seconds(share, processors, others, beside_s):
    machine, governor = share(processors, others)
    *_, limit = machine.steps(governor, beside_s)
    assert limit < processors
    machine.others = 0
    *_, limit = machine.steps(governor, 2)
    assert limit == processors
    assert set(machine.steps(governor, 10)) == {processors}


def test_all_threads_run_at_once_after_a_pause_of_the_engine(share):
    """A prompt, which is one long batch, was read by one thread after a busy time in the past."""
    machine, governor = share(others=1)
    list(machine.steps(governor, 5))
    machine.others = 0
    machine.compute(0, 60)
    governor.resume()
    assert governor.limit == 2


def test_attempts_that_fail_come_less_often_but_at_least_once_a_second(share):
    """The other program sleeps while this process uses one thread, and takes a processor from two."""
    machine, governor = share()
    limits = [(machine.wall_s, governor.limit)]
    while machine.wall_s < limits[0][0] + 20:
        machine.others = governor.limit - 1
        limits += [(machine.wall_s, limit) for limit in machine.steps(governor, STEP_S / 2, STEP_S / 2)]
    raised = [at for (_, before), (at, limit) in pairwise(limits) if limit > before]
    waits = [later - earlier for earlier, later in pairwise(raised)]
    assert len(raised) >= 15
    assert waits[0] < waits[1] and waits[0] < RAISE_MAX_S / 2 + 2 * AT_ONCE_S
    assert all(RAISE_MAX_S - STEP_S <= wait < RAISE_MAX_S + 3 * AT_ONCE_S for wait in waits[3:])


def test_a_short_disturbance_does_not_lower_the_limit(share):
    """One step of four without its second processor is no other program."""
    machine, governor = share()
    for number in range(400):
        machine.others = number % 8 == 0
        assert set(machine.steps(governor, STEP_S / 2)) == {2}


@pytest.mark.parametrize(("usable", "idle_s"), [({0, 1, 3}, 7.0), ({1}, 2.0), ({7}, 7.0)])
def test_processors_that_are_offline_have_no_times(usable, idle_s, monkeypatch):
    """Of the processors 0, 1 and 3, the last was the third, and so not counted."""
    times = [SimpleNamespace(idle=idle) for idle in (1, 2, 4)]
    monkeypatch.setattr(thread_governor.psutil, "cpu_times", lambda percpu: times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    assert idle_seconds() == idle_s


def native_threads(context):
    return llama_cpp.llama_n_threads(context.handle), llama_cpp.llama_n_threads_batch(context.handle)


def test_a_lowered_limit_reaches_llama_cpp_and_is_taken_back(tiny, monkeypatch):
    settings = Settings(128, 1, 64, threads=3, adaptive_threads=True)
    with Model(tiny) as model, Context(model, settings) as context:
        for granted, threads in ((0, (1, 1)), (3, (3, 3))):
            monkeypatch.setattr(thread_governor, "process_time", lambda n=granted: n * perf_counter())
            while native_threads(context) != threads:
                context.decode([Span(0, 0, (1,), rows=1)])
                context.clear(0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("flash", [True, False])
def test_a_reproducible_context_gives_the_same_bits_with_any_number_of_threads(smollm2, flash, monkeypatch):
    """A batch beside a busy program was a third as fast, because its threads did not adapt."""
    monkeypatch.setattr(thread_governor, "process_time", lambda: 0.0)  # no thread gets any time
    usual = Settings(800, 2, 512, threads=2, outputs=2, flash_attention=flash, reproducible=True)
    tokens, rows = tuple(range(1000, 1600)), []
    with Model(smollm2) as model:
        for settings in (usual, replace(usual, adaptive_threads=True)):
            with Context(model, settings) as context:
                for slot in (0, 1):
                    context.decode([Span(slot, 0, tokens[:512], 0)])
                    context.decode([Span(slot, 512, tokens[512:], 1)])
                both = context.decode([Span(slot, 600, (77 + slot,), 1) for slot in (0, 1)])
                rows.append([context.logits_row(row).copy() for row in both])
                found = native_threads(context)
    assert found == (2 if flash else 1, 1)
    assert np.array_equal(*rows)
