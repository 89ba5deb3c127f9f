"""Token bytes to text: whole characters only, ending before a stop string."""

import codecs
from collections.abc import Sequence

from ...errors import RequestError


class Detokenizer:
    """Bytes to text, as it becomes certain: whole characters, and nothing that may begin a stop string.

    Attributes:
        stopped: whether a stop string has been reached; it and what follows are left out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(self._stop):
            raise RequestError("a stop string is empty")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Take in the bytes of a token, and give out what is certain."""
        self._take(piece)
        return self._give(len(self._held) - self._undecided())

    def finish(self) -> str:
        """Give out the rest; a character that was never completed shows as U+FFFD."""
        self._take(b"", final=True)
        return self._give(len(self._held))

    def _take(self, piece: bytes, *, final: bool = False) -> None:
        if self.stopped:
            return
        self._held += self._decoder.decode(piece, final)
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:  # the one complete first, so that it does not matter how the text was cut into pieces
            self._held = self._held[: min(found)[1]]
            self.stopped = True

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        if self.stopped:
            return 0
        lengths = (n for stop in self._stop for n in range(1, len(stop)) if self._held.endswith(stop[:n]))
        return max(lengths, default=0)

    def _give(self, length: int) -> str:
        given, self._held = self._held[:length], self._held[length:]
        return given
