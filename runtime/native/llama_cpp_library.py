"""llama.cpp, as llama-cpp-python ships it."""

import ctypes
import os
from pathlib import Path
from typing import Any

from .bindings import llama_cpp
from .error_log import ErrorLog
from .settings import KV_TYPES, LLAMA, GpuLayers, Handle, Settings

SLOTS_MAX = int(llama_cpp.llama_max_parallel_sequences())
_NO_DEVICES = (ctypes.c_void_p * 1)()  # a list that ends at once
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class LlamaCppLibrary:
    """The calls that an engine needs of a library. Nothing is checked here: the library may abort.

    Attributes:
        name: its name, as users choose it.
        log: its error messages.
        batch: ctypes' type of a batch.
        logits: the address of the logits at a batch index, (vocab,) float32; 0 if there are none.
        set_threads: sets the threads for batches of one token, and for larger ones.
        state_bytes: the size of a sequence's state, which read_state copies to memory, and write_state into
            an empty sequence; both return the number of bytes, and write_state 0 if it refuses the state.
    """

    name = LLAMA
    batch = llama_cpp.llama_batch

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

    def load_adapter(self, model: Handle, path: Path) -> Handle:
        return llama_cpp.llama_adapter_lora_init(model, os.fsencode(path))

    def set_adapter(self, context: Handle, adapter: Handle | None) -> int:
        """Apply an adapter, or none, to all sequences; returns 0 if that went well."""
        count = int(adapter is not None)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*[adapter][:count])
        scales = (ctypes.c_float * count)(*[1.0][:count])
        return int(llama_cpp.llama_set_adapters_lora(context, handles, count, scales))

    def decode(self, context: Handle, batch: Any) -> int:
        """Compute a batch; returns 0 if that went well."""
        return int(llama_cpp.llama_decode(context, batch))

    def clear(self, context: Handle, slot: int, start: int) -> bool:
        """Remove the cells of a sequence from position `start` on; returns whether that is possible."""
        return bool(llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context), slot, start, -1))

    def length(self, context: Handle, slot: int) -> int:
        """The position after the last cell of a sequence."""
        return int(llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(context), slot)) + 1


def _context_params(settings: Settings, gpu_layers: GpuLayers) -> Any:
    native = llama_cpp.llama_context_default_params()
    native.n_seq_max = settings.slots
    native.n_ctx = settings.context * settings.slots
    native.n_batch = settings.batch
    native.n_ubatch = settings.micro_batch
    native.n_outputs_max = settings.outputs
    native.n_threads, native.n_threads_batch = settings.threads, settings.threads
    native.kv_unified = False
    native.no_perf = True
    native.type_k = native.type_v = llama_cpp.GGML_TYPE_F32 if settings.exact else KV_TYPES[settings.kv]
    native.flash_attn_type = _FLASH_ATTENTION[False if settings.exact else settings.flash_attention]
    # The KV cache of the GPU's layers is on the GPU. It also computes large batches of the other layers.
    native.offload_kqv = native.op_offload = gpu_layers != 0
    return native


LLAMA_CPP = LlamaCppLibrary()


def gpu_found() -> bool:
    """Whether this build of llama.cpp has a GPU backend, and the backend a device."""
    found = bool(llama_cpp.llama_supports_gpu_offload())
    LLAMA_CPP.log.take_errors()  # a driver's complaints, which would end up in the next error message
    return found
