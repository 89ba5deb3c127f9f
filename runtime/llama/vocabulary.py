"""The vocabulary of a loaded model: texts to tokens and back, by llama.cpp's tokenizers."""

import ctypes
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

from ...errors import RequestError
from ...files.gguf.header import SPACE_ONCE, STRIPPING_TOKENS, Header
from ..compute import NativeHandle
from .llama_cpp_library import llama_cpp

_BPE = ("gpt2", "gemma4")
# Pre-tokenizers with code of their own in llama.cpp. The others (falcon, bloom, viking, deepseek-llm and
# default among them) run through std::regex, which overflows the stack on a long run of letters or digits.
_PRE_TOKENIZERS = (
    *("gpt-2", "llama-bpe", "llama3", "llama-v3"),
    *("smollm", "starcoder", "qwen2", "deepseek-r1-qwen"),
)
CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
# Their own tokenizers normalize to NFC, which llama.cpp leaves out.
NFC_PRE_TOKENIZERS = ("qwen2", "qwen35", "olmo")
_NFC_RATIO = 3  # bytes of a text / bytes of its normal form, at most: a Hangul syllable has 9 or 3
_NAME_ENCODING = ("utf-8", "surrogateescape")  # how read_header() decodes the names of tokens
_EXTENDS_NUMBER = re.compile(rb"[.,]?[0-9]")
# std::regex calls itself for each character of a match, with up to 512 bytes of stack (measured with GCC 12).
_WORD_MAX = 1 << 12  # characters; a longer word is split in parts, which 2 MB of stack suffice for
_RUN = re.compile(r"\S+|\s+")  # no pattern matches more than two neighbouring ones
_LETTERS = re.compile(r".+", re.DOTALL)  # but for this one, which matches letters with spaces between them
_RUNS = {"exaone-moe": _LETTERS}
_UNKNOWN = 100  # llama.cpp's default for WordPiece
_PIECE_MORE = 8  # bytes that a piece may be longer than its token: an unknown one is written as U+2585


class Vocabulary(NativeHandle):
    """Vocabulary of a loaded model."""

    header: Header
    vocabulary_size: int
    bos: int | None  # the begin-of-text token, None if there is none
    eos: int | None  # the end-of-text token, None if there is none
    begin: list[int]  # what the tokenizer puts before every text
    end: list[int]  # what it puts after every whole text, which prompts leave out

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        assert self.handle, "it is open"
        return llama_cpp.llama_model_get_vocab(self._llama_cpp)

    def read_vocabulary(self) -> None:
        """Set the attributes from the vocabulary of the model that llama.cpp has loaded."""
        self._llama_cpp = self.handle
        self.vocabulary_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        bos, eos = llama_cpp.llama_vocab_bos(self.vocab), llama_cpp.llama_vocab_eos(self.vocab)
        self.bos, self.eos = (token if 0 <= token < self.vocabulary_size else None for token in (bos, eos))
        adds_bos = self.bos is not None and llama_cpp.llama_vocab_get_add_bos(self.vocab)
        self.begin = [bos] if adds_bos else []
        names = (self.header.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
        self._tokenizer, self._pre_tokenizer = (str(name or "default") for name in names)
        ends = [eos] if llama_cpp.llama_vocab_get_add_eos(self.vocab) else []
        if self._tokenizer == "bert":
            ends = [llama_cpp.llama_vocab_sep(self.vocab)]
        self.end = [token for token in ends if 0 <= token < self.vocabulary_size]
        self.token_to_piece, self.is_eog = cache(self._token_to_piece), cache(self._is_eog)

    def tokenize(self, text: str, *, special: bool, bos: bool, continues: bool = False) -> list[int]:
        """Split a text into tokens.

        With `special`, names of control tokens become those; with `bos`, the begin-of-text token is added if
        the tokenizer does so. One that `continues` another text has no space before it, as SentencePiece
        puts.
        """
        after_newline = continues and self._puts_space
        if self._pre_tokenizer in NFC_PRE_TOKENIZERS:
            text = unicodedata.normalize("NFC", text)
        space_once = not continues and self.header.metadata.get(SPACE_ONCE) is True
        if space_once and len(text) > 1 and text[0] in " ▁":
            text = text[1:]  # llama.cpp puts it before every text
        tokens = self._split("\n" * after_newline + text, special)
        own = tokens[len(self._newline) :] if after_newline else tokens
        return self.begin + own if bos else own

    def _split(self, text: str, special: bool) -> list[int]:
        by_regex = self._tokenizer in _BPE and self._pre_tokenizer not in _PRE_TOKENIZERS
        parts = self._short_words(text) if by_regex else [text]
        tokens = [token for part in parts for token in self._split_native(part, special)]
        return tokens if special or self._tokenizer in _BPE else [*self._without_control(tokens)]

    def _split_native(self, text: str, special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        capacity = len(data) + 2  # a token mostly stands for at least one byte
        while True:
            buffer = (llama_cpp.llama_token * capacity)()
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, capacity, False, special)
            if count >= 0:
                return list(buffer[:count])
            capacity = -count

    def _short_words(self, text: str) -> list[str]:
        """Cut a text within words that are too long for the stack of a tokenizer by std::regex."""
        cuts = [0]
        for run in _RUNS.get(self._pre_tokenizer, _RUN).finditer(text):
            cuts += range(run.start() + _WORD_MAX, run.end(), _WORD_MAX)
        return [text[start:end] for start, end in pairwise([*cuts, len(text)])]

    def _without_control(self, tokens: Iterable[int]) -> Iterator[int]:
        """Spell control tokens: but for BPE, tokenizers also find their names by merging or by matching."""
        unknown = None
        if self._tokenizer == "bert":  # its files have it as a control token
            unknown = self.header.metadata.get("tokenizer.ggml.unknown_token_id", _UNKNOWN)
        for token in tokens:
            if token == unknown:
                yield token
            elif token >= 0 and self._attributes(token) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL:
                yield from (self._bytes[byte] for byte in self._raw_tokens[token] if byte in self._bytes)
            elif token >= 0:  # a vocabulary without a token for the unknown has -1
                yield token

    @cached_property
    def _bytes(self) -> dict[int, int]:
        pieces = ((self.token_to_piece(token), token) for token in range(self.vocabulary_size))
        return {piece[0]: token for piece, token in pieces if len(piece) == 1}

    @cached_property
    def _newline(self) -> list[int]:
        """Tokens of a newline that begins a text: it merges with nothing after it."""
        return self._split_native("\n", special=False)

    @cached_property
    def _puts_space(self) -> bool:
        return self._tokenizer == "llama" and self.token_to_piece(self._newline[0]) == b" "

    def max_bytes(self, tokens: int) -> int:
        """Bytes of the longest text that can have so few tokens, for a check before the text is tokenized."""
        longest = max(map(len, self._raw_tokens))  # at least one for each byte that the token stands for
        shrinks = self._pre_tokenizer in NFC_PRE_TOKENIZERS
        return tokens * longest * (_NFC_RATIO if shrinks else 1)

    def _token_to_piece(self, token: int) -> bytes:
        """Return the bytes of a token: not always whole characters, and none for a control token."""
        assert 0 <= token < self.vocabulary_size, "tokens are checked where they enter"
        buffer = ctypes.create_string_buffer(len(self._raw_tokens[token]) + _PIECE_MORE)
        length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def _is_eog(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @property
    def end_tokens(self) -> list[int]:
        """The control tokens that end the generation."""
        return [token for token in self.control_tokens.values() if self.is_eog(token)]

    def _attributes(self, token: int) -> int:
        return int(llama_cpp.llama_vocab_get_attr(self.vocab, token))

    @cached_property
    def _raw_tokens(self) -> list[bytes]:
        return self.header.metadata["tokenizer.ggml.tokens"].raw()  # type: ignore[no-any-return]

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by name; text from outside must never become one."""
        vocab = self.vocab
        return {
            llama_cpp.llama_vocab_get_text(vocab, token).decode(*_NAME_ENCODING): token
            for token in range(self.vocabulary_size)
            if llama_cpp.llama_vocab_get_attr(vocab, token) & CONTROL
        }

    @cached_property
    def stripping_tokens(self) -> frozenset[str]:
        """Names of the control tokens that take the white space after them, as those of Phi-3."""
        named = {*self.header.metadata.get(STRIPPING_TOKENS, ())}
        rstrip = llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP  # llama.cpp sets it by the model's name
        return frozenset(
            name
            for name, token in self.control_tokens.items()
            if self._attributes(token) & rstrip or name in named
        )

    @cached_property
    def digit_tokens(self) -> tuple[int, ...]:
        """Tokens that would make a number before them longer."""
        return tuple(token for token, name in enumerate(self._raw_tokens) if _EXTENDS_NUMBER.match(name))

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise RequestError if a token is not an integer, or not in the vocabulary."""
        for token in tokens:
            if not (isinstance(token, int) and 0 <= token < self.vocabulary_size):
                raise RequestError(f"token {token!r} is not one of the model's {self.vocabulary_size}")
