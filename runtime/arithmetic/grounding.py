"""Grounding of equations: whether their numbers stem from the question that they answer."""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

from . import Step
from .lexer import PATTERNS, VALUES, WORDS, lex
from .number import spell_out


def is_grounded(steps: Iterable[Step], question: str) -> bool:
    """Return whether every number of every equation is in the question, or the result of an equation before.

    The question is what was asked, with all that was said before; a "dozen" in it is also 12.
    """
    known = _known(question)
    for step in steps:
        if not known.issuperset(_numbers(step.expression)):
            return False
        known |= {Fraction(step.claimed), Fraction(step.computed)}
    return True


def has_number(text: str) -> bool:
    """Whether a text has a number, in digits or in words."""
    return len(_known(text)) > 0


def stands_alone(question: str) -> bool:
    """Whether a question in English needs nothing that was said before.

    It says what is known in a sentence with a number, then asks for something, or asks "What is" of numbers;
    no word of the first sentence refers to one before it, and no word of the whole to the conversation.
    """
    sentences = re.split(r"(?<=[.!?])\s", question.strip().lower())
    first, last = (re.findall("[a-z']+", sentence) for sentence in (sentences[0], sentences[-1]))
    opens = len(sentences) > 1 and not sentences[0].endswith("?")
    return (
        (opens or first[:2] == ["what", "is"])
        and has_number(sentences[0])
        and len([*_numbers(question)]) > 1
        and not WORDS["asking"].isdisjoint(last)
        and WORDS["leading"].isdisjoint(first[:1])
        and WORDS["backward"].isdisjoint(first)
        and WORDS["earlier"].isdisjoint(re.findall("[a-z']+", question.lower()))
    )


def _known(text: str) -> set[Fraction]:
    """The numbers of a text, and its fractions: "1 1/2"."""
    fractions = {
        int(whole or 0) + Fraction(int(numerator), int(denominator))
        for whole, numerator, denominator in PATTERNS["fraction"].findall(spell_out(text))
        if int(denominator)
    }
    return fractions.union(_numbers(text))


def _numbers(text: str) -> Iterator[Fraction]:
    last = Fraction(0)
    for lexeme in lex(text):
        word = lexeme.text.lower()
        if lexeme.kind == "percent" or word == "percent":
            yield from (last / 100, Fraction(100))
        if lexeme.kind == "number":
            yield (last := lexeme.value)
        elif lexeme.kind == "word":
            values = [n for part in word.split("-") for n, words in VALUES.items() if part in words]
            yield from (*values, sum(values, Fraction())) if values[1:] else values  # "twenty-five"
