"""log_softmax: over the last axis, in float64; log_sum_exp agrees with it."""

import numpy as np
import pytest
from thirteen.runtime.llama.context import log_softmax, log_sum_exp


@pytest.mark.parametrize("shift", [0, 60, 1000, -1000])
@pytest.mark.parametrize("tokens", [1, 1000, 40_000])
def test_logits_of_any_size_have_probabilities(tokens, shift):
    """Exponentials of float32 overflow from 88.7 on."""
    logits = np.random.default_rng(13).normal(shift, 5, (3, tokens)).astype(np.float32)
    logprobs = log_softmax(logits)
    assert np.allclose(np.exp(logprobs).sum(1), 1, atol=1e-6)
    for row, logprob in zip(logits, logprobs, strict=True):
        assert np.array_equal(log_softmax(row), logprob)
        assert log_sum_exp(row) == pytest.approx(row[0] - logprob[0], abs=1e-5)
