"""Synthetic word problems: reproducible, right, and disjoint from the held-out ones."""

import re
from fractions import Fraction

import pytest
from thirteen.errors import ThirteenError
from thirteen.learn.synthetic_sums import draw_sums
from thirteen.runtime.arithmetic.calculator import check_steps
from thirteen.runtime.arithmetic.final_answer import final_answer


def numbers(row):
    return tuple(map(int, re.findall(r"\d+", row.solution)[:2]))


def sign(row):
    return re.search(r" ([-+*/]) ", row.solution)[1]


def test_solutions_are_right_and_questions_contain_their_numbers():
    for row in draw_sums(500, 1):
        (step,) = check_steps(row.solution)
        assert step.ok and final_answer(row.solution) == Fraction(row.answer) >= 1
        assert set(numbers(row)) == set(map(int, re.findall(r"\d+", row.question)))


def test_questions_are_distinct_and_of_all_operations():
    rows = draw_sums(2_000, 1)
    assert len({row.question for row in rows}) == 2_000
    assert {sign(row) for row in rows} == set("+-*/")


def test_held_out_sums_are_disjoint_for_all_seeds():
    seen = {(sign(row), numbers(row)) for seed in range(3) for row in draw_sums(1_500, seed)}
    held = {(sign(row), numbers(row)) for seed in range(3) for row in draw_sums(500, seed, held_out=True)}
    assert held and not seen & held
    assert {(sign, pair[::-1]) for sign, pair in held} & seen, "in another order they may be asked"


def test_the_seed_determines_the_questions():
    assert draw_sums(50, 1) == draw_sums(60, 1)[:50] != draw_sums(50, 2)
    assert draw_sums(1, 13)[0].question == (
        "David shares 40 stickers equally among 5 friends. How many stickers does each friend get?"
    )


@pytest.mark.parametrize("count", [0, 100_001])
def test_a_count_out_of_range_is_refused(count):
    with pytest.raises(ThirteenError, match=f"{count} sums"):
        draw_sums(count, 1)
