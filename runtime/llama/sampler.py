"""Sampling: the next token from a row of logits, optionally constrained by a grammar."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError, RequestError
from ..grammar.grammar import Grammar
from ..request import Sampling
from .context import Context
from .library import LOG, NativeHandle
from .logits import Logits
from .model import Model

_CANDIDATE = np.dtype(llama_cpp.llama_token_data)


class Sampler(NativeHandle):
    """llama.cpp's sampler chain of one sequence, with its random state."""

    def __init__(self, model: Model, sampling: Sampling, grammar: Grammar | None = None) -> None:
        """Build the chain of one sequence.

        Args:
            model: the model that the sequence runs on.
            sampling: temperature, cut-offs and seed.
            grammar: constrains the tokens.

        Raises:
            RequestError: llama.cpp rejects the grammar.
        """
        super().__init__()
        self._model, self._sampling = model, sampling
        self._constraint = GrammarConstraint(model, grammar) if grammar else None
        if self._constraint:
            self._handles.callback(self._constraint.close)
        self.own(_chain(_samplers(sampling)), llama_cpp.llama_sampler_free)

    @cached_property
    def _no_digit_chain(self) -> Any:
        chain = _chain((_ban(self._model, self._model.digit_tokens), *_samplers(self._sampling)))
        self._handles.callback(llama_cpp.llama_sampler_free, chain)
        return chain

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        """Choose a token by the logits at a batch index from decode().

        Args:
            context: the context that computed the logits.
            row: the batch index.
            no_digit: exclude tokens that would make a number before them longer.

        Raises:
            ModelFileError: the logits are not finite.
        """
        chain = self._no_digit_chain if no_digit else self.handle
        logits = context.logits_row(row)
        if self._sampling.greedy and not no_digit:
            token = int(logits.argmax())  # a chain would first copy the vocabulary into a candidate list
        else:
            token = int(llama_cpp.llama_sampler_sample(chain, context.handle, row))
        # One check is enough: NaN anywhere in the computation spreads over the whole row.
        if not math.isfinite(logits[token]):
            raise ModelFileError(f"{context.model.header.path}: the model's logits are not finite numbers")
        if self._constraint:
            # Most choices follow the grammar, which saves filtering the whole vocabulary.
            if not self._constraint.allows(token):
                token = self._constraint.choose(chain, logits)
            self._constraint.accept(token)
        return token


class GrammarConstraint(NativeHandle):
    """A grammar and the position of one sequence in it."""

    def __init__(self, model: Model, grammar: Grammar) -> None:
        """Compile the grammar.

        Raises:
            RequestError: llama.cpp rejects it.
        """
        super().__init__()
        handle = llama_cpp.llama_sampler_init_grammar(
            model.vocab, grammar.text.encode(), grammar.root.encode()
        )
        if not handle:
            raise RequestError(f"grammar: llama.cpp cannot compile it: {LOG.take_errors()}")
        self.own(handle, llama_cpp.llama_sampler_free)
        self._path = model.header.path
        # llama.cpp's grammar accepts control tokens inside strings, where they have no text.
        self._control = [token for token in model.control_tokens.values() if not model.is_eog(token)]

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        candidates, native = _candidates(np.array([token]), np.zeros(1))
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        return token not in self._control and bool(candidates["logit"][0] == 0)

    def choose(self, chain: Any, logits: Logits) -> int:
        """Choose among the tokens that may come next.

        Args:
            chain: the sampler chain.
            logits: logits of all tokens, (vocab,).

        Raises:
            ModelFileError: no token may come next.
        """
        candidates, native = _candidates(np.arange(len(logits)), logits)
        candidates["logit"][self._control] = -np.inf
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        if not np.isfinite(candidates["logit"]).any():
            raise ModelFileError(f"{self._path}: no token of the model can follow the grammar here")
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(native))
        return int(native.data[native.selected].id)

    def accept(self, token: int) -> None:
        """Advance past a token that may come next; the library ends the process over any other."""
        llama_cpp.llama_sampler_accept(self.handle, token)


def _candidates(tokens: NDArray[np.int64], logits: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """Build a candidate list for llama.cpp's samplers: a NumPy array, and the native view of it."""
    data = np.zeros(len(tokens), _CANDIDATE)
    data["id"], data["logit"] = tokens, logits
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return data, llama_cpp.llama_token_data_array(pointer, len(data), -1, False)


def _chain(samplers: Iterable[Any]) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if not chain:
        raise RequestError("llama.cpp could not make a sampler")
    for sampler in samplers:
        llama_cpp.llama_sampler_chain_add(chain, sampler)  # the chain takes ownership
    return chain


def _ban(model: Model, tokens: Sequence[int]) -> Any:
    """Make a sampler that gives these tokens a logit of -inf."""
    biases = (llama_cpp.llama_logit_bias * len(tokens))(*((token, -math.inf) for token in tokens))
    return llama_cpp.llama_sampler_init_logit_bias(model.vocabulary_size, len(tokens), biases)


def _samplers(sampling: Sampling) -> Iterator[Any]:
    """Yield the samplers in the order of llama.cpp's own chain."""
    if sampling.greedy:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
    yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1)
    yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
    yield llama_cpp.llama_sampler_init_dist(sampling.seed)
