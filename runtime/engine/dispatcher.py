"""Dispatcher: accepts requests from any thread, and has them computed step by step in the compute thread.

New requests and aborts wait until a step is over. So nothing in the runner needs a lock, and an aborted
request ends within one step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from threading import Condition, Lock
from typing import TYPE_CHECKING

from ...errors import BusyError, ClosedError, RequestError
from .. import compute
from ..llama.model import Model
from ..llama.sampler import Sampler
from ..prompt.chat_template import Thinking
from .handle import Grade, Handle
from .output_stream import OutputStream, Thought
from .runner import Output, Runner
from .scheduler import SequenceState

if TYPE_CHECKING:
    from ..llama.constraint import GrammarCompiler


class Dispatcher:
    """Accepts requests, as many as have a slot or a place in the queue, until it is `closed`."""

    def __init__(
        self, model: Model, runner: Runner, *, slots: int, queue: int, thinking: Thinking | None
    ) -> None:
        self._slots, self._queue, self._thinking = slots, queue, thinking
        self._model, self._runner = model, runner
        self._places: SimpleQueue[None] = SimpleQueue()  # no semaphore, whose lock Ctrl-C could leave taken
        self._release(slots + queue)
        self._users, self._unused = set[object](), Condition()  # the condition guards `closed` and the users
        self._compiling = Lock()
        self._stepping = False  # whether a step is posted; known to the compute thread alone
        self.closed = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model open for the caller's thread; ClosedError if it is closed, or after a fork."""
        user = object()
        try:
            with self._unused:
                if self.closed:
                    raise ClosedError("the engine is closed")
                compute.check_open()
                self._users.add(user)
            yield
        finally:  # also after an interrupt at any place
            with self._unused:
                self._users.discard(user)
                self._unused.notify_all()

    def submit(
        self, sequences: Sequence[tuple[SequenceState, Grade]], *, keep: object, wait: bool
    ) -> list[Handle]:
        """Accept all sequences or none; see Engine.submit_all(). They refer to `keep` until they end."""
        if not wait and len(sequences) > (places := self._slots + self._queue):
            raise RequestError(f"{len(sequences)} requests at once: slots and queue hold {places}")
        handles = list[Handle]()
        with ExitStack() as undo:
            while remaining := sequences[len(handles) :]:
                accepted = self._accept(remaining[: self._reserve(len(remaining), wait)], keep)
                handles += accepted
                for handle in accepted:
                    undo.callback(handle.abort)
            undo.pop_all()
        return handles

    def _reserve(self, wanted: int, wait: bool) -> int:
        """Reserve all `wanted` places or none; or, if the caller waits, from 1 to `wanted`."""
        reserved = 0
        with suppress(Empty):
            while reserved < wanted:
                self._places.get(block=wait and not reserved)
                reserved += 1
        if reserved < wanted and not wait:
            self._release(reserved)
            raise self._full()
        return reserved

    def check_places(self) -> None:
        """Raise BusyError if the queue is full."""
        if self._places.empty():
            raise self._full()

    def _full(self) -> BusyError:
        return BusyError(f"{self._slots} requests run and {self._queue} wait: the queue is full")

    def _release(self, places: int) -> None:
        for _ in range(places):
            self._places.put(None)

    def _accept(self, sequences: Sequence[tuple[SequenceState, Grade]], keep: object) -> list[Handle]:
        with ExitStack() as undo:
            undo.callback(self._release, len(sequences))
            with self.in_use():
                outputs = {
                    sequence: self._output(sequence, grade, keep, undo) for sequence, grade in sequences
                }
                compute.post(partial(self._add, outputs))
            undo.pop_all()
        handles = [output.handle for output in outputs.values()]
        for handle in handles:
            handle.add_done_callback(lambda _: self._release(1))
        return handles

    def _output(self, sequence: SequenceState, grade: Grade, keep: object, undo: ExitStack) -> Output:
        thought = self._thought(sequence)
        sampler = undo.enter_context(self._sampler(sequence, thought))
        handle = Handle(partial(self._abort, sequence), grade)
        stream = OutputStream(self._model, sequence.request.options, thought)
        return Output(sampler, stream, handle, keep)

    def _thought(self, sequence: SequenceState) -> Thought | None:
        options = sequence.request.options
        if self._thinking is None or options.thinks is False or options.ignore_end:
            return None
        begun, most = self._thinking.begun(sequence.request.tokens), sequence.remaining * 3 // 4
        if begun is False:
            return None
        budget = min(options.think_budget or most, most)
        return Thought(self._thinking, begun=bool(begun), budget=budget)

    def _sampler(self, sequence: SequenceState, thought: Thought | None) -> Sampler:
        options, constraint = sequence.request.options, None
        if options.grammar:
            with self._compiling:
                constraint = self._compiler.constraint(options.grammar, thought)
        return Sampler(self._model, options, constraint)

    @cached_property
    def _compiler(self) -> "GrammarCompiler":
        from ..llama.constraint import GrammarCompiler  # noqa: PLC0415 - imports llguidance, 40 ms

        return GrammarCompiler(self._model)

    def _abort(self, sequence: SequenceState) -> None:
        with suppress(ClosedError):  # the process is ending
            compute.post(partial(self._guard, partial(self._runner.abort, sequence)))

    def _add(self, outputs: dict[SequenceState, Output]) -> None:
        self._guard(partial(self._runner.add, outputs))
        self._post_step()

    def _post_step(self) -> None:
        if not self._stepping and not self._runner.scheduler.idle:
            self._stepping = True
            with suppress(ClosedError):  # the process is ending
                compute.post(self._step)

    def _step(self) -> None:
        self._stepping = False
        self._guard(self._runner.step)
        self._post_step()

    def _guard(self, action: Callable[[], None]) -> None:
        """Run an action of the runner; an unexpected error fails all requests and closes the engine."""
        try:
            action()
        except Exception as failure:
            with self._unused:
                self.closed = True
            self._runner.fail(failure)

    def close(self) -> None:
        """Abort all requests, once nobody uses the model any more."""
        with self._unused:
            self.closed = True
            self._unused.wait_for(lambda: not self._users)
        with suppress(ClosedError):  # the process is ending, or was forked
            compute.call(partial(self._guard, self._runner.abort_all))
