"""Grammars on a model's vocabulary: which tokens may come next, and which must."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from ...errors import RequestError
from ..grammar import LIMITS, Grammar, raise_error, with_deep_stack
from .llama_cpp_library import llama_cpp
from .model import Model

if TYPE_CHECKING:
    from ..engine.output_stream import Thought


class JsonNumbers:
    """Limits the digits of numbers in JSON: llguidance does not, and small models write zeros without end."""

    def __init__(self, digits: int, pieces: Sequence[bytes], leading: NDArray[np.int64]) -> None:
        self._digits, self._pieces, self._leading = digits, pieces, leading
        self._left: float = digits  # that may follow
        self._quoted = self._escaped = False
        self._last = 0

    def exceeded_by(self, token: int) -> bool:
        """Whether a token begins with more digits than may follow."""
        return bool(self._leading[token] > self._left)

    def fitting(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the tokens with which the number ends in time; if none, those that are not only zeros."""
        fitting = tokens[self._leading[tokens] <= self._left]
        if not len(fitting):
            fitting = np.array([token for token in tokens if self._pieces[token].strip(b"0")])
        return fitting if len(fitting) else tokens

    def feed(self, piece: bytes) -> None:
        """Advance past the text of a token."""
        for byte in piece:
            if self._quoted:
                self._quoted = self._escaped or byte != ord('"')
                self._escaped = byte == ord("\\") and not self._escaped
            elif byte == ord('"'):
                self._quoted, self._left = True, float("inf")
            elif byte in b"0123456789":
                self._left = max(self._left - 1, 0)
            elif not (byte in b"+-" and self._last in b"eE"):  # the sign of an exponent
                self._left = 2 if byte in b"eE" else self._digits
            self._last = byte


class Constraint:
    """A compiled grammar and the position of one sequence in it, used by one thread.

    A thought before the answer is free, but for the end of the output.
    """

    def __init__(
        self, matcher: LLMatcher, model: Model, numbers: JsonNumbers | None, thought: "Thought | None"
    ) -> None:
        """Start a sequence; `matcher` and `numbers` are its own, and its output stream has the thought."""
        self._matcher, self._model, self._numbers, self._thought = matcher, model, numbers, thought

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._answers and self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def _answers(self) -> bool:
        return self._thought is None or self._thought.over

    def accept(self, token: int) -> bool:
        """Advance past a token if it may come next, and return whether it may."""
        if self._thought and self._thought.takes(token):
            return not self._model.is_eog(token)
        if self._numbers and self._numbers.exceeded_by(token) and token not in self.allowed():
            return False
        accepted: bool = self._matcher.try_consume_tokens([token]) == 1
        raise_error("grammar", self._matcher.get_error())
        if self._numbers and accepted:
            self._numbers.feed(self._model.token_to_piece(token))
        return accepted

    def allowed(self) -> NDArray[np.int64]:
        """Return the tokens that may come next, in ascending order."""
        if self._thought and self._thought.begun:
            return np.setdiff1d(np.arange(self._model.vocabulary_size), self._model.end_tokens)
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        raise_error("grammar", self._matcher.get_error())
        bits = np.unpackbits(mask, count=self._model.vocabulary_size, bitorder="little")  # (vocab,)
        tokens = np.flatnonzero(bits)
        if not len(tokens):
            raise RequestError("grammar: no token of the model can follow here")
        return self._numbers.fitting(tokens) if self._numbers else tokens

    def take_forced(self) -> Sequence[int]:
        """Return the tokens that must come next, after advancing past them; often none."""
        tokens = self._matcher.compute_ff_tokens() if self._answers else []
        forced = [*takewhile(lambda token: not self._model.is_eog(token) and self.accept(token), tokens)]
        raise_error("grammar", self._matcher.get_error())
        return forced


class GrammarCompiler:
    """Compiles grammars for a vocabulary, each once for all its sequences; used by one thread at a time."""

    def __init__(self, model: Model) -> None:
        """Do nothing yet; the first grammar costs about a second, and 18 MB for 49,152 tokens."""
        self._model = model

    def constraint(self, grammar: Grammar, thought: "Thought | None" = None) -> Constraint:
        """Return the start of a grammar, behind a thought if there may be one."""
        matcher = self._compiled(grammar.source).deep_copy()
        numbers = JsonNumbers(grammar.digits, self._pieces, self._leading) if grammar.digits else None
        return Constraint(matcher, self._model, numbers, thought)

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [self._model.token_to_piece(token) for token in range(self._model.vocabulary_size)]

    @cached_property
    def _leading(self) -> NDArray[np.int64]:
        return np.array([len(piece) - len(piece.lstrip(b"0123456789")) for piece in self._pieces])

    @cached_property
    def _compiled(self) -> Callable[[str], LLMatcher]:
        # Not by lltokenizer_from_vocab() of llguidance: there, some tokens have a text that our output does
        # not have, and it warns once per token. As there, the byte 0xFF marks tokens without text.
        model = self._model
        tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=[piece or b"\xff<%d>" % token for token, piece in enumerate(self._pieces)],
            vocab_ptr=model.vocab,
            tokenize_fptr=ctypes.cast(llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value,
            eos_token=model.end_tokens or model.eos,
            slices=None,
        )
        return lru_cache(8)(partial(_compile, tokenizer))


def _compile(tokenizer: LLTokenizer, source: str) -> LLMatcher:
    matcher = with_deep_stack(lambda: LLMatcher(tokenizer, source, log_level=0, limits=LIMITS))
    raise_error("grammar", matcher.get_error())
    return matcher
