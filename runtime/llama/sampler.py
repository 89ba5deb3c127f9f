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
from .library import LOG, Logits, NativeHandle
from .model import Model

_CANDIDATE = np.dtype(llama_cpp.llama_token_data)


class Sampler(NativeHandle):
    """How one sequence chooses its tokens, in native code; it remembers where its random numbers are."""

    def __init__(self, model: Model, sampling: Sampling, grammar: Grammar | None = None) -> None:
        """Begin a sequence.

        Args:
            model: whose tokens are chosen.
            sampling: how.
            grammar: what they must follow.

        Raises:
            RequestError: llama.cpp does not take the grammar.
        """
        super().__init__()
        self._model, self._sampling = model, sampling
        self._constraint = Constraint(model, grammar) if grammar else None
        if self._constraint:
            self._handles.callback(self._constraint.close)
        self.own(_chain(_links(sampling)), llama_cpp.llama_sampler_free)

    @cached_property
    def _without_digits(self) -> Any:
        chain = _chain((_bar(self._model, self._model.digit_tokens), *_links(self._sampling)))
        self._handles.callback(llama_cpp.llama_sampler_free, chain)
        return chain

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        """Choose a token by the logits at a batch index that decode() returned.

        Args:
            context: which computed them.
            row: the index.
            no_digit: whether no token will do that could make a number before it longer.

        Raises:
            ModelFileError: the model computed something that is not a number.
        """
        chain = self._without_digits if no_digit else self.handle
        logits = context.logits_row(row)
        if self._sampling.greedy and not no_digit:
            token = int(logits.argmax())  # a chain would copy the vocabulary into a list of candidates first
        else:
            token = int(llama_cpp.llama_sampler_sample(chain, context.handle, row))
        # One look, not one for each token: NaN anywhere in the computation spreads over the whole row.
        if not math.isfinite(logits[token]):
            raise ModelFileError(f"{context.model.header.path}: the model's logits are not finite numbers")
        if self._constraint:
            # Mostly the choice follows the grammar, and then the whole vocabulary is not looked at.
            if not self._constraint.allows(token):
                token = self._constraint.choose(chain, logits)
            self._constraint.accept(token)
        return token


class Constraint(NativeHandle):
    """A grammar, and how far one sequence has come in it."""

    def __init__(self, model: Model, grammar: Grammar) -> None:
        """Compile the grammar.

        Raises:
            RequestError: llama.cpp does not take it.
        """
        super().__init__()
        handle = llama_cpp.llama_sampler_init_grammar(
            model._vocabulary, grammar.text.encode(), grammar.root.encode()
        )
        if not handle:
            raise RequestError(f"grammar: not compiled: {LOG.reason()}")
        self.own(handle, llama_cpp.llama_sampler_free)
        self._path = model.header.path
        # The library would let them through inside strings, where they are no text.
        self._control = [token for token in model.control_tokens.values() if not model.ends(token)]

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        one, native = _candidates(np.array([token]), np.zeros(1))
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        return token not in self._control and bool(one["logit"][0] == 0)

    def choose(self, chain: Any, logits: Logits) -> int:
        """Choose, by a chain of samplers, among the tokens that may come next.

        Args:
            chain: the samplers.
            logits: of all tokens, (vocab,).

        Raises:
            ModelFileError: there is none.
        """
        every, native = _candidates(np.arange(len(logits)), logits)
        every["logit"][self._control] = -np.inf
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(native))
        if not np.isfinite(every["logit"]).any():
            raise ModelFileError(f"{self._path}: no token of the model can follow the grammar here")
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(native))
        return int(native.data[native.selected].id)

    def accept(self, token: int) -> None:
        """Go on past a token; the library would end the process over one that may not come next."""
        llama_cpp.llama_sampler_accept(self.handle, token)


def _candidates(tokens: NDArray[np.int64], logits: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """Tokens as the library's samplers take them: an array of ours, and the native one laid over it."""
    data = np.zeros(len(tokens), _CANDIDATE)
    data["id"], data["logit"] = tokens, logits
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return data, llama_cpp.llama_token_data_array(pointer, len(data), -1, False)


def _chain(links: Iterable[Any]) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if not chain:
        raise RequestError("llama.cpp could not make a sampler")
    for link in links:
        llama_cpp.llama_sampler_chain_add(chain, link)  # the chain owns its links
    return chain


def _bar(model: Model, tokens: Sequence[int]) -> Any:
    """A sampler that leaves out some tokens."""
    biases = (llama_cpp.llama_logit_bias * len(tokens))(*((token, -math.inf) for token in tokens))
    return llama_cpp.llama_sampler_init_logit_bias(model.vocabulary_size, len(tokens), biases)


def _links(sampling: Sampling) -> Iterator[Any]:
    """The samplers of a chain, in llama.cpp's own order."""
    if sampling.greedy:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
    yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1)
    yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
    yield llama_cpp.llama_sampler_init_dist(sampling.seed)
