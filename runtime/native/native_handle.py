"""Ownership of a native handle."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Self

from ...errors import ClosedError
from .. import compute
from .error_log import ErrorLog


class NativeHandle:
    """Owner of a native handle, freed by close() or at the end of a with block."""

    def __init__(self) -> None:
        self._owned = ExitStack()
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, load: Callable[[], Any], free: Callable[[Any], None], log: ErrorLog) -> bool:
        """Load a handle in the compute thread and own it, with the function that frees it.

        Returns:
            Whether the library returned one; if not, and after an interrupt, everything owned is freed.
        """

        def take() -> bool:
            log.install()
            if handle := load():
                self._handle = handle
                self._owned.callback(free, handle)
            return bool(handle)

        with ExitStack() as undo:
            undo.callback(self.close)
            acquired = compute.call(take)
            if acquired:
                undo.pop_all()
        return acquired

    @property
    def handle(self) -> Any:
        """The handle; the library would crash on one that was freed.

        Raises:
            ClosedError: it was freed.
        """
        if self._handle is None:
            raise ClosedError(f"the {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        """Free everything owned, behind what was called before; a second call does nothing."""
        with suppress(ClosedError):  # the process is ending and frees everything, or the parent owns it
            compute.call(self._close)

    def _close(self) -> None:
        self._handle = None
        self._owned.close()
