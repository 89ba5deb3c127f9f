"""Threads beside other programs, on a simulated machine: fewer at once, and all of them again soon."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.thread_governor import ThreadGovernor, idle_seconds

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
        return ThreadGovernor(
            maximum or self.processors,
            clock=lambda: self.wall_s,
            processor_clock=lambda: self.granted_s,
            idle_clock=lambda: self.idle_s,
            wait=self.pause,
        )

    def steps(self, governor: ThreadGovernor, seconds: float) -> Iterator[int]:
        """The limit after each step, for some simulated time."""
        end = self.wall_s + seconds
        while self.wall_s < end:
            governor.resume()
            threads = governor.limit
            assert governor.run(lambda threads=threads: self.compute(threads), threads) == 7
            yield governor.limit


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


def test_several_lost_processors_leave_as_many_threads_as_were_granted() -> None:
    machine = Machine(processors=8, others=8)
    *_, limit = machine.steps(machine.governor(), AT_ONCE_S)
    assert limit == 4


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


def test_a_disturbance_long_after_another_is_no_failed_attempt() -> None:
    """After minutes of quiet the first attempt comes as early as at the very first time."""
    machine = Machine()
    governor = machine.governor()
    for _ in range(5):
        machine.others = 1
        list(machine.steps(governor, 3))
        machine.others = 0
        began = machine.wall_s
        assert 2 in machine.steps(governor, 2)
        assert machine.wall_s - began <= 2
        list(machine.steps(governor, 120))
    machine.others = 1
    list(machine.steps(governor, AT_ONCE_S))
    machine.others = 0
    *_, limit = machine.steps(governor, 0.6)
    assert limit == 2


def test_a_step_of_seconds_lowers_the_limit_after_that_one_step() -> None:
    """A thread that waits for a processor holds up the other one: a step took seconds."""
    machine = Machine(others=1)
    governor = machine.governor()
    governor.run(lambda: machine.compute(2, seconds=3.0), 2)
    assert governor.limit == 1


def test_a_short_disturbance_does_not_lower_the_limit() -> None:
    """One step of four without its second processor is no other program."""
    machine = Machine()
    governor = machine.governor()
    for number in range(400):
        machine.others = number % 8 == 0
        list(machine.steps(governor, STEP_S / 2))
        assert governor.limit == 2


def test_a_batch_with_fewer_threads_than_the_limit_is_judged_by_its_own() -> None:
    machine = Machine(processors=4)
    governor = machine.governor()
    for _ in range(100):
        governor.run(lambda: machine.compute(1), 1)
    assert governor.limit == 4


def test_one_thread_is_never_lowered_and_never_raised_beyond_the_maximum() -> None:
    machine = Machine(processors=8, others=64)
    governor = machine.governor(maximum=1)
    assert set(machine.steps(governor, 5)) == {1}
    machine.others = 0
    assert set(machine.steps(governor, 5)) == {1}


seconds = st.floats(0, 100, allow_subnormal=False)
batches = st.lists(st.tuples(seconds, seconds, seconds, seconds), max_size=60)


@given(st.integers(1, 64), batches)
def test_the_limit_stays_from_one_to_the_maximum(
    maximum: int, sequence: list[tuple[float, float, float, float]]
) -> None:
    """Whatever the clocks say: a batch's wall, own and idle time, and a pause before it."""
    machine = Machine()
    governor = machine.governor(maximum)
    for wall_s, granted_s, idle_s, pause_s in sequence:
        machine.pause(pause_s)

        def compute(wall_s: float = wall_s, granted_s: float = granted_s, idle_s: float = idle_s) -> int:
            machine.wall_s += wall_s
            machine.granted_s += granted_s
            machine.idle_s += idle_s
            return 0

        governor.run(compute, governor.limit)
        assert 1 <= governor.limit <= maximum


def test_the_real_idle_time_does_not_run_backwards() -> None:
    before = idle_seconds()
    assert before > 0 and idle_seconds() >= before


def native_threads(context: Context) -> tuple[int, int]:
    return llama_cpp.llama_n_threads(context.handle), llama_cpp.llama_n_threads_batch(context.handle)


def test_a_lowered_limit_reaches_llama_cpp_and_is_taken_back(tiny: Path) -> None:
    machine = Machine(others=1)
    params = ContextParams(128, 1, 64, 2, outputs=1, prefill_threads=3, adaptive_threads=True)
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


def test_without_adaptive_threads_the_number_is_fixed(tiny: Path) -> None:
    with Model(tiny) as model, Context(model, ContextParams(128, 1, 64, 2, outputs=1)) as context:
        assert context._governor is None
        context.decode([Span(0, 0, (1, 2, 3), rows=1)])
        assert native_threads(context) == (2, 2)


class Unmoved(ThreadGovernor):
    """A governor that keeps its limit, whatever other programs do."""

    def resume(self) -> None:
        pass

    def _adapt(self) -> None:
        pass


@pytest.mark.parametrize("flash", [True, False])
def test_a_reproducible_context_gives_the_same_bits_with_any_number_of_threads(
    smollm2: Path, flash: bool
) -> None:
    """A batch beside a busy program was a third as fast, because its threads did not adapt."""
    params = ContextParams(
        800, 2, 512, 2, outputs=2, flash_attention=flash, adaptive_threads=True, reproducible=True
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
