"""Logits, and the log-probabilities that they stand for."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..request import Sampling

Logits = NDArray[np.float32]
_Float = TypeVar("_Float", np.float32, np.float64)


def log_softmax(logits: NDArray[Any], dtype: type[_Float]) -> NDArray[_Float]:
    """Compute the log-softmax over the last axis, (…, vocab), in nats.

    Args:
        logits: one row of logits, or several.
        dtype: type of the result and of the computation.
    """
    logits = logits.astype(dtype)
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits


def kept_tokens(logits: Logits, sampling: Sampling) -> NDArray[np.int64]:
    """Find the tokens that top-k, top-p and min-p keep, as llama.cpp's samplers do in this order.

    Args:
        logits: one row, (vocab,).
        sampling: the cut-offs. The temperature does not matter: it is applied after them.
    """
    tokens = np.arange(len(logits))
    if 0 < sampling.top_k < len(logits):
        tokens = np.argpartition(logits, -sampling.top_k)[-sampling.top_k :]
    if sampling.top_p < 1:
        tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
        cumulative = np.exp(log_softmax(logits[tokens], np.float64)).cumsum()
        tokens = tokens[: np.searchsorted(cumulative, sampling.top_p) + 1]
    if sampling.min_p > 0:
        tokens = tokens[logits[tokens] >= logits[tokens].max() + math.log(sampling.min_p)]
    return tokens


def sampling_logprobs(logits: Logits, tokens: Sequence[int], sampling: Sampling) -> list[float]:
    """Compute the log-probability of sampling each of some tokens, in nats.

    A token that the cut-offs remove counts as if they kept it beside the others: its log-probability is
    finite, so that two models which keep other tokens can be compared.

    Args:
        logits: one row, (vocab,).
        tokens: the tokens.
        sampling: temperature, above 0, and cut-offs.
    """
    kept = kept_tokens(logits, sampling)
    chosen, of_kept = (
        logits[some].astype(np.float64) / sampling.temperature for some in (list(tokens), kept)
    )  # (tokens,), (kept,)
    total = np.logaddexp.reduce(of_kept)
    totals = np.where(np.isin(tokens, kept), total, np.logaddexp(total, chosen))
    return list((chosen - totals).tolist())
