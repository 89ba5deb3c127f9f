"""Grounding of equations: whether their numbers stem from the question that they answer."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from . import Step
from .expression import UnreadError, parse_mixed_number
from .lexer import lex
from .notation import NOTATION

_MIXED = NOTATION.patterns["mixed"]
_PERCENT = 100


def is_grounded(steps: Iterable[Step], question: str) -> bool:
    """Return whether every number of every equation is in the question, or the result of an equation before.

    Args:
        steps: the equations of an answer, in order.
        question: what was asked, with all that was said before. A "dozen" in it is also 12.
    """
    known = {*_numbers(question), *_fractions(question)}
    for step in steps:
        if not known.issuperset(_numbers(step.expression)):
            return False
        known |= {Fraction(step.claimed), Fraction(step.computed)}
    return True


def has_number(text: str) -> bool:
    """Whether a text has a number, in digits or in words."""
    return any(True for _ in _numbers(text))


def _fractions(text: str) -> Iterator[Fraction]:
    for whole, numerator, denominator in _MIXED.findall(text):
        if int(denominator):
            yield int(whole or 0) + Fraction(int(numerator), int(denominator))


def _numbers(text: str) -> Iterator[Fraction]:
    last = Fraction(0)
    for lexeme in lex(text):
        word = lexeme.text.lower()
        if lexeme.kind == "percent" or word == "percent":
            yield from (last / _PERCENT, Fraction(_PERCENT))
        if lexeme.kind == "number":
            try:
                yield (last := parse_mixed_number(lexeme.text))
            except UnreadError:
                continue
        elif lexeme.kind == "word":
            values = [Fraction(value) for part in word.split("-") for value in NOTATION.values.get(part, ())]
            yield from (*values, sum(values, Fraction())) if values[1:] else values  # "twenty-five"
