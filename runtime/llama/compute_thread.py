"""The one thread of a process that computes: all engines take turns in it, a step at a time.

OpenMP gives every thread that computes workers of its own. Where two threads do, libgomp counts more workers
than processors and has them sleep at barriers instead of waiting: on two cores that halved the speed of a
small model, 124 tokens a second to 65, though one of the two threads was idle.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Protocol, TypeVar

T = TypeVar("T")


class Steppable(Protocol):
    """Something that computes step by step."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""

    def step(self) -> None:
        """Compute a little; it does not raise."""


class KeepAlive:
    """Keeps the thread while it is attached, without anything to step."""

    idle = True

    def step(self) -> None:
        """Nothing."""


class ComputeThread:
    """The thread, which is there while something is attached, and what other threads want done in it."""

    def __init__(self) -> None:
        self._lock = Lock()  # of who is attached, and of the thread
        self._driven: tuple[Steppable, ...] = ()
        self._thread: Thread | None = None
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def attach(self, driven: Steppable) -> None:
        """Step something whenever it is not idle, until it is detached."""
        with self._lock:
            self._driven = (*self._driven, driven)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="thirteen-engine", daemon=True)
                self._thread.start()

    def detach(self, driven: Steppable) -> None:
        """Step it no more; the thread ends with the last that is attached."""
        with self._lock:
            self._driven = tuple(other for other in self._driven if other is not driven)
            if not self._driven and self._thread is not None:
                self._inbox.put(None)
                self._thread.join()
                self._thread = None

    def post(self, action: Callable[[], object]) -> None:
        """Have something done between two steps, while something is attached; it does not raise."""
        self._inbox.put(action)

    def call(self, function: Callable[[], T]) -> T:
        """Have something done in the thread, between two steps, and wait for what it gives.

        Where nothing is attached, and so nobody else computes, it is done here.
        """
        if self._thread is None or current_thread() is self._thread:
            return function()
        result: Future[T] = Future()
        self.post(lambda: _carry_out(function, result))
        try:
            return result.result()
        except KeyboardInterrupt:
            wait([result])  # what it works on may be freed from here on
            raise

    def _run(self) -> None:
        while self._listen():
            for driven in self._driven:
                if not driven.idle:
                    driven.step()

    def _listen(self) -> bool:
        """Do what others want, and wait for it if there is nothing to compute; False at the end."""
        while not self._inbox.empty() or all(driven.idle for driven in self._driven):
            action = self._inbox.get()
            if action is None:
                return False
            action()
        return True


def _carry_out(function: Callable[[], T], result: "Future[T]") -> None:
    try:
        result.set_result(function())
    except BaseException as failure:
        result.set_exception(failure)


COMPUTE_THREAD = ComputeThread()
