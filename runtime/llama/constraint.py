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


class Constraint:
    """A compiled grammar and the position of one sequence in it, used by one thread."""

    def __init__(self, matcher: LLMatcher, model: Model) -> None:
        """Start a sequence; `matcher` is its own."""
        self._matcher, self._model = matcher, model

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def accept(self, token: int) -> bool:
        """Advance past a token if it may come next, and return whether it may.

        Raises:
            RequestError: a limit of a step is exceeded.
        """
        accepted: bool = self._matcher.try_consume_tokens([token]) == 1
        self._check()
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
        return tokens

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
            return Constraint(self._compiled(grammar.source).deep_copy(), self._model)

    @cached_property
    def _compiled(self) -> Callable[[str], LLMatcher]:
        return lru_cache(_COMPILED_MAX)(partial(compile_matcher, tokenizer=self._tokenizer))

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
