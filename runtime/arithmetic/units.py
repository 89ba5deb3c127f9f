"""Exact numbers and what they count, as far as sums in prose need it: what may be added, what comes out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

MONEY = "$\u20ac\u00a3\u00a5\u20b9"  # dollar, euro, pound, yen, rupee

_LIMIT = 10**60  # of a numerator or denominator
_WORDS = 6  # of one unit

# Words behind a number that multiply it or join it to what follows: with them it is another number.
NUMBERING = re.compile(
    "dozens?|hundreds?|thousands?|(?:m|b|tr)illions?|score|hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|eighth)s?"
    "|tenths?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:twen|thir|for|fif)ty|percent"
    "|(?:six|seven|eigh|nine)ty|squared|cubed|pi|am|pm|o['\u2019]?clock|plus|minus|over|divided|multiplied|mod"
    "|modulo|choose|factorial|remainder|than"
)
# Words between a number and an operator that show them to be apart.
TELLING = re.compile("because|since|so|is|are|was|were|be|if|then|equals?|gives|and|or|but|as|we|it")
_DIVIDING = re.compile("per|an?|each|every")
_LINKING = re.compile(f"{_DIVIDING.pattern}|of|in|for|from|on|at|with|to|by|who|which|that|s?he|they")
_TRAILING = re.compile("left|more|total|remaining|altogether|each|together")
_ABBREVIATED = re.compile("kgs?|[kcm]m|m[gl]|lbs?|oz|ft|in|hrs?|mins?|sec|mph")


class UnclearError(Exception):
    """An expression that has no value, or may mean more than one thing."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and what it counts.

    Attributes:
        value: the number.
        over: what it counts: stems of nouns, symbols of currencies.
        under: what that is for one of.
        percent: whether the number is one of hundredths.

    Raises:
        UnclearError: a numerator or denominator has more than sixty digits.
    """

    value: Fraction
    over: frozenset[str] = frozenset()
    under: frozenset[str] = frozenset()
    percent: bool = False

    def __post_init__(self) -> None:
        if max(abs(self.value.numerator), self.value.denominator) >= _LIMIT:
            raise UnclearError

    def __neg__(self) -> "Quantity":
        return Quantity(-self.value, self.over, self.under, self.percent)

    def __add__(self, other: "Quantity") -> "Quantity":
        """Add what counts the same; a bare number goes with all, with a percentage only 1."""
        if self.over and other.over and not self.over & other.over:
            raise UnclearError
        if self.percent != other.percent:
            return self._fraction() + other._fraction()
        return Quantity(
            self.value + other.value, self.over or other.over, self.under or other.under, self.percent
        )

    def __mul__(self, other: "Quantity") -> "Quantity":
        """Multiply: a percentage takes its part of the other, except that "* 100%" makes a percentage."""
        value, percent = self.value * other.value, self.percent and other.percent
        if other.percent and other.value == 100 and not self.percent and self.over.isdisjoint(MONEY):
            if self.value.denominator == 1 and not self.under:
                raise UnclearError  # "80 * 100%": 80, or 8000%?
            percent = True
        elif self.percent or other.percent:
            value /= 100
        over, under = _cancelled(self.over | other.over, self.under | other.under)
        return Quantity(value, over, under, percent)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        if not other.value:
            raise UnclearError
        value = self.value / other.value
        if other.percent and not self.percent:
            value *= 100
        over, under = _cancelled(self.over | other.under, self.under | other.over)
        return Quantity(value, over, under, self.percent and not other.percent)

    def __pow__(self, exponent: int) -> "Quantity":
        if self.over or self.percent:
            raise UnclearError
        return Quantity(self.value**exponent)

    def _fraction(self) -> "Quantity":
        """The number beside a percentage: "1 - 20%", while "100 - 20%" may mean 99.8 or 80."""
        if self.percent:
            return Quantity(self.value / 100, self.over, self.under)
        if self.value != 1 or self.over:
            raise UnclearError
        return self


def parse_units(words: Sequence[str], abbreviated: bool = False) -> tuple[frozenset[str], frozenset[str]]:
    """What the words after a number make it count: "red apples a day" counts apples for one day.

    Args:
        words: in their order, in lower case; may be none.
        abbreviated: the first is written to the number without a space, as only well-known units are.

    Returns:
        What is counted and what for one of, as in Quantity.

    Raises:
        UnclearError: they may be variables, or belong to the number.
    """
    if (
        words[:1] in (["of"], ["the"])
        or len(words) > _WORDS
        or (abbreviated and not _ABBREVIATED.fullmatch(words[0]))
    ):
        raise UnclearError
    if any(_is_no_unit(word) for place, word in enumerate(words) if not (place and word == "a")):
        raise UnclearError
    link = next((place for place, word in enumerate(words) if _LINKING.fullmatch(word)), len(words))
    counted = [word for word in words[:link] if not _TRAILING.fullmatch(word)][-1:]
    dividing = [after for word, after in pairwise(words) if _DIVIDING.fullmatch(word)]
    return frozenset(map(_stem, counted)), frozenset(map(_stem, dividing))


def _is_no_unit(word: str) -> bool:
    variable = len(word) == 1 or any(map(str.isdigit, word))
    return variable or bool(NUMBERING.fullmatch(word) or TELLING.fullmatch(word))


def _stem(noun: str) -> str:
    stem = noun.removesuffix("s").removesuffix("e")
    return "$" if stem == "dollar" else stem


def _cancelled(over: frozenset[str], under: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    return over - under, under - over
