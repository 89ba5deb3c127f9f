"""Models and run-time LoRA adapters as a native library loads them, and the vocabulary."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import FileError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header, read_header
from ...files.gguf.metadata import CheckedMetadata
from ..native.bindings import llama_cpp
from ..native.libraries import NativeLibrary, find_library
from ..native.llama_cpp_library import LLAMA_CPP
from ..native.native_handle import NativeHandle
from ..native.settings import GpuLayers
from ..trial import try_files
from .vocabulary import Vocabulary


class Model(Vocabulary, NativeHandle):
    """A model file and its vocabulary.

    Attributes:
        library: what computes. The vocabulary is always llama.cpp's.
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
        library: str = LLAMA_CPP.name,
    ) -> None:
        """Load the model.

        Args:
            source: a GGUF file, which is loaded in another process first if it is not trusted; see
                try_files(). Or a header from read_model_header(), whose file has not changed since.
            repack: repack weights for this processor where llama.cpp has kernels for that. They are faster,
                but on some processors they round activations differently. Layers on a GPU are not repacked;
                with CUDA and Vulkan, neither are the others then.
            gpu_layers: layers that a GPU computes, as check_gpu_layers() accepts them; see Settings.
            vocabulary_only: load no weights, which the file then need not have.
            library: what computes, one of LIBRARIES.

        Raises:
            FileError: the file is not a GGUF, is damaged, or is not a model that this build can run, or
                the build of a library is not one that this package knows, or it is not installed.
            ClosedError: this process was forked after a model had been loaded.
        """
        super().__init__()
        if isinstance(source, Header):
            self.header = source
        else:
            self.header = read_model_header(source)
            try_files(source)
        path = self.header.path
        self.gpu_layers, self.library = gpu_layers, find_library(library)
        load = partial(self.library.load_model, path, repack=repack, gpu_layers=gpu_layers)
        separate = vocabulary_only or self.library is not LLAMA_CPP
        vocabulary = partial(LLAMA_CPP.load_model, path, repack=False, gpu_layers=0, vocabulary_only=True)
        self._load(LLAMA_CPP, vocabulary if separate else load)
        self._llama_cpp = self._handle
        self.read_vocabulary()
        shape = read_decoder_shape(self.header)
        self.context_trained = shape.context
        self._check_decoder()
        recurrent = llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid
        self.rewinds = not any(is_one(self._llama_cpp) for is_one in recurrent)
        windows = llama_cpp.llama_model_n_swa(self._llama_cpp) and self.library is LLAMA_CPP
        self.cuts_states = self.rewinds and not windows
        if separate and not vocabulary_only:
            self._load(self.library, load)

    def _load(self, library: NativeLibrary, load: Callable[[], Any]) -> None:
        if not self.acquire(load, library.free_model, library.log):
            raise FileError(f"{self.header.path}: {library.log.take_errors()}")

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        assert self.handle, "it is open"
        return llama_cpp.llama_model_get_vocab(self._llama_cpp)

    def _check_decoder(self) -> None:
        """Refuse models that do not continue a text, by what the library says of them."""
        encodes = llama_cpp.llama_model_has_encoder(self._llama_cpp)
        decodes = llama_cpp.llama_model_has_decoder(self._llama_cpp)
        if encodes or not decodes or llama_cpp.llama_model_is_diffusion(self._llama_cpp):
            self.close()
            raise FileError(f"{self.header.path}: not a text decoder, by what llama.cpp says")


class LoraAdapter(NativeHandle):
    """A LoRA in a GGUF file, loaded for contexts of its model.

    Attributes:
        path: the file.
        metadata: the metadata of the file.
    """

    def __init__(self, model: Model, path: Path) -> None:
        """Load the adapter.

        Raises:
            FileError: the file is not a GGUF, or is damaged; the file is not a LoRA, or does not fit the
                model.
        """
        super().__init__()
        self.path = path
        self.metadata = read_adapter_header(path, model.header).metadata
        library = model.library
        load = partial(library.load_adapter, model.handle, path)
        if not self.acquire(load, library.free_adapter, library.log):
            raise FileError(f"{path}: {library.log.take_errors()}")


def read_model_header(path: Path) -> Header:
    """Read the header of a model.

    Raises:
        FileError: the file is not a GGUF, or an adapter, or a part of a model.
    """
    header = read_header(path, skip_values=("tokenizer.ggml.merges",))
    metadata = CheckedMetadata(header)
    if header.metadata.get("general.type") == "adapter":
        raise metadata.error("is an adapter, not a model")
    if not header.tensors:
        raise metadata.error("the file has no tensors")
    metadata.check_whole()  # llama.cpp would look for the other parts, which nothing has checked
    return header


def read_adapter_header(path: Path, base: Header) -> Header:
    """Read the header of a LoRA for a model.

    Raises:
        FileError: the file is not a GGUF, or a model, or changes what the library would leave as it is.
    """
    header = read_header(path)
    metadata = CheckedMetadata(header)
    if header.metadata.get("general.type", "model") == "model":
        raise metadata.error("is a model, not an adapter")
    if "adapter.alora.invocation_tokens" in header.fields:
        raise metadata.error("an activated LoRA (aLoRA), which starts within a prompt, is not supported")
    for name in header.tensors:
        target = base.tensors.get(name.removesuffix(".lora_a").removesuffix(".lora_b"))
        if target is None:
            raise metadata.error(f"it changes {name!r}, which the base model does not have")
        if len(target.shape) < 2:
            raise metadata.error(f"it changes {name!r}, which cannot be adapted at run time")
    return header
