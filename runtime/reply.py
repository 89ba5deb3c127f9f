"""What a request says, on its way from tokens to text and, at its end, to an Answer."""

from collections.abc import Callable, Sequence

from .answer import Answer, final_answer, format_number
from .request import End, Event, Token
from .text import TextStream


class Reply:
    """Collects a request's events.

    Attributes:
        text: all text so far.
        end: the last event, None while there may be more.
    """

    def __init__(self, piece: Callable[[int], bytes], stop: Sequence[str]) -> None:
        """Begin with nothing; `piece` gives a token's bytes, and a string of `stop` ends the text."""
        self._piece = piece
        self._stream = TextStream(stop)
        self._unread = ""
        self.text = ""
        self.end: End | None = None

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._stream.stopped

    def feed(self, event: Event) -> None:
        """Take in an event of the request."""
        if isinstance(event, Token):
            text = self._stream.feed(self._piece(event.token))
        else:
            text, self.end = self._stream.finish(), event
        self.text += text
        self._unread += text

    def read(self) -> str:
        """The text that came since the last call."""
        text, self._unread = self._unread, ""
        return text

    def answer(self) -> Answer:
        """The whole, once it has ended."""
        assert self.end is not None, "an answer is asked for when the request has ended"
        number = final_answer(self.text)
        return Answer(
            value=None if number is None else format_number(number),
            text=self.text,
            stop_reason=self.end.stop_reason,
            usage=self.end.usage,
            timings=self.end.timings,
        )
