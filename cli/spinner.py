"""A spinner on a terminal's standard error while a person waits."""

import sys
from threading import Timer
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..runtime.answer import Piece

_DELAY_S = 0.3
LOADING_DELAY_S = 0.1  # when a command has just started, which took 0.2 s


class Spinner:
    """One line that says what is waited for; it appears after 0.3 s, and whatever is printed next ends it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("")
        self._timer = Timer(0, self._status.start)

    def begin(self, text: str, delay_s: float = _DELAY_S) -> None:
        """Show the text, if standard error is a terminal."""
        self.end()
        if sys.stderr.isatty():  # rich would also write to a file, under FORCE_COLOR
            self._status.update(text)
            self._timer = Timer(delay_s, self._status.start)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """Erase the line; without one this does nothing."""
        self._timer.cancel()
        if self._timer.is_alive():  # perhaps it has just begun to show the line
            self._timer.join()
        self._status.stop()


spinner = Spinner()


def text_pieces(pieces: "Iterable[Piece]") -> "Iterator[Piece]":
    """The pieces of an answer with its text; before them the spinner shows the votes, or that it thinks."""
    thinks = False
    for piece in pieces:
        if piece.tally and not piece.answer:
            spinner.begin(f"{piece.tally.agreement}…")
        elif piece.thinking_tokens and not (piece.text or piece.answer):
            if not thinks:
                spinner.begin("thinking…")
            thinks = True
        else:
            spinner.end()
            yield piece
