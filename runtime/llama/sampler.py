"""Sampling: the next token from a row of logits, optionally within a grammar."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError, RequestError
from ..native.bindings import llama_cpp
from ..native.llama_cpp_library import LLAMA_CPP
from ..native.native_handle import NativeHandle
from ..request import SEED_MAX, Sampling
from .context import Context
from .model import Model

if TYPE_CHECKING:  # constraint imports llguidance, which only sequences with a grammar need
    from ...stats.arrays import Floats
    from .constraint import Constraint

_CANDIDATE = np.dtype(llama_cpp.llama_token_data)
_WINDOW_MAX = 1 << 17  # tokens of an answer that penalties look at


class Sampler(NativeHandle):
    """llama.cpp's sampler chain of one sequence, with its random state."""

    def __init__(self, model: Model, sampling: Sampling, constraint: "Constraint | None" = None) -> None:
        """Build the chain of one sequence; `constraint` is its position in its grammar, if it has one."""
        super().__init__()
        self._model, self._sampling = model, sampling
        self._constraint = constraint
        self._handle = self._chain(_samplers(sampling))
        penalizes = sampling.penalizes or sampling.logit_bias
        self._penalties = self._chain(_penalties(model, sampling)) if penalizes else None

    @cached_property
    def _no_digit_chain(self) -> Any:
        no_digit = _bias(self._model, dict.fromkeys(self._model.digit_tokens, -math.inf))
        seed = (self._sampling.seed + SEED_MAX // 2) % (SEED_MAX + 1)  # not the other chain's numbers again
        return self._chain((no_digit, *_samplers(replace(self._sampling, seed=seed))))

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        """Choose a token by the logits at a batch index from decode() of a context.

        `no_digit` excludes tokens that would make a number before them longer.

        Raises:
            FileError: the logits are not finite.
            RequestError: no token can follow the grammar, or a limit of a step is exceeded.
        """
        logits, chain = context.logits_row(row), None
        if no_digit and not self._penalties:
            chain = self._no_digit_chain
        elif not self._sampling.greedy:
            chain = self.handle
        if self._penalties:
            logits = self._penalized(logits, no_digit=no_digit)
        if chain is None:
            token = int(logits.argmax())  # a chain would first copy the vocabulary into a candidate list
        elif self._penalties or context.model.library is not LLAMA_CPP:
            token = self._choose(np.arange(len(logits)), chain, logits)
        else:
            token = int(llama_cpp.llama_sampler_sample(chain, context.handle, row))
        self._check_finite(token, logits)
        # Most choices follow the grammar, which saves a mask of the whole vocabulary.
        if self._constraint and not self._constraint.accept(token):
            token = self._choose(self._constraint.allowed(), chain, logits)
            self._check_finite(token, logits)
            if not self._constraint.accept(token):
                raise RequestError(f"grammar: it allows token {token} here, and then does not")
        return token

    def accept(self, token: int) -> None:
        """Take note of a token of the answer, for the penalties: chosen, forced or inserted."""
        if self._penalties:
            llama_cpp.llama_sampler_accept(self._penalties, token)

    def take_forced(self) -> Sequence[int]:
        """Return the tokens that the grammar forces next, after advancing past them.

        Raises:
            RequestError: a limit of a step is exceeded.
        """
        return self._constraint.take_forced() if self._constraint else ()

    @property
    def finished(self) -> bool:
        """Whether the grammar allows nothing but the end."""
        return self._constraint is not None and self._constraint.finished

    def _chain(self, samplers: Iterable[Any]) -> Any:
        """Make a chain of samplers, which close() frees."""
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if not chain:
            raise RequestError("llama.cpp could not make a sampler")
        self._handles.callback(llama_cpp.llama_sampler_free, chain)
        for sampler in samplers:
            llama_cpp.llama_sampler_chain_add(chain, sampler)  # the chain takes ownership
        return chain

    def _penalized(self, logits: "Floats", *, no_digit: bool) -> "Floats":
        """The logits with penalties and biases, (vocab,)."""
        candidates, native = _candidates(np.arange(len(logits)), logits)
        llama_cpp.llama_sampler_apply(self._penalties, ctypes.byref(native))
        penalized: Floats = candidates["logit"].copy()
        if no_digit:
            penalized[[*self._model.digit_tokens]] = -math.inf
        return penalized

    def _choose(self, tokens: NDArray[np.int64], chain: Any, logits: "Floats") -> int:
        """Choose one of some tokens by the logits of all, (vocab,): the likeliest without a chain."""
        if chain is None:
            return int(tokens[logits[tokens].argmax()])
        candidates, native = _candidates(tokens, logits[tokens])
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(native))
        if not 0 <= native.selected < len(candidates):
            raise FileError(f"{self._model.header.path}: sampling chose no token")
        return int(native.data[native.selected].id)

    def _check_finite(self, token: int, logits: "Floats") -> None:
        # One check is enough: NaN anywhere in the computation spreads over the whole row.
        if not (0 <= token < len(logits) and math.isfinite(logits[token])):
            raise FileError(f"{self._model.header.path}: the model's logits are not finite numbers")


def _candidates(tokens: NDArray[np.int64], logits: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """Build a candidate list for llama.cpp's samplers: a NumPy array, and the native view of it."""
    data = np.zeros(len(tokens), _CANDIDATE)
    data["id"], data["logit"] = tokens, logits
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return data, llama_cpp.llama_token_data_array(pointer, len(data), -1, False)


def _bias(model: Model, biases: Mapping[int, float]) -> Any:
    """Make a sampler that adds to the logits of these tokens."""
    native = (llama_cpp.llama_logit_bias * len(biases))(*biases.items())
    return llama_cpp.llama_sampler_init_logit_bias(model.vocabulary_size, len(biases), native)


def _penalties(model: Model, sampling: Sampling) -> Iterator[Any]:
    """Yield the samplers that change logits, and choose none."""
    if sampling.logit_bias:
        yield _bias(model, sampling.logit_bias)
    if sampling.penalizes:
        window = _WINDOW_MAX if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, _WINDOW_MAX)
        yield llama_cpp.llama_sampler_init_penalties(
            model.vocabulary_size,
            window,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )


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
