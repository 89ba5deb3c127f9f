"""Sampling: the next token from a row of logits, optionally within a grammar."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError, RequestError
from ..compute import NativeHandle
from ..options import Options
from .context import Context
from .llama_cpp_library import llama_cpp
from .model import Model

if TYPE_CHECKING:  # constraint imports llguidance, which only sequences with a grammar need
    from ...stats import Floats
    from .constraint import Constraint

_CANDIDATE = np.dtype(llama_cpp.llama_token_data)
_WINDOW_MAX = 1 << 17  # tokens of an answer that penalties look at


class Sampler(NativeHandle):
    """Chooses the tokens of one sequence; llama.cpp's chains of samplers hold its random state."""

    def __init__(self, model: Model, options: Options, constraint: "Constraint | None" = None) -> None:
        super().__init__()
        self._model, self._constraint = model, constraint
        self._chain = None if options.greedy else self._new_chain(_samplers(options))
        penalizes = options.penalizes or options.logit_bias
        self._penalties = self._new_chain(_penalties(model, options)) if penalizes else None

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        """Choose a token by a row of logits; with `no_digit`, none that extends a number.

        FileError: the logits are not finite. RequestError: no token can follow the grammar, or a limit is
        exceeded.
        """
        logits = context.logits_row(row)  # (vocab,)
        if self._penalties:
            logits = self._penalized(logits)
        if no_digit:
            logits = logits.copy()
            logits[[*self._model.digit_tokens]] = -math.inf
        token = self._choose(logits)
        # Most choices follow the grammar, which saves a mask of the whole vocabulary.
        if self._constraint and not self._constraint.accept(token):
            token = self._choose(logits, self._constraint.allowed())
            if not self._constraint.accept(token):
                raise RequestError(f"grammar: it allows token {token} here, and then does not")
        return token

    def accept(self, token: int) -> None:
        """Take note of a token of the answer, for the penalties: chosen, forced or inserted."""
        if self._penalties:
            llama_cpp.llama_sampler_accept(self._penalties, token)

    def take_forced(self) -> Sequence[int]:
        """Return the tokens that the grammar forces next, after advancing past them."""
        return self._constraint.take_forced() if self._constraint else ()

    @property
    def finished(self) -> bool:
        """Whether the grammar allows nothing but the end."""
        return self._constraint is not None and self._constraint.finished

    def _new_chain(self, samplers: Iterable[Any]) -> Any:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self._owned.callback(llama_cpp.llama_sampler_free, chain)
        for sampler in samplers:
            llama_cpp.llama_sampler_chain_add(chain, sampler)  # the chain takes ownership
        return chain

    def _penalized(self, logits: "Floats") -> "Floats":
        candidates, native = _candidates(np.arange(len(logits)), logits)
        llama_cpp.llama_sampler_apply(self._penalties, ctypes.byref(native))
        penalized: Floats = candidates["logit"].copy()
        return penalized

    def _choose(self, logits: "Floats", tokens: NDArray[np.int64] | None = None) -> int:
        """Choose one of some tokens, by default of all, by the logits of all, (vocab,)."""
        if self._chain is None:
            chosen = int(logits.argmax() if tokens is None else tokens[logits[tokens].argmax()])
        else:
            ids, values = (np.arange(len(logits)), logits) if tokens is None else (tokens, logits[tokens])
            _, native = _candidates(ids, values)
            llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(native))
            chosen = native.data[native.selected].id if native.selected >= 0 else -1
        # One check is enough: NaN anywhere in the computation spreads over the whole row.
        if chosen < 0 or not math.isfinite(logits[chosen]):
            raise FileError(f"{self._model.header.path}: the model's logits are not finite numbers")
        return chosen


def _candidates(tokens: NDArray[np.int64], logits: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    data = np.zeros(len(tokens), _CANDIDATE)
    data["id"], data["logit"] = tokens, logits
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return data, llama_cpp.llama_token_data_array(pointer, len(data), -1, False)


def _penalties(model: Model, options: Options) -> Iterator[Any]:
    if options.logit_bias:
        native = (llama_cpp.llama_logit_bias * len(options.logit_bias))(*options.logit_bias.items())
        yield llama_cpp.llama_sampler_init_logit_bias(model.vocabulary_size, len(native), native)
    if options.penalizes:
        window = _WINDOW_MAX if options.repeat_last_n < 0 else min(options.repeat_last_n, _WINDOW_MAX)
        penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
        yield llama_cpp.llama_sampler_init_penalties(model.vocabulary_size, window, *penalties)


def _samplers(options: Options) -> Iterator[Any]:
    """Yield the samplers in the order of llama.cpp's own chain."""
    yield llama_cpp.llama_sampler_init_top_k(options.top_k)
    yield llama_cpp.llama_sampler_init_top_p(options.top_p, 1)
    yield llama_cpp.llama_sampler_init_min_p(options.min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(options.temperature)
    yield llama_cpp.llama_sampler_init_dist(options.seed)
