"""Models and run-time LoRA adapters as llama.cpp loads them, and the vocabulary."""

import ctypes
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ...errors import FileError, RequestError
from ...files.gguf.header import Header, read_header
from ...files.gguf.model_shape import read_model_shape
from ..forks import begin_loading
from .bindings import llama_cpp
from .compute_thread import COMPUTE_THREAD, KeepAlive
from .gguf_checks import check_adapter, read_model_header
from .gpu import set_gpu_layers
from .library import LOG, NativeHandle
from .load_probe import probe_model_files
from .settings import GpuLayers
from .struct_layouts import check_struct_layouts

CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
# Their own tokenizers normalize to NFC, which llama.cpp leaves out.
NFC_PRE_TOKENIZERS = ("qwen2", "qwen35", "olmo")
# Keys of convert/source/ for what a tokenizer does and llama.cpp has no key for.
_SPACE_ONCE, _STRIPPING = "thirteen.tokenizer.space_once", "thirteen.tokenizer.rstrip"
_NFC_RATIO = 3  # bytes of a text / bytes of its normal form, at most: a Hangul syllable has 9 or 3
_NAME_ENCODING = ("utf-8", "surrogateescape")  # how read_header() decodes the names of tokens
_EXTENDS_NUMBER = re.compile(rb"[.,]?[0-9]")


class Model(NativeHandle):
    """A memory-mapped model file and its vocabulary.

    Attributes:
        header: header of the file.
        gpu_layers: layers that a GPU computes; see Settings.
        vocabulary_size: number of tokens in the vocabulary.
        context_trained: tokens of the longest context that the model was trained for.
        bos: the begin-of-text token, None if there is none.
        eos: the end-of-text token, None if there is none.
        adds_bos: whether the tokenizer puts `bos` before every text.
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
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.context_trained = read_model_shape(self.header).context
        bos, eos = llama_cpp.llama_vocab_bos(self.vocab), llama_cpp.llama_vocab_eos(self.vocab)
        self.bos: int | None = bos if bos >= 0 else None
        self.eos: int | None = eos if eos >= 0 else None
        self.adds_bos = self.bos is not None and bool(llama_cpp.llama_vocab_get_add_bos(self.vocab))
        self._pieces: dict[int, bytes] = {}  # caches of token_to_piece() and is_eog()
        self._eog: dict[int, bool] = {}

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        return llama_cpp.llama_model_get_vocab(self.handle)

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """Split a text into tokens.

        Args:
            text: any text.
            special: whether the names of control tokens in it become control tokens.
            bos: whether to add the begin-of-text token, if the tokenizer does so.
        """
        text = self._normalized(text)
        if self.header.metadata.get(_SPACE_ONCE) is True and len(text) > 1 and text[0] in " ▁":
            text = text[1:]  # llama.cpp puts it before every text
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        capacity = len(data) + 1
        buffer = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, capacity, False, special)
        assert 0 <= count <= capacity, "a token stands for at least one byte"
        begin = [self.bos] if bos and self.adds_bos and self.bos is not None else []
        return [*begin, *buffer[:count]]

    def _normalized(self, text: str) -> str:
        if self.header.metadata.get("tokenizer.ggml.pre") in NFC_PRE_TOKENIZERS:
            return unicodedata.normalize("NFC", text)
        return text

    def foreign_share(self, text: str) -> float | None:
        """How much of a text is in a script that a trimmed vocabulary has no tokens for, from 0 to 1.

        None for a file that keeps all tokens of its base. See foreign_text.py.
        """
        if "thirteen.vocabulary.kept" not in self.header.fields:
            return None
        from ..foreign_text import foreign_share  # noqa: PLC0415 - for trimmed vocabularies

        text = self._normalized(text)
        return foreign_share(text, self.tokenize(text, special=False, bos=False), self.token_to_piece)

    def max_bytes(self, tokens: int) -> int:
        """Bytes of the longest text that can have so few tokens, for a check before the text is tokenized."""
        longest = max(map(len, self._raw_tokens))  # at least one for each byte that the token stands for
        shrinks = self.header.metadata.get("tokenizer.ggml.pre") in NFC_PRE_TOKENIZERS
        return tokens * longest * (_NFC_RATIO if shrinks else 1)

    def token_to_piece(self, token: int) -> bytes:
        """Return the bytes of a token: not always whole characters, and none for a control token."""
        if token not in self._pieces:
            self._pieces[token] = self._read_piece(token)
        return self._pieces[token]

    def _read_piece(self, token: int) -> bytes:
        self.check_tokens((token,))
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def is_eog(self, token: int) -> bool:
        """Whether the token ends the generation (of a turn or of a text)."""
        if token not in self._eog:
            self._eog[token] = bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))
        return self._eog[token]

    @cached_property
    def _raw_tokens(self) -> list[bytes]:
        """The names of all tokens, as the file has them."""
        return self.header.metadata["tokenizer.ggml.tokens"].raw()  # type: ignore[no-any-return]

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by name; text from outside must never become one."""
        normal = llama_cpp.LLAMA_TOKEN_TYPE_NORMAL
        named = tuple(one.encode() for one in ("<", "[", "_", "▁"))
        types = self.header.metadata["tokenizer.ggml.token_type"]
        tokens = (
            token
            for token, (name, type_) in enumerate(zip(self._raw_tokens, types, strict=True))
            # llama.cpp also turns some normal tokens into control tokens by name: all these begin like this.
            if (type_ != normal or name.startswith(named))
            and llama_cpp.llama_vocab_get_attr(self.vocab, token) & CONTROL
        )
        return {
            llama_cpp.llama_vocab_get_text(self.vocab, token).decode(*_NAME_ENCODING): token
            for token in tokens
        }

    @cached_property
    def stripping_tokens(self) -> frozenset[str]:
        """Names of the control tokens that take the white space after them, as those of Phi-3."""
        named = self.header.metadata.get(_STRIPPING, ())
        rstrip = llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP  # llama.cpp sets it by the model's name
        return frozenset(
            name
            for name, token in self.control_tokens.items()
            if llama_cpp.llama_vocab_get_attr(self.vocab, token) & rstrip or name in named
        )

    @cached_property
    def digit_tokens(self) -> tuple[int, ...]:
        """Tokens that would make a number before them longer."""
        # Byte-level BPE leaves digits and points as they are.
        return tuple(token for token, name in enumerate(self._raw_tokens) if _EXTENDS_NUMBER.match(name))

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise RequestError if a token is not in the vocabulary."""
        unknown = next((token for token in tokens if not 0 <= token < self.vocabulary_size), None)
        if unknown is not None:
            raise RequestError(f"token {unknown} is not one of the model's {self.vocabulary_size}")


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
