"""Models and run-time LoRA adapters as llama.cpp loads them, and the vocabulary."""

import ctypes
import math
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

from ...errors import AdapterError, ModelFileError, RequestError
from ...files.gguf_header import Header, read_header
from .gguf_checks import check_adapter, check_model
from .library import LOG, NativeHandle

CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


NORMALISED = (
    "qwen2",
)  # pre-tokenizers of families whose own tokenizer works on NFC, which llama.cpp leaves out


_NAMES = ("utf-8", "surrogateescape")  # how read_header() reads the names of tokens


_MORE_DIGITS = re.compile(r"[.,]?[0-9]")


class Model(NativeHandle):
    """A model file, mapped into memory, and its vocabulary.

    Attributes:
        header: what the file says of itself.
        vocabulary_size: how many tokens there are.
        context_trained: the longest context that it was trained for, in tokens.
        bos: the token that begins a text, None if there is none.
        eos: the token that ends a text, None if there is none.
        adds_bos: whether its tokenizer puts `bos` before every text.
    """

    def __init__(
        self, path: Path, *, repack: bool = True, admit: Callable[[Header], None] = lambda header: None
    ) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            admit: is shown the header before anything is loaded, and raises if it is not to be.
            repack: lay weights out anew for this processor where there are kernels for that. They are
                quicker, but on some kinds of processors they round activations otherwise.

        Raises:
            ModelFileError: the file is not a GGUF, is damaged, or holds what this build cannot run.
        """
        super().__init__()
        self.header = read_header(path, passing_over=("tokenizer.ggml.merges",))
        check_model(self.header)
        admit(self.header)
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = repack
        handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise ModelFileError(f"{path}: {LOG.reason()}")
        self.own(handle, llama_cpp.llama_model_free)
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self.context_trained: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        bos, eos = llama_cpp.llama_vocab_bos(self._vocabulary), llama_cpp.llama_vocab_eos(self._vocabulary)
        self.bos: int | None = bos if bos >= 0 else None
        self.eos: int | None = eos if eos >= 0 else None
        self._pieces: dict[int, bytes] = {}  # as these and the next are asked for
        self._ends: dict[int, bool] = {}
        self.adds_bos = self.bos is not None and bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary))

    @property
    def _vocabulary(self) -> Any:
        return llama_cpp.llama_model_get_vocab(self.handle)

    @cached_property
    def description(self) -> str:
        """Family, size and type in a few words, as llama.cpp has it."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """The tokens of `text`.

        Args:
            text: any text; none is taken for a control token unless `special`.
            special: whether the names of control tokens stand for them.
            bos: whether to begin as the model's tokenizer begins a text.
        """
        if self.header.metadata.get("tokenizer.ggml.pre") in NORMALISED:
            text = unicodedata.normalize("NFC", text)
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        room = len(data) + 1
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), buffer, room, False, special)
        assert 0 <= count <= room, "a token stands for at least one byte"
        begin = [self.bos] if bos and self.adds_bos and self.bos is not None else []
        return [*begin, *buffer[:count]]

    def piece(self, token: int) -> bytes:
        """The bytes of a token, which need not be whole characters; none for a control token."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token)
        return self._pieces[token]

    def _piece(self, token: int) -> bytes:
        self.check_tokens((token,))
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def ends(self, token: int) -> bool:
        """Whether the token ends a turn or a text."""
        if token not in self._ends:
            self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))
        return self._ends[token]

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """The control tokens by name: those that a text from outside must never turn into."""
        metadata, vocabulary = self.header.metadata, self._vocabulary
        names, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
        found = (
            token
            for token, (name, type_) in enumerate(zip(names, types, strict=True))
            # llama.cpp also makes control tokens of normal ones by name, and all those names begin like this.
            if (type_ != llama_cpp.LLAMA_TOKEN_TYPE_NORMAL or name.startswith(("<", "[", "_", "▁")))
            and llama_cpp.llama_vocab_get_attr(vocabulary, token) & CONTROL
        )
        return {llama_cpp.llama_vocab_get_text(vocabulary, token).decode(*_NAMES): token for token in found}

    @cached_property
    def digit_tokens(self) -> tuple[int, ...]:
        """The tokens that make a number before them longer."""
        names = self.header.metadata["tokenizer.ggml.tokens"]  # where digits and points are themselves
        return tuple(token for token, name in enumerate(names) if _MORE_DIGITS.match(name))

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise RequestError if one of them is not a token of this model."""
        wrong = next((token for token in tokens if not 0 <= token < self.vocabulary_size), None)
        if wrong is not None:
            raise RequestError(f"token {wrong} is not one of the model's {self.vocabulary_size}")


class LoraAdapter(NativeHandle):
    """A low-rank adapter in a GGUF file, ready to be used by contexts of its model.

    Attributes:
        scale: how much of it to apply; 1 is as it was trained.
    """

    def __init__(self, model: Model, path: Path, scale: float = 1.0) -> None:
        """Load the adapter.

        Raises:
            ModelFileError: the file is not a GGUF, or is damaged.
            AdapterError: it is not a LoRA, or not one for this model.
        """
        super().__init__()
        if not math.isfinite(scale):
            raise AdapterError(f"{path}: the scale must be a finite number, not {scale}")
        self.path, self.scale = path, scale
        header = read_header(path)
        check_adapter(header, model.header)
        handle = llama_cpp.llama_adapter_lora_init(model.handle, os.fsencode(path))
        if not handle:
            raise AdapterError(f"{path}: {LOG.reason()}")
        self.own(handle, llama_cpp.llama_adapter_lora_free)
