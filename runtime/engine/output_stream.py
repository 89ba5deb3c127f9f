"""What a request says, on its way from tokens to text; sums in it are completed."""

from collections.abc import Sequence
from typing import Protocol

from ..arithmetic.calculator import pending_result
from .detokenizer import Detokenizer

_GOING_ON = ("", ".", ",")  # behind a number, after which a digit would make it another number


class OutputVocabulary(Protocol):
    """What is asked of a model to turn tokens into text and back."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """The tokens of a text; see llama.Model."""


def sampled_mask(vocabulary: OutputVocabulary, tokens: Sequence[int]) -> list[bool]:
    """Which tokens of a text the model itself has to choose; the others are results of sums, given to it.

    Args:
        vocabulary: of the model.
        tokens: of the text.
    """
    reply, given, found = OutputStream(vocabulary, (), calculator=True), 0, list[bool]()
    for place, token in enumerate(tokens, 1):
        found.append(not given)
        reply.feed(token)
        given = max(given - 1, 0)
        due = reply.due() if found[-1] else []
        if due and list(tokens[place : place + len(due)]) == due:
            given = len(due)
    return found


class OutputStream:
    """The text of one request as it grows.

    Attributes:
        text: all of it so far: whole characters, up to a stop string.
    """

    def __init__(self, vocabulary: OutputVocabulary, stop: Sequence[str], *, calculator: bool) -> None:
        """Begin with nothing.

        Args:
            vocabulary: of the model.
            stop: strings that end the text.
            calculator: whether sums are to be completed; see pending_result().
        """
        self._vocabulary, self._calculator = vocabulary, calculator
        self._stream = Detokenizer(stop)
        self._unread = ""
        self._results_end: int | None = None  # of the last result that was due
        self.text = ""

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._stream.stopped

    @property
    def no_digit(self) -> bool:
        """Whether a digit, coming next, would change a result that was due."""
        return self._results_end is not None and self.text[self._results_end :] in _GOING_ON

    def feed(self, token: int) -> None:
        """Take in the next token."""
        self._add(self._stream.feed(self._vocabulary.piece(token)))

    def finish(self) -> None:
        """Take in that there are no more."""
        self._add(self._stream.finish())

    def due(self) -> list[int]:
        """The tokens that must come next, where the text ends in a sum; mostly there are none."""
        result = pending_result(self.text) if self._calculator else None
        if result is None:
            return []
        self._results_end = len(self.text) + len(result)
        return self._vocabulary.tokenize(result, special=False, bos=False)

    def read(self) -> str:
        """The text that came since the last call."""
        text, self._unread = self._unread, ""
        return text

    def _add(self, text: str) -> None:
        self.text += text
        self._unread += text
