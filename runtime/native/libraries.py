"""The native libraries by name. Tokenizers, sampling and grammars are always llama.cpp's."""

from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from .llama_cpp_library import LLAMA_CPP, LlamaCppLibrary

if TYPE_CHECKING:
    from .ik_llama_library import IkLlamaLibrary

NativeLibrary: TypeAlias = "LlamaCppLibrary | IkLlamaLibrary"
LOADED: dict[str, NativeLibrary] = {LLAMA_CPP.name: LLAMA_CPP}
_LOADING = Lock()  # of two objects, one would be collected, and its callback for messages with it


def find_library(name: str) -> NativeLibrary:
    """Return a library, which is loaded by the first call.

    Raises:
        FileError: it is not installed, or cannot be loaded.
    """
    with _LOADING:
        if name not in LOADED:
            from .ik_llama_library import IkLlamaLibrary  # noqa: PLC0415 - optional

            LOADED[name] = IkLlamaLibrary()
        return LOADED[name]
