"""Text that comes in pieces, with lines that break between words, and LaTeX as text."""

import shutil
import sys

from rich.cells import cell_len

from .console import printable
from .latex_text import latex_text

_HELD_MAX = 24  # characters of a word that is held back; scripts without spaces have no ends of words


class WordWrap:
    """Writes to standard output; on a terminal, a word that does not fit the line begins the next one.

    There, the rest of a line from LaTeX on is held back until the line ends, and shown as text.
    """

    def __init__(self) -> None:
        self._wraps = sys.stdout.isatty()
        self._column, self._held = 0, ""
        self._line, self._latex, self._code = "", "", False

    def write(self, text: str) -> None:
        """Write a piece; the last word is held back until it is complete."""
        if not self._wraps:
            sys.stdout.write(printable(text))
            sys.stdout.flush()
            return
        for character in printable(text):
            self._line = "" if character == "\n" else self._line + character
            self._code ^= self._line == "```"
            amount = self._latex == "$" and character in "0123456789 "
            if amount or (self._latex and character == "\n"):
                self._end_latex()
            if self._latex or (character in "\\$" and not self._code):
                self._latex += character
            else:
                self._write(character)
        sys.stdout.flush()

    def flush(self) -> None:
        """Write what is held back."""
        self._end_latex()
        self._end_word()

    def _end_latex(self) -> None:
        latex, self._latex = self._latex, ""
        for character in latex_text(latex):
            self._write(character)

    def _write(self, character: str) -> None:
        if character.isspace() or len(self._held) >= _HELD_MAX:
            self._end_word()
        if not character.isspace():
            self._held += character
            return
        sys.stdout.write(character)
        self._column = 0 if character == "\n" else self._column + 1

    def _end_word(self) -> None:
        width = cell_len(self._held)
        if self._column and self._column + width > shutil.get_terminal_size().columns:
            sys.stdout.write("\n")
            self._column = 0
        sys.stdout.write(self._held)
        sys.stdout.flush()
        self._column, self._held = self._column + width, ""
