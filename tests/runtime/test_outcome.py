"""Results of other threads: waiting, callbacks, event loops, and interrupts at any moment."""

import asyncio
import signal
import threading
import time
from random import Random

import pytest
from thirteen.runtime.outcome import Outcome, Signal

TIMEOUT_S = 60


def after(seconds, action, *arguments):
    timer = threading.Timer(seconds, action, arguments)
    timer.daemon = True
    timer.start()


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_result_reaches_all_that_wait(seconds):
    outcome, found = Outcome(), []
    threads = [
        threading.Thread(target=lambda: found.append(outcome.result(TIMEOUT_S)), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    after(seconds, outcome.set_result, 13)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert found == [13] * 8 and outcome.done and outcome.failure is None


def test_a_callback_is_called_once():
    for moment in ("before", "after"):
        outcome, calls = Outcome(), []
        if moment == "after":
            outcome.set_result(1)
        outcome.call_at_end(lambda calls=calls: calls.append(1))
        if moment == "before":
            assert not calls
            outcome.set_result(1)
        assert calls == [1]


def test_an_event_loop_waits():
    async def wait():
        outcome = Outcome()
        after(0.05, outcome.set_result, 13)
        await asyncio.wait_for(outcome.wait(), TIMEOUT_S)
        await outcome.wait()  # ended already
        return outcome.result(0)

    assert asyncio.run(wait()) == 13


def test_the_end_of_an_outcome_whose_loop_is_closed_is_no_error():
    outcome = Outcome()

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outcome.wait(), 0.01)

    asyncio.run(give_up())
    outcome.set_result(1)
    assert outcome.result() == 1


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture
def interrupts():
    """interrupts(seconds): raise Interrupted in this thread after so long, wherever it is then."""

    def interrupt(*_):
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that interrupt")
@pytest.mark.parametrize("seed", range(2))
def test_no_interrupt_of_a_waiter_holds_up_the_other_thread(interrupts, seed):
    """With threading.Condition, one in some thousand interrupts left its lock taken for ever."""
    random, box, running = Random(seed), {}, True
    notified = Signal()

    def compute():
        while running:
            if outcome := box.pop("next", None):
                notified.notify_all()
                outcome.set_result(1)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    interrupted = 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        box["next"] = outcome = Outcome()
        try:
            interrupts(random.uniform(1e-6, 2e-4))
            notified.wait_for(lambda: "next" not in box, TIMEOUT_S)
            outcome.result(TIMEOUT_S)
            interrupts(0)
        except Interrupted:
            interrupted += 1
        interrupts(0)
        assert outcome.wait_done(TIMEOUT_S), "the other thread hangs"
    running = False
    thread.join(TIMEOUT_S)
    assert not thread.is_alive() and interrupted > 10
