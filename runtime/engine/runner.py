"""Runner: the loop body of the engine. step() schedules, decodes, samples and reports new text."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from ...errors import ClosedError, FileError, RequestError
from ..answer import Piece, SequenceEnd, StopReason, TokenLogprob
from ..llama.context import Context
from ..llama.model import LoraAdapter
from ..llama.sampler import Sampler
from .handle import Handle
from .output_stream import OutputStream
from .prefix_cache import PrefixCache
from .scheduler import Chunk, Scheduler, SequenceState


@dataclass(slots=True)
class Output:
    """How one sequence gets from logits to tokens and text, and the handle that receives them."""

    sampler: Sampler
    stream: OutputStream
    handle: Handle
    keep: object  # the engine, which is not freed before the sequence ends
    tokens: list[int] = field(default_factory=list)  # since the last piece, as are the log-probabilities
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Runner:
    """Runs the sequences of one model step by step, in the compute thread."""

    def __init__(
        self, context: Context, adapters: dict[str, LoraAdapter | None], prefixes: PrefixCache
    ) -> None:
        self._context, self._model = context, context.model
        self._adapters, self._prefixes = adapters, prefixes
        settings = context.settings
        cacheable, cuts = math.inf if prefixes.capacity else 0, self._model.cuts_states
        self.scheduler = Scheduler(settings.slots, settings.batch, cacheable, cuts_prefixes=cuts)
        self._outputs: dict[SequenceState, Output] = {}

    def add(self, outputs: Mapping[SequenceState, Output]) -> None:
        """Queue sequences with their outputs, whose samplers are closed at the end."""
        self._outputs |= outputs
        self.scheduler.waiting.extend(outputs)

    def abort(self, sequence: SequenceState) -> None:
        """End a sequence now and free its slot; does nothing if it has ended."""
        self._end(sequence, StopReason.ABORTED)

    def abort_all(self) -> None:
        """End all sequences."""
        for sequence in list(self._outputs):
            self.abort(sequence)

    def fail(self, failure: Exception) -> None:
        """Fail all sequences after an unexpected error; the runner cannot be used any more."""
        self.scheduler.waiting.clear()
        self.scheduler.running.clear()
        while self._outputs:
            _, output = self._outputs.popitem()
            output.sampler.close()
            output.handle.fail(failure)

    def step(self) -> None:
        """Compute one batch. If the computation fails, its sequences end with the failure."""
        for sequence in self.scheduler.admit():
            self._restore_prefix(sequence)
        chunks = self.scheduler.plan()
        if not chunks:
            return
        try:
            self._compute(chunks)
        except FileError as failure:  # the contents of their slots are unknown now
            for chunk in chunks:
                self._end(chunk.sequence, StopReason.ABORTED, failure)
        for chunk in chunks:
            if chunk.sequence.stop_reason is None:
                self._report(chunk.sequence)

    def _compute(self, chunks: Sequence[Chunk]) -> None:
        self._context.set_adapter(self._adapters[chunks[0].sequence.adapter])
        now = perf_counter()
        for chunk in chunks:
            chunk.sequence.started_at = chunk.sequence.started_at or now
        rows = iter(self._context.decode(chunks))
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed += len(chunk.tokens)
            if sequence.saves and sequence.computed == sequence.saves[-1]:
                self._save_prefix(sequence, sequence.saves.pop())
            if not chunk.rows:
                continue
            if not sequence.decoding and self._model.cuts_states:
                self._save_prefix(sequence, len(sequence.request.tokens))
            try:
                self._sample(sequence, next(rows))
            except (ClosedError, RequestError) as failure:  # of its sampler, or of its grammar
                self._end(sequence, StopReason.ABORTED, failure)

    def _sample(self, sequence: SequenceState, row: int) -> None:
        output, options = self._outputs[sequence], sequence.request.options
        token = output.sampler.sample(self._context, row, no_digit=output.stream.no_digit)
        sequence.times.append(perf_counter())
        sequence.sampled += 1
        logprob = TokenLogprob(token, 0.0)
        if sequence.scored:
            logprob = self._context.logprob(row, token, options.logprobs or 0)
            sequence.log_likelihood += logprob.logprob
        if self._model.is_eog(token) and not options.ignore_end:
            if options.report_end:
                output.logprobs.append(logprob)
            self._end(sequence, StopReason.END)
            return
        self._append(sequence, logprob)
        for inserted in (output.stream.inserted_tokens, output.sampler.take_forced):
            # Inserted tokens go into one batch with the token before them, as a prompt does.
            for token in inserted() if sequence.stop_reason is None else ():
                if sequence.stop_reason is None:
                    sequence.times.append(sequence.times[-1])
                    self._append(sequence, TokenLogprob(token, 0.0))
        if sequence.stop_reason is None and output.sampler.finished:
            self._end(sequence, StopReason.END)  # without a step for the end-of-generation token

    def _append(self, sequence: SequenceState, logprob: TokenLogprob) -> None:
        output, token = self._outputs[sequence], logprob.token
        if sequence.request.options.logprobs is not None:
            output.logprobs.append(logprob)
        sequence.output.append(token)
        output.tokens.append(token)
        output.sampler.accept(token)
        output.stream.feed(token)
        if output.stream.stopped:
            self._end(sequence, StopReason.STOP)
        elif sequence.remaining <= 0:
            self._end(sequence, StopReason.LENGTH)

    def _end(self, sequence: SequenceState, reason: StopReason, failure: Exception | None = None) -> None:
        if sequence.stop_reason is not None:
            return
        slot = self.scheduler.finish(sequence, reason)
        if slot is not None:
            self._context.clear(slot)
        output = self._outputs[sequence]
        output.sampler.close()
        output.stream.finish()
        if failure:
            output.handle.fail(failure)
        else:
            thought = output.stream.thought
            end = sequence.end(thought.text, thought.tokens) if thought else sequence.end()
            self._report(sequence, end)
        del self._outputs[sequence]

    def _report(self, sequence: SequenceState, end: SequenceEnd | None = None) -> None:
        output = self._outputs[sequence]
        thought = output.stream.thought
        if not end and (not output.tokens or (thought and thought.undecided)):
            return
        tokens, output.tokens = tuple(output.tokens), []
        logprobs, output.logprobs = tuple(output.logprobs), []
        thinking, thinking_tokens = thought.take() if thought else ("", 0)
        text = output.stream.read()
        output.handle.put(
            Piece(text, tokens, logprobs, end=end, thinking=thinking, thinking_tokens=thinking_tokens)
        )

    def _restore_prefix(self, sequence: SequenceState) -> None:
        prompt = sequence.request.tokens
        if found := self._prefixes.find(sequence.prefix_key, prompt):
            length, state = found
            if self._context.restore(sequence.running_slot, state, length):
                sequence.cached = sequence.computed = length
        if not self._prefixes.cuts and self.scheduler.will_cache(sequence):
            sequence.saves = self._prefixes.saves(sequence.prefix_key, prompt, sequence.cached)

    def _save_prefix(self, sequence: SequenceState, length: int) -> None:
        prompt = sequence.request.tokens[:length]
        if self.scheduler.will_cache(sequence):
            slot = sequence.running_slot
            if self._context.state_bytes(slot) > self._prefixes.capacity:  # checked before there is a copy
                self.scheduler.cacheable = len(prompt) - 1
                return
            with suppress(MemoryError):  # then it is not cached
                self._prefixes.add(sequence.prefix_key, prompt, self._context.save(slot))
