"""The one thread of a process that computes: all engines take turns in it, one step at a time.

OpenMP gives every thread that computes its own team of workers. With two such threads, libgomp counts more
workers than processors and lets them sleep at barriers instead of spinning. On two cores this halved the
speed of a small model, from 124 to 65 tokens per second, although one of the two threads was idle. So all
that may open a parallel region runs here: batches, contexts, and loading, where llama.cpp repacks weights for
AMX.
"""

import atexit
from _thread import start_new_thread
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Protocol, TypeAlias, TypeVar

from ...errors import ClosedError
from ..forks import ForkCheck
from ..outcome import Outcome

T = TypeVar("T")
_Inbox: TypeAlias = "SimpleQueue[Callable[[], object] | None]"


class Steppable(Protocol):
    """Something that computes step by step."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""

    def step(self) -> None:
        """Compute one step; must not raise."""


class KeepAlive:
    """Keeps the thread running while attached, without computing anything."""

    idle = True

    def step(self) -> None:
        """Do nothing."""


class ComputeThread:
    """A thread that runs while something is attached, and an inbox of calls to run in it."""

    def __init__(self) -> None:
        self._lock, self._fork = Lock(), ForkCheck()  # the lock guards _attached and _thread
        self._attached: tuple[Steppable, ...] = ()
        self._thread: Thread | None = None
        self._stopped = False
        self._inbox: _Inbox = SimpleQueue()

    def attach(self, steppable: Steppable) -> None:
        """Call step() whenever `steppable` is not idle, until it is detached; see check_open() for errors."""
        with self._lock:
            self.check_open()
            self._attached = (*self._attached, steppable)
            if self._thread is None:
                run = partial(self._run, self._inbox)
                self._thread = Thread(target=run, name="thirteen-engine", daemon=True)
                self._thread.start()

    def detach(self, steppable: Steppable) -> None:
        """Stop stepping; the thread ends when nothing is attached any more."""
        with self._lock:
            self._attached = tuple(other for other in self._attached if other is not steppable)
            thread = None if self._attached else self._end()
        _join(thread)

    def stop(self) -> None:
        """End the thread after its step: one that outlives the interpreter crashes the process."""
        if not self._fork.forked:
            with self._lock:
                self._stopped = True
                thread = self._end()
            _join(thread)

    def check_open(self) -> None:
        """Raise ClosedError after stop(): nobody would run what is posted."""
        if self._stopped:
            raise ClosedError("the process ends, and computes nothing any more")

    def _end(self) -> Thread | None:
        """Tell the thread to end, if there is one; another one has an inbox of its own."""
        thread, self._thread = self._thread, None
        if thread:
            self._inbox.put(None)
            self._inbox = SimpleQueue()
        return thread

    def post(self, action: Callable[[], object]) -> None:
        """Run `action` between two steps, if something is attached; it must not raise.

        Takes no lock and does not wait: a finalizer may call it, whatever it has interrupted.
        """
        self._inbox.put(action)

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` between two steps and return its result.

        Runs it in the caller's thread if nothing is attached: then nothing else computes.
        """
        if self._thread is None or current_thread() is self._thread:
            return function()
        outcome: Outcome[T] = Outcome()
        self.post(lambda: outcome.run(function))
        return _uninterrupted_result(outcome)  # the caller may then free what the function works on

    def _run(self, inbox: _Inbox) -> None:
        while self._run_inbox(inbox):
            for steppable in self._attached:
                if not steppable.idle:
                    steppable.step()

    def _run_inbox(self, inbox: _Inbox) -> bool:
        """Run the posted actions, waiting for one if there is nothing to compute; False at the end."""
        while not inbox.empty() or all(steppable.idle for steppable in self._attached):
            action = inbox.get()
            if action is None:
                return False
            action()
        return True


def _join(thread: Thread | None) -> None:
    """Wait for the end of a thread, unless it is this one: then it ends with what it does."""
    if thread and thread is not current_thread():
        thread.join()


def run_uninterrupted(function: Callable[[], None]) -> None:
    """Run a function to its end even if a signal raises something meanwhile, which is raised afterwards."""
    outcome: Outcome[None] = Outcome()
    # Thread.start() waits under a lock that an interrupt can leave taken, and the thread then never begins.
    start_new_thread(outcome.run, (function,))
    _uninterrupted_result(outcome)


def _uninterrupted_result(outcome: Outcome[T]) -> T:
    """Wait for a result even if a signal raises something meanwhile, which is raised afterwards."""
    interrupt = None
    while not outcome.done:
        try:
            outcome.wait_done()
        except BaseException as raised:
            interrupt = raised
    if interrupt is not None:
        raise interrupt
    return outcome.result(0)


COMPUTE_THREAD = ComputeThread()
atexit.register(COMPUTE_THREAD.stop)
