"""Successive halving over prompts whose chances are known."""

from dataclasses import replace
from typing import Any

import pytest
from thirteen.errors import OptionError
from thirteen.files.processors import multiplies_bf16
from thirteen.learn.prompt_search import candidates, own_examples, search_prompt
from thirteen.learn.questions import Candidate
from thirteen.learn.rollouts import QuestionRollouts, Solution
from thirteen.learn.time_plan import ANSWERS, LAST, Speed, TimePlan, fitting_questions, plan_time
from thirteen.runtime.prompt.question_prompt import PLAIN

EXAMPLES = [(f"{n} pens?", f"The answer is {n}.") for n in range(8)]
NAMES = [one.name for one in candidates(EXAMPLES)]


def search(share, long=(), first=5):
    """Each candidate is right where the number of the question, modulo 10, is below its share."""
    asked = []

    def measure(measured, start, stop):
        asked.append(len(measured) * (stop - start))
        return [
            None if one.name in long else [number % 10 < share(one) for number in range(start, stop)]
            for one in measured
        ]

    return *search_prompt(candidates(EXAMPLES), measure, first), sum(asked)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_prompt_wins_within_the_planned_answers(name):
    best, ranked, long, asked = search(lambda one: 3 + (one.name == name))
    assert (best.name, best.asked, best.right) == (name, 5 * LAST, 16) and not long
    assert len(ranked) >= len(NAMES) == 9 and asked <= 5 * ANSWERS


def test_equal_prompts_leave_the_plain_question():
    assert search(lambda one: 3)[0].prompt == PLAIN


@pytest.mark.parametrize(("clear", "chosen"), [(4, NAMES[0]), (5, NAMES[2])])
def test_the_plain_question_stays_to_the_end_and_loses_only_to_a_clear_gain(clear, chosen):
    """A base with 81 % right lost it after four answers, to a prompt that cost 13 points."""

    def measure(measured, start, stop):
        asked = range(start, stop)
        plain = [number >= clear for number in asked]  # unlucky at first
        return [plain if one.name == NAMES[0] else [one.name == NAMES[2]] * len(asked) for one in measured]

    best, ranked, _ = search_prompt(candidates(EXAMPLES), measure, 9)
    assert (best.name, best.asked) == (chosen, 72) and len(ranked) == 9


def test_prompts_that_do_not_fit_are_left_out():
    best, ranked, long, _ = search(lambda one: len(one.prompt.examples), long=NAMES[-2:])
    assert long == ["4 worked examples", "8 worked examples"] and len(best.prompt.examples) == 2
    assert not {*long} & {one.name for one in ranked}
    assert search(lambda one: 3, long=NAMES[1:])[0].prompt == PLAIN


def test_examples_are_short_right_answers_to_different_questions():
    class Tokens:
        def text(self, ids):
            return "".join(["A", " B", "\n", "\nQuestion:"][one] for one in ids)

    tokens = Tokens()
    one = QuestionRollouts(0, "Tom has 3 pens.", "1", 9, (Solution((0, 1, 1, 2, 3), True),))
    shorter = replace(one, question="Ann has 4 pens.", solutions=(Solution((0, 1, 3), True),))
    other, wrong = replace(one, question="Six cups."), replace(one, solutions=(Solution((0, 3), False),))
    assert own_examples([one, wrong, shorter, other], tokens) == [
        ("Ann has 4 pens.", "A B"),
        ("Six cups.", "A B B"),
    ]
    assert own_examples([wrong], tokens) == [("Tom has 3 pens.", "The answer is 1.")]
    assert Candidate("a", PLAIN).text == "a"


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
    with pytest.raises(OptionError, match="take about") as error:
        plan_time(1e-3, search=1, **options)
    enough = float(str(error.value).split()[-2])
    assert plan_time(enough + 0.1, search=1, **options).questions >= 10, "it left out the time of the search"
    folds = plan_time(1e6, search=0.5, **options)
    assert folds.searched <= 50 and not plan_time(whole.minutes / 3, search=1, **options).first


def test_a_longer_prompt_leaves_time_for_fewer_questions():
    minutes = (100 * QUESTION + 3 * 40 * 217) * 0.01 / 60 / 0.8  # just enough
    plan = TimePlan(SPEED, 100, 40, minutes)
    assert fitting_questions(minutes, plan, 90, 13) == 100
    again = 1.46 * (275 + 4 * 192) + 8 * 0.46 * 1292 * GRADIENT
    assert fitting_questions(minutes, plan, 1100, 1000) == round(100 * QUESTION / again)
    assert fitting_questions(3 * minutes, plan, 1100, 13) == 100
