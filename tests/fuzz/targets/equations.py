"""The calculator: equations in a text, and the result with which a text continues."""

import re
from itertools import islice

from thirteen.runtime.arithmetic.calculator import check_steps, is_verified, pending_result

from ..target import Target

_WORDS = (
    *("= ", " is ", " * ", " + ", " / ", "20% of ", "$", "\\$", "\\frac{1}{2}", "\\times ", "\\div ", "½"),
    *(
        "\u2248",
        "\\approx ",
        "about ",
        "apples",
        "/hour",
        "(",
        ")",
        "^2",
        "{",
        "}",
        "<<",
        ">>",
        "...",
        "1,234",
    ),
    *("2.50", "percent", "\\boxed{", "**", "\n- ", "\n1. ", "€", "x", "3 and 1/2", "\u2212"),
)
_SIGN = re.compile(r"= ?|\bis\b ?")
_SIGNS_MAX = 8  # after which a text is completed


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    steps = check_steps(text)
    for step in steps:
        assert step.expression in text and step.claimed and step.computed
        assert is_verified((step,), step.claimed) == step.ok
    ends = [sign.end() for sign in islice(_SIGN.finditer(text), _SIGNS_MAX)]
    completed = [_completes(text[:end]) for end in ends]
    return bool(steps) or any(completed)


def _completes(text: str) -> bool:
    """Whether a result is pending; an equation that it completes is then right."""
    result = pending_result(text)
    if result is None:
        return False
    before, after = check_steps(text), check_steps(text + result)
    assert len(after) <= len(before) or after[-1].ok, (result, after[-1])
    return True


TARGET = Target(check, max_bytes=2048, words=_WORDS)
