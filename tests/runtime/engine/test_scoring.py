"""Log-probabilities of prompts: those of the exact logits, and bad prompts are refused."""

import numpy as np
import pytest
from thirteen.errors import PromptLengthError, RequestError
from thirteen.runtime.llama.context import log_softmax

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


@pytest.mark.parametrize(
    ("tokens", "options", "error"),
    [
        ([1] * (CONTEXT + 1), {}, PromptLengthError),
        ([*range(200), 9999, 2], {}, RequestError),  # before anything is computed
        ([-1], {}, RequestError),
        ([], {}, RequestError),
        ([1, 2], {"adapter": "none"}, RequestError),
        ([1, 2.5], {}, RequestError),
        ("abc", {}, RequestError),
    ],
)
def test_bad_prompts_are_refused(engine, tokens, options, error):
    expected = engine.prompt_logprobs([1, 2, 3])
    with pytest.raises(error):
        engine.prompt_logprobs(tokens, **options)
    assert engine.prompt_logprobs([1, 2, 3]) == expected
