"""Output of one request as it grows from tokens to text, with arithmetic completed by the calculator."""

import json
import re
from collections.abc import Sequence

from ..llama.vocabulary import Vocabulary
from ..options import Options
from .detokenizer import Detokenizer
from .thought import Thought

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
    """Text of one request as it grows.

    Attributes:
        text: all final text of the answer: whole characters, up to a stop string.
        thought: the thought before it; None if the model does not think.
    """

    def __init__(self, vocabulary: Vocabulary, options: Options, thought: Thought | None = None) -> None:
        """Start with no text; a grammar turns the calculator off."""
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
        from ..arithmetic.calculator import pending_result  # noqa: PLC0415 - see answer.read_value()

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
