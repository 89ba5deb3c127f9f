"""The error log of a native library."""

from collections import deque
from collections.abc import Callable
from typing import Any

_ERROR, _CONTINUED = 4, 5  # of ggml_log_level
_LINE_MAX = 500  # characters: a quoted value can be as long as the file


class ErrorLog:
    """A library's last error messages; nothing is printed."""

    def __init__(self, library: str, callback_type: Any, set_log: Callable[[Any, None], None]) -> None:
        """Receive the messages from now on; `callback_type` is ctypes' type of what `set_log` sets."""
        self._library, self._set_log = library, set_log
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = callback_type(self._receive)  # the library keeps only a pointer to it
        self.install()

    def install(self) -> None:
        """Receive the messages, also after a binding's own classes were imported, which print them."""
        self._set_log(self._callback, None)

    def _receive(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR:
            self._errors.append(text.decode("utf-8", "replace").strip())

    def take_errors(self) -> str:
        """Return the errors since the last call, as a short line without the names of C++ functions."""
        lines = [line.split(": ", 1)[-1] for line in tuple(self._errors) if line]
        self._errors.clear()
        line = "; ".join(" ".join(line.split()) for line in lines) or f"{self._library} gives no reason"
        return line[:_LINE_MAX]
