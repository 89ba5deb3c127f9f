"""Models and run-time LoRA adapters as llama.cpp loads them, and the vocabulary."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import FileError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header, read_header
from ..forks import begin_loading
from .bindings import llama_cpp
from .compute_thread import COMPUTE_THREAD, KeepAlive
from .gguf_checks import check_adapter, read_model_header
from .gpu import set_gpu_layers
from .library import LOG, NativeHandle
from .load_probe import probe_model_files
from .settings import GpuLayers
from .struct_layouts import check_struct_layouts
from .vocabulary import Vocabulary


class Model(Vocabulary, NativeHandle):
    """A memory-mapped model file and its vocabulary.

    Attributes:
        gpu_layers: layers that a GPU computes; see Settings.
        context_trained: tokens of the longest context that the model was trained for.
        rewinds: whether a sequence can go back to an earlier position: one with a recurrent state cannot.
        cuts_states: whether a saved sequence can be cut: one with windows has kept only the last of them.
    """

    def __init__(
        self,
        source: Path | Header,
        *,
        repack: bool = True,
        gpu_layers: GpuLayers = 0,
        vocabulary_only: bool = False,
    ) -> None:
        """Load the model.

        Args:
            source: a GGUF file, which is loaded in another process first if it is not trusted; see
                probe_model_files(). Or a header from read_model_header(), whose file has not changed since.
            repack: repack weights for this processor where llama.cpp has kernels for that. They are faster,
                but on some processors they round activations differently. Layers on a GPU are not repacked;
                with CUDA and Vulkan, neither are the others then.
            gpu_layers: layers that a GPU computes, as check_gpu_layers() accepts them; see Settings.
            vocabulary_only: load no weights, which the file then need not have.

        Raises:
            FileError: the file is not a GGUF, is damaged, or is not a model that this build can run, or
                the build of llama.cpp is not one that this package knows.
            RequestError: this process was forked after a model had been loaded.
        """
        super().__init__()
        if isinstance(source, Header):
            self.header = source
        else:
            self.header = read_model_header(source, weights=not vocabulary_only)
        check_struct_layouts()
        if not isinstance(source, Header):
            probe_model_files(source)
        path = self.header.path
        self.gpu_layers = gpu_layers
        begin_loading()
        params = _native_params(gpu_layers, repack=repack)
        params.vocab_only = vocabulary_only
        keep_alive = KeepAlive()  # so that loading and all contexts share one team of OpenMP's workers
        COMPUTE_THREAD.attach(keep_alive)
        self._handles.callback(COMPUTE_THREAD.detach, keep_alive)
        load = partial(llama_cpp.llama_model_load_from_file, os.fsencode(path), params)
        if not self.acquire(load, llama_cpp.llama_model_free):
            raise FileError(f"{path}: {LOG.take_errors()}")
        self.read_vocabulary()
        self.context_trained = read_decoder_shape(self.header).context
        self._check_decoder()
        recurrent = llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid
        self.rewinds = not any(is_one(self.handle) for is_one in recurrent)
        self.cuts_states = self.rewinds and not llama_cpp.llama_model_n_swa(self.handle)

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        return llama_cpp.llama_model_get_vocab(self.handle)

    def _check_decoder(self) -> None:
        """Refuse models that do not continue a text, by what the library says of them."""
        encodes = llama_cpp.llama_model_has_encoder(self.handle)
        decodes = llama_cpp.llama_model_has_decoder(self.handle)
        if encodes or not decodes or llama_cpp.llama_model_is_diffusion(self.handle):
            self.close()
            raise FileError(f"{self.header.path}: not a text decoder, by what llama.cpp says")


def _native_params(gpu_layers: GpuLayers, *, repack: bool) -> Any:
    native = llama_cpp.llama_model_default_params()
    native.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    native.use_extra_bufts = repack
    set_gpu_layers(native, gpu_layers)
    return native


class LoraAdapter(NativeHandle):
    """A LoRA in a GGUF file, loaded for contexts of its model.

    Attributes:
        path: the file.
    """

    def __init__(self, model: Model, path: Path) -> None:
        """Load the adapter.

        Raises:
            FileError: the file is not a GGUF, or is damaged; the file is not a LoRA, or does not fit the
                model.
        """
        super().__init__()
        self.path = path
        header = read_header(path)
        check_adapter(header, model.header)
        load = partial(llama_cpp.llama_adapter_lora_init, model.handle, os.fsencode(path))
        if not self.acquire(load, llama_cpp.llama_adapter_lora_free):
            raise FileError(f"{path}: {LOG.take_errors()}")
