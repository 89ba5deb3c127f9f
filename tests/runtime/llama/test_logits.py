"""log_softmax: stable, over the last axis, in the type asked for. Cut-offs: as llama.cpp's own samplers."""

import ctypes

import llama_cpp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thirteen.runtime.llama.logits import kept_tokens, log_softmax, sampling_logprobs
from thirteen.runtime.llama.sampler import _candidates, _chain, _samplers
from thirteen.runtime.request import FULL_DISTRIBUTION, Sampling

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


def test_large_logits_do_not_overflow():
    assert np.allclose(
        log_softmax(LOGITS + np.float32(1e4), np.float64), log_softmax(LOGITS, np.float64), atol=1e-2
    )


def by_llama_cpp(logits, sampling):
    """The probability of each token that llama.cpp's samplers keep."""
    chain = _chain(_samplers(sampling))
    try:
        _data, native = _candidates(np.arange(len(logits)), logits)
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(native))
        return {native.data[i].id: native.data[i].p for i in range(native.size)}
    finally:
        llama_cpp.llama_sampler_free(chain)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.1, 1, 5]),
    st.floats(0.05, 3),
    st.integers(0, 1200),
    st.floats(0.01, 1),
    st.floats(0, 0.99),
)
@example(0, 5, 0.7, 40, 0.95, 0.05)
@example(0, 5, 1.0, 0, 1.0, 0.0)
def test_probabilities_are_those_of_the_sampler(seed, spread, temperature, top_k, top_p, min_p):
    logits = np.random.default_rng(seed).normal(0, spread, 1000).astype(np.float32)
    sampling = Sampling(temperature, top_k, top_p, min_p)
    expected = by_llama_cpp(logits, sampling)
    kept = kept_tokens(logits, sampling)
    at_the_edge = {  # tokens whose cut-off depends on the last bits of a float32
        *kept_tokens(logits, Sampling(temperature, top_k, max(top_p - 1e-5, 1e-6), min(min_p + 1e-6, 0.999)))
    } ^ {*kept_tokens(logits, Sampling(temperature, top_k, min(top_p + 1e-5, 1), max(min_p - 1e-6, 0)))}
    assert {*kept} ^ expected.keys() <= at_the_edge
    if not {*kept} ^ expected.keys():
        found = np.exp(sampling_logprobs(logits, list(expected), sampling))
        assert found == pytest.approx(list(expected.values()), rel=1e-3, abs=1e-6)


def test_a_token_that_is_cut_off_counts_beside_those_that_are_kept():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    found = sampling_logprobs(logits, [0, 1, 2, 3], Sampling(1.0, 2, 1.0, 0.0))
    assert np.exp(found) == pytest.approx([5 / 8, 3 / 8, 15 / 95, 5 / 85])
    full = sampling_logprobs(logits, [3, 3, 0], FULL_DISTRIBUTION)
    assert np.exp(full) == pytest.approx([0.05, 0.05, 0.5])
