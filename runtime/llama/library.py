"""The loaded llama.cpp library: its error log, and the ownership of native handles."""

import ctypes
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ClosedError
from ..forks import ForkCheck
from .bindings import llama_cpp
from .compute_thread import COMPUTE_THREAD

_ERROR, _CONTINUED = 4, 5  # of ggml_log_level
_LINE_MAX = 500  # characters: a quoted value can be as long as the file


class _ErrorLog:
    """The library's last error messages; nothing is printed."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = llama_cpp.llama_log_callback(self._receive)  # the library keeps only a pointer to it
        self.install()

    def install(self) -> None:
        """Receive the messages, also after llama-cpp-python's classes were imported, which print them."""
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR:
            self._errors.append(text.decode("utf-8", "replace").strip())

    def take_errors(self) -> str:
        """Return the errors since the last call, as a short line without the names of C++ functions."""
        lines = [line.split(": ", 1)[-1] for line in self._errors if line]
        self._errors.clear()
        line = "; ".join(" ".join(line.split()) for line in lines) or "llama.cpp gives no reason"
        return line[:_LINE_MAX]


LOG = _ErrorLog()
llama_cpp.llama_backend_init()


# Returns an integer: llama_cpp's own binding makes a pointer object for each row of logits.
logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, llama_cpp.llama_context_p_ctypes, ctypes.c_int32)(
    ("llama_get_logits_ith", llama_cpp._lib)
)


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

    def acquire(self, load: Callable[[], Any], free: Callable[[Any], None]) -> bool:
        """Load a handle in the compute thread and own it, with the function that frees it.

        Returns:
            Whether the library returned one; if not, and after an interrupt, everything owned is freed.
        """

        def take() -> None:
            LOG.install()
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


def byte_pointer(data: NDArray[np.uint8]) -> Any:
    """Return the address of an array's bytes, as the library takes it."""
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
