"""Prompt lookup decoding: drafts without a draft model (Saxena, 2023).

An answer often repeats parts of its prompt or of itself. Where the last tokens have occurred before, the
tokens that followed them there become a draft, which joins the next batch. The model then accepts the tokens
that it would have chosen itself; computing them together costs less than one after the other. The rest of the
draft is dropped, so the output does not change.
"""

from collections.abc import Iterable

NGRAM = 3  # tokens that must have occurred before


class PromptLookup:
    """Index of the n-grams of one sequence."""

    def __init__(self, tokens: Iterable[int]) -> None:
        """Index the prompt."""
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> position after its latest occurrence
        for token in tokens:
            self.feed(token)

    def feed(self, token: int) -> None:
        """Append a token."""
        if len(self._tokens) >= NGRAM:
            self._after[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
        self._tokens.append(token)

    def draft(self, maximum: int) -> tuple[int, ...]:
        """Return up to `maximum` tokens that followed the last n-gram before; usually none."""
        at = self._after.get(tuple(self._tokens[-NGRAM:]))
        return () if at is None else tuple(self._tokens[at : at + maximum])
