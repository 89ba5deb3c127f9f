"""The native libraries by name."""

from functools import cache
from threading import Lock

from .llama_cpp_library import LLAMA_CPP
from .native_library import NativeLibrary

_LOADING = Lock()  # of two objects, one would be collected, and its callback for messages with it


def find_library(name: str) -> NativeLibrary:
    """Return a library, which is loaded by the first call.

    Raises:
        FileError: it is not installed, or cannot be loaded.
    """
    if name == LLAMA_CPP.name:
        return LLAMA_CPP
    with _LOADING:
        return _ik_llama_library()


@cache
def _ik_llama_library() -> NativeLibrary:
    from .ik_llama_library import IkLlamaLibrary  # noqa: PLC0415 - optional

    return IkLlamaLibrary()
