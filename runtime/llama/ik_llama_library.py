"""ik_llama.cpp, from the wheel of ik-llama-cpp-python: faster kernels for several columns, repacked weights.

Its API is an older form of llama.cpp's. The binding has only a part of it; what else is used here is declared
as in `llama.h` of the wheel. Exactly one version is known, so its struct layouts are.
"""

import ctypes
import os
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from ...errors import FileError, one_line
from ...files.processors import read_cpuinfo
from .llama_cpp_library import ErrorLog
from .settings import IK, PACKAGES, GpuLayers, Handle, Settings

PACKAGE, KNOWN_VERSION = PACKAGES[IK], "0.1.5"
_ANYWHERE = -1  # a position: to the end
_DEFRAG_MAX = 16  # times that holes are closed at once; each moves a number of cells
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32


class _CacheView(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("n_cells", "n_seq_max", "token_count", "used_cells")),
        *(("max_contiguous", _INT), ("max_contiguous_idx", _INT)),
        *(("cells", _POINTER), ("cells_sequences", _POINTER)),
    )


_STATE = [_POINTER, _POINTER, ctypes.c_size_t, _INT, ctypes.c_uint32]
_FUNCTIONS: dict[str, tuple[list[Any], Any]] = {
    "llama_set_n_threads": ([_POINTER, ctypes.c_uint32, ctypes.c_uint32], None),
    "llama_kv_cache_seq_rm": ([_POINTER, _INT, _INT, _INT], ctypes.c_bool),
    "llama_kv_cache_view_init": ([_POINTER, _INT], _CacheView),
    "llama_kv_cache_view_update": ([_POINTER, ctypes.POINTER(_CacheView)], None),
    "llama_kv_cache_view_free": ([ctypes.POINTER(_CacheView)], None),
    "llama_kv_cache_defrag": ([_POINTER], None),
    "llama_kv_cache_update": ([_POINTER], _INT),
    "llama_lora_adapter_init": ([_POINTER, ctypes.c_char_p], _POINTER),
    "llama_lora_adapter_set": ([_POINTER, _POINTER, ctypes.c_float], _INT),
    "llama_lora_adapter_clear": ([_POINTER], None),
    "llama_lora_adapter_free": ([_POINTER], None),
    "llama_state_seq_get_size": ([_POINTER, _INT, ctypes.c_uint32], ctypes.c_size_t),
    "llama_state_seq_get_data": (_STATE, ctypes.c_size_t),
    "llama_state_seq_set_data": (_STATE, ctypes.c_size_t),
}


def installed() -> bool:
    """Whether the package is installed, in any version."""
    return next(iter(distributions(name=PACKAGE)), None) is not None


def check_package() -> None:
    """Raise FileError unless the known version of the package is installed, for such a processor."""
    found = version(PACKAGE) if installed() else "not installed"
    if found != KNOWN_VERSION:
        raise FileError(f"{PACKAGE}: {found}; pip install {PACKAGE}=={KNOWN_VERSION}, or use llama.cpp alone")
    flags = read_cpuinfo()[1]
    if "sse2" in flags and "avx2" not in flags:
        raise FileError(f"{PACKAGE} needs AVX2, which this processor lacks; use llama.cpp alone")


class IkLlamaLibrary:
    """The same calls as LlamaCppLibrary."""

    name = IK

    def __init__(self) -> None:
        """Load the library."""
        check_package()
        try:
            from ik_llama_cpp import _ctypes_api as api  # noqa: PLC0415 - an optional package
        except (OSError, RuntimeError, AttributeError) as error:
            raise FileError(f"ik_llama.cpp cannot be loaded: {one_line(error)}") from None
        self._api = api
        self._call: dict[str, Any] = {}
        for name, (arguments, result) in _FUNCTIONS.items():
            function = getattr(api._lib, name)
            function.argtypes, function.restype = arguments, result
            self._call[name] = function
        self.new_batch, self.free_batch = api.llama_batch_init, api.llama_batch_free
        self.logits = api.llama_get_logits_ith
        callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        set_log = api._lib.llama_log_set
        set_log.argtypes, set_log.restype = [callback, _POINTER], None
        self.log = ErrorLog("ik_llama.cpp", callback, set_log)
        api.llama_backend_init()
        self.free_model, self.free_context = api.llama_free_model, api.llama_free
        self.load_adapter = self._call["llama_lora_adapter_init"]
        self.free_adapter = self._call["llama_lora_adapter_free"]
        self.set_threads, self.decode = self._call["llama_set_n_threads"], api.llama_decode

    def load_model(self, path: Path, *, repack: bool, gpu_layers: GpuLayers) -> Handle:
        assert not gpu_layers, "settings refuse GPU layers with this library"
        native = self._api.llama_model_default_params()
        # Repacked weights are a copy; the file is then read rather than mapped.
        native.repack_tensors, native.use_mmap = repack, not repack
        native.flash_attn = False
        return self._api.llama_model_load_from_file(os.fsencode(path), native)

    def new_context(self, model: Handle, settings: Settings) -> Handle:
        native = self._api.llama_context_default_params()
        settings.size_context(native)
        native.flash_attn = bool(settings.flash_attention)
        # With the first, the up and gate parts of a LoRA are left out without a word. With the second, what
        # follows a change of the adapter is computed with the graph, and so the adapter, of before.
        native.fused_up_gate = native.graph_reuse = False
        return self._api.llama_init_from_model(model, native)

    def set_adapter(self, context: Handle, adapter: Handle | None) -> int:
        self._call["llama_lora_adapter_clear"](context)
        return 0 if adapter is None else int(self._call["llama_lora_adapter_set"](context, adapter, 1.0))

    def clear(self, context: Handle, slot: int, start: int) -> bool:
        """Remove the cells of a sequence from position `start` on.

        The holes that a sequence leaves before others are closed. The library looks for the last used cell by
        the last of each 32 alone: behind a hole as long as that, it would overlook a whole sequence.
        """
        removed = bool(self._call["llama_kv_cache_seq_rm"](context, slot, start, _ANYWHERE))
        view = self._call["llama_kv_cache_view_init"](context, 1)
        try:
            for _ in range(_DEFRAG_MAX):
                self._call["llama_kv_cache_view_update"](context, ctypes.byref(view))
                if not view.used_cells or view.max_contiguous + view.used_cells >= view.n_cells:
                    return removed
                self._call["llama_kv_cache_defrag"](context)
                self._call["llama_kv_cache_update"](context)
        finally:
            self._call["llama_kv_cache_view_free"](ctypes.byref(view))
        raise FileError("ik_llama.cpp does not close the holes of its KV cache")

    def state_bytes(self, context: Handle, slot: int) -> int:
        return int(self._call["llama_state_seq_get_size"](context, slot, 0))

    def read_state(self, context: Handle, data: Any, nbytes: int, slot: int) -> int:
        return int(self._call["llama_state_seq_get_data"](context, data, nbytes, slot, 0))

    def write_state(self, context: Handle, data: Any, nbytes: int, slot: int) -> int:
        return int(self._call["llama_state_seq_set_data"](context, data, nbytes, slot, 0))
