"""The thought at the beginning of an output, told apart from the answer behind it."""

from collections.abc import Sequence

from ..prompt.thinking import Thinking
from .detokenizer import Detokenizer


class Thought:
    """Reads an output up to the end of its thought.

    Attributes:
        text: the thought so far, without white space around it.
        tokens: how many tokens it has, with its markers and white space behind it.
        begun: whether its opening marker has been read, and not yet its end.
        over: whether what follows is answer: the thought has ended, or there is none.
    """

    def __init__(self, thinking: Thinking, *, begun: bool, budget: int) -> None:
        """Start before the first token, in the thought if `begun`; it is to end after `budget` tokens."""
        self._thinking, self._budget = thinking, budget
        self._detokenizer = Detokenizer((thinking.closing,))
        self._first, self._spaces, self._answered = b"", "", False
        self._taken = (0, 0)  # characters and tokens
        self.text, self.tokens, self.begun, self.over = "", 0, begun, False

    @property
    def undecided(self) -> bool:
        """Whether the output so far may be the beginning of a thought's marker."""
        return not (self.begun or self.over)

    @property
    def overdue(self) -> bool:
        """Whether it has used up its budget."""
        return self.begun and self.tokens >= self._budget

    @property
    def ending(self) -> Sequence[int]:
        """The tokens that end it."""
        return self._thinking.ending_tokens

    def takes(self, token: int) -> bool:
        """Whether a token, coming next, is a part of it, or its opening marker."""
        begins = self.undecided and not self.tokens and self._thinking.opening_tokens == (token,)
        return self.begun or begins

    def feed(self, token: int) -> bytes:
        """Read the next token, and return what of its bytes is answer."""
        if self.over:
            piece = self._thinking.vocabulary.token_to_piece(token)
            answer = piece if self._answered else self._begin_answer(piece)
            self.tokens += not self._answered
            return answer
        piece = self._thinking.piece(token)
        self.tokens += 1
        if self.begun:
            return self._read(piece)
        self._first += piece
        opening, first = self._thinking.opening.encode(), self._first.lstrip()
        if first.startswith(opening):
            self.begun = True
            return self._read(first.removeprefix(opening))
        return b"" if opening.startswith(first) else self.finish()

    def finish(self) -> bytes:
        """End it, and return what turns out to be answer."""
        first = b""
        if self.begun:
            self._add(self._detokenizer.finish())
        elif self.undecided:
            first, self.tokens, self._answered = self._first, 0, True
        self.begun, self.over = False, True
        return first

    def take(self) -> tuple[str, int]:
        """Return its text and the number of its tokens since the last call."""
        characters, tokens = self._taken
        self._taken = len(self.text), 0 if self.undecided else self.tokens
        return self.text[characters:], self._taken[1] - tokens

    def _read(self, piece: bytes) -> bytes:
        self._add(self._detokenizer.feed(piece))
        if not self._detokenizer.stopped:
            return b""
        self.finish()
        return self._begin_answer(self._detokenizer.rest)

    def _begin_answer(self, piece: bytes) -> bytes:
        """The bytes of the answer in those behind the thought, without white space before it."""
        answer = piece.lstrip()
        self._answered = bool(answer)
        return answer

    def _add(self, text: str) -> None:
        text = self._spaces + text if self.text else text.lstrip()
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        self.text += kept
