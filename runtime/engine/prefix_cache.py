"""Prefix cache: KV cache of prompt prefixes in memory, so that each is computed once.

It holds the most recently used entries within a number of bytes. A KV cache belongs to a model and an
adapter: an engine has one prefix cache, which separates the adapters.

The number of cached tokens and the time to the first token tell a client what was asked before. Clients that
must not learn that of each other have namespaces, which share nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PREFIX_TOKENS_MIN = 16  # a shorter prefix is not worth waiting for, or caching

PrefixKey = tuple[str, str]  # key of a part of the prefix cache: an adapter and a namespace
KvState = NDArray[np.uint8]  # serialized KV cache of one sequence, from Context.save()


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share, counted from the first."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


@dataclass(frozen=True, slots=True, eq=False)
class _CachedPrefix:
    key: PrefixKey
    tokens: tuple[int, ...]
    state: KvState

    def match(self, key: PrefixKey, tokens: tuple[int, ...]) -> int:
        """Return how many tokens of a prompt this entry covers; 0 if too few to be useful."""
        if self.key != key or self.tokens[:PREFIX_TOKENS_MIN] != tokens[:PREFIX_TOKENS_MIN]:
            return 0
        return common_length(self.tokens, tokens)


class PrefixCache:
    """Prompt prefixes of one model, of at most `capacity` bytes; for `cuts`, see Model.cuts_states."""

    def __init__(self, capacity: int, *, cuts: bool = True) -> None:
        self.capacity, self.cuts = capacity, cuts
        self._entries: list[_CachedPrefix] = []  # most recently used last

    @property
    def nbytes(self) -> int:
        """Size of the entries."""
        return sum(entry.state.nbytes for entry in self._entries)

    def find(self, key: PrefixKey, prompt: tuple[int, ...]) -> tuple[int, KvState] | None:
        """Tokens of the longest useful prefix of a prompt, and the KV cache of these and perhaps of more.

        It never includes the prompt's last token, whose logits are needed.
        """
        matches = (
            (length, entry)
            for entry in reversed(self._entries)
            if (length := entry.match(key, prompt[:-1])) == len(entry.tokens) or self.cuts
        )
        # Of equal ones the smallest, which is copied fastest; of these the newest.
        length, best = max(matches, key=lambda match: (match[0], -match[1].state.nbytes), default=(0, None))
        if best is None or length < PREFIX_TOKENS_MIN:
            return None
        self._entries.remove(best)
        self._entries.append(best)
        return length, best.state

    def saves(self, key: PrefixKey, prompt: tuple[int, ...], cached: int) -> list[int]:
        """Where a prompt must be saved so that others can use it although entries are not cut, descending.

        Before its last token, whose logits each prompt needs; and where it parts from an entry.
        """
        parts = (entry.match(key, prompt[:-1]) for entry in self._entries)
        ends = {len(prompt) - 1, max(parts, default=0)}
        return sorted((end for end in ends if end >= cached + PREFIX_TOKENS_MIN), reverse=True)

    def add(self, key: PrefixKey, prompt: tuple[int, ...], state: KvState) -> None:
        """Add the KV cache of a prompt, which fits; if it may be cut, it replaces those of its prefixes."""
        self._entries = [
            entry
            for entry in self._entries
            if entry.key != key or entry.tokens != (prompt[: len(entry.tokens)] if self.cuts else prompt)
        ]
        self._entries.append(_CachedPrefix(key, prompt, state))
        while self.nbytes > self.capacity:
            del self._entries[0]

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
