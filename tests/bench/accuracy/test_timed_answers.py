"""Questions asked one at a time: order, and what is timed."""

from functools import partial

import pytest
from thirteen.bench.accuracy.answer_time import time_answers
from thirteen.bench.accuracy.prompts import PromptSettings
from thirteen.errors import RequestError
from thirteen.files.progress import no_progress
from thirteen.runtime.effort import Effort
from thirteen.runtime.engine.engine import Engine

SETTINGS = PromptSettings(threads=1, max_tokens=5)
QUESTIONS = [f"What is {n} + {n}?" for n in range(6)]


@pytest.fixture
def loaders(tiny, lora):
    load = partial(Engine, tiny, threads=1, context=256, slots=2, untrusted=False)
    return [load, partial(load, adapter=lora)]


def test_both_models_are_asked_the_same_questions_in_their_order(loaders):
    """Six questions take two rounds of four; what is asked twice is left out."""
    ticks = []
    times = time_answers(loaders, QUESTIONS, SETTINGS, lambda *tick: ticks.append(tick))
    base, adapted = times
    assert len(base) == len(adapted) == 6
    assert ticks[0][1] == ticks[-1][0] == ticks[-1][1] == len(ticks)
    assert all(one.prefill_s > 0 and one.decode_s >= 0 for one in (*base, *adapted))
    with loaders[0]() as engine:
        expected = [
            engine.submit(SETTINGS.request(engine, question)).answer().usage.completion_tokens
            for question in QUESTIONS
        ]
    assert [one.tokens for one in base] == expected


def test_the_tokens_of_all_votes_count(loaders):
    voting = PromptSettings(threads=1, max_tokens=5, effort=Effort.MEDIUM)
    (model,) = time_answers(loaders[:1], QUESTIONS[:1], voting, no_progress)
    assert 5 < model[0].tokens <= 40


def test_a_question_that_does_not_fit_is_an_error(loaders):
    with pytest.raises(RequestError, match="the context holds 256"):
        time_answers(loaders[:1], ["a" * 300], SETTINGS, no_progress)
