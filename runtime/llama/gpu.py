"""Layers of a model on a GPU, for builds of llama.cpp with Metal, CUDA or Vulkan."""

import ctypes
from typing import Any

from ...errors import RequestError, build_hint
from ..validation import is_integer
from .bindings import llama_cpp
from .library import LOG
from .settings import GpuLayers

_LAYERS_MAX = 1 << 16  # far more than any model has
_NO_DEVICES = (ctypes.c_void_p * 1)()  # a list that ends at once


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
    LOG.take_errors()  # a driver's complaints, which would end up in the next error message
    return found


def set_gpu_layers(native: Any, gpu_layers: GpuLayers) -> None:
    """Set the layers in llama.cpp's parameters of a model.

    With 0 layers the model gets no GPU at all. llama.cpp would otherwise use one for large batches, and keep
    the weights in memory for transfers to it instead of repacking them.
    """
    native.n_gpu_layers = -1 if gpu_layers == "all" else gpu_layers
    if not gpu_layers:
        native.devices = ctypes.addressof(_NO_DEVICES)
