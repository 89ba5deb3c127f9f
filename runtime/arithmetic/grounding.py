"""Grounding of equations: whether their numbers stem from the question that they answer."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from . import Step
from .final_answer import VULGAR_FRACTIONS
from .lexer import lex
from .notation import NOTATION

_MIXED = NOTATION.patterns["mixed"]


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
    return bool({*_numbers(text), *_fractions(text)})


def _fractions(text: str) -> Iterator[Fraction]:
    for whole, numerator, denominator in _MIXED.findall(text.translate(VULGAR_FRACTIONS)):
        if int(denominator):
            yield int(whole or 0) + Fraction(int(numerator), int(denominator))


def _numbers(text: str) -> Iterator[Fraction]:
    last = Fraction(0)
    for lexeme in lex(text):
        word = lexeme.text.lower()
        if lexeme.kind == "percent" or word == "percent":
            yield from (last / 100, Fraction(100))
        if lexeme.kind == "number":
            yield (last := lexeme.value)
        elif lexeme.kind == "word":
            values = [Fraction(value) for part in word.split("-") for value in NOTATION.values.get(part, ())]
            yield from (*values, sum(values, Fraction())) if values[1:] else values  # "twenty-five"
