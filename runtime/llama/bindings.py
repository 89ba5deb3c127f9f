"""llama.cpp's low-level bindings, without the rest of llama-cpp-python, which takes 0.2 s to import."""

import llama_cpp.llama_cpp as llama_cpp  # noqa: PLR0402 - `from llama_cpp import` would import all of it

__all__ = ["llama_cpp"]
