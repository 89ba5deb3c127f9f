"""Penalties and biases on a real model: they follow their formulas, beside every way to choose a token."""

from collections import Counter

import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Request, Sampling

from ..fixed_settings import FIXED

PROMPT, LENGTH = (1, 2, 3), 24


@pytest.fixture(scope="module")
def engine(tiny):
    with Engine(tiny, **FIXED, slots=1, context=256) as engine:
        yield engine


def tokens(engine, prompt=PROMPT, **sampling):
    request = Request(prompt, LENGTH, Sampling(**sampling), ignore_end=True)
    return [token for piece in engine.submit(request) for token in piece.tokens]


def penalized(logits, answer, *, repeat=1.0, presence=0.0, frequency=0.0):
    for token, count in Counter(answer).items():
        logits[token] = logits[token] / repeat if logits[token] > 0 else logits[token] * repeat
        logits[token] -= count * frequency + presence
    return int(logits.argmax())


@pytest.mark.parametrize(("repeat", "presence", "frequency"), [(1.3, 0, 0), (1, 2, 0), (1, 0, 1), (2, 1, 1)])
@pytest.mark.parametrize("last_n", [-1, 3])
def test_penalties_of_a_greedy_answer(engine, repeat, presence, frequency, last_n):
    names = {"repeat_penalty": repeat, "presence_penalty": presence, "frequency_penalty": frequency}
    found, expected = tokens(engine, **names, repeat_last_n=last_n), []
    for _ in range(LENGTH):
        logits = np.array(engine.logits((*PROMPT, *found[: len(expected)]))[-1])
        seen = expected if last_n < 0 else expected[-last_n:]
        expected.append(penalized(logits, seen, repeat=repeat, presence=presence, frequency=frequency))
    assert found == expected
    assert last_n > 0 or found != tokens(engine)


def test_a_penalty_of_a_window_of_nothing_changes_nothing(engine):
    assert tokens(engine, frequency_penalty=2, repeat_last_n=0) == tokens(engine)


def test_a_bias_forbids_a_token_or_leaves_no_other(engine):
    first = tokens(engine)[0]
    for temperature in (0, 1):
        assert first not in tokens(engine, temperature=temperature, logit_bias={first: -100})
        assert {*tokens(engine, temperature=temperature, logit_bias={7: 100})} == {7}
        varied = tokens(engine, temperature=temperature, frequency_penalty=100)
        assert len({*varied}) == len(varied)
    with pytest.raises(RequestError, match="token 999999 is not one of the model's"):
        tokens(engine, logit_bias={999999: 1})


def test_inserted_tokens_count_and_results_are_not_made_longer(engine):
    """The calculator inserts a result; the penalties know it, and no digit follows it."""
    digits = {ord(digit): 50.0 for digit in "0123456789"}
    request = engine.request(
        "7 * 8 =", max_tokens=8, logit_bias={**digits, ord("="): 60}, frequency_penalty=100
    )
    assert "=" in engine.submit(request).answer().text
    answer = engine.answer("a", max_tokens=12, temperature=1.0, seed=3, logit_bias={ord("1"): 100})
    assert answer.text == "1" * 12


def test_sampling_keywords(engine):
    sampled = engine.answer("a", max_tokens=9, sampling=Sampling(temperature=1.5, seed=4))
    assert engine.answer("a", max_tokens=9, temperature=1.5, seed=4).text == sampled.text
    assert engine.answer("a", max_tokens=9, sampling=Sampling(1.5), seed=4).text == sampled.text
    with pytest.raises(RequestError, match="temperature must be"):
        engine.answer("a", temperature="hot")


async def collect(stream):
    return [piece async for piece in stream]


def test_a_stream_is_for_both_loops(engine):
    import asyncio

    expected = engine.answer("a", max_tokens=9).text
    pieces = asyncio.run(collect(engine.stream("a", max_tokens=9)))
    assert "".join(piece.text for piece in pieces) == expected == pieces[-1].answer.text


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda engine: engine.answer(None), "question must be a string, not None"),
        (lambda engine: engine.answer("a", system=5), "system must be a string, not 5"),
        (lambda engine: engine.answer("a", grammar="x"), "grammar must be a Grammar, not 'x'"),
        (lambda engine: engine.answers("abc"), "give a list"),
        (lambda engine: engine.answers([b"a"]), "question must be a string"),
    ],
)
def test_values_of_other_types_are_refused_in_one_line(engine, ask, message):
    """`answer(None)` was an AttributeError."""
    with pytest.raises(RequestError, match=message):
        ask(engine)
