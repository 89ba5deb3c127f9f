"""Log-probabilities of prompts: those of the exact logits, and bad prompts are refused."""

import numpy as np
import pytest
from thirteen.errors import PromptLengthError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.logits import log_softmax

from ..fixed_settings import FIXED

CONTEXT = 200  # longer than the rows of logits that are computed at once


@pytest.fixture(scope="module")
def engine(tiny):
    with Engine(tiny, context=CONTEXT, slots=2, **FIXED) as engine:
        yield engine


@pytest.mark.parametrize("length", [2, 3, 130, CONTEXT])
def test_prompt_logprobs_are_those_of_the_logits(engine, length):
    tokens = np.random.default_rng(length).integers(0, 250, length).tolist()
    expected = log_softmax(engine.logits(tokens))  # (tokens, vocab)
    found = engine.prompt_logprobs(tokens, top=3)
    assert [entry.token for entry in found] == tokens[1:]
    for row, entry in zip(expected[:-1], found, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=0.05)  # keys in float16
        assert [logprob for _, logprob in entry.top] == pytest.approx(np.sort(row)[:-4:-1].tolist(), abs=0.05)
        assert all(logprob == pytest.approx(row[token], abs=0.05) for token, logprob in entry.top)


def test_prompts_are_scored_while_answers_are_computed(engine):
    """The results are the same: nothing of the answers is in the context that scores."""
    tokens = list(b"a prompt")
    alone, expected = engine.prompt_logprobs(tokens), engine.answer("a", max_tokens=40).text
    handle = engine.submit(engine.request("a", max_tokens=40))
    assert engine.prompt_logprobs(tokens) == alone
    assert handle.answer().text == expected


@pytest.mark.parametrize(
    ("tokens", "options", "error"),
    [
        ([1] * (CONTEXT + 1), {}, PromptLengthError),
        ([1, 9999], {}, RequestError),
        ([-1], {}, RequestError),
        ([1, 2], {"adapter": "none"}, RequestError),
        ([1, 2], {"adapter": ["none"]}, RequestError),
        ([1, 2.5], {}, RequestError),
        ("abc", {}, RequestError),
        *(([1, 2], {"top": top}, RequestError) for top in (-1, 21, 1.5)),
    ],
)
def test_bad_prompts_are_refused(engine, tokens, options, error):
    with pytest.raises(error):
        engine.prompt_logprobs(tokens, **options)
    assert len(engine.prompt_logprobs([1, 2])) == 1  # the engine is still usable


def test_a_prompt_with_an_unknown_token_is_refused_before_anything_is_computed(tiny):
    """The tokens before it stayed in the context, and all later calls failed."""
    with Engine(tiny, context=CONTEXT, slots=2, batch=16, **FIXED) as engine:
        prompt = (1,) * 40  # more than a batch
        expected = engine.prompt_logprobs(prompt)
        with pytest.raises(RequestError, match="9999"):
            engine.prompt_logprobs((*prompt, 9999, 2))
        assert engine.prompt_logprobs(prompt) == expected
