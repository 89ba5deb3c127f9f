"""Calls of native code that recurses along its input: in a thread whose stack is large on all systems."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..errors import RequestError

T = TypeVar("T")
# llguidance recurses along chains of rules and references, std::regex for each character of a match, and the
# process ends where a stack does. What the longest inputs need is less than a quarter of this.
STACK_BYTES = 1 << 26
_LOCK = threading.Lock()  # the size for new threads is the process's


def with_deep_stack(function: Callable[[], T]) -> T:
    """Run a function in a thread with a large stack, and return its result.

    Raises:
        RequestError: there is no memory for the stack, or native code panicked.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # a panic is no Exception
            result.set_exception(
                error if isinstance(error, Exception) else RequestError(f"native code: {error}")
            )

    with _LOCK:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="thirteen-deep-stack")
            thread.start()
        except RuntimeError:
            raise RequestError(f"no memory for a stack of {STACK_BYTES:,} bytes to read the text") from None
        finally:
            threading.stack_size(usual)
    thread.join()
    return result.result()
