"""The loaded llama.cpp library: its log, and the ownership of native handles."""

import ctypes
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError

Logits = NDArray[np.float32]


_ERROR, _CONTINUED = 4, 5  # of ggml_log_level


class _Log:
    """The library's messages: kept for the error that follows them, never printed."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.level = 0
        self.callback = llama_cpp.llama_log_callback(
            self.receive
        )  # held here: the library keeps only a pointer
        llama_cpp.llama_log_set(self.callback, ctypes.c_void_p(0))

    def receive(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        self.level = self.level if level == _CONTINUED else level
        if self.level == _ERROR:
            self.errors.append(text.decode("utf-8", "replace").strip())

    def reason(self) -> str:
        """The errors since the last call, as one line without the names of C++ functions."""
        lines = [line.split(": ", 1)[-1] for line in self.errors if line]
        self.errors.clear()
        return "; ".join(" ".join(line.split()) for line in lines) or "llama.cpp gives no reason"


LOG = _Log()
llama_cpp.llama_backend_init()


# As a number, where llama_cpp's own makes a pointer object for each row of logits.
logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, llama_cpp.llama_context_p_ctypes, ctypes.c_int32)(
    ("llama_get_logits_ith", llama_cpp.llama_cpp._lib)
)


class NativeHandle:
    """Something that holds a native handle, freed by close() or by leaving a with block."""

    def __init__(self) -> None:
        self._handles = ExitStack()
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def own(self, handle: Any, free: Callable[[Any], None]) -> None:
        """Take over a handle, with the function that frees it."""
        self._handle = handle
        self._handles.callback(free, handle)

    @property
    def handle(self) -> Any:
        """The handle, while it is valid: the library would crash on a freed one."""
        if self._handle is None:
            raise RequestError(f"{type(self).__name__.lower()}: it is closed")
        return self._handle

    def close(self) -> None:
        """Free what is held; a second call does nothing."""
        self._handle = None
        self._handles.close()


def byte_pointer(blob: NDArray[np.uint8]) -> Any:
    """The address of an array's bytes, as the library takes it."""
    return blob.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
