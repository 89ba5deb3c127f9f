"""Runner: the loop body of the engine. step() schedules, decodes, samples and reports updates."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter

from ...errors import ClosedError, FileError, RequestError, ThirteenError
from ..answer import Piece
from ..llama.context import Context, Span
from ..llama.model import LoraAdapter
from ..llama.sampler import Sampler
from ..native.settings import DRAFT_TOKENS
from ..request import PrefixKey, SequenceEnd, SequenceState, StopReason, TokenLogprob
from .adapters import Adapters
from .output_stream import OutputStream
from .prefix_cache import PrefixCache
from .scheduler import Chunk, Scheduler

# New text of a sequence since its last update, and the error that ended it: of the computation or grammar.
Update = tuple[SequenceState, Piece, ThirteenError | None]


class PromptLookup:
    """Drafts of the next tokens of a sequence: those that followed the last two where they stood before.

    Answers repeat names, numbers and phrases of the question and of themselves. See Saxena, "Prompt Lookup
    Decoding", 2023.
    """

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._prompt = len(prompt)
        self._append(prompt)

    def draft(self, output: Sequence[int], count: int) -> tuple[int, ...]:
        """Guess up to `count` tokens behind the prompt and its output, which goes on from call to call."""
        self._append(output[len(self._tokens) - self._prompt :])
        place = self._after.get((*self._tokens[-2:],), len(self._tokens))
        return tuple(self._tokens[place : place + max(count, 0)])

    def _append(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if len(self._tokens) > 1:
                self._after[self._tokens[-2], self._tokens[-1]] = len(self._tokens)
            self._tokens.append(token)


@dataclass(slots=True)
class SequenceOutput:
    """Sampler and output stream of one sequence: from logits to tokens and text."""

    sampler: Sampler
    stream: OutputStream
    lookup: PromptLookup | None = None
    tokens: list[int] = field(default_factory=list)  # since the last update, as are the log-probabilities
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Runner:
    """Runs the sequences of one model step by step, in one thread."""

    def __init__(self, context: Context, adapters: Adapters, prefixes: PrefixCache | None = None) -> None:
        """Start without sequences; close() frees the context."""
        self._context, self._model = context, context.model
        self._adapters, self._prefixes = adapters, prefixes
        slots, batch = context.settings.slots, context.settings.batch
        cuts = self._model.cuts_states
        # A wrong draft is taken back, and the last bits of logits depend on how many tokens a step has.
        drafts = self._model.rewinds and not context.settings.reproducible
        self._draft_tokens = min(DRAFT_TOKENS[context.settings.library], batch - 1) if drafts else 0
        self._scheduler = Scheduler(slots, batch, prefixes is not None, cuts_prefixes=cuts)
        self._outputs: dict[SequenceState, SequenceOutput] = {}
        self._updates: list[Update] = []

    @property
    def idle(self) -> bool:
        """Whether step() has nothing to compute and nothing to report."""
        return self._scheduler.idle and not self._updates

    @property
    def running(self) -> int:
        """How many sequences have a slot."""
        return len(self._scheduler.running)

    def add(self, sequence: SequenceState, sampler: Sampler, stream: OutputStream) -> None:
        """Queue a sequence with its sampler, which is closed at the end, and its output stream."""
        self._outputs[sequence] = SequenceOutput(sampler, stream)
        self._scheduler.add(sequence)

    def abort(self, sequence: SequenceState) -> None:
        """End a sequence now and free its slot; does nothing if it has ended."""
        self._end(sequence, StopReason.ABORTED)

    def clear_prefixes(self, adapter: str, keep: tuple[int, ...]) -> None:
        """Remove all prefixes but one from memory."""
        if self._prefixes:
            self._prefixes.clear(PrefixKey(adapter), keep)

    def swap_adapter(self, name: str, adapter: LoraAdapter) -> LoraAdapter | None:
        """Register an adapter under a name.

        Returns:
            The adapter that had the name; nothing uses it any more.

        Raises:
            RequestError: there are sequences.
        """
        if self._outputs:
            raise RequestError(f"swap: {len(self._outputs)} requests are running or waiting")
        self._context.set_adapter(None)
        old = self._adapters.get(name)
        self._adapters[name] = adapter
        return old

    def close(self) -> None:
        """Free the context, and the samplers of sequences that have not ended."""
        for output in self._outputs.values():
            output.sampler.close()
        self._context.close()

    def step(self) -> list[Update]:
        """Compute one batch.

        Returns:
            Updates since the last step. If the computation failed, its sequences have ended with the failure.
        """
        for sequence in self._scheduler.admit():
            self._restore_prefix(sequence)
        self._close_gap()
        chunks = self._scheduler.plan()
        if self._draft_tokens and self.running == 1:
            chunks = [self._with_draft(chunk) for chunk in chunks]
        try:
            if chunks:
                self._compute(chunks)
        except FileError as failure:  # the contents of their slots are unknown now
            for chunk in chunks:
                self._end(chunk.sequence, StopReason.ABORTED, failure)
        for chunk in chunks:
            if chunk.sequence.stop_reason is None:
                self._report(chunk.sequence)
        updates, self._updates = self._updates, []
        return updates

    def _close_gap(self) -> None:
        """Move a sequence next to the others: llama.cpp computes only neighbours in one pass."""
        for sequence, slot in self._scheduler.gaps():
            with suppress(MemoryError):  # then it stays
                if self._context.move(sequence.running_slot, slot):
                    self._scheduler.move(sequence, slot)
                    return

    def _with_draft(self, chunk: Chunk) -> Chunk:
        """Add a guess of the tokens that will follow, if the last one alone is computed.

        Not for benchmarks: a text that goes on after its end repeats itself.
        """
        sequence = chunk.sequence
        if not sequence.decoding or sequence.pending > 1 or sequence.request.ignore_end:
            return chunk
        output = self._outputs[sequence]
        output.lookup = output.lookup or PromptLookup(sequence.request.tokens)
        draft = output.lookup.draft(sequence.output, min(self._draft_tokens, sequence.remaining - 1))
        return replace(chunk, tokens=chunk.tokens + draft, rows=1 + len(draft))

    def _compute(self, chunks: Sequence[Chunk]) -> None:
        self._context.set_adapter(self._adapters[chunks[0].sequence.adapter])
        now = perf_counter()
        for chunk in chunks:
            chunk.sequence.started_at = chunk.sequence.started_at or now
        spans = [Span(one.sequence.running_slot, one.start, one.tokens, one.rows) for one in chunks]
        rows = iter(self._context.decode(spans))
        for chunk in chunks:
            sequence = chunk.sequence
            draft = chunk.tokens[len(chunk.tokens) - max(chunk.rows - 1, 0) :]
            sequence.computed += len(chunk.tokens) - len(draft)
            if sequence.saves and sequence.computed == sequence.saves[-1]:
                self._save_prefix(sequence, sequence.saves.pop())
            if not chunk.rows:
                continue
            if not sequence.decoding and self._model.cuts_states:
                self._save_prefix(sequence, len(sequence.request.tokens))
            try:
                self._sample(sequence, next(rows))
                for token in draft:  # as long as it is what is sampled
                    if sequence.stop_reason or sequence.pending > 1 or sequence.output[-1] != token:
                        break
                    sequence.computed += 1
                    self._sample(sequence, next(rows))
                if sequence.stop_reason is None and sequence.computed < chunk.start + len(chunk.tokens):
                    self._context.clear(sequence.running_slot, sequence.computed)
            except (ClosedError, RequestError) as failure:  # of its sampler, or of its grammar
                self._end(sequence, StopReason.ABORTED, failure)

    def _sample(self, sequence: SequenceState, row: int) -> None:
        """Sample the next token, and end the sequence if that was its last."""
        output = self._outputs[sequence]
        token = output.sampler.sample(self._context, row, no_digit=output.stream.no_digit)
        sequence.last_token_at = perf_counter()
        sequence.first_token_at = sequence.first_token_at or sequence.last_token_at
        sequence.sampled += 1
        request = sequence.request
        if request.logprobs is None and not request.calibration:
            logprob = TokenLogprob(token, 0.0)
        else:
            logprob = self._context.logprob(row, token, request.logprobs or 0)
        sequence.log_likelihood += logprob.logprob
        if self._model.is_eog(token) and not request.ignore_end:
            if request.report_end:
                output.logprobs.append(logprob)
            self._end(sequence, StopReason.END)
            return
        self._append(sequence, logprob)
        if sequence.stop_reason is None:
            self._insert(sequence, output.stream.inserted_tokens())
            self._insert(sequence, output.sampler.take_forced())
        if sequence.stop_reason is None and output.sampler.finished:
            self._end(sequence, StopReason.END)  # without a step for the end-of-generation token

    def _insert(self, sequence: SequenceState, tokens: Sequence[int]) -> None:
        """Append tokens that go into one batch with the token before them, as a prompt does."""
        for token in tokens:
            if sequence.stop_reason is None:
                self._append(sequence, TokenLogprob(token, 0.0))

    def _append(self, sequence: SequenceState, logprob: TokenLogprob) -> None:
        output, token = self._outputs[sequence], logprob.token
        if sequence.request.logprobs is not None:
            output.logprobs.append(logprob)
        sequence.output.append(token)
        sequence.output_at.append(sequence.last_token_at)
        output.tokens.append(token)
        output.sampler.accept(token)
        output.stream.feed(token)
        if output.stream.stopped:
            self._end(sequence, StopReason.STOP)
        elif sequence.remaining <= 0:
            self._end(sequence, StopReason.LENGTH)

    def _end(self, sequence: SequenceState, reason: StopReason, failure: ThirteenError | None = None) -> None:
        if sequence.stop_reason is not None:
            return
        slot = self._scheduler.finish(sequence, reason)
        if slot is not None:
            self._context.clear(slot)
        output = self._outputs[sequence]
        output.sampler.close()
        output.stream.finish()
        if thought := output.stream.thought:
            sequence.thinking, sequence.thinking_tokens = thought.text, thought.tokens
        self._report(sequence, sequence.end, failure)
        del self._outputs[sequence]

    def _report(
        self, sequence: SequenceState, end: SequenceEnd | None = None, failure: ThirteenError | None = None
    ) -> None:
        output = self._outputs[sequence]
        thought = output.stream.thought
        if end or (output.tokens and not (thought and thought.undecided)):
            tokens, output.tokens = tuple(output.tokens), []
            logprobs, output.logprobs = tuple(output.logprobs), []
            thinking, thinking_tokens = thought.take() if thought else ("", 0)
            text = output.stream.read()
            piece = Piece(text, tokens, logprobs, end=end, thinking=thinking, thinking_tokens=thinking_tokens)
            self._updates.append((sequence, piece, failure))

    def _restore_prefix(self, sequence: SequenceState) -> None:
        """Fill a new slot with the longest cached prefix of its prompt."""
        prompt = sequence.request.tokens
        found = self._prefixes.find(sequence.prefix_key, prompt) if self._prefixes else None
        if found:
            length, state = found
            if self._context.restore(sequence.running_slot, state, length):
                sequence.cached = sequence.computed = length
        if self._prefixes and not self._prefixes.cuts and self._scheduler.will_cache(sequence):
            sequence.saves = self._prefixes.saves(sequence.prefix_key, prompt, sequence.cached)

    def _save_prefix(self, sequence: SequenceState, length: int) -> None:
        """Add the first tokens of a prompt, which are computed, to the prefix cache."""
        prompt = sequence.request.tokens[:length]
        if self._prefixes and self._scheduler.will_cache(sequence):
            slot = sequence.running_slot
            if self._context.state_bytes(slot) > self._prefixes.capacity:  # checked before there is a copy
                self._scheduler.cacheable = len(prompt) - 1
                return
            with suppress(MemoryError):  # then it is not cached
                self._prefixes.add(sequence.prefix_key, prompt, self._context.save(slot))
