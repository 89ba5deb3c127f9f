"""Log-probabilities: of logits of any size, and of prompts."""

import numpy as np
import pytest
from thirteen.runtime.llama.context import log_softmax, log_sum_exp

from ..conftest import CONTEXT


@pytest.mark.parametrize("length", [2, 3, 130, CONTEXT])
def test_prompt_logprobs_are_those_of_the_logits(engine, length):
    """Also of a prompt that is longer than the rows which are computed at once."""
    tokens = np.random.default_rng(length).integers(0, 250, length).tolist()
    logits = engine.logits(tokens)
    assert logits.shape == (length, engine.model.vocabulary_size)
    found = engine.prompt_logprobs(tokens, top=3)
    assert [entry.token for entry in found] == tokens[1:]
    for row, entry in zip(log_softmax(logits)[:-1], found, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=0.05)  # keys in float16
        assert [logprob for _, logprob in entry.top] == pytest.approx(np.sort(row)[:-4:-1].tolist(), abs=0.05)
        assert all(logprob == pytest.approx(row[token], abs=0.05) for token, logprob in entry.top)


def test_prompts_are_scored_while_answers_are_computed(engine):
    """The results are the same: nothing of the answers is in the context that scores."""
    tokens = list(b"a prompt")
    alone, expected = engine.prompt_logprobs(tokens), engine.answer("a", max_tokens=40).text
    handle = engine.stream("a", max_tokens=40)
    assert engine.prompt_logprobs(tokens) == alone
    assert handle.answer().text == expected


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
