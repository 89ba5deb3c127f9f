"""Scheduler: which tokens go into the next batch. It holds no tensors, so it is tested without weights.

Requests are admitted first come, first served. A request whose prompt shares a prefix with one in prefill
waits until that prefix is in the prefix cache. A batch has one adapter: of those with work, the one that was
scheduled longest ago. Within a batch, sequences in decode come first, with their next token each. The rest of
the budget goes to prefill, oldest first, in chunks; while others decode, the chunks are small, so that a long
prompt never stalls their answers.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from ..answer import SequenceEnd, StopReason, Timings, Usage
from ..llama.context import Span
from ..options import BASE, MAX_TOKENS, Request
from .prefix_cache import PREFIX_TOKENS_MIN, PrefixKey


@dataclass(slots=True, eq=False)
class SequenceState:
    """State of a request in the engine."""

    request: Request
    adapter: str = BASE
    max_tokens: int = MAX_TOKENS  # maximum tokens of its output, for which the context has room
    scored: bool = False  # whether the log-probabilities of sampled tokens are computed
    slot: int | None = None  # slot of the KV cache; None while it waits and after it has ended
    cached: int = 0  # prompt tokens restored from the prefix cache
    computed: int = 0  # tokens whose KV cache is in the slot
    saves: list[int] = field(default_factory=list)  # positions at which it is saved, descending
    output: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of each of them, and of the end of generation
    sampled: int = 0  # number of output tokens sampled from the model
    log_likelihood: float = 0.0  # sum of the sampled tokens' log-probabilities, where they are computed
    stop_reason: StopReason | None = None  # why it ended; None while it has not
    submitted_at: float = 0.0
    started_at: float = 0.0  # time of its first batch; 0 before it

    @property
    def prefix_key(self) -> PrefixKey:
        """Key of its prompt in the prefix cache."""
        return self.adapter, self.request.options.namespace

    @property
    def running_slot(self) -> int:
        """The slot of a running sequence."""
        assert self.slot is not None, "a running sequence has a slot"
        return self.slot

    @property
    def pending(self) -> int:
        """Tokens that are known but not computed."""
        return len(self.request.tokens) + len(self.output) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether prefill is done."""
        return bool(self.output)

    @property
    def remaining(self) -> int:
        """Tokens that can follow."""
        return self.max_tokens - len(self.output)

    def end(self, thinking: str = "", thinking_tokens: int = 0) -> SequenceEnd:
        """Result of the sequence, which has ended, with the thought before its answer."""
        assert self.stop_reason is not None, "the sequence has ended"
        usage = Usage(
            prompt_tokens=len(self.request.tokens),
            # The end-of-generation token counts, though it is not in the output.
            completion_tokens=len(self.output) + (self.stop_reason is StopReason.END),
            cached_tokens=self.cached,
            sampled_tokens=self.sampled,
            thinking_tokens=thinking_tokens,
        )
        timings = Timings(0.0, 0.0, 0.0)
        if self.times:
            first, last = self.times[0], self.times[-1]
            timings = Timings(first - self.started_at, first - self.submitted_at, last - first)
        token_s = tuple(at - self.submitted_at for at in self.times)
        return SequenceEnd(self.stop_reason, usage, timings, self.log_likelihood, token_s, thinking)

    def next_tokens(self, limit: int) -> tuple[int, ...]:
        """Up to `limit` pending tokens, in order, none of them behind a position where it is saved."""
        prompt = self.request.tokens
        if self.saves:
            limit = min(limit, self.saves[-1] - self.computed)
        if self.computed < len(prompt):
            return prompt[self.computed : self.computed + limit]
        start = self.computed - len(prompt)
        return tuple(self.output[start : start + limit])


PREFILL_CHUNK = 128  # on a CPU, a model computes so many tokens at once about as fast as more


@dataclass(frozen=True, slots=True)
class Chunk(Span):
    """A span of one sequence; `rows` is 1 if a token is sampled after it, or 0 if more tokens are known."""

    sequence: SequenceState


class Scheduler:
    """First come, first served, over a fixed number of slots.

    Attributes:
        cacheable: maximum tokens of a prompt that fits the prefix cache, as far as is known.
        waiting: sequences without a slot yet, oldest first.
        running: sequences with a slot, oldest first.
    """

    def __init__(self, slots: int, budget: int, cacheable: float = 0, *, cuts_prefixes: bool = True) -> None:
        """Schedule batches of at most `budget` tokens; with `cuts_prefixes`, a part of a prefix is of use."""
        self._budget, self.cacheable, self._cuts_prefixes = budget, cacheable, cuts_prefixes
        self.waiting, self.running = deque[SequenceState](), list[SequenceState]()
        self._free_slots = set(range(slots))
        self._scheduled, self._batches = dict[str, int](), count()  # by adapter, the number of its last batch

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def admit(self) -> Iterator[SequenceState]:
        """Give free slots to waiting sequences, and yield each.

        Its prefix must be restored from the cache before the next one is requested: only then is it known
        which others must wait for the rest of its prompt.
        """
        while self._free_slots and (sequence := next(filter(self._is_ready, self.waiting), None)):
            self.waiting.remove(sequence)
            sequence.slot = self._choose_slot(sequence)
            self._free_slots.remove(sequence.slot)
            self.running.append(sequence)
            yield sequence

    def _is_ready(self, sequence: SequenceState) -> bool:
        return not any(self._shares_prefill(sequence, other) for other in self.running)

    def _shares_prefill(self, sequence: SequenceState, other: SequenceState) -> bool:
        """Whether `other` will compute a prefix that `sequence` can take from the prefix cache."""
        if not self.will_cache(other) or other.decoding or other.prefix_key != sequence.prefix_key:
            return False
        length, tokens = other.cached + PREFIX_TOKENS_MIN, sequence.request.tokens
        if not self._cuts_prefixes:
            length = len(other.request.tokens) - 1
        # The last token of a prompt is always computed.
        return len(tokens) > length and tokens[:length] == other.request.tokens[:length]

    def will_cache(self, sequence: SequenceState) -> bool:
        """Whether its prompt will be added to the prefix cache: it fits, and enough of it is new."""
        tokens = len(sequence.request.tokens)
        return tokens <= self.cacheable and tokens - sequence.cached > PREFIX_TOKENS_MIN

    def plan(self) -> list[Chunk]:
        """Plan the next batch, of one adapter and at most `budget` tokens; empty if nothing runs."""
        budget, answering = self._budget, any(sequence.decoding for sequence in self.running)
        chunks: list[Chunk] = []
        # The sort is stable: single tokens before prefills and forced tokens, the oldest first in each.
        for sequence in sorted(self._next_group(), key=lambda sequence: sequence.pending > 1):
            if answering and sequence.pending > 1:  # also under another adapter, whose turn is next
                budget = min(budget, PREFILL_CHUNK)
            if not budget:
                break
            tokens = sequence.next_tokens(budget)
            budget -= len(tokens)
            rows = int(len(tokens) == sequence.pending)
            chunks.append(Chunk(sequence.running_slot, sequence.computed, tokens, rows, sequence))
        # llama.cpp computes only ascending neighbours together.
        return sorted(chunks, key=lambda chunk: chunk.slot)

    def _next_group(self) -> list[SequenceState]:
        adapters = dict.fromkeys(sequence.adapter for sequence in self.running)  # in order
        chosen = min(adapters, key=lambda adapter: self._scheduled.get(adapter, -1), default="")
        self._scheduled[chosen] = next(self._batches)
        return [sequence for sequence in self.running if sequence.adapter == chosen]

    def finish(self, sequence: SequenceState, reason: StopReason) -> int | None:
        """End a sequence, and return its slot, which is free now; None if it had none yet."""
        assert sequence.stop_reason is None, "a sequence ends once"
        sequence.stop_reason = reason
        slot, sequence.slot = sequence.slot, None
        if slot is None:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._free_slots.add(slot)
        return slot

    def _choose_slot(self, sequence: SequenceState) -> int:
        """The lowest free slot, next to one of the same adapter if possible; see plan()."""
        same = {other.slot for other in self.running if other.adapter == sequence.adapter}
        return min(self._free_slots, key=lambda slot: (same.isdisjoint((slot - 1, slot + 1)), slot))
