"""log_softmax: stable, over the last axis, in the type asked for."""

import numpy as np
import pytest
from thirteen.runtime.logits import log_softmax

LOGITS = np.random.default_rng(13).normal(0, 5, (3, 1000)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_computed_alone_and_together_to_the_bit(dtype):
    before = LOGITS.copy()
    logprobs = log_softmax(LOGITS, dtype)
    assert logprobs.dtype == dtype and np.array_equal(LOGITS, before)
    assert all(
        np.array_equal(log_softmax(row, dtype), logprob)
        for row, logprob in zip(LOGITS, logprobs, strict=True)
    )
    assert np.allclose(np.exp(logprobs).sum(1), 1, atol=1e-6)
