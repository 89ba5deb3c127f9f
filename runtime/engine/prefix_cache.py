"""Prefix cache: KV cache of prompt prefixes in memory, so that each is computed once.

It holds the most recently used entries within a number of bytes. A KV cache belongs to a model and an
adapter: an engine has one prefix cache, which separates the adapters.

The number of cached tokens and the time to the first token tell a client what was asked before. Clients that
must not learn that of each other have namespaces, which share nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

PREFIX_TOKENS_MIN = 16  # a shorter prefix is not worth waiting for, or caching

PrefixKey = tuple[str, str]  # key of a part of the prefix cache: an adapter and a namespace
KvState = NDArray[np.uint8]  # serialized KV cache of one sequence, from Context.save()


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share, counted from the first."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


class PrefixCache:
    """Prompt prefixes of one model, of at most `capacity` bytes; for `cuts`, see Model.cuts_states."""

    def __init__(self, capacity: int, *, cuts: bool = True) -> None:
        self.capacity, self.cuts = capacity, cuts
        # By key and tokens, the most recently used last.
        self._entries: dict[tuple[PrefixKey, tuple[int, ...]], KvState] = {}

    @property
    def nbytes(self) -> int:
        """Size of the entries."""
        return sum(state.nbytes for state in self._entries.values())

    def find(self, key: PrefixKey, prompt: tuple[int, ...]) -> tuple[int, KvState] | None:
        """Tokens of the longest useful prefix of a prompt, and the KV cache of these and perhaps of more.

        It never includes the prompt's last token, whose logits are needed.
        """
        matches = (
            (length, tokens)
            for tokens, length in self._shared(key, prompt[:-1])
            if length == len(tokens) or self.cuts
        )
        # Of equal ones the smallest, which is copied fastest; of these the newest.
        length, tokens = max(
            matches, key=lambda match: (match[0], -self._entries[key, match[1]].nbytes), default=(0, ())
        )
        if length < PREFIX_TOKENS_MIN:
            return None
        state = self._entries[key, tokens] = self._entries.pop((key, tokens))
        return length, state

    def _shared(self, key: PrefixKey, prompt: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield the tokens of entries, the newest first, and how many of them a prompt begins with."""
        for other, tokens in reversed(self._entries):
            if other == key and tokens[:PREFIX_TOKENS_MIN] == prompt[:PREFIX_TOKENS_MIN]:
                yield tokens, common_length(tokens, prompt)

    def saves(self, key: PrefixKey, prompt: tuple[int, ...], cached: int) -> list[int]:
        """Where a prompt must be saved so that others can use it although entries are not cut, descending.

        Before its last token, whose logits each prompt needs; and where it parts from an entry.
        """
        parts = (length for _, length in self._shared(key, prompt[:-1]))
        ends = {len(prompt) - 1, max(parts, default=0)}
        return sorted((end for end in ends if end >= cached + PREFIX_TOKENS_MIN), reverse=True)

    def add(self, key: PrefixKey, prompt: tuple[int, ...], state: KvState) -> None:
        """Add the KV cache of a prompt, which fits; if it may be cut, it replaces those of its prefixes."""
        for tokens, length in [*self._shared(key, prompt)]:
            if tokens == (prompt[:length] if self.cuts else prompt):
                del self._entries[key, tokens]
        self._entries[key, prompt] = state
        while self.nbytes > self.capacity:
            del self._entries[next(iter(self._entries))]

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
