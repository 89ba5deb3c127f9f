"""How many questions fit into the time; all figures are in the time of a sampled token."""

from typing import Any

import pytest
from thirteen.files.processors import multiplies_bf16
from thirteen.learn.time_plan import Speed, TimePlan, fitting_questions, plan_time

SPEED = Speed(0.01, 0.0025, prompt_tokens=100, answer_tokens=192)  # a prompt takes as long as 25 tokens
GRADIENT = 1.0 if multiplies_bf16() else 1.8
QUESTION = 1.46 * (25 + 4 * 192) + 8 * 0.46 * 292 * GRADIENT


def test_the_time_limits_the_questions():
    options: dict[str, Any] = {"speed": SPEED, "questions": 100, "held_out": 40}
    whole = plan_time(1e6, **options)
    half = plan_time(whole.minutes / 2, **options)
    assert (whole.questions, whole.held_out, half.questions, half.held_out) == (100, 40, 50, 20)
    tokens = 100 * QUESTION + 80 * (25 + 192)
    assert whole.minutes == pytest.approx(tokens * 0.01 / 60)
    assert not whole.first
    search = plan_time(1e6, search=1, **options)
    assert (search.first, search.pool, search.searched) == (9, 24, 96)  # at most 100 questions
    answers = (9 * 28 + 24) * 217
    assert search.minutes == pytest.approx((tokens + 40 * 217 + answers) * 0.01 / 60)
    folds = plan_time(1e6, search=0.5, **options)
    assert folds.searched <= 50 and not plan_time(whole.minutes / 3, search=1, **options).first


def test_a_longer_prompt_leaves_time_for_fewer_questions():
    minutes = (100 * QUESTION + 3 * 40 * 217) * 0.01 / 60 / 0.8  # just enough
    plan = TimePlan(SPEED, 100, 40, minutes)
    assert fitting_questions(minutes, plan, 90, 13) == 100
    again = 1.46 * (275 + 4 * 192) + 8 * 0.46 * 1292 * GRADIENT
    assert fitting_questions(minutes, plan, 1100, 1000) == round(100 * QUESTION / again)
    assert fitting_questions(3 * minutes, plan, 1100, 13) == 100
