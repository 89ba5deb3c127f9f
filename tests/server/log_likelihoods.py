"""How likely a model finds a continuation, by its exact logits."""

from collections.abc import Sequence

import numpy as np
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.logits import log_softmax


def log_likelihood(engine: Engine, prompt: Sequence[int], continuation: Sequence[int]) -> float:
    """Sum of the log-probabilities of the tokens of a continuation, in nats."""
    rows = log_softmax(engine.logits([*prompt, *continuation]), np.float64)[len(prompt) - 1 : -1]
    return float(rows[range(len(continuation)), [*continuation]].sum())
