"""llama.cpp, as llama-cpp-python ships it."""

import ctypes
import os
from pathlib import Path
from typing import Any

from .bindings import llama_cpp
from .error_log import ErrorLog
from .native_library import Handle
from .settings import KV_TYPES, LIBRARIES, GpuLayers, Settings
from .struct_layouts import check_struct_layouts

_NO_DEVICES = (ctypes.c_void_p * 1)()  # a list that ends at once
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class LlamaCppLibrary:
    """See NativeLibrary."""

    name = LIBRARIES[0]
    batch = llama_cpp.llama_batch
    joins_sequences = False

    def __init__(self) -> None:
        self.log = ErrorLog(self.name, llama_cpp.llama_log_callback, llama_cpp.llama_log_set)
        llama_cpp.llama_backend_init()
        # Returns an integer: the binding makes a pointer object for each row of logits.
        prototype = ctypes.CFUNCTYPE(ctypes.c_void_p, llama_cpp.llama_context_p_ctypes, ctypes.c_int32)
        self.logits = prototype(("llama_get_logits_ith", llama_cpp._lib))
        self.set_threads = llama_cpp.llama_set_n_threads
        self.state_bytes = llama_cpp.llama_state_seq_get_size
        self.read_state = llama_cpp.llama_state_seq_get_data
        self.write_state = llama_cpp.llama_state_seq_set_data
        self.set_embeddings = llama_cpp.llama_set_embeddings
        self.embedding = llama_cpp.llama_get_embeddings_seq
        self.embedding_width = llama_cpp.llama_model_n_embd_out
        self.free_model, self.free_context = llama_cpp.llama_model_free, llama_cpp.llama_free
        self.free_adapter = llama_cpp.llama_adapter_lora_free

    def load_model(
        self, path: Path, *, repack: bool, gpu_layers: GpuLayers, vocabulary_only: bool = False
    ) -> Handle:
        """See NativeLibrary. With `vocabulary_only` it loads no weights, which the file then need not have.

        Raises:
            FileError: the binding has other structs than those that are known here.
        """
        check_struct_layouts()
        native = _model_params(gpu_layers, repack=repack)
        native.vocab_only = vocabulary_only
        return llama_cpp.llama_model_load_from_file(os.fsencode(path), native)

    def new_context(self, model: Handle, settings: Settings, gpu_layers: GpuLayers) -> Handle:
        return llama_cpp.llama_init_from_model(model, _context_params(settings, gpu_layers))

    def new_embedding_context(
        self, model: Handle, settings: Settings, gpu_layers: GpuLayers, pooling: int
    ) -> Handle:
        """Allocate a context that makes one vector of each sequence; the sequences share its cells."""
        native = _context_params(settings, gpu_layers)
        native.embeddings, native.pooling_type, native.kv_unified = True, pooling, True
        native.n_ctx, native.n_ubatch = settings.context, settings.batch  # a text is computed at once
        return llama_cpp.llama_init_from_model(model, native)

    def keeps_text(self, context: Handle) -> bool:
        return bool(llama_cpp.llama_get_memory(context))

    def load_adapter(self, model: Handle, path: Path) -> Handle:
        return llama_cpp.llama_adapter_lora_init(model, os.fsencode(path))

    def set_adapter(self, context: Handle, adapter: Handle | None) -> int:
        count = int(adapter is not None)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*[adapter][:count])
        scales = (ctypes.c_float * count)(*[1.0][:count])
        return int(llama_cpp.llama_set_adapters_lora(context, handles, count, scales))

    def decode(self, context: Handle, batch: Any) -> int:
        return int(llama_cpp.llama_decode(context, batch))

    def clear(self, context: Handle, slot: int, start: int) -> bool:
        return bool(llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context), slot, start, -1))

    def length(self, context: Handle, slot: int) -> int:
        return int(llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(context), slot)) + 1


def _model_params(gpu_layers: GpuLayers, *, repack: bool) -> Any:
    """Parameters of a model.

    With 0 layers the model gets no GPU at all. llama.cpp would otherwise use one for large batches, and keep
    the weights in memory for transfers to it instead of repacking them.
    """
    native = llama_cpp.llama_model_default_params()
    native.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    native.use_extra_bufts = repack
    native.n_gpu_layers = -1 if gpu_layers == "all" else gpu_layers
    if not gpu_layers:
        native.devices = ctypes.addressof(_NO_DEVICES)
    return native


def _context_params(settings: Settings, gpu_layers: GpuLayers) -> Any:
    native = llama_cpp.llama_context_default_params()
    native.n_seq_max = settings.slots
    native.n_ctx = settings.context * settings.slots
    native.n_batch = settings.batch
    native.n_ubatch = settings.micro_batch
    native.n_outputs_max = settings.outputs
    native.n_threads, native.n_threads_batch = settings.threads, settings.prefill_threads
    native.kv_unified = False
    native.no_perf = True
    native.type_k = native.type_v = llama_cpp.GGML_TYPE_F32 if settings.exact else KV_TYPES[settings.kv]
    native.flash_attn_type = _FLASH_ATTENTION[False if settings.exact else settings.flash_attention]
    # The KV cache of the GPU's layers is on the GPU. It also computes large batches of the other layers.
    native.offload_kqv = native.op_offload = gpu_layers != 0
    return native


LLAMA_CPP = LlamaCppLibrary()
