"""Layers of a model on a GPU, for builds of llama.cpp with Metal, CUDA or Vulkan."""

from ...errors import RequestError, build_hint
from ..validation import is_integer
from .bindings import llama_cpp
from .llama_cpp_library import LLAMA_CPP

_LAYERS_MAX = 1 << 16  # far more than any model has


def check_gpu_layers(gpu_layers: object) -> None:
    """Check a number of GPU layers, and that there is a GPU for them.

    Raises:
        RequestError: it is neither "all" nor an integer from 0, or llama.cpp finds no GPU.
    """
    if gpu_layers != "all" and not (is_integer(gpu_layers) and 0 <= gpu_layers <= _LAYERS_MAX):
        raise RequestError(
            f"gpu_layers must be 'all' or an integer from 0 to {_LAYERS_MAX}, not {gpu_layers!r}"
        )
    if gpu_layers and not gpu_found():
        raise RequestError(
            f"gpu_layers {gpu_layers}: llama.cpp finds no GPU. It needs a driver and a build for it: "
            f"{build_hint('GGML_VULKAN')} (or GGML_CUDA, or GGML_METAL)"
        )


def gpu_found() -> bool:
    """Whether this build of llama.cpp has a GPU backend, and the backend a device."""
    found = bool(llama_cpp.llama_supports_gpu_offload())
    LLAMA_CPP.log.take_errors()  # a driver's complaints, which would end up in the next error message
    return found
