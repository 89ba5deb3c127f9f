"""Versions of the software that computes answers."""

from importlib.metadata import version


def answer_versions() -> dict[str, str]:
    """Versions of this package and of llama-cpp-python, by name; what is computed depends on both."""
    return {"thirteen": version("thirteen"), "llama_cpp_python": version("llama-cpp-python")}
