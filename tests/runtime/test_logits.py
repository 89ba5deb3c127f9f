"""log_softmax: stable, over the last axis, in float64; log_sum_exp agrees with it."""

import numpy as np
import pytest
from thirteen.runtime.logits import log_softmax, log_sum_exp

LOGITS = np.random.default_rng(13).normal(0, 5, (3, 1000)).astype(np.float32)


def test_rows_are_computed_alone_and_together_to_the_bit():
    before = LOGITS.copy()
    logprobs = log_softmax(LOGITS)
    assert logprobs.dtype == np.float64 and np.array_equal(LOGITS, before)
    assert all(
        np.array_equal(log_softmax(row), logprob) for row, logprob in zip(LOGITS, logprobs, strict=True)
    )
    assert np.allclose(np.exp(logprobs).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("shift", [0, 60, 1000, -1000])
@pytest.mark.parametrize("tokens", [1, 1000, 40_000])
def test_the_sum_of_exponentials_is_that_of_all_blocks(tokens, shift):
    """Logits of any size: exponentials of float32 overflow from 88.7 on."""
    row = np.random.default_rng(13).normal(shift, 5, tokens).astype(np.float32)
    expected = row[0] - log_softmax(row)[0]
    assert log_sum_exp(row) == pytest.approx(expected, abs=1e-5)
