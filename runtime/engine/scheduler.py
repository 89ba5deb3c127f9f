"""Which tokens go into the next batch. It holds no tensors, so that its rules are tested without weights.

Requests are taken in the order they came and keep their slot until they end; only one that begins as another
whose prompt is being read waits for that to be in the prefix cache. A batch is of one adapter, and of those
that have work the one served longest ago has its turn. In every batch the sequences that are answering come
first, with their next token each; what is left of the budget goes to the prompts, oldest first, in pieces,
and beside answers in small ones, so that a long prompt never halts the answers of others.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from ..request import SequenceState, StopReason
from .prefix_cache import LENGTH_MIN

# Tokens of prompts in a batch beside answers, which wait for it. On a CPU prompts take hardly longer in such
# pieces: a 1B reads 128 tokens at once as quickly as 512.
READING = 128


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, to be computed in one batch.

    Attributes:
        sequence: whose they are.
        start: position of the first of them.
        tokens: the tokens, at least one.
        rows: after how many of the last of them a new token is to be chosen: none if they do not reach the
            end of what is known; else one, and one for each token of a draft.
    """

    sequence: SequenceState
    start: int
    tokens: tuple[int, ...]
    rows: int


@dataclass(slots=True)
class Scheduler:
    """First come, first served, over a fixed number of slots.

    Attributes:
        slots: how many sequences run at once.
        budget: how many tokens a batch may hold; at least one for each slot.
        sharing: whether a prompt that has been read is in a prefix cache for the next one.
        waiting: sequences without a slot yet, oldest first.
        running: sequences with a slot, oldest first.
    """

    slots: int
    budget: int
    sharing: bool = False
    waiting: deque[SequenceState] = field(default_factory=deque)
    running: list[SequenceState] = field(default_factory=list)
    _free: set[int] = field(init=False)
    _served: dict[str, int] = field(default_factory=dict)  # the last batch of each adapter
    _batches: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        assert 1 <= self.slots <= self.budget, "every running sequence must get at least a token into a batch"
        self._free = set(range(self.slots))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def add(self, sequence: SequenceState) -> None:
        """Put a new sequence at the end of the queue."""
        self.waiting.append(sequence)

    def admit(self) -> Iterator[SequenceState]:
        """Give slots to those that wait, as far as there are any.

        Yields:
            Each once it has its slot. What the prefix cache has of it is to be restored before the next is
            asked for: only then is it known which others have to wait for the rest of its prompt.
        """
        for sequence in list(self.waiting):
            if not self._free:
                break
            if self.sharing and any(_is_being_read(sequence, other) for other in self.running):
                continue
            self.waiting.remove(sequence)
            sequence.slot = self._slot_for(sequence)
            self._free.remove(sequence.slot)
            self.running.append(sequence)
            yield sequence

    def awaited(self, sequence: SequenceState) -> bool:
        """Whether another waits for the prompt of this one to have been read."""
        return self.sharing and any(_is_being_read(other, sequence) for other in self.waiting)

    def plan(self) -> list[Chunk]:
        """Choose the next batch, of one adapter: at most `budget` tokens, none if nothing runs."""
        room = self.budget
        chunks: list[Chunk] = []
        for sequence in sorted(self._group(), key=_is_reading):  # stable: oldest first within each kind
            if chunks and chunks[-1].sequence.decoding and not sequence.decoding:
                room = min(room, READING)
            if not room:
                break
            chunk = _next_chunk(sequence, room)
            room -= len(chunk.tokens)
            chunks.append(chunk)
        return sorted(
            chunks, key=_slot
        )  # llama.cpp takes only ascending neighbours through the weights at once

    def retire(self, sequence: SequenceState, reason: StopReason) -> int | None:
        """End a sequence, running or waiting, and free its slot.

        Returns:
            The slot that became free; None if it had none yet.
        """
        assert sequence.stop_reason is None, "a sequence ends once"
        sequence.stop_reason = reason
        slot, sequence.slot = sequence.slot, None
        if slot is None:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._free.add(slot)
        return slot

    def _group(self) -> list[SequenceState]:
        """The running sequences of the adapter whose turn it is."""
        adapters = dict.fromkeys(sequence.adapter for sequence in self.running)
        if not adapters:
            return []
        turn = min(adapters, key=lambda adapter: self._served.get(adapter, -1))
        self._served[turn] = next(self._batches)
        return [sequence for sequence in self.running if sequence.adapter == turn]

    def _slot_for(self, sequence: SequenceState) -> int:
        """The lowest free slot, beside one of the same adapter if possible: batches want neighbours."""
        alike = {other.slot for other in self.running if other.adapter == sequence.adapter}
        return min(self._free, key=lambda slot: (alike.isdisjoint((slot - 1, slot + 1)), slot))


def _is_being_read(sequence: SequenceState, other: SequenceState) -> bool:
    """Whether another is about to compute a beginning that the sequence could have from the prefix cache."""
    if other.decoding or other.adapter != sequence.adapter:
        return False
    length = other.restored + LENGTH_MIN
    beginning = sequence.request.tokens[:length]
    return len(beginning) == length and beginning == other.request.tokens[:length]


def _is_reading(sequence: SequenceState) -> bool:
    return not sequence.decoding


def _slot(chunk: Chunk) -> int:
    assert chunk.sequence.slot is not None, "what is planned is running"
    return chunk.sequence.slot


def _next_chunk(sequence: SequenceState, room: int) -> Chunk:
    tokens = sequence.next_tokens(room)
    if len(tokens) < sequence.pending:
        return Chunk(sequence, sequence.computed, tokens, rows=0)
    draft = sequence.draft[: room - len(tokens)]
    return Chunk(sequence, sequence.computed, tokens + draft, rows=1 + len(draft))
