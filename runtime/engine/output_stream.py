"""Output of one request as it grows from tokens to text: whole characters, its thought, inserted results."""

import codecs
import json
import re
from collections.abc import Sequence

from ..llama.vocabulary import Vocabulary
from ..options import Options
from ..prompt.chat_template import Thinking


class Detokenizer:
    """Decodes bytes to text as it becomes final: whole characters that cannot begin a stop string.

    A stop string and what follows are dropped; `rest` are the bytes that were fed behind its end.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending = ""
        self.stopped, self.rest = False, b""

    @property
    def holds_back(self) -> bool:
        """Whether text was fed that is not final."""
        return bool(self.pending or self._decoder.getstate()[0])

    def feed(self, piece: bytes) -> str:
        """Append the bytes of a token and return the text that became final."""
        self._append(piece)
        return self._release(len(self.pending) - self._undecided())

    def finish(self) -> str:
        """Return the rest; an incomplete character becomes U+FFFD."""
        self._append(b"", final=True)
        return self._release(len(self.pending))

    def _append(self, piece: bytes, *, final: bool = False) -> None:
        if self.stopped:
            return
        self.pending += self._decoder.decode(piece, final)
        found = [(at + len(stop), at) for stop in self._stop if (at := self.pending.find(stop)) >= 0]
        if found:  # the one that ends first wins, however the text was split into tokens
            end, start = min(found)
            self.rest = self.pending[end:].encode() + self._decoder.getstate()[0]
            self.pending = self.pending[:start]
            self.stopped = True

    def _undecided(self) -> int:
        if self.stopped:
            return 0
        ends = range(1, len(self.pending) + 1)
        lengths = (n for stop in self._stop for n in ends[: len(stop) - 1] if self.pending.endswith(stop[:n]))
        return max(lengths, default=0)

    def _release(self, length: int) -> str:
        text, self.pending = self.pending[:length], self.pending[length:]
        return text


class Thought:
    """Reads an output up to the end of its thought, which is `over` once what follows is answer."""

    def __init__(self, thinking: Thinking, *, begun: bool, budget: int) -> None:
        """Start before the first token, in the thought if `begun`; it is to end after `budget` tokens."""
        self._thinking, self._budget = thinking, budget
        self._detokenizer = Detokenizer((thinking.closing,))
        self._first, self._spaces, self._answered = b"", "", False
        self._taken = (0, 0)  # characters and tokens
        self.text, self.tokens, self.begun, self.over = "", 0, begun, False
        self.ending = thinking.ending_tokens

    @property
    def undecided(self) -> bool:
        """Whether the output so far may be the beginning of a thought's marker."""
        return not (self.begun or self.over)

    @property
    def overdue(self) -> bool:
        """Whether it has used up its budget."""
        return self.begun and self.tokens >= self._budget

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


_CALL = re.compile(r'(?P<fence>```\w*\s*)?(?P<call>\{\s*"name")')  # and its arguments may begin so too
_CALLS_READ = 4  # the last ones
_NUMBER_CONTINUES = ("", ".", ",")  # after these, a digit would still extend the number


def _is_call(text: str) -> bool:
    try:
        return not json.loads(text).keys().isdisjoint({"arguments", "parameters"})
    except (ValueError, RecursionError):
        return False


def sampled_mask(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[bool]:
    """Tell which tokens of an output the model samples; the calculator inserts the others."""
    output, inserted, mask = OutputStream(vocabulary, Options()), 0, list[bool]()
    for place, token in enumerate(tokens, 1):
        mask.append(not inserted)
        output.feed(token)
        inserted = max(inserted - 1, 0)
        result = output.inserted_tokens() if mask[-1] else []
        found = list(tokens[place : place + len(result)])
        if found and found == result[: len(found)]:  # the last result may be cut off
            inserted = len(found)
    return mask


class OutputStream:
    """Text of one request as it grows, up to a stop string, behind its thought."""

    def __init__(self, vocabulary: Vocabulary, options: Options, thought: Thought | None = None) -> None:
        self._stop_repeated_calls = options.stop_repeated_calls
        self._vocabulary, self._calculator = vocabulary, options.calculator and not options.grammar
        self._detokenizer = Detokenizer(options.stop)
        self._read_end = 0  # position in the text up to which it has been read
        self._result_end: int | None = None  # position in the text after the last inserted result
        self.text, self.thought = "", thought

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string, or the end of a tool call that it has already."""
        return self._detokenizer.stopped or (self._stop_repeated_calls and self._repeats_call)

    @property
    def _repeats_call(self) -> bool:
        fenced = self.text.endswith("```")
        openings = [*_CALL.finditer(self.text)] if fenced or self.text.endswith("}") else []
        for opening in openings[-_CALLS_READ:]:
            start = opening.start("call")
            call = self.text[start:].removesuffix("```").rstrip()
            if bool(opening["fence"]) is fenced and self.text.find(call) < start and _is_call(call):
                return True
        return False

    @property
    def no_digit(self) -> bool:
        """Whether a digit, coming next, would change an inserted result."""
        if self._result_end is None:
            return False
        text = self.text + self._detokenizer.pending  # a stop string may hold back the end of the number
        return text[self._result_end :] in _NUMBER_CONTINUES

    def feed(self, token: int) -> None:
        """Append a token."""
        piece = self.thought.feed(token) if self.thought else self._vocabulary.token_to_piece(token)
        self.text += self._detokenizer.feed(piece)

    def finish(self) -> None:
        """Append what is still held back."""
        if self.thought:
            self.text += self._detokenizer.feed(self.thought.finish())
        self.text += self._detokenizer.finish()

    def inserted_tokens(self) -> Sequence[int]:
        """Return the tokens of a result to insert, if the text ends in an open calculation; usually none.

        Those that end the thought, if that has used up its budget.
        """
        if self.thought and self.thought.overdue:
            return self.thought.ending
        if self._detokenizer.holds_back:  # the result would follow what is held back, not the text
            return []
        if not self._calculator or not self.text.endswith(("=", "= ")):  # before an import at each token
            return []
        from ..arithmetic.equations import pending_result  # noqa: PLC0415 - see answer.read_value()

        if (result := pending_result(self.text)) is None:
            return []
        tokens = self._vocabulary.tokenize(result, special=False, bos=False, continues=True)
        if b"".join(map(self._vocabulary.token_to_piece, tokens)) != result.encode():
            return []  # the vocabulary has no such text: it puts a space before digits, or lacks one
        self._result_end = len(self.text) + len(result)
        return tokens

    def read(self) -> str:
        """Return the text since the last call."""
        text, self._read_end = self.text[self._read_end :], len(self.text)
        return text
