"""The native libraries by name."""

from functools import cache

from .llama_cpp_library import LLAMA_CPP
from .native_library import NativeLibrary


@cache
def find_library(name: str) -> NativeLibrary:
    """Return a library, which is loaded by the first call.

    Raises:
        FileError: it is not installed, or cannot be loaded.
    """
    if name == LLAMA_CPP.name:
        return LLAMA_CPP
    from .ik_llama_library import IkLlamaLibrary  # noqa: PLC0415 - optional

    return IkLlamaLibrary()
