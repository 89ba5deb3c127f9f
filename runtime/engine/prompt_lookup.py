"""Prompt lookup: a draft of what may come next, without a second model (Saxena, 2023).

An answer often repeats what stands in its question or in its own beginning. Where its last tokens have stood
before, those that followed there are put into the next batch behind them. The model then says which of them
it would have chosen too; these cost less together than one after the other, and the rest is thrown away. So
the output is what it is without.
"""

from collections.abc import Iterable

NGRAM = 3  # tokens that must have stood before


class PromptLookup:
    """Which tokens followed which, in one sequence."""

    def __init__(self, tokens: Iterable[int]) -> None:
        """Begin with the prompt."""
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where the latest run of NGRAM tokens ended
        for token in tokens:
            self.feed(token)

    def feed(self, token: int) -> None:
        """Take in the next token."""
        if len(self._tokens) >= NGRAM:
            self._after[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
        self._tokens.append(token)

    def draft(self, most: int) -> tuple[int, ...]:
        """Up to so many tokens that followed where the last ones stood before; mostly there are none."""
        at = self._after.get(tuple(self._tokens[-NGRAM:]))
        return () if at is None else tuple(self._tokens[at : at + most])
