"""Grounding: numbers of equations that are in the question, or are results."""

import json

import pytest
from thirteen.models.texts import HELD_OUT_SUMS
from thirteen.runtime.arithmetic.equations import read_equations
from thirteen.runtime.arithmetic.grounding import is_grounded, stands_alone

from .cases import CASES

PENS = "Ann has $20. She buys 4 pens for $3 each, with 25% off. How much does she have left?"


@pytest.mark.parametrize(
    ("question", "text", "grounded"),
    [
        (PENS, "4 * $3 = $12. $20 - $12 = $8", True),
        (PENS, "A pen costs 4 dollars, so 4 * 4 = 16. 20 - 5 = 15", False),
        (PENS, "4 * 3 = 12. 12 * 0.25 = 3. 12 * 25 / 100 = 3", True),
        (PENS, "20 - 8 = 12", False),
        (PENS, "20 - 4 = 17. 17 - 16 = 1", True),  # both results of a wrong equation
        ("Half of a dozen of 120-page books", "12 / 2 = 6. 120 / 2 = 60", True),
        ("Twenty-five of 1 1/2 and ½", "25 * 1.5 = 37.5. 20 * 0.5 = 10. 5 + 20 = 25", True),
        ("007 and 0/0", "7 + 0 = 7", False),
        pytest.param(f"{'7' * 5000} and 8", "8 + 8 = 16", True, id="more digits than int() reads"),
        ("", "1 + 1 = 2", False),
    ],
)
def test_numbers_stem_from_the_question_or_a_result(question, text, grounded):
    assert is_grounded(read_equations(text).steps, question) is grounded


@pytest.mark.parametrize(("question", "alone"), CASES["standing_alone"])
def test_a_question_stands_alone_only_if_nothing_in_it_refers_back(question, alone):
    assert stands_alone(question) == alone


def test_the_shipped_sums_stand_alone():
    rows = [json.loads(line)["question"] for line in HELD_OUT_SUMS.read_text().splitlines()]
    assert sum(map(stands_alone, rows)) == len(rows) == 48
