"""Threads beside other programs, on a simulated machine: fewer at once, and all of them again soon."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from thirteen.runtime.llama import thread_governor
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.thread_governor import ThreadGovernor, idle_seconds
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.native.settings import Settings

STEP_S = 0.008  # of a decode step
JUDGED_S = 0.03  # computing time after which the limit changes, at the earliest
AT_ONCE_S = JUDGED_S + STEP_S
RAISE_MAX_S = 1.0  # between two attempts to use more threads


@dataclass
class Machine:
    """Processors that this process shares with other busy programs, and their clocks."""

    processors: int = 2
    others: int = 0
    wall_s: float = 5000.0
    granted_s: float = 70.0
    idle_s: float = 900.0
    current: ClassVar["Machine"]

    def compute(self, threads: int, seconds: float = STEP_S) -> int:
        """Threads that spin at their barriers: each program gets its share of the processors."""
        runnable = threads + self.others
        granted = threads * min(1.0, self.processors / runnable)
        self.wall_s += seconds
        self.granted_s += seconds * granted
        self.idle_s += seconds * max(0, self.processors - runnable)
        return 7

    def pause(self, seconds: float) -> None:
        """No request runs."""
        self.wall_s += seconds
        self.idle_s += seconds * max(0, self.processors - self.others)

    def governor(self, maximum: int | None = None) -> ThreadGovernor:
        """A governor on this machine, until another one is made."""
        Machine.current = self
        return ThreadGovernor(maximum or self.processors)

    def steps(self, governor: ThreadGovernor, seconds: float) -> Iterator[int]:
        """The limit after each step, for some simulated time."""
        end = self.wall_s + seconds
        while self.wall_s < end:
            governor.resume()
            threads = governor.limit
            assert governor.run(lambda threads=threads: self.compute(threads), threads) == 7
            yield governor.limit


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks and pauses of the governor are those of the current machine."""
    Machine.current = Machine()
    clocks = {"perf_counter": "wall_s", "process_time": "granted_s", "idle_seconds": "idle_s"}
    for name, clock in clocks.items():
        monkeypatch.setattr(thread_governor, name, lambda clock=clock: getattr(Machine.current, clock))

    def pause(seconds: float) -> None:
        Machine.current.pause(seconds)

    monkeypatch.setattr(thread_governor, "sleep", pause)


@pytest.mark.parametrize("processors", [1, 2, 4, 64])
def test_a_quiet_machine_keeps_the_maximum(processors: int) -> None:
    machine = Machine(processors)
    assert set(machine.steps(machine.governor(), 30)) == {processors}


@pytest.mark.parametrize("processors", [2, 3, 4, 8])
def test_a_lost_processor_lowers_the_limit_at_once(processors: int) -> None:
    """With eight, the missing one is a smaller share of what the threads wanted than before."""
    machine = Machine(processors)
    governor = machine.governor()
    assert set(machine.steps(governor, 10)) == {processors}
    machine.others = 1
    *_, limit = machine.steps(governor, AT_ONCE_S)
    assert limit == processors - 1
    assert set(machine.steps(governor, 10)) == {processors - 1}  # and it stays there


@pytest.mark.parametrize("processors", [2, 3, 4])
@pytest.mark.parametrize("others", [1, 2])
@pytest.mark.parametrize("beside_s", [0.1, 1, 60])
def test_all_threads_run_again_within_two_seconds(processors: int, others: int, beside_s: float) -> None:
    machine = Machine(processors, others)
    governor = machine.governor()
    *_, limit = machine.steps(governor, beside_s)
    assert limit < processors
    machine.others = 0
    *_, limit = machine.steps(governor, 2)
    assert limit == processors
    assert set(machine.steps(governor, 10)) == {processors}


def test_all_threads_run_at_once_after_a_pause_of_the_engine() -> None:
    """A prompt, which is one long batch, was read by one thread after a busy time in the past."""
    machine = Machine(others=1)
    governor = machine.governor()
    list(machine.steps(governor, 5))
    machine.others = 0
    machine.pause(60)
    governor.resume()
    assert governor.limit == 2


def test_attempts_that_fail_come_less_often_but_at_least_once_a_second() -> None:
    """The other program sleeps while this process uses one thread, and takes a processor from two."""
    machine = Machine()
    governor, raised = machine.governor(), []
    before = governor.limit
    end = machine.wall_s + 20
    while machine.wall_s < end:
        machine.others = governor.limit - 1
        (limit,) = machine.steps(governor, STEP_S / 2)
        if limit > before:
            raised.append(machine.wall_s)
        before = limit
    waits = [later - earlier for earlier, later in pairwise(raised)]
    assert len(raised) >= 15
    assert waits[0] < waits[1] and waits[0] < RAISE_MAX_S / 2 + 2 * AT_ONCE_S
    assert all(RAISE_MAX_S <= wait < RAISE_MAX_S + 3 * AT_ONCE_S for wait in waits[3:])


def test_a_short_disturbance_does_not_lower_the_limit() -> None:
    """One step of four without its second processor is no other program."""
    machine = Machine()
    governor = machine.governor()
    for number in range(400):
        machine.others = number % 8 == 0
        list(machine.steps(governor, STEP_S / 2))
        assert governor.limit == 2


@pytest.mark.parametrize(("usable", "idle_s"), [({0, 1, 3}, 7.0), ({1}, 2.0), ({7}, 7.0)])
def test_processors_that_are_offline_have_no_times(
    usable: set[int], idle_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the processors 0, 1 and 3, the last was the third, and so not counted."""
    times = [SimpleNamespace(idle=idle) for idle in (1, 2, 4)]
    monkeypatch.setattr(thread_governor.psutil, "cpu_times", lambda percpu: times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    assert idle_seconds() == idle_s


def native_threads(context: Context) -> tuple[int, int]:
    return llama_cpp.llama_n_threads(context.handle), llama_cpp.llama_n_threads_batch(context.handle)


def test_a_lowered_limit_reaches_llama_cpp_and_is_taken_back(tiny: Path) -> None:
    machine = Machine(others=1)
    params = Settings(128, 1, 64, threads=2, outputs=1, prefill_threads=3, adaptive_threads=True)
    with Model(tiny) as model, Context(model, params) as context:
        assert native_threads(context) == (2, 3)
        context._governor = machine.governor(maximum=3)
        run = context._governor.run
        context._governor.run = lambda compute, threads: run(  # type: ignore[method-assign]
            lambda: compute() or machine.compute(threads, 0.1) * 0, threads
        )
        for position in range(4):
            context.decode([Span(0, position, (1,), rows=1)])
        assert native_threads(context) == (1, 1)
        machine.others, machine.processors = 0, 3
        for position in range(4, 34):
            context.decode([Span(0, position, (1,), rows=1)])
        assert native_threads(context) == (2, 3)


class Unmoved(ThreadGovernor):
    """A governor that keeps its limit, whatever other programs do."""

    def resume(self) -> None:
        pass

    def _adapt(self) -> None:
        pass


@pytest.mark.exhaustive
@pytest.mark.parametrize("flash", [True, False])
def test_a_reproducible_context_gives_the_same_bits_with_any_number_of_threads(
    smollm2: Path, flash: bool
) -> None:
    """A batch beside a busy program was a third as fast, because its threads did not adapt."""
    params = Settings(
        800, 2, 512, threads=2, outputs=2, flash_attention=flash, adaptive_threads=True, reproducible=True
    )
    tokens = tuple(range(1000, 1600))
    rows = []
    with Model(smollm2) as model:
        for limit in (2, 1):
            with Context(model, params) as context:
                context._governor = Unmoved(2)
                context._governor.limit = limit
                for slot in (0, 1):
                    context.decode([Span(slot, 0, tokens[:512], 0)])
                    context.decode([Span(slot, 512, tokens[512:], 1)])
                both = context.decode([Span(slot, 600, (77 + slot,), 1) for slot in (0, 1)])
                found = [context.logits_row(row).copy() for row in both]
                (row,) = context.decode([Span(0, 601, (5,), 1)])
                rows.append([*found, context.logits_row(row).copy()])
                assert native_threads(context) == (2 if flash else limit, limit)
    assert all(np.array_equal(one, other) for one, other in zip(*rows, strict=True))
