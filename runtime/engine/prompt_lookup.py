"""Drafts of the next tokens of a sequence: those that followed the last two where they stood before.

Answers repeat names, numbers and phrases of the question and of themselves. See Saxena, "Prompt Lookup
Decoding", 2023.
"""

from collections.abc import Sequence


class PromptLookup:
    """The tokens of a prompt and its output, and where each pair of them stood last."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._prompt = len(prompt)
        self._append(prompt)

    def draft(self, output: Sequence[int], count: int) -> tuple[int, ...]:
        """Guess up to `count` tokens behind the prompt and its output, which grows from call to call."""
        self._append(output[len(self._tokens) - self._prompt :])
        place = self._after.get((*self._tokens[-2:],), len(self._tokens))
        return tuple(self._tokens[place : place + max(count, 0)])

    def _append(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if len(self._tokens) > 1:
                self._after[self._tokens[-2], self._tokens[-1]] = len(self._tokens)
            self._tokens.append(token)
