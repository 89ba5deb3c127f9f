"""The way in: requests of any thread go to the one that computes, and what comes of them to their handles.

The driver's thread runs the steps of a Runner. What callers want of it, a new request or the end of one,
waits until the step is over; so nothing in the runner needs a lock, and a request is gone within one step.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import BoundedSemaphore, Condition

from ...errors import BusyError, RequestError
from .. import request as state
from ..llama.compute_thread import COMPUTE_THREAD
from ..llama.model import Model
from ..llama.sampler import Sampler
from .handle import Handle
from .output_stream import OutputStream
from .runner import Runner


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How many requests have a slot, and how many wait for one."""

    running: int
    waiting: int


class Dispatcher:
    """Where requests are taken in, as many at once as run and may wait.

    Attributes:
        slots: how many run.
        queue: how many may wait.
    """

    def __init__(self, model: Model, runner: Runner, *, slots: int, queue: int) -> None:
        """Begin with none; the model and the runner are to be there until this is closed."""
        self.slots, self.queue = slots, queue
        self._model, self._runner = model, runner
        self._places = BoundedSemaphore(slots + queue)
        self._handles: dict[state.SequenceState, Handle] = {}
        self._lock = Condition()  # of whether it is closed, who uses the model, and the driver steps it
        self._closed = self._closing = self._attached = self._broken = False
        self._users = 0

    @property
    def load(self) -> EngineLoad:
        """How many requests there are now."""
        running = self._runner.running
        return EngineLoad(running, max(len(self._handles) - running, 0))

    @property
    def closed(self) -> bool:
        """Whether it takes no more: it was closed, or an error that nobody foresaw has ended it."""
        return self._closed

    def close(self) -> bool:
        """End what is running, once nobody uses the model any more; False if somebody did so before."""
        with self._lock:
            if self._closing:
                return False
            self._closing = self._closed = True
            self._lock.wait_for(lambda: not self._users)
        if self._attached:
            COMPUTE_THREAD.call(self._finish)
            COMPUTE_THREAD.detach(self)
        return True

    @contextmanager
    def using(self) -> Iterator[None]:
        """Keep the model while a caller's thread uses it.

        Raises:
            RequestError: the engine is closed.
        """
        with self._lock:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._lock.notify_all()

    def submit(self, sequences: Sequence[state.SequenceState], *, wait: bool) -> list[Handle]:
        """Take in sequences, or none of them; see Engine.submit_all()."""
        left = deque(sequences)
        handles: list[Handle] = []
        try:
            while left:
                places = self._reserve(len(left), wait)
                handles += self._take_in([left.popleft() for _ in range(places)])
        except BaseException:
            for handle in handles:
                handle.abort()
            raise
        return handles

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute; for the driver, as the next."""
        return self._broken or self._runner.idle

    def step(self) -> None:
        """Compute one batch, and tell the handles."""
        self._guarded(self._step)

    def _check_open(self) -> None:
        if self._closed:
            raise RequestError("engine: it is closed")

    def _reserve(self, wanted: int, wait: bool) -> int:
        """Take up to so many places, and at least one."""
        if not self._places.acquire(blocking=wait):
            raise BusyError(f"{self.slots} requests run and {self.queue} wait: no place for another")
        taken = 1
        while taken < wanted and self._places.acquire(blocking=False):
            taken += 1
        return taken

    def _take_in(self, sequences: Sequence[state.SequenceState]) -> list[Handle]:
        """Give sequences, for which places are taken, to the thread."""
        with ExitStack() as undo:
            undo.callback(self._places_back, len(sequences))
            with self.using(), ExitStack() as made:
                samplers = [made.enter_context(_sampler(self._model, one.request)) for one in sequences]
                handles = self._hand_over(sequences, samplers)
                made.pop_all()
            undo.pop_all()
        return handles

    def _places_back(self, count: int) -> None:
        for _ in range(count):
            self._places.release()

    def _hand_over(
        self, sequences: Sequence[state.SequenceState], samplers: Sequence[Sampler]
    ) -> list[Handle]:
        def add() -> None:
            for sequence, sampler, reply in zip(sequences, samplers, replies, strict=True):
                self._runner.add(sequence, sampler, reply)

        replies = [_reply(self._model, sequence.request) for sequence in sequences]
        handles = {sequence: Handle(partial(self._abort, sequence)) for sequence in sequences}
        with self._lock:
            self._check_open()
            if not self._attached:
                COMPUTE_THREAD.attach(self)
                self._attached = True
            self._handles |= handles
            self._post(add)
        return list(handles.values())

    def _abort(self, sequence: state.SequenceState) -> None:
        self._post(partial(self._runner.abort, sequence))

    def _post(self, action: Callable[[], None]) -> None:
        COMPUTE_THREAD.post(partial(self._guarded, action))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something in the driver's thread; an error that nobody foresaw ends the engine."""
        try:
            action()
        except Exception as failure:
            with self._lock:
                self._broken = self._closed = True
            while self._handles:
                self._handles.popitem()[1].fail(failure)
                self._places.release()

    def _step(self) -> None:
        for update in self._runner.step():
            if update.end is None:
                self._handles[update.sequence].put(update)
                continue
            handle = self._handles.pop(update.sequence)
            self._places.release()
            handle.fail(update.failure) if update.failure else handle.put(update)
        if self._runner.idle:
            self._runner.flush()

    def _finish(self) -> None:
        """End all requests."""
        for sequence in list(self._handles):
            self._guarded(partial(self._runner.abort, sequence))
        self.step()


def _sampler(model: Model, request: state.Request) -> Sampler:
    return Sampler(model, request.sampling, request.grammar)


def _reply(model: Model, request: state.Request) -> OutputStream:
    return OutputStream(model, request.stop, calculator=request.calculator and not request.grammar)
