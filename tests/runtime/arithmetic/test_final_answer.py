"""The parser of final answers, on model outputs, on hand-written rare forms and on hostile text."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number, parse_number

from .cases import CASES, STATED_VALUES


def shown(number):
    return "None" if number is None else format_number(number)


@pytest.mark.parametrize(("text", "label"), CASES["final_answers"])
def test_final_answer_is_what_a_person_reads(text, label):
    assert shown(final_answer(text)) == ("None" if label == "None" else format_number(Fraction(label)))


@pytest.mark.parametrize(("question", "text", "stated"), CASES["stated"])
def test_nothing_but_a_stated_value(question, text, stated):
    assert shown(final_answer(text, question)) == str(stated)


@pytest.mark.parametrize("half", ["design", "test"])
def test_a_value_is_shown_where_one_is_stated(half):
    rows = [row for row in STATED_VALUES if row["half"] == half]
    pairs = [(shown(final_answer(row["text"], row["question"])), str(row["value"])) for row in rows]
    right = sum(found == stated != "None" for found, stated in pairs)
    assert right >= 0.98 * sum(found != "None" for found, _ in pairs)
    assert right >= 0.95 * sum(stated != "None" for _, stated in pairs)


@pytest.mark.parametrize(
    ("text", "value"), [*CASES["numbers"], *((text, None) for text in CASES["not_numbers"])]
)
def test_parse_number(text, value):
    assert parse_number(text) == (value and Fraction(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [("42", "42"), ("-7/2", "-3.5"), ("1/3", "1/3"), ("-2/7", "-2/7"), ("0", "0"), ("-1/1000", "-0.001")],
)
def test_format_number(value, text):
    assert format_number(Fraction(value)) == text
    assert format_number(Fraction(1, 2**100)).startswith("0.000")
    assert format_number(Fraction(1, 2**101)) == f"1/{2**101}", "more than a hundred places"


@given(
    st.fractions(),
    st.sampled_from(["{}", "So \\boxed{{{}}}", "#### {}", "The answer is {}.", "**{}**", "it = {}"]),
)
def test_stated_number_is_found(value, template):
    assert parse_number(format_number(value)) == value
    assert final_answer("Step 1: 3 + 4 = 7.\n" + template.format(format_number(value))) == value


@given(st.text() | st.text(alphabet="0123456789.,-/$%*#=^{}\\ \nboxedfractansweri½\u2212²\u0663"))
def test_no_text_raises(text):
    assert isinstance(final_answer(text), Fraction | None)
    assert isinstance(parse_number(text), Fraction | None)
