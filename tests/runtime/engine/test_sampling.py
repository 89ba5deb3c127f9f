"""Penalties, biases and the end of generation on a real model, beside every way to choose a token."""

from collections import Counter

import numpy as np
import pytest
from thirteen.runtime.answer import StopReason
from thirteen.runtime.options import Options, Request

PROMPT, LENGTH, EOS = (1, 2, 3), 24, 258


def run(engine, max_tokens=LENGTH, **options):
    *pieces, last = engine.submit(Request(PROMPT, Options(max_tokens=max_tokens, **options)))
    return [token for piece in (*pieces, last) for token in piece.tokens], last


def tokens(engine, **options):
    return run(engine, ignore_end=True, **options)[0]


def penalized(logits, answer, repeat, presence, frequency):
    for token, count in Counter(answer).items():
        logits[token] = logits[token] / repeat if logits[token] > 0 else logits[token] * repeat
        logits[token] -= count * frequency + presence
    return int(logits.argmax())


@pytest.mark.parametrize("penalties", [(1.3, 0, 0), (1, 2, 0), (1, 0, 1), (2, 1, 1)])
@pytest.mark.parametrize("last_n", [-1, 3, 0])
def test_penalties_of_a_greedy_answer_follow_their_formulas(engine, penalties, last_n):
    names = ("repeat_penalty", "presence_penalty", "frequency_penalty")
    found = tokens(engine, **dict(zip(names, penalties, strict=True)), repeat_last_n=last_n)
    expected: list[int] = []
    for _ in range(LENGTH):
        logits = np.array(engine.logits((*PROMPT, *expected))[-1])
        seen = expected if last_n < 0 else expected[len(expected) - min(last_n, len(expected)) :]
        expected.append(penalized(logits, seen, *penalties))
    assert found == expected
    assert (found == tokens(engine)) == (last_n == 0)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_bias_forbids_a_token_or_leaves_no_other(engine, temperature):
    first = tokens(engine)[0]
    assert first not in tokens(engine, temperature=temperature, logit_bias={first: -100})
    assert {*tokens(engine, temperature=temperature, logit_bias={7: 100})} == {7}
    varied = tokens(engine, temperature=temperature, frequency_penalty=100)
    assert len({*varied}) == len(varied)


def test_the_end_of_generation_ends_an_answer_or_is_ignored_or_reported(engine):
    ends = {"logit_bias": {EOS: 100}}
    for report in (False, True):
        found, last = run(engine, **ends, logprobs=1, report_end=report)
        assert (found, last.text, last.answer.stop_reason) == ([], "", StopReason.END)
        assert [one.token for one in last.logprobs] == [EOS] * report
        assert all(one.logprob < 0 and len(one.top) == 1 for one in last.logprobs)
    found, last = run(engine, **ends, ignore_end=True)
    assert (found, last.answer.stop_reason) == ([EOS] * LENGTH, StopReason.LENGTH), "benchmarks go on"
    assert last.answer.usage.completion_tokens == LENGTH
