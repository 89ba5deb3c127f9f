"""Ownership of a native handle."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

from ...errors import ClosedError
from ..forks import ForkCheck
from .compute_thread import COMPUTE_THREAD
from .error_log import ErrorLog


class NativeHandle:
    """Owner of a native handle, freed by close() or at the end of a with block."""

    def __init__(self) -> None:
        self._handles = ExitStack()
        self._handle: Any = None
        self._fork = ForkCheck()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, load: Callable[[], Any], free: Callable[[Any], None], log: ErrorLog) -> bool:
        """Load a handle in the compute thread and own it, with the function that frees it.

        Returns:
            Whether the library returned one; if not, and after an interrupt, everything owned is freed.
        """

        def take() -> None:
            self._handle = None
            log.install()
            if handle := load():
                self._handle = handle
                self._handles.callback(free, handle)

        try:
            COMPUTE_THREAD.call(take)
        except BaseException:
            self.close()
            raise
        if self._handle is None:
            self.close()
        return self._handle is not None

    @property
    def handle(self) -> Any:
        """The handle, while it is valid: the library would crash on a freed one, and hang on a forked one."""
        self._fork.check()
        if self._handle is None:
            raise ClosedError(f"the {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        """Free everything owned; a second call does nothing."""
        self._handle = None
        self._handles.close()
