"""The value of an answer is one that it states: 657 answers of four models, labelled by hand.

`tests/data/stated_values.jsonl` has questions of SVAMP and GSM8K (both MIT), sums, and questions that ask for
no number. The rule was made on the part "design"; those of "test" were labelled before it was tried on them.
"""

import pytest
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number

from .cases import STATED_VALUES


def value(text, question):
    found = final_answer(text, question)
    return None if found is None else format_number(found)


@pytest.mark.parametrize("half", ["design", "test"])
def test_a_value_is_shown_where_one_is_stated(half):
    pairs = [
        (value(row["text"], row["question"]), row["value"]) for row in STATED_VALUES if row["half"] == half
    ]
    right = sum(shown is not None and shown == stated for shown, stated in pairs)
    assert right >= 0.98 * sum(shown is not None for shown, _ in pairs)
    assert right >= 0.95 * sum(stated is not None for _, stated in pairs)


@pytest.mark.parametrize(
    ("question", "text", "stated"),
    [
        ("What is the capital of France?", "Paris", None),
        ("What is the capital of France?", "Paris, with 2 million people.", None),
        ("What is 3 + 4?", "To add 3 and 4, you simply add them together.", None),
        ("He has 3 apples and picks 8 a day. How many on day 7?", "He has 59 apples on day 7.", "59"),
        ("What does a $40 shirt cost at 25% off?", "You pay the price after a 25% discount.", None),
        ("What does a $40 shirt cost at 25% off?", "It costs $30 after a 25% discount.", "30"),
        ("Solve x^2 - 5x + 6 = 0.", "The solutions are x = 2 and x = 3.", None),
        ("Solve x^2 - 5x + 6 = 0.", "\\[ x = 2 \\]\n\\[ x = 3 \\]", None),
        ("Solve x^2 = 16.", "\\boxed{4 \\text{ or } -4}", None),
        ("Solve 2x = 8.", "x = 8 / 2\nx = 4", "4"),
        ("Is 17 a prime number?", "The answer is yes, 17 is a prime number.", None),
        ("When does it leave?", "A train leaves at 3 pm.", None),
        ("How many are left?", "0 are left.", "0"),
    ],
)
def test_nothing_but_a_stated_value(question, text, stated):
    assert value(text, question) == stated
