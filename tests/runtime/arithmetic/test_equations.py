"""The grammar of equations: which are read, whether their arithmetic is right, and where they are."""

import os
import random
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thirteen.runtime.arithmetic.equations import is_grounded, pending_result, read_equations
from thirteen.runtime.arithmetic.final_answer import format_number

from .cases import CASES
from .claims import draw_false, draw_plain, draw_true

COUNT = 100_000 if os.environ.get("EXHAUSTIVE") else 4_000  # of random texts


@pytest.mark.parametrize(("text", "expression", "result"), CASES["right"])
def test_right_equations(text, expression, result):
    reading = read_equations(text)
    (step,) = reading.steps
    assert (step.ok, reading.unread) == (True, ())
    assert step.claimed == step.computed or "≈" in text
    assert step.expression == expression and text.startswith(expression.partition(" ")[0], step.start)
    assert text[step.result : step.end] == result


@pytest.mark.parametrize(("text", "claimed", "computed"), CASES["wrong"])
def test_wrong_equations(text, claimed, computed):
    (step,) = read_equations(text).steps
    assert (step.ok, step.claimed, step.computed) == (False, claimed, computed)


@pytest.mark.parametrize("text", CASES["unread"])
def test_what_is_no_equation_has_no_mark(text):
    assert read_equations(text).steps == ()


def test_twenty_brackets_are_read_and_no_more():
    assert [len(read_equations(f"{'(' * n}1{')' * n} + 1 = 2").steps) for n in (20, 21)] == [1, 0]


def test_a_noun_of_the_question_is_known():
    assert read_equations("3 + 4 = 7 gizmos").steps == ()
    assert read_equations("3 + 4 = 7 gizmos", "Tom has 3 green gizmos.").steps[0].ok
    assert read_equations("3 + 4 = 8 gizmos", "Tom has three gizmos.").steps == ()  # they may be a measure


@pytest.mark.parametrize(("text", "value", "verified", "unread"), CASES["readings"])
def test_only_what_was_read_verifies_and_the_rest_is_told(text, value, verified, unread):
    reading = read_equations(text)
    assert (reading.verifies(value), len(reading.unread)) == (verified, unread)


@pytest.mark.parametrize(("text", "result"), CASES["pending"])
def test_pending_result(text, result):
    assert pending_result(text) == result
    if read_equations(text + result).steps:
        assert read_equations(text + result).steps[-1].ok


@pytest.mark.parametrize("text", CASES["not_pending"])
def test_no_result_is_pending(text):
    assert pending_result(text) is None


def test_no_false_claim_is_marked_right_and_no_true_one_wrong():
    draw, plain = random.Random(13), 0
    for _ in range(COUNT):
        texts = draw_false(draw), draw_true(draw), draw_plain(draw)
        false, true, ordinary = ([step.ok for step in read_equations(text).steps] for text in texts)
        assert not false or not all(false), texts
        assert all(true) and all(ordinary), texts
        plain += ordinary != []
    assert plain > 0.95 * COUNT


NUMBERS = st.integers(0, 99).map(str) | st.integers(1, 9999).map(lambda cents: f"{cents / 100:.2f}")
SUMS = st.recursive(
    NUMBERS, lambda side: st.builds("({} {} {})".format, side, st.sampled_from("+-*/"), side), max_leaves=6
).filter(lambda text: " " in text)


@settings(max_examples=300)
@given(SUMS, st.integers(-2, 2))
def test_the_values_are_those_of_exact_arithmetic(text, off):
    try:
        value = eval(re.sub(r"[\d.]+", r"Fraction('\g<0>')", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        assume(False)
    assume("/" not in (shown := format_number(value + off)) and len(shown) <= 15)
    steps = read_equations(f"So {text[1:-1]} = {shown}.").steps
    assert all(step.ok is (off == 0) and step.computed == format_number(value) for step in steps)
    assert steps or off


@given(st.text() | st.text(alphabet="0123456789.,+-*/x^%$€=≈()[]{}\\ \nfractextofis\u00d7÷\u2212½²:;<>|`#"))
def test_no_text_raises(text):
    for end in ("=", " = "):
        assert pending_result(text + end) is None or pending_result(text + end).strip()
    for step in read_equations(text + "= 5", text).steps:
        assert step.start < step.result < step.end
        assert replace(step, ok=True).claimed


PENS = "Ann has $20. She buys 4 pens for $3 each, with 25% off. How much does she have left?"


def test_numbers_stem_from_the_question_or_a_result():
    for question, text, grounded in (
        (PENS, "4 * $3 = $12. $20 - $12 = $8", True),
        (PENS, "A pen costs 4 dollars, so 4 * 4 = 16. 20 - 5 = 15", False),
        (PENS, "4 * 3 = 12. 12 * 0.25 = 3. 12 * 25 / 100 = 3", True),
        (PENS, "20 - 8 = 12", False),
        (PENS, "20 - 4 = 17. 17 - 16 = 1", True),  # both results of a wrong equation
        ("Half of a dozen of 120-page books", "12 / 2 = 6. 120 / 2 = 60", True),
        ("Twenty-five of 1 1/2 and ½", "25 * 1.5 = 37.5. 20 * 0.5 = 10. 5 + 20 = 25", True),
        ("007 and 0/0", "7 + 0 = 7", False),
        (f"{'7' * 5000} and 8", "8 + 8 = 16", True),  # more digits than int() reads
    ):
        assert is_grounded(read_equations(text).steps, question) is grounded
