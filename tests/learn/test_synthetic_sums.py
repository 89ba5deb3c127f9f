"""Synthetic word problems: reproducible, right, and disjoint from the held-out ones."""

import json
import re
from fractions import Fraction

import pytest
from thirteen.errors import ThirteenError
from thirteen.learn.synthetic_sums import draw_sums
from thirteen.learn.two_step_sums import draw_two_step_sums
from thirteen.models.rows import read_rows
from thirteen.runtime.arithmetic.calculator import check_steps
from thirteen.runtime.arithmetic.final_answer import final_answer

from ..commands import Commands


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


@pytest.mark.parametrize("draw", [draw_sums, draw_two_step_sums])
@pytest.mark.parametrize("count", [0, 100_001])
def test_a_count_out_of_range_is_refused(count, draw):
    with pytest.raises(ThirteenError, match=f"{count} sums"):
        draw(count, 1)


def sums(row):
    return re.findall(r"\d+ [-+*/] \d+", row.solution)


def test_every_sum_of_two_steps_is_right_and_made_of_numbers_that_are_known():
    rows = draw_two_step_sums(3_000, 1)
    assert len({row.question for row in rows}) == 3_000
    for row in rows:
        steps, known = check_steps(row.solution), set(re.findall(r"\d+", row.question))
        assert len(steps) == len(sums(row)) in {1, 2} and all(step.ok for step in steps), row
        for written, step in zip(sums(row), steps, strict=True):
            assert set(re.findall(r"\d+", written)) <= known, row
            known.add(str(step.computed))
        assert final_answer(row.solution) == Fraction(row.answer) >= 2, row
        assert not set("{}[]") & set(row.question + row.solution), row


def test_two_steps_combine_all_operations_and_some_questions_have_a_number_too_many():
    rows = draw_two_step_sums(3_000, 1)
    signs = {tuple(re.findall(r" ([-+*/]) ", row.solution)) for row in rows}
    assert {"".join(pair) for pair in signs} >= {*"+-*/", "+-", "-+", "*+", "*-", "+*", "-/", "/+", "/*"}
    spare = [row for row in rows if len(sums(row)) == 1 and len(re.findall(r"\d+", row.question)) == 3]
    assert len(spare) > 300


def test_the_first_sum_of_a_held_out_question_is_in_no_other_question():
    seen = {written for seed in range(3) for row in draw_two_step_sums(2_000, seed) for written in sums(row)}
    held = {sums(row)[0] for seed in range(3) for row in draw_two_step_sums(500, seed, held_out=True)}
    assert held and not seen & held


def test_the_seed_determines_questions_of_two_steps():
    assert draw_two_step_sums(50, 1) == draw_two_step_sums(60, 1)[:50] != draw_two_step_sums(50, 2)


def test_the_command_writes_both_files(tmp_path):
    with Commands() as thirteen:
        done = thirteen("sums", "-o", tmp_path / "sums", "--rows", 20, "--held-out", 5, "--json")
        assert done.status == 0, done
        two = thirteen("sums", "--steps", 2, "-o", tmp_path / "two", "--rows", 20, "--held-out", 5)
        assert two.status == 0, two
        refused = thirteen("sums", "-o", tmp_path / "missing" / "sums")
    assert json.loads(done.stdout) == {
        str(tmp_path / "sums.jsonl"): 20,
        str(tmp_path / "sums-held-out.jsonl"): 5,
    }
    assert read_rows(tmp_path / "sums.jsonl", ("solution", "answer")) == draw_sums(20, 13)
    assert read_rows(tmp_path / "two-held-out.jsonl") == draw_two_step_sums(5, 13, held_out=True)
    assert refused.status == 2 and "does not exist" in refused.stderr
