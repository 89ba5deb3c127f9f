"""A spinner on a terminal's standard error while a person waits."""

import sys
from itertools import cycle
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..runtime.engine.handle import Piece

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_DELAY_S, _FRAME_S = 0.3, 0.1
LOADING_DELAY_S = 0.1  # when a command has just started, which took 0.2 s
_ERASE = "\r\x1b[K"


class Spinner:
    """One line that says what is waited for; it appears after 0.3 s, and whatever is printed next ends it."""

    def __init__(self) -> None:
        self._ended = Event()
        self._thread: Thread | None = None

    def begin(self, text: str, delay_s: float = _DELAY_S) -> None:
        """Show the text, if standard error is a terminal."""
        self.end()
        if sys.stderr.isatty():
            self._ended.clear()
            self._thread = Thread(target=self._spin, args=(text, delay_s), daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Erase the line; without one this does nothing."""
        if self._thread:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def _spin(self, text: str, delay_s: float) -> None:
        if self._ended.wait(delay_s):
            return
        for frame in cycle(_FRAMES):
            sys.stderr.write(f"\r{frame} {text}")
            sys.stderr.flush()
            if self._ended.wait(_FRAME_S):
                break
        sys.stderr.write(_ERASE)
        sys.stderr.flush()


spinner = Spinner()


def text_pieces(pieces: "Iterable[Piece]") -> "Iterator[Piece]":
    """The pieces of an answer with its text; the spinner shows the votes before them, and then ends."""
    for piece in pieces:
        if piece.tally and not piece.answer:
            spinner.begin(f"{piece.tally.agreement}…")
        else:
            spinner.end()
            yield piece
