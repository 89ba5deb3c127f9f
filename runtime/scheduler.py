"""Which tokens go into the next batch. It holds no tensors, so that its rules are tested without weights.

Requests are taken in the order they came and keep their slot until they end. In every batch the sequences
that are answering come first, with their next token each; what is left of the budget goes to the prompts,
oldest first, in pieces, and beside answers in small ones, so that a long prompt never halts the answers of
others.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from .request import Sequence, StopReason

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
        samples: whether they reach the end of what is known, so that a new token can be chosen after them.
    """

    sequence: Sequence
    start: int
    tokens: tuple[int, ...]
    samples: bool


@dataclass(slots=True)
class Scheduler:
    """First come, first served, over a fixed number of slots.

    Attributes:
        slots: how many sequences run at once.
        budget: how many tokens a batch may hold; at least one for each slot.
        waiting: sequences without a slot yet, oldest first.
        running: sequences with a slot, oldest first.
    """

    slots: int
    budget: int
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        assert 1 <= self.slots <= self.budget, "every running sequence must get at least a token into a batch"
        self._free = list(range(self.slots))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence at the end of the queue."""
        self.waiting.append(sequence)

    def find(self, id: int) -> Sequence | None:
        """The sequence of that id, if it has not ended."""
        return next((s for s in (*self.running, *self.waiting) if s.id == id), None)

    def plan(self) -> list[Chunk]:
        """Admit what there is room for, and choose the next batch: at most `budget` tokens, none if idle."""
        self._admit()
        room = self.budget
        chunks: list[Chunk] = []
        for sequence in sorted(self.running, key=_is_reading):  # stable: oldest first within each kind
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

    def retire(self, sequence: Sequence, reason: StopReason) -> int | None:
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
            heappush(self._free, slot)
        return slot

    def _admit(self) -> None:
        while self.waiting and self._free:
            sequence = self.waiting.popleft()
            sequence.slot = heappop(self._free)  # the lowest, so that few slots in use are neighbours
            self.running.append(sequence)


def _is_reading(sequence: Sequence) -> bool:
    return not sequence.decoding


def _slot(chunk: Chunk) -> int:
    assert chunk.sequence.slot is not None, "what is planned is running"
    return chunk.sequence.slot


def _next_chunk(sequence: Sequence, room: int) -> Chunk:
    tokens = sequence.next_tokens(room)
    return Chunk(sequence, sequence.computed, tokens, samples=len(tokens) == sequence.pending)
