"""Successive halving over prompts whose chances are known."""

from dataclasses import replace

import pytest
from thirteen.learn.prompt_search import candidates, own_examples, search_prompt
from thirteen.learn.questions import Candidate
from thirteen.learn.rollouts import QuestionRollouts, Solution
from thirteen.learn.time_plan import ANSWERS, LAST
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
