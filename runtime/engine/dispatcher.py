"""Dispatcher: passes requests from any thread to the compute thread, and its updates to their handles.

The compute thread runs the steps of a Runner. New requests and aborts wait until a step is over. So nothing
in the runner needs a lock, and an aborted request ends within one step.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from threading import RLock
from typing import TYPE_CHECKING

from ...errors import BusyError, ClosedError, RequestError
from ..answer import grade
from ..forks import ForkCheck
from ..llama.model import Model
from ..llama.sampler import Sampler
from ..native.compute_thread import COMPUTE_THREAD
from ..outcome import Signal
from ..prompt.thinking import Thinking
from ..request import Request, SequenceState
from .handle import Handle
from .output_stream import OutputStream
from .runner import Runner
from .thought import Thought

if TYPE_CHECKING:
    from ..llama.constraint import GrammarCompiler


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How many requests have a slot, and how many wait for one."""

    running: int
    waiting: int


class Dispatcher:
    """Accepts requests, as many as have a slot or a place in the queue.

    Attributes:
        slots: number of requests that run at once.
        queue: maximum number of waiting requests.
        closed: whether no more requests are accepted, after close() or an unexpected error.
    """

    def __init__(
        self, model: Model, runner: Runner, *, slots: int, queue: int, thinking: Thinking | None = None
    ) -> None:
        """Start without requests; model and runner must outlive close()."""
        self.slots, self.queue, self._thinking = slots, queue, thinking
        self._model, self._runner = model, runner
        self._places: SimpleQueue[None] = SimpleQueue()  # an item for each that is free
        self._release(slots + queue)
        self._handles: dict[SequenceState, Handle] = {}
        self._lock = RLock()  # guards the flags and counts below
        self._unused = Signal()
        self.closed = self._attached = self._broken = False
        self._users = 0
        self._fork = ForkCheck()

    @property
    def load(self) -> EngineLoad:
        """How many requests run and wait now."""
        running = self._runner.running
        return EngineLoad(running, max(len(self._handles) - running, 0))

    def close(self) -> None:
        """Abort all requests, once nobody uses the model any more."""
        with self._lock:
            self.closed = True
        self._unused.wait_for(lambda: not self._users)
        if self._attached:
            COMPUTE_THREAD.call(self._abort_all)
            COMPUTE_THREAD.detach(self)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model open while the caller's thread uses it.

        Raises:
            ClosedError: the engine is closed.
            RequestError: it belongs to the parent of a fork.
        """
        self._fork.check()
        with self._lock:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._unused.notify_all()

    def submit(self, sequences: Sequence[SequenceState], *, wait: bool) -> list[Handle]:
        """Accept all sequences or none; see Engine.submit_all()."""
        self._fork.check()
        if not wait and len(sequences) > (places := self.slots + self.queue):
            raise RequestError(f"{len(sequences)} requests at once: slots and queue hold {places}")
        remaining = deque(sequences)
        handles: list[Handle] = []
        try:
            while remaining:
                places = self._reserve(len(remaining), wait)
                handles += self._accept([remaining.popleft() for _ in range(places)])
        except BaseException:
            for handle in handles:
                handle.abort()
            raise
        return handles

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self._broken or self._runner.idle

    def step(self) -> None:
        """Compute one batch and update the handles."""
        self._guard(self._step)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("the engine is closed")
        COMPUTE_THREAD.check_open()

    def _reserve(self, wanted: int, wait: bool) -> int:
        """Reserve all `wanted` places or none; or, if the caller waits, from 1 to `wanted`."""
        reserved = 0
        try:
            while reserved < wanted:
                self._places.get(block=wait and not reserved)
                reserved += 1
        except Empty:
            if not wait:
                self._release(reserved)
                full = f"{self.slots} requests run and {self.queue} wait: the queue is full"
                raise BusyError(full) from None
        return reserved

    def _accept(self, sequences: Sequence[SequenceState]) -> list[Handle]:
        """Hand sequences over to the compute thread; their places are reserved."""
        with ExitStack() as undo:
            undo.callback(self._release, len(sequences))
            with self.in_use(), ExitStack() as owned:
                streams = [self._stream(one) for one in sequences]
                samplers = [
                    owned.enter_context(self._sampler(one.request, stream.thought))
                    for one, stream in zip(sequences, streams, strict=True)
                ]
                handles = self._hand_over(sequences, samplers, streams)
                owned.pop_all()
            undo.pop_all()
        return handles

    def _release(self, places: int) -> None:
        for _ in range(places):
            self._places.put(None)

    def _stream(self, sequence: SequenceState) -> OutputStream:
        request, room = sequence.request, sequence.remaining
        calculator, thought = request.calculator and not request.grammar, None
        if self._thinking and request.think_budget != 0 and not request.ignore_end:
            begun, most = self._thinking.begun(request.tokens), room - room // 4
            if begun is not False:
                budget = min(request.think_budget or most, most)
                thought = Thought(self._thinking, begun=bool(begun), budget=budget)
        once = request.stop_repeated_calls
        return OutputStream(
            self._model, request.stop, calculator=calculator, thought=thought, stop_repeated_calls=once
        )

    def _sampler(self, request: Request, thought: Thought | None) -> Sampler:
        constraint = None
        if request.grammar:
            with self._lock:
                compiler = self._compiler
            constraint = compiler.constraint(request.grammar)
            if thought:
                from .deferred_constraint import DeferredConstraint  # noqa: PLC0415 - imports llguidance

                constraint = DeferredConstraint(constraint, self._model, thought)
        return Sampler(self._model, request.sampling, constraint)

    @cached_property
    def _compiler(self) -> "GrammarCompiler":
        """The compiler of this model's grammars, which is made for the first of them."""
        from ..llama.constraint import GrammarCompiler  # noqa: PLC0415 - imports llguidance, 40 ms

        return GrammarCompiler(self._model)

    def _hand_over(
        self, sequences: Sequence[SequenceState], samplers: Sequence[Sampler], streams: Sequence[OutputStream]
    ) -> list[Handle]:
        handles = {
            one: Handle(partial(self._abort, one), partial(grade, one.request), partial(self._place, one))
            for one in sequences
        }

        def add() -> None:
            for sequence, sampler, stream in zip(sequences, samplers, streams, strict=True):
                self._runner.add(sequence, sampler, stream)

        with self._lock:
            self._check_open()
            if not self._attached:
                COMPUTE_THREAD.attach(self)
                self._attached = True
            self._handles |= handles
            self._post(add)
        return list(handles.values())

    def _abort(self, sequence: SequenceState) -> None:
        self._post(partial(self._runner.abort, sequence))

    def _place(self, sequence: SequenceState) -> int:
        """See Handle.place."""
        waiting = [one for one in tuple(self._handles) if one.slot is None]
        return waiting.index(sequence) + 1 if sequence in waiting else 0

    def _post(self, action: Callable[[], None]) -> None:
        COMPUTE_THREAD.post(partial(self._guard, action))

    def _guard(self, action: Callable[[], None]) -> None:
        """Run an action in the compute thread; an unexpected error fails all requests and closes it."""
        try:
            action()
        except Exception as failure:
            with self._lock:
                self._broken = self.closed = True
            while self._handles:
                self._handles.popitem()[1].fail(failure)
                self._release(1)

    def _step(self) -> None:
        for sequence, piece, failure in self._runner.step():
            if piece.end is None:
                self._handles[sequence].put(piece)
                continue
            handle = self._handles.pop(sequence)
            self._release(1)
            handle.fail(failure) if failure else handle.put(piece)

    def _abort_all(self) -> None:
        for sequence in list(self._handles):
            self._guard(partial(self._runner.abort, sequence))
        if not self._broken:  # what is left has failed with the engine
            self.step()
