"""The calculator as a tool: exact values, and one line about everything else."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.arithmetic import calculator_tool
from thirteen.runtime.arithmetic.calculator_tool import EXPRESSION_CHARS_MAX, PARAMETERS, call_calculator


def calculate(expression):
    jsonschema.validate({"expression": expression}, PARAMETERS)
    return call_calculator(json.dumps({"expression": expression}))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * 13", "156"),
        ("(12.5 + 3) * 4 =", "62"),
        ("2**10", "1024"),
        ("2 ^ 10 - 1", "1023"),
        ("1/3", "1/3"),
        ("0.1 + 0.2", "0.3"),
        ("123456789012 * 987654321098", "121932631136585886175176"),
        ("15% of 80", "12"),
        ("50% + 10%", "60%"),
        ("$1,234.50 x 2", "2469"),
        (r"\frac{3}{4} \times 8", "6"),
        ("-5 + 3", "-2"),
        ("7", "7"),
    ],
)
def test_values_are_exact(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / 0", "division by zero"),
        ("5 / (3 - 3)", "division by zero"),
        ("2 1/0", "division by zero"),
        ("5 and 1/0", "division by zero"),
        ("0,500 + 0,250", "malformed or ambiguous"),
        ("9 ^ 64", "more than 60 digits"),
        ("(10 ^ 59) ^ 64", "more than 60 digits"),
        ("2 ^ 1000", "whole number up to 64"),
        ("2 ^ 0.5", "whole number up to 64"),
        ("sqrt(16)", "only numbers"),
        ("twelve times three", "only numbers"),
        ("total 3 + 4", "only numbers"),
        ("- 5 + 3", "malformed or ambiguous"),  # a hyphen and a space begin the item of a list
        ("1. 5 + 3", "malformed or ambiguous"),
        ("3 + 4; 5", "only numbers"),
        ("3 + x", "only numbers"),
        ("(1 + 2", "a parenthesis is not closed"),
        ("17 % 5", "malformed or ambiguous"),
        ("(1 + 2]", "only numbers"),
        ("1 + 2)", "a parenthesis was not opened"),
        ("8 / 1/2", "ambiguous: add parentheses"),
        ("6/2(1+2)", "ambiguous: add parentheses"),
        ("2^3^2", "ambiguous: add parentheses"),
        ("100 - 20%", "ambiguous: a percentage is added to a number"),
        ("80*100%", "ambiguous: * 100%"),
        ("12345678901234567890*2", "more than 18 digits"),
        ("=", "only numbers"),
        ("\n", "malformed or ambiguous"),
        ("import os", "only numbers"),
        ("(" * 200 + "1" + ")" * 55, "more than 20 parentheses"),
    ],
)
def test_everything_else_is_one_line_of_error(expression, reason):
    result = calculate(expression)
    assert result.startswith("error: ") and reason in result and "\n" not in result


@pytest.mark.parametrize(
    "arguments",
    [{}, {"expression": 5}, {"expression": "1 + 1", "precision": 2}, {"expr": "1 + 1"}, {"expression": None}],
)
def test_wrong_arguments_are_an_error(arguments):
    assert call_calculator(json.dumps(arguments)) == 'error: the arguments must be {"expression": "…"}'


def test_a_long_expression_is_an_error():
    """The schema forbids it, but a call that is not required is not held to the schema."""
    text = "1" + "+1" * EXPRESSION_CHARS_MAX
    assert f"more than {EXPRESSION_CHARS_MAX}" in call_calculator(json.dumps({"expression": text}))


@given(st.text(max_size=EXPRESSION_CHARS_MAX) | st.text("0123456789.+-*/^%()$ =xof{}\\", max_size=60))
def test_any_text_has_a_result_of_one_line(text):
    result = call_calculator(json.dumps({"expression": text}))
    assert result and "\n" not in result and len(result) <= 130


def test_the_description_shows_an_expression_that_works():
    (_, example) = PARAMETERS["properties"]["expression"]["description"].split("such as ")
    assert calculate(example.removesuffix(".")) == "62"
    assert calculator_tool.NAME == "calculator"
