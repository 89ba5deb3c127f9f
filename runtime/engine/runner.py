"""The engine's loop body, for one thread: `step()` schedules, decodes, samples, and tells what came of it."""

from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from ...errors import ModelFileError, RequestError
from .. import request as state
from ..llama.context import Context, Span
from ..llama.model import LoraAdapter
from ..llama.sampler import Sampler
from ..request import SequenceEnd, StopReason, TokenLogprob
from .output_stream import OutputStream
from .prefix_cache import LENGTH_MIN, PrefixCache
from .prompt_lookup import PromptLookup
from .scheduler import Chunk, Scheduler


@dataclass(frozen=True, slots=True)
class SequenceUpdate:
    """What became of one sequence in a step.

    Attributes:
        sequence: which.
        text: what is certain of it since the last update.
        tokens: those since the last update, of results of sums too.
        logprobs: of each of them, if the request wants them.
        end: None while more may follow.
        failure: why it was aborted, if the computation failed.
    """

    sequence: state.SequenceState
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    end: SequenceEnd | None
    failure: ModelFileError | None = None


@dataclass(slots=True)
class SequenceOutput:
    """How a sequence chooses its tokens and says them."""

    sampler: Sampler
    reply: OutputStream
    lookup: PromptLookup | None
    tokens: list[int] = field(default_factory=list)  # not told of yet
    logprobs: list[TokenLogprob] = field(default_factory=list)  # nor these


class Runner:
    """The sequences of one model, and one step of them after the other."""

    def __init__(
        self,
        native: Context,
        adapters: MutableMapping[str, LoraAdapter | None],
        prefixes: PrefixCache | None = None,
        drafted: int = 0,
    ) -> None:
        """Begin with no sequences.

        Args:
            native: what computes, with room for so many sequences; close() frees it.
            adapters: by the names that sequences have for them.
            prefixes: where beginnings of prompts are kept; nowhere if there is none.
            drafted: the most tokens of a draft by prompt lookup; the room has to have outputs for them.
        """
        self._model, self._adapters, self._prefixes, self._drafted = native.model, adapters, prefixes, drafted
        self._native = native
        self._scheduler = Scheduler(native.room.slots, native.room.batch, sharing=prefixes is not None)
        self._voices: dict[state.SequenceState, SequenceOutput] = {}
        self._updates: list[SequenceUpdate] = []

    @property
    def idle(self) -> bool:
        """Whether step() has nothing to compute and nothing to tell."""
        return self._scheduler.idle and not self._updates

    @property
    def running(self) -> int:
        """How many sequences have a slot."""
        return len(self._scheduler.running)

    def add(self, sequence: state.SequenceState, sampler: Sampler, reply: OutputStream) -> None:
        """Queue a sequence, with what chooses its tokens (which is closed at its end) and what says them."""
        lookup = PromptLookup(sequence.request.tokens) if self._drafted else None
        self._voices[sequence] = SequenceOutput(sampler, reply, lookup)
        self._scheduler.add(sequence)

    def abort(self, sequence: state.SequenceState) -> None:
        """End a sequence now and free its slot; nothing happens if it has ended already."""
        self._end(sequence, StopReason.ABORTED)

    def flush(self) -> None:
        """Write the prefix cache to its folders, if it has any."""
        if self._prefixes:
            self._prefixes.flush()

    def forget(self, adapter: str, but: tuple[int, ...]) -> None:
        """Take everything but one beginning out of the prefix cache."""
        if self._prefixes:
            self._prefixes.forget(adapter, but)

    def swap(self, name: str, adapter: LoraAdapter) -> LoraAdapter | None:
        """Put an adapter under a name.

        Returns:
            The one that had it, which nothing refers to any more.

        Raises:
            RequestError: there are sequences.
        """
        if self._voices:
            raise RequestError(f"swap: {len(self._voices)} requests are running or waiting")
        self._native.apply(None)
        old = self._adapters.get(name)
        self._adapters[name] = adapter
        return old

    def close(self) -> None:
        """Free the room, and what there still is of sequences."""
        for voice in self._voices.values():
            voice.sampler.close()
        self._native.close()

    def step(self) -> list[SequenceUpdate]:
        """Compute one batch.

        Returns:
            What became of the sequences that there is news of since the last step. Those of a computation
            that failed have ended, each with the reason.
        """
        for sequence in self._scheduler.admit():
            self._restore(sequence)
        if self._drafted:
            for sequence in self._scheduler.running:
                sequence.draft = self._draft(sequence)
        chunks = self._scheduler.plan()
        try:
            if chunks:
                self._compute(chunks)
        except ModelFileError as failure:  # what their slots hold is not known any more
            for chunk in chunks:
                self._end(chunk.sequence, StopReason.ABORTED, failure)
        for chunk in chunks:
            if chunk.sequence.stop_reason is None:
                self._tell(chunk.sequence)
        updates, self._updates = self._updates, []
        return updates

    def _compute(self, chunks: Sequence[Chunk]) -> None:
        self._native.apply(self._adapters[chunks[0].sequence.adapter])
        now = perf_counter()
        for chunk in chunks:
            chunk.sequence.started_at = chunk.sequence.started_at or now
        rows = iter(self._native.decode([_span(chunk) for chunk in chunks]))
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed += len(chunk.tokens) - max(chunk.rows - 1, 0)
            if chunk.rows and not sequence.decoding and self._scheduler.awaited(sequence):
                self._keep(sequence)
            self._follow(sequence, [next(rows) for _ in range(chunk.rows)])

    def _follow(self, sequence: state.SequenceState, rows: Sequence[int]) -> None:
        """Give a sequence its next token, and one more for each token of its draft that was right."""
        draft, sequence.draft = sequence.draft, ()
        for place, row in enumerate(rows):
            self._advance(sequence, row)
            if sequence.stop_reason is not None or place + 1 == len(rows):
                return
            if sequence.pending > 1 or sequence.output[-1] != draft[place]:
                self._native.clear(_slot(sequence), sequence.computed)
                return
            sequence.computed += 1

    def _advance(self, sequence: state.SequenceState, row: int) -> None:
        """Give a sequence its next token, and end it if that was the last."""
        voice = self._voices[sequence]
        token = voice.sampler.sample(self._native, row, no_digit=voice.reply.no_digit)
        sequence.last_token_at = perf_counter()
        sequence.first_token_at = sequence.first_token_at or sequence.last_token_at
        sequence.sampled += 1
        if (top := sequence.request.logprobs) is None:
            logprob = TokenLogprob(token, 0.0)
        else:
            logprob = self._native.logprob(row, token, top)
        sequence.log_likelihood += logprob.logprob
        if self._model.ends(token) and not sequence.request.ignore_end:
            self._end(sequence, StopReason.END)
            return
        self._say(sequence, logprob)
        # A result goes in as one batch with the token before it, as a prompt does.
        for due in voice.reply.due() if sequence.stop_reason is None else ():
            if sequence.stop_reason is None:
                self._say(sequence, TokenLogprob(due, 0.0))

    def _say(self, sequence: state.SequenceState, logprob: TokenLogprob) -> None:
        voice, token = self._voices[sequence], logprob.token
        if sequence.request.logprobs is not None:
            voice.logprobs.append(logprob)
        sequence.output.append(token)
        voice.tokens.append(token)
        if voice.lookup:
            voice.lookup.feed(token)
        voice.reply.feed(token)
        if voice.reply.stopped:
            self._end(sequence, StopReason.STOP)
        elif sequence.full:
            self._end(sequence, StopReason.LENGTH)

    def _end(
        self, sequence: state.SequenceState, reason: StopReason, failure: ModelFileError | None = None
    ) -> None:
        if sequence.stop_reason is not None:
            return
        if failure is None:
            self._keep(sequence)
        slot = self._scheduler.retire(sequence, reason)
        if slot is not None:
            self._native.clear(slot)
        voice = self._voices[sequence]
        voice.sampler.close()
        voice.reply.finish()
        self._tell(sequence, sequence.end, failure)
        del self._voices[sequence]

    def _tell(
        self,
        sequence: state.SequenceState,
        end: SequenceEnd | None = None,
        failure: ModelFileError | None = None,
    ) -> None:
        voice = self._voices[sequence]
        if voice.tokens or end:
            tokens, voice.tokens = tuple(voice.tokens), []
            logprobs, voice.logprobs = tuple(voice.logprobs), []
            self._updates.append(SequenceUpdate(sequence, voice.reply.read(), tokens, logprobs, end, failure))

    def _draft(self, sequence: state.SequenceState) -> tuple[int, ...]:
        """What may follow a sequence that is answering, as far as more may follow it at all."""
        lookup = self._voices[sequence].lookup
        most = min(self._drafted, sequence.remaining - 1)
        return lookup.draft(most) if lookup and sequence.decoding and most > 0 else ()

    def _restore(self, sequence: state.SequenceState) -> None:
        """Fill a new slot with as much of its prompt as the prefix cache has."""
        prompt = sequence.request.tokens
        found = self._prefixes.find(sequence.adapter, prompt) if self._prefixes else None
        if found and self._native.restore(_slot(sequence), found.blob, found.length):
            sequence.restored = sequence.computed = found.length

    def _keep(self, sequence: state.SequenceState) -> None:
        """Put the prompt of a running sequence into the prefix cache, if it has been read and is news."""
        prompt = sequence.request.tokens
        read = sequence.computed >= len(prompt) and len(prompt) - sequence.restored > LENGTH_MIN
        if self._prefixes and read:
            slot = _slot(sequence)
            self._native.clear(slot, len(prompt))
            if self._prefixes.takes(self._native.nbytes(slot)):  # before there is a copy in memory
                with suppress(MemoryError):  # then it is not kept
                    self._prefixes.keep(sequence.adapter, prompt, self._native.save(slot))


def _span(chunk: Chunk) -> Span:
    return Span(_slot(chunk.sequence), chunk.start, chunk.tokens, rows=chunk.rows)


def _slot(sequence: state.SequenceState) -> int:
    assert sequence.slot is not None, "what is planned is running"
    return sequence.slot
