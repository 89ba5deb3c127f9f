"""Grammars on a model's vocabulary: which tokens may come next, and which must."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from ...errors import RequestError
from ..grammar.compiler import compile_matcher, summary
from ..grammar.grammar import Grammar
from ..native.bindings import llama_cpp
from .model import Model

_COMPILED_MAX = 8  # grammars that are kept
_EXPONENT_DIGITS = 2


class JsonNumbers:
    """How many digits may follow in the number at the end of a JSON text: llguidance has no limit."""

    def __init__(self, digits: int, leading: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> None:
        """Start a text whose numbers have at most `digits` digits before and behind the point."""
        self._digits = self._left = digits
        self._leading, self._zeros = leading
        self._quoted = self._escaped = False
        self._last = 0

    def exceeded_by(self, token: int) -> bool:
        """Whether a token begins with more digits than may follow."""
        return bool(self._leading[token] > self._left) and not self._quoted

    def fitting(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the tokens with which the number ends in time; if none, those that are not only zeros."""
        if self._quoted:
            return tokens
        fits = self._leading[tokens] <= self._left
        for chosen in (fits, fits | ~self._zeros[tokens]):
            if chosen.any():
                return tokens[chosen]
        return tokens

    def feed(self, piece: bytes) -> None:
        """Go on behind the text of a token."""
        for byte in piece:
            if self._quoted:
                self._quoted = self._escaped or byte != ord('"')
                self._escaped = byte == ord("\\") and not self._escaped
            elif byte == ord('"'):
                self._quoted = True
            elif byte in b"0123456789":
                self._left -= 1
            elif not (byte in b"+-" and self._last in b"eE"):  # a sign of an exponent changes nothing
                self._left = _EXPONENT_DIGITS if byte in b"eE" else self._digits
            self._last = byte


class Constraint:
    """A compiled grammar and the position of one sequence in it, used by one thread."""

    def __init__(self, matcher: LLMatcher, model: Model, numbers: JsonNumbers | None) -> None:
        """Start a sequence; `matcher` and `numbers` are its own."""
        self._matcher, self._model, self._numbers = matcher, model, numbers

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def accept(self, token: int) -> bool:
        """Advance past a token if it may come next, and return whether it may.

        Raises:
            RequestError: a limit of a step is exceeded.
        """
        if self._numbers and self._numbers.exceeded_by(token) and token not in self.allowed():
            return False
        accepted: bool = self._matcher.try_consume_tokens([token]) == 1
        self._check()
        if self._numbers and accepted:
            self._numbers.feed(self._model.token_to_piece(token))
        return accepted

    def allowed(self) -> NDArray[np.int64]:
        """Return the tokens that may come next, in ascending order.

        Raises:
            RequestError: none may, or a limit of a step is exceeded.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        bits = np.unpackbits(mask, count=self._model.vocabulary_size, bitorder="little")  # (vocab,)
        tokens = np.flatnonzero(bits)
        if not len(tokens):
            raise RequestError("grammar: no token of the model can follow here")
        return self._numbers.fitting(tokens) if self._numbers else tokens

    def take_forced(self) -> Sequence[int]:
        """Return the tokens that must come next, after advancing past them; often none.

        Raises:
            RequestError: a limit of a step is exceeded.
        """
        forced: list[int] = []
        for token in self._matcher.compute_ff_tokens():
            if self._model.is_eog(token) or not self.accept(token):
                break
            forced.append(token)
        self._check()
        return forced

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RequestError(f"grammar: {summary(self._matcher.get_error())}")


class GrammarCompiler:
    """Compiles grammars for a model's vocabulary, each once for all the sequences that use it."""

    def __init__(self, model: Model) -> None:
        """Do nothing yet; the first grammar costs about a second, and 18 MB for 49,152 tokens."""
        self._model, self._lock = model, Lock()

    def constraint(self, grammar: Grammar) -> Constraint:
        """Return the start of a grammar.

        Raises:
            RequestError: the grammar exceeds a limit, or allows no text of this model's tokens.
        """
        with self._lock:
            matcher = self._compiled(grammar.source).deep_copy()
            numbers = JsonNumbers(grammar.digits, self._leading_digits) if grammar.digits else None
            return Constraint(matcher, self._model, numbers)

    @cached_property
    def _compiled(self) -> Callable[[str], LLMatcher]:
        return lru_cache(_COMPILED_MAX)(partial(compile_matcher, tokenizer=self._tokenizer))

    @cached_property
    def _leading_digits(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many digits each token begins with; whether there are, and none but zeros: (vocab,) each."""
        pieces = map(self._model.token_to_piece, range(self._model.vocabulary_size))
        digits = [piece[: len(piece) - len(piece.lstrip(b"0123456789"))] for piece in pieces]
        zeros = [bool(one) and not one.strip(b"0") for one in digits]
        return np.array([*map(len, digits)]), np.array(zeros)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        # Not by lltokenizer_from_vocab() of llguidance: there, some tokens have a text that our output does
        # not have, and it warns once per token. As there, the byte 0xFF marks tokens without text.
        model = self._model
        tokens = [
            model.token_to_piece(token) or b"\xff<%d>" % token for token in range(model.vocabulary_size)
        ]
        from_llamacpp: Callable[..., LLTokenizer] = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]
        return from_llamacpp(
            tokens=tokens,
            vocab_ptr=model.vocab,
            tokenize_fptr=ctypes.cast(llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value,
            eos_token=[token for token in model.control_tokens.values() if model.is_eog(token)] or model.eos,
            slices=None,
        )
