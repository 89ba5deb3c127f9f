"""llama.cpp's low-level bindings, without the rest of llama-cpp-python, which takes 0.2 s to import."""

from ...errors import FileError, one_line

try:
    import llama_cpp.llama_cpp as llama_cpp  # noqa: PLR0402 - `from llama_cpp import` would import all of it
except (OSError, RuntimeError) as error:  # a library that it needs is missing, or it is for another processor
    remedy = "install llama-cpp-python again, or what it lacks, such as libgomp1"
    raise FileError(f"llama.cpp cannot be loaded: {one_line(error)}; {remedy}") from None

__all__ = ["llama_cpp"]
