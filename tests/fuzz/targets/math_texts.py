"""Texts of a model: the equations and the final answer in them, and the result with which one continues."""

import re
from itertools import islice

from thirteen.runtime.arithmetic.calculator import pending_result
from thirteen.runtime.arithmetic.equations import Reading, read_equations
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number, parse_number

from ..target import Target

_SIGN = re.compile(r"= ?")
_SIGNS_MAX = 8  # after which a text is completed


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    steps = read_equations(text).steps
    for step in steps:
        assert step.expression in text and step.claimed and step.computed
        assert step.start < step.result < step.end
        assert Reading((step,), ()).verifies(step.claimed) == step.ok
    ends = [sign.end() for sign in islice(_SIGN.finditer(text), _SIGNS_MAX)]
    completed = [_completes(text[:end]) for end in ends]
    return _has_answer(text) or bool(steps) or any(completed)


def _completes(text: str) -> bool:
    """Whether a result is pending; an equation that it completes is then right."""
    result = pending_result(text)
    if result is None:
        return False
    before, after = read_equations(text).steps, read_equations(text + result).steps
    assert len(after) <= len(before) or after[-1].ok, (result, after[-1])
    return True


def _has_answer(text: str) -> bool:
    parse_number(text)
    value = final_answer(text)
    if value is None:
        return False
    written = format_number(value)
    assert parse_number(written) == value == final_answer(f"#### {written}"), written
    return True


TARGET = Target(check, max_bytes=2048)
