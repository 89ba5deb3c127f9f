"""llama.cpp, by the low-level bindings of llama-cpp-python: the rest of it takes 0.2 s to import."""

import ctypes
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import FileError, one_line
from .settings import LLAMA, GpuLayers, Handle, Settings

# Before the library is loaded: on an abort it would run a debugger on this process, which takes seconds.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
try:
    import llama_cpp.llama_cpp as llama_cpp  # noqa: PLR0402 - `from llama_cpp import` would import all of it
except (OSError, RuntimeError) as error:  # a library that it needs is missing, or it is for another processor
    remedy = "install llama-cpp-python again, or what it lacks, such as libgomp1"
    raise FileError(f"llama.cpp cannot be loaded: {one_line(error)}; {remedy}") from None

__all__ = ["LLAMA_CPP", "SLOTS_MAX", "ErrorLog", "LlamaCppLibrary", "gpu_found", "llama_cpp"]
SLOTS_MAX = int(llama_cpp.llama_max_parallel_sequences())
_NO_DEVICES = (ctypes.c_void_p * 1)()  # a list that ends at once
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


_ERROR, _CONTINUED = 4, 5  # of ggml_log_level
_LINE_MAX = 500  # characters: a quoted value can be as long as the file


class ErrorLog:
    """A library's last error messages; nothing is printed."""

    def __init__(self, library: str, callback_type: Any, set_log: Callable[[Any, None], None]) -> None:
        self._library, self._set_log = library, set_log
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = callback_type(self._receive)  # the library keeps only a pointer to it
        self.install()

    def install(self) -> None:
        """Receive the messages, also after a binding's own classes were imported, which print them."""
        self._set_log(self._callback, None)

    def _receive(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR:
            self._errors.append(text.decode("utf-8", "replace").strip())

    def take_errors(self) -> str:
        """Return the errors since the last call, as a short line without the names of C++ functions."""
        lines = [line.split(": ", 1)[-1] for line in tuple(self._errors) if line]
        self._errors.clear()
        line = "; ".join(" ".join(line.split()) for line in lines) or f"{self._library} gives no reason"
        return line[:_LINE_MAX]


class LlamaCppLibrary:
    """The calls that an engine needs of a library. Nothing is checked here: the library may abort.

    decode() and set_adapter() return 0 if all went well. `logits` gives a pointer to a row, (vocab,) float32.
    `state_bytes` is the size of a sequence's state, which read_state() copies to memory and write_state() to
    an empty sequence; 0 bytes if it is refused.
    """

    name = LLAMA

    def __init__(self) -> None:
        self.log = ErrorLog(self.name, llama_cpp.llama_log_callback, llama_cpp.llama_log_set)
        llama_cpp.llama_backend_init()
        self.new_batch, self.free_batch = llama_cpp.llama_batch_init, llama_cpp.llama_batch_free
        self.logits = llama_cpp.llama_get_logits_ith
        self.set_threads, self.decode = llama_cpp.llama_set_n_threads, llama_cpp.llama_decode
        self.state_bytes = llama_cpp.llama_state_seq_get_size
        self.read_state = llama_cpp.llama_state_seq_get_data
        self.write_state = llama_cpp.llama_state_seq_set_data
        self.free_model, self.free_context = llama_cpp.llama_model_free, llama_cpp.llama_free
        self.load_adapter = llama_cpp.llama_adapter_lora_init
        self.free_adapter = llama_cpp.llama_adapter_lora_free

    def load_model(
        self, path: Path, *, repack: bool, gpu_layers: GpuLayers, vocabulary_only: bool = False
    ) -> Handle:
        """Load a model. With `vocabulary_only` it loads no weights, which the file then need not have.

        With 0 layers the model gets no GPU at all. llama.cpp would otherwise use one for large batches, and
        keep the weights in memory for transfers to it instead of repacking them.
        """
        native = llama_cpp.llama_model_default_params()
        native.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        native.use_extra_bufts, native.vocab_only = repack, vocabulary_only
        native.n_gpu_layers = -1 if gpu_layers == "all" else gpu_layers
        if not gpu_layers:
            native.devices = ctypes.addressof(_NO_DEVICES)
        return llama_cpp.llama_model_load_from_file(os.fsencode(path), native)

    def new_context(self, model: Handle, settings: Settings) -> Handle:
        """Allocate a context. With `pooling` it makes a vector of each sequence, and they share its cells."""
        native = llama_cpp.llama_context_default_params()
        settings.size_context(native)
        native.n_outputs_max = settings.outputs
        native.kv_unified, native.no_perf = False, True
        native.flash_attn_type = _FLASH_ATTENTION[settings.flash_attention]
        if settings.exact:
            native.type_k = native.type_v = llama_cpp.GGML_TYPE_F32
            native.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # The KV cache of the GPU's layers is on the GPU. It also computes large batches of the other layers.
        native.offload_kqv = native.op_offload = settings.gpu_layers != 0
        if settings.pooling:
            native.embeddings, native.pooling_type, native.kv_unified = True, settings.pooling, True
            native.n_ctx, native.n_ubatch = settings.context, settings.batch  # a text is computed at once
        return llama_cpp.llama_init_from_model(model, native)

    def set_adapter(self, context: Handle, adapter: Handle | None) -> int:
        """Apply an adapter, or none, to all sequences."""
        count = int(adapter is not None)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*[adapter][:count])
        scales = (ctypes.c_float * count)(*[1.0][:count])
        return int(llama_cpp.llama_set_adapters_lora(context, handles, count, scales))

    def clear(self, context: Handle, slot: int, start: int) -> bool:
        """Remove the cells of a sequence from position `start` on; returns whether that is possible."""
        return bool(llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context), slot, start, -1))


LLAMA_CPP = LlamaCppLibrary()


def gpu_found() -> bool:
    """Whether this build of llama.cpp has a GPU backend, and the backend a device."""
    found = bool(llama_cpp.llama_supports_gpu_offload())
    LLAMA_CPP.log.take_errors()  # a driver's complaints, which would end up in the next error message
    return found
