"""Text that comes in pieces, with lines that break between words."""

import shutil
import sys

from rich.cells import cell_len

from .console import printable

_HELD_MAX = 24  # characters of a word that is held back; scripts without spaces have no ends of words


class WordWrap:
    """Writes to standard output; on a terminal, a word that does not fit the line begins the next one."""

    def __init__(self) -> None:
        self._wraps = sys.stdout.isatty()
        self._column, self._held = 0, ""

    def write(self, text: str) -> None:
        """Write a piece; the last word is held back until it is complete."""
        if not self._wraps:
            sys.stdout.write(printable(text))
            sys.stdout.flush()
            return
        for character in printable(text):
            if character.isspace() or len(self._held) >= _HELD_MAX:
                self.flush()
            if not character.isspace():
                self._held += character
                continue
            sys.stdout.write(character)
            self._column = 0 if character == "\n" else self._column + 1
        sys.stdout.flush()

    def flush(self) -> None:
        """Write what is held back."""
        width = cell_len(self._held)
        if self._column and self._column + width > shutil.get_terminal_size().columns:
            sys.stdout.write("\n")
            self._column = 0
        sys.stdout.write(self._held)
        sys.stdout.flush()
        self._column, self._held = self._column + width, ""
