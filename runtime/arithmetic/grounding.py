"""Grounding of equations: whether their numbers stem from the question that they answer."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from . import Step
from .expression import parse_mixed_number
from .notation import NOTATION
from .units import AmbiguityError

_LEXEME = NOTATION.patterns["lexeme"]
_VALUES = NOTATION.lists["values"]  # of number words
_PERCENT = 100


def is_grounded(steps: Iterable[Step], question: str) -> bool:
    """Return whether every number of every equation is in the question, or the result of an equation before.

    Args:
        steps: the equations of an answer, in order.
        question: what was asked, with all that was said before. A "dozen" in it is also 12.
    """
    known = set(_numbers(question))
    for step in steps:
        if not known.issuperset(_numbers(step.expression)):
            return False
        known |= {Fraction(step.claimed), Fraction(step.computed)}
    return True


def has_number(text: str) -> bool:
    """Whether a text has a number, in digits or in words."""
    return any(True for _ in _numbers(text))


def _numbers(text: str) -> Iterator[Fraction]:
    last = Fraction(0)
    for match in _LEXEME.finditer(text):
        kind, lexeme = match.lastgroup, match[0].lower()
        if kind == "percent":
            yield from (last / _PERCENT, Fraction(_PERCENT))
        number, *parts = lexeme.split("-")
        if kind in ("number", "compound"):  # "120-page"
            try:
                yield (last := parse_mixed_number(number))
            except AmbiguityError:
                continue
        elif kind == "word":
            values = [Fraction(value) for part in (number, *parts) for value in _VALUES.get(part, ())]
            yield from (*values, sum(values, Fraction())) if values[1:] else values  # "twenty-five"
