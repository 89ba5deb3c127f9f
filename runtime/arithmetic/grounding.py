"""Grounding of equations: whether their numbers stem from the question that they answer."""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

from . import Step
from .final_answer import VULGAR_FRACTIONS
from .lexer import lex
from .notation import NOTATION

_WORD = re.compile(r"[a-z']+")
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


def stands_alone(question: str) -> bool:
    """Whether a question in English is certain to need nothing that was said before.

    It says what is known in a sentence with a number, then asks for something, or asks "What is" of numbers;
    no word of the first sentence refers to one before it, and no word of the whole to the conversation.
    """
    words, sentences = NOTATION.words, re.split(r"(?<=[.!?])\s", question.strip().lower())
    first, asked = _WORD.findall(sentences[0]), _WORD.findall(sentences[-1])
    opens = len(sentences) > 1 and not sentences[0].endswith("?")
    return (
        (opens or first[:2] == ["what", "is"])
        and has_number(sentences[0])
        and len([*_numbers(question)]) > 1
        and not words["asking"].isdisjoint(asked)
        and words["leading"].isdisjoint(first[:1])
        and words["backward"].isdisjoint(first)
        and words["earlier"].isdisjoint(_WORD.findall(question.lower()))
    )


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
