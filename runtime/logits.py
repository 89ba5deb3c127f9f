"""Logits, and the log-probabilities that they stand for."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

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
