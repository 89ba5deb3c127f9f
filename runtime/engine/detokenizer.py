"""Incremental detokenizer: token bytes to text, in whole characters, ending before a stop string."""

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Decodes bytes to text as it becomes final: whole characters that cannot begin a stop string.

    Attributes:
        pending: text that was fed and is not final.
        stopped: whether a stop string was found; it and what follows are dropped.
        rest: bytes that were fed with its end, behind it.
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
        if not self._stop:
            return self._decoder.decode(piece)
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
        """Length of the longest suffix that may begin a stop string."""
        if self.stopped:
            return 0
        ends = range(1, len(self.pending) + 1)
        lengths = (n for stop in self._stop for n in ends[: len(stop) - 1] if self.pending.endswith(stop[:n]))
        return max(lengths, default=0)

    def _release(self, length: int) -> str:
        text, self.pending = self.pending[:length], self.pending[length:]
        return text
