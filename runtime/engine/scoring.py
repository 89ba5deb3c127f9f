"""How likely a model finds given continuations: many of them at once, as quickly as prompts are read."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError, RequestError
from ..llama.context import Context, ContextParams, Span
from ..llama.model import LoraAdapter, Model
from .prefix_cache import LENGTH_MIN, common_length

Tokens = Sequence[int]
_OUTPUTS = 128  # rows of logits at once, a vocabulary wide each


class ContinuationScorer:
    """A room of its own in which continuations are read."""

    def __init__(self, model: Model, room: ContextParams) -> None:
        """Set the room aside; as many outputs as are of use are taken of its batch.

        Raises:
            RequestError: there is not enough memory.
        """
        outputs = max(min(_OUTPUTS, room.batch), room.slots)
        self._room = ContextParams(
            room.context, room.slots, room.batch, room.threads, outputs, room.prefill_threads, room.kv
        )
        self._native = Context(model, self._room)
        self._shared = 0  # tokens that all pairs begin with
        self._blob: NDArray[np.uint8] | None = None  # their keys and values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the room."""
        self._native.close()

    def read(
        self, pairs: Sequence[tuple[Tokens, Tokens]], adapter: LoraAdapter | None
    ) -> list[tuple[float, ...]]:
        """The log-probability of each token of each continuation, in nats.

        Args:
            pairs: what comes before, and the continuation; neither is empty.
            adapter: what is applied.

        Raises:
            RequestError: a pair is longer than the context, or has an empty part.
            ModelFileError: the computation failed.
        """
        for before, after in pairs:
            if not before or not after or len(before) + len(after) - 1 > self._room.context:
                raise RequestError(
                    f"a continuation of {len(after)} tokens after {len(before)}: both are wanted, and the "
                    f"context holds {self._room.context}"
                )
            self._native.model.check_tokens(after)
        self._native.apply(adapter)
        found: list[tuple[float, ...]] = [()] * len(pairs)
        try:
            self._read_shared(pairs)
            for batch in self._batches(pairs):
                for index, logprobs in self._computed([(index, *pairs[index]) for index in batch]):
                    found[index] = logprobs
        finally:
            self._native.apply(None)  # the adapter may be closed from here on
        return found

    def _read_shared(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> None:
        """Read what all pairs begin with, once: keys and values that every slot is then given."""
        first = tuple(pairs[0][0][:-1]) if len(pairs) > 1 else ()
        shared = min((common_length(first, before[:-1]) for before, _ in pairs), default=0)
        self._shared, self._blob = (shared, None) if shared >= LENGTH_MIN else (0, None)
        if self._shared:
            for start in range(0, shared, self._room.batch):
                part = first[start : min(shared, start + self._room.batch)]
                self._native.decode([Span(0, start, part, 0)])
            self._blob = self._native.save(0)
            self._native.clear(0)

    def _batches(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> Iterator[list[int]]:
        """The pairs in batches, alike in length, since llama.cpp takes as many tokens of each at once."""
        batch: list[int] = []
        tokens = rows = 0
        for index in sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index]))):
            length, wanted = sum(map(len, pairs[index])) - 1 - self._shared, len(pairs[index][1])
            full = (
                len(batch) == self._room.slots
                or tokens + length > self._room.batch
                or rows + wanted > self._room.outputs
            )
            if batch and full:
                yield batch
                batch, tokens, rows = [], 0, 0
            batch.append(index)
            tokens, rows = tokens + length, rows + wanted
        if batch:
            yield batch

    def _computed(self, batch: Sequence[tuple[int, Tokens, Tokens]]) -> list[tuple[int, tuple[float, ...]]]:
        with ExitStack() as used:
            for slot in range(len(batch)):
                used.callback(self._native.clear, slot)
                if self._blob is not None and not self._native.restore(slot, self._blob, self._shared):
                    raise ModelFileError("llama.cpp does not take back keys and values that it has given")
            if len(batch) == 1:
                index, before, after = batch[0]
                return [(index, self._alone(before, after))]
            spans = [
                Span(slot, self._shared, (*before, *after[:-1])[self._shared :], len(after))
                for slot, (_, before, after) in enumerate(batch)
            ]
            rows = iter(self._native.decode(spans))
            return [
                (index, tuple(self._logprob(next(rows), token) for token in after))
                for index, _, after in batch
            ]

    def _alone(self, before: Tokens, after: Tokens) -> tuple[float, ...]:
        """One that may be longer than a batch, or than the outputs of one."""
        whole, first = (*before, *after[:-1]), len(before) - 1
        found: list[float] = []
        step = min(self._room.batch, self._room.outputs)
        for start in range(self._shared, len(whole), step):
            part = whole[start : start + step]
            wanted = max(min(start + len(part) - first, len(part)), 0)
            rows = self._native.decode([Span(0, start, part, wanted)])
            position = start + len(part) - wanted
            found += (self._logprob(row, after[place - first]) for place, row in enumerate(rows, position))
        return tuple(found)

    def _logprob(self, row: int, token: int) -> float:
        logits = self._native.logits_row(row)  # (vocab,)
        highest = logits.max()
        return float(logits[token] - highest - np.log(np.exp(logits - highest).sum()))
