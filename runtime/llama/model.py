"""Models and run-time LoRA adapters as a native library loads them; the vocabulary is always llama.cpp's."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import FileError
from ...files.gguf.header import Header, read_header
from ...files.gguf.model_shape import read_decoder_shape
from ..compute import NativeHandle
from .llama_cpp_library import LLAMA_CPP, LlamaCppLibrary, llama_cpp
from .settings import GpuLayers
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .ik_llama_library import IkLlamaLibrary

NativeLibrary: TypeAlias = "LlamaCppLibrary | IkLlamaLibrary"
LOADED: dict[str, NativeLibrary] = {LLAMA_CPP.name: LLAMA_CPP}
_LOADING = Lock()  # of two objects, one would be collected, and its callback for messages with it


def find_library(name: str) -> NativeLibrary:
    """Return a library, which is loaded by the first call."""
    with _LOADING:
        if name not in LOADED:
            from .ik_llama_library import IkLlamaLibrary  # noqa: PLC0415 - optional

            LOADED[name] = IkLlamaLibrary()
        return LOADED[name]


class Model(Vocabulary):
    """A model file and its vocabulary.

    A sequence `rewinds` to an earlier position unless it has a recurrent state. With windows, only their last
    tokens are saved: such a state cannot be cut.
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
            source: a GGUF file that has been tried (see trial.py), or a header from read_model_header().
            repack: repack weights for this processor, which is faster; some then round otherwise. Layers on a
                GPU are not repacked; with CUDA and Vulkan, neither are the others then.
            gpu_layers: see EngineOptions.
            vocabulary_only: load no weights, which the file then need not have.
            library: what computes, one of LIBRARIES.

        Raises:
            FileError: the file is damaged, or cannot be run by this build; the library is not installed.
        """
        super().__init__()
        self.header = source if isinstance(source, Header) else read_model_header(source)
        path = self.header.path
        self.library = find_library(library)
        load = partial(self.library.load_model, path, repack=repack, gpu_layers=gpu_layers)
        separate = vocabulary_only or self.library is not LLAMA_CPP
        vocabulary = partial(LLAMA_CPP.load_model, path, repack=False, gpu_layers=0, vocabulary_only=True)
        self._load(LLAMA_CPP, vocabulary if separate else load)
        self.read_vocabulary()
        self.context_trained = read_decoder_shape(self.header).context
        self._check_decoder()
        recurrent = llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid
        self.rewinds = not any(is_one(self._llama_cpp) for is_one in recurrent)
        windows = llama_cpp.llama_model_n_swa(self._llama_cpp) and self.library is LLAMA_CPP
        self.cuts_states = self.rewinds and not windows
        if separate and not vocabulary_only:
            self._load(self.library, load)

    def _load(self, library: NativeLibrary, load: Callable[[], Any]) -> None:
        self.acquire(load, library.free_model, library.log, self.header.path)

    def _check_decoder(self) -> None:
        """Refuse models that do not continue a text, by what the library says of them."""
        encodes = llama_cpp.llama_model_has_encoder(self._llama_cpp)
        decodes = llama_cpp.llama_model_has_decoder(self._llama_cpp)
        if encodes or not decodes or llama_cpp.llama_model_is_diffusion(self._llama_cpp):
            self.close()
            raise FileError(f"{self.header.path}: not a text decoder, by what llama.cpp says")


class LoraAdapter(NativeHandle):
    """A LoRA in a GGUF file, loaded for contexts of its model; FileError if it is damaged or does not fit."""

    def __init__(self, model: Model, path: Path) -> None:
        """Load the adapter."""
        super().__init__()
        self.path = path
        self.metadata = read_adapter_header(path, model.header).metadata
        library = model.library
        load = partial(library.load_adapter, model.handle, os.fsencode(path))
        self.acquire(load, library.free_adapter, library.log, path)


def read_model_header(path: Path) -> Header:
    """Read the header of a model; FileError if the file is no GGUF, or an adapter, or a part of a model."""
    header = read_header(path)
    check_model_header(header)
    return header


def check_model_header(header: Header) -> None:
    """Raise FileError if a header is that of an adapter, or of a part of a model."""
    _check(header, "is an adapter, not a model", header.metadata.get("general.type") != "adapter")
    _check(header, "the file has no tensors", bool(header.tensors))
    header.check_whole()  # llama.cpp would look for the other parts, which nothing has checked


def read_adapter_header(path: Path, base: Header) -> Header:
    """Read the header of a LoRA; FileError if it is a model, or changes what the library would not."""
    header = read_header(path)
    _check(header, "is a model, not an adapter", header.metadata.get("general.type", "model") != "model")
    activated = "an activated LoRA (aLoRA), which starts within a prompt, is not supported"
    _check(header, activated, "adapter.alora.invocation_tokens" not in header.fields)
    for name in header.tensors:  # llama.cpp refuses those that the base does not have, and skips vectors
        target = base.tensors.get(name.removesuffix(".lora_a").removesuffix(".lora_b"))
        problem = f"it changes {name!r}, which cannot be adapted at run time"
        _check(header, problem, target is None or len(target.shape) > 1)
    return header


def _check(header: Header, problem: str, valid: bool) -> None:
    if not valid:
        raise header.error(problem)
