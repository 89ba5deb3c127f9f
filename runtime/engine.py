"""The engine: `step()` schedules, decodes, samples and emits; asking and streaming are loops around it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np

from ..errors import RequestError
from . import request as state
from .answer import Answer
from .cores import physical_cores
from .grammar import Grammar
from .llama import Adapter, Array, Context, Model, Room, Sampler, Span
from .reply import Reply
from .request import End, Event, Request, Sampling, StopReason, Token
from .scheduler import Chunk, Scheduler
from .text import Prompter, chat_template

_GREEDY = Sampling()
_LOGITS_ROWS = 64  # positions computed at once by logits(): each is a row of a vocabulary's width in memory


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer's text; the last piece also carries the whole answer."""

    text: str
    answer: Answer | None = None


class Engine:
    """A model that answers, several questions at once if they come so.

    Attributes:
        model: the model file, its vocabulary and its description.
        context: tokens of prompt and answer together that a request can have: as many as asked for, but never
            more than the model was trained for.
    """

    def __init__(  # noqa: PLR0913 - a user says here, once, all that can be said
        self,
        path: str | Path,
        *,
        adapter: str | Path | None = None,
        context: int = 2048,
        slots: int = 4,
        threads: int | None = None,
        batch: int = 512,
    ) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            adapter: a LoRA in a GGUF file, applied while running.
            context: the most tokens of a request, clamped to what the model was trained for.
            slots: how many requests run at once; others wait. Each has memory for `context` tokens set aside.
            threads: by default one for each physical core.
            batch: the most tokens computed in one step.

        Raises:
            ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
            AdapterError: the adapter is not one for this model.
            RequestError: a number is out of bounds.
        """
        with ExitStack() as handles:
            self.model = handles.enter_context(Model(Path(path)))
            lora = handles.enter_context(Adapter(self.model, Path(adapter))) if adapter is not None else None
            self.context = min(context, self.model.context_trained)
            threads = physical_cores() if threads is None else threads
            self._room = Room(self.context, slots, batch, threads, outputs=slots)
            self._native = handles.enter_context(Context(self.model, self._room, lora))
            template = chat_template(self.model.header, self.model.bos, self.model.eos)
            self._prompter = Prompter(self.model, template)
            self._handles = handles.pop_all()
        self._adapter = lora
        self._scheduler = Scheduler(slots, batch)
        self._ids = count(1)
        self._samplers: dict[int, Sampler] = {}
        self._replies: dict[int, Reply] = {}
        self._events: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is running and free the model; a second call does nothing."""
        for sequence in (*self._scheduler.running, *self._scheduler.waiting):
            self._end(sequence, StopReason.ABORTED)
        self._handles.close()

    @property
    def idle(self) -> bool:
        """Whether step() has nothing to compute and nothing to tell."""
        return self._scheduler.idle and not self._events

    def submit(self, request: Request) -> int:
        """Queue a request for the next steps.

        Returns:
            The number under which its events come and by which it can be aborted.

        Raises:
            RequestError: the prompt is longer than the context, has a token that the model does not know, or
                llama.cpp does not take the grammar.
        """
        self.model.check_tokens(request.tokens)
        if len(request.tokens) > self.context:
            raise RequestError(
                f"the prompt has {len(request.tokens)} tokens, but the context holds {self.context} "
                f"(the model was trained for {self.model.context_trained})"
            )
        sequence = state.Sequence(next(self._ids), request, self.context, submitted_at=perf_counter())
        self._samplers[sequence.id] = Sampler(self.model, request.sampling, request.grammar)
        self._scheduler.add(sequence)
        return sequence.id

    def abort(self, id: int) -> None:
        """End a request now and free its slot; nothing happens if it has ended already."""
        self._stop(id, StopReason.ABORTED)

    def step(self) -> list[Event]:
        """Compute one batch.

        Returns:
            What happened since the last step: tokens and ends, in order.

        Raises:
            ModelFileError: the computation failed. The requests that were in the batch have ended as aborted.
        """
        chunks = self._scheduler.plan()
        if chunks:
            try:
                self._compute(chunks)
            except BaseException:  # an interrupt as well: what their slots hold is not known any more
                for chunk in chunks:
                    self._stop(chunk.sequence.id, StopReason.ABORTED)
                raise
        events, self._events = self._events, []
        return events

    def _compute(self, chunks: Sequence[Chunk]) -> None:
        now = perf_counter()
        for chunk in chunks:
            chunk.sequence.started_at = chunk.sequence.started_at or now
        rows = iter(self._native.decode([_span(chunk) for chunk in chunks]))
        for chunk in chunks:
            chunk.sequence.computed += len(chunk.tokens)
            if chunk.samples:
                self._advance(chunk.sequence, next(rows))

    def _advance(self, sequence: state.Sequence, row: int) -> None:
        """Give a sequence its next token, and end it if that was the last."""
        reply = self._replies.get(sequence.id)
        sampler = self._samplers[sequence.id]
        token = sampler.sample(self._native, row, no_digit=reply is not None and reply.no_digit)
        sequence.last_token_at = perf_counter()
        sequence.first_token_at = sequence.first_token_at or sequence.last_token_at
        if self.model.ends(token) and not sequence.request.ignore_end:
            self._end(sequence, StopReason.END)
            return
        self._say(sequence, token)
        # A result goes in as one batch with the token before it, as a prompt does.
        for due in reply.due() if reply is not None else ():
            if sequence.stop_reason is not None:
                break
            self._say(sequence, due)

    def _say(self, sequence: state.Sequence, token: int) -> None:
        sequence.output.append(token)
        self._emit(Token(sequence.id, token))
        reply = self._replies.get(sequence.id)
        if reply is not None and reply.stopped:
            self._end(sequence, StopReason.STOP)
        elif sequence.full:
            self._end(sequence, StopReason.LENGTH)

    def _stop(self, id: int, reason: StopReason) -> None:
        sequence = self._scheduler.find(id)
        if sequence is not None:
            self._end(sequence, reason)

    def _end(self, sequence: state.Sequence, reason: StopReason) -> None:
        slot = self._scheduler.retire(sequence, reason)
        if slot is not None:
            self._native.clear(slot)
        self._samplers.pop(sequence.id).close()
        self._emit(End(sequence.id, reason, sequence.usage, sequence.timings))
        self._replies.pop(sequence.id, None)

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        reply = self._replies.get(event.id)
        if reply is not None:
            reply.feed(event)

    def answer(  # noqa: PLR0913 - what an answer can be told, each with its default
        self,
        question: str,
        *,
        system: str | None = None,
        sampling: Sampling = _GREEDY,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        calculator: bool = True,
        grammar: Grammar | None = None,
    ) -> Answer:
        """Ask a question and wait for the answer.

        Args:
            question: what to ask; no text in it acts as a control token.
            system: what to tell the model beforehand.
            sampling: how tokens are chosen; by default always the likeliest.
            max_tokens: the most tokens that the answer may have.
            stop: texts that end the answer, and are not part of it.
            calculator: whether sums in the answer, as "12 * 13 =", get their exact results, which the model
                is not asked for.
            grammar: what the answer must follow, from grammar.from_schema() or from_gbnf(); then no sum is
                completed. It is cut short if the tokens run out.

        Raises:
            RequestError: the question is empty or does not fit the context, or the template does not take it.
        """
        (answer,) = self.answers(
            [question],
            system=system,
            sampling=sampling,
            max_tokens=max_tokens,
            stop=stop,
            calculator=calculator,
            grammar=grammar,
        )
        return answer

    def answers(  # noqa: PLR0913 - what an answer can be told, each with its default
        self,
        questions: Sequence[str],
        *,
        system: str | None = None,
        sampling: Sampling = _GREEDY,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        calculator: bool = True,
        grammar: Grammar | None = None,
    ) -> list[Answer]:
        """Ask several questions at once; see answer(). The answers are in the order of the questions."""
        requests = [
            Request(self._prompter.tokens(question, system), max_tokens, sampling, grammar=grammar)
            for question in questions
        ]
        replies: dict[int, Reply] = {}
        try:
            for request in requests:
                replies |= [self._ask(request, stop, calculator)]
            while any(reply.end is None for reply in replies.values()):
                self.step()
        finally:
            for id in replies:
                self.abort(id)
        return [reply.answer() for reply in replies.values()]

    def stream(  # noqa: PLR0913 - what an answer can be told, each with its default
        self,
        question: str,
        *,
        system: str | None = None,
        sampling: Sampling = _GREEDY,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        calculator: bool = True,
        grammar: Grammar | None = None,
    ) -> Iterator[Piece]:
        """Ask a question and have the text as it comes; see answer().

        Yields:
            Pieces of text; the last one carries the answer.
        """
        request = Request(self._prompter.tokens(question, system), max_tokens, sampling, grammar=grammar)
        id, reply = self._ask(request, stop, calculator)
        try:
            while reply.end is None:
                self.step()
                text = reply.read()
                if text and reply.end is None:
                    yield Piece(text)
            yield Piece(text, reply.answer())
        finally:
            self.abort(id)

    def _ask(self, request: Request, stop: Sequence[str], calculator: bool) -> tuple[int, Reply]:
        reply = Reply(self.model, stop, calculator=calculator and request.grammar is None)
        id = self.submit(request)
        self._replies[id] = reply
        return id, reply

    def logits(self, tokens: Sequence[int]) -> Array:
        """The logits after each of `tokens`, computed exactly and apart from the requests that are running.

        Returns:
            An array (tokens, vocabulary), not normalized.
        """
        if not 1 <= len(tokens) <= self.context:
            raise RequestError(f"logits: from 1 to {self.context} tokens fit the context, not {len(tokens)}")
        out = np.empty((len(tokens), self.model.vocabulary_size), np.float32)  # (n, vocab)
        try:
            for start in range(0, len(tokens), self._measuring.room.batch):
                part = tuple(tokens[start : start + self._measuring.room.batch])
                rows = self._measuring.decode([Span(0, start, part, rows=len(part))])
                for position, row in enumerate(rows, start):
                    out[position] = self._measuring.logits_row(row)
        finally:
            self._measuring.clear(0)
        return out

    @cached_property
    def _measuring(self) -> Context:
        rows = min(_LOGITS_ROWS, self._room.context)
        room = Room(self._room.context, 1, rows, self._room.threads, outputs=rows, exact=True)
        return self._handles.enter_context(Context(self.model, room, self._adapter))


def _span(chunk: Chunk) -> Span:
    slot = chunk.sequence.slot
    assert slot is not None, "what is planned is running"
    return Span(slot, chunk.start, chunk.tokens, rows=int(chunk.samples))
