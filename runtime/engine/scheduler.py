"""Scheduler: which tokens go into the next batch. It holds no tensors, so it is tested without weights.

Requests are admitted first come, first served. A request whose prompt shares a prefix with one in prefill
waits until that prefix is in the prefix cache. A batch has one adapter: of those with work, the one that was
scheduled longest ago. Within a batch, sequences in decode come first, with their next token each. The rest of
the budget goes to prefill, oldest first, in chunks; while others decode, the chunks are small, so that a long
prompt never stalls their answers.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from ..answer import StopReason
from .prefix_cache import PREFIX_TOKENS_MIN
from .sequence import SequenceState

PREFILL_CHUNK = 128  # on a CPU, a model computes so many tokens at once about as fast as more


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, for one batch.

    Attributes:
        sequence: owner of the tokens.
        start: position of the first token.
        tokens: the tokens, at least one.
        rows: 1 if a token is sampled after it, or 0 if it ends before the last known token.
    """

    sequence: SequenceState
    start: int
    tokens: tuple[int, ...]
    rows: int

    @property
    def slot(self) -> int:
        """Slot of the sequence."""
        return self.sequence.running_slot


@dataclass(slots=True)
class Scheduler:
    """First come, first served, over a fixed number of slots.

    Attributes:
        slots: number of sequences that run at once.
        budget: maximum tokens per batch, at least one per slot.
        prefix_caching: whether computed prompts are shared through a prefix cache.
        cuts_prefixes: whether a part of a cached prompt can be used.
        cacheable: maximum tokens of a prompt that fits the prefix cache, as far as is known.
        waiting: sequences without a slot yet, oldest first.
        running: sequences with a slot, oldest first.
    """

    slots: int
    budget: int
    prefix_caching: bool = False
    cuts_prefixes: bool = True
    cacheable: float = math.inf
    waiting: deque[SequenceState] = field(default_factory=deque)
    running: list[SequenceState] = field(default_factory=list)
    _free_slots: set[int] = field(init=False)
    _scheduled: dict[str, int] = field(default_factory=dict)  # adapter -> number of its last batch
    _batches: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        assert 1 <= self.slots <= self.budget, "a batch must hold a token of every running sequence"
        self._free_slots = set(range(self.slots))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def admit(self) -> Iterator[SequenceState]:
        """Give free slots to waiting sequences.

        Yields:
            Each sequence that gets a slot. Its prefix must be restored from the cache before the next one is
            requested: only then is it known which others must wait for the rest of its prompt.
        """
        while self._free_slots and (sequence := next(filter(self._is_ready, self.waiting), None)):
            self.waiting.remove(sequence)
            sequence.slot = self._choose_slot(sequence)
            self._free_slots.remove(sequence.slot)
            self.running.append(sequence)
            yield sequence

    def _is_ready(self, sequence: SequenceState) -> bool:
        """Whether it need not wait for the prefill of another sequence."""
        return not any(self._shares_prefill(sequence, other) for other in self.running)

    def _shares_prefill(self, sequence: SequenceState, other: SequenceState) -> bool:
        """Whether `other` will compute a prefix that `sequence` can take from the prefix cache."""
        if not self.will_cache(other) or other.decoding or other.prefix_key != sequence.prefix_key:
            return False
        length, tokens = other.cached + PREFIX_TOKENS_MIN, sequence.request.tokens
        if not self.cuts_prefixes:
            length = len(other.request.tokens) - 1
        # The last token of a prompt is always computed.
        return len(tokens) > length and tokens[:length] == other.request.tokens[:length]

    def will_cache(self, sequence: SequenceState) -> bool:
        """Whether its prompt will be added to the prefix cache: it fits, and enough of it is new."""
        tokens = len(sequence.request.tokens)
        return (
            self.prefix_caching and tokens <= self.cacheable and tokens - sequence.cached > PREFIX_TOKENS_MIN
        )

    def plan(self) -> list[Chunk]:
        """Plan the next batch, of one adapter and at most `budget` tokens; empty if nothing runs."""
        budget, answering = self.budget, any(sequence.decoding for sequence in self.running)
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
            chunks.append(Chunk(sequence, sequence.computed, tokens, rows))
        # llama.cpp computes only ascending neighbours together.
        return sorted(chunks, key=lambda chunk: chunk.slot)

    def _next_group(self) -> list[SequenceState]:
        """The running sequences of the adapter that was scheduled longest ago."""
        adapters = dict.fromkeys(sequence.adapter for sequence in self.running)  # in order
        chosen = min(adapters, key=lambda adapter: self._scheduled.get(adapter, -1), default="")
        self._scheduled[chosen] = next(self._batches)
        return [sequence for sequence in self.running if sequence.adapter == chosen]

    def finish(self, sequence: SequenceState, reason: StopReason) -> int | None:
        """End a sequence, running or waiting.

        Returns:
            Its slot, which is free now; None if it had none yet.
        """
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
