"""Calls of native code that recurses along its input: in a thread whose stack is large on all systems."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import RequestError

T = TypeVar("T")
# llguidance recurses along chains of references, and the process ends where a stack does. What the longest
# schema needs is less than a quarter of this.
STACK_BYTES = 1 << 26
_LOCK = threading.Lock()  # the size for new threads is the process's


def with_deep_stack(function: Callable[[], T]) -> T:
    """Run a function in a thread with a large stack, and return its result.

    Raises:
        RequestError: native code panicked.
    """

    def guarded() -> T:
        try:
            return function()
        except BaseException as error:  # a panic is no Exception
            raise error if isinstance(error, Exception) else RequestError(f"native code: {error}") from None

    with ThreadPoolExecutor(1, "thirteen-deep-stack") as executor:
        with _LOCK:
            usual = threading.stack_size(STACK_BYTES)
            try:
                future = executor.submit(guarded)
            finally:
                threading.stack_size(usual)
        return future.result()
