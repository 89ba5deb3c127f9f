"""Logits, and the log-probabilities that they stand for."""

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..stats.arrays import Doubles, Floats

_BLOCK = 1 << 14  # logits: they and their exponentials stay in a processor's own cache
_EXPONENT_MAX = 64.0  # exponentials of float32 overflow from 88.7 on


def log_softmax(logits: NDArray[Any]) -> "Doubles":
    """Compute the log-softmax over the last axis, (…, vocab), in nats, in float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits


def log_sum_exp(logits: "Floats") -> float:
    """Compute the logarithm of the sum of the exponentials of a row, (vocab,), in nats."""
    highest = float(logits.max())
    shift = highest if abs(highest) > _EXPONENT_MAX else 0.0  # a pass less without
    blocks = (logits[start : start + _BLOCK] for start in range(0, len(logits), _BLOCK))
    return shift + log(sum(float(np.exp(block - shift if shift else block).sum()) for block in blocks))
