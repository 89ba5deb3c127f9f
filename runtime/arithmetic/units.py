"""Exact quantities with units: which ones may be added in prose, and which units a result has."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .notation import NOTATION

CURRENCIES = NOTATION.texts["fragments"]["currencies"]
NUMBER_WORDS = NOTATION.words("number_words")  # after a number, they scale it or join it to the next
# They separate the number before them from an operator after them.
CONNECTIVES = NOTATION.words("connectives")
LINKS = NOTATION.words("links")  # they end the unit before them

_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["magnitude_digits"]  # of a numerator or denominator
_PER = NOTATION.words("per")
_DIGIT = NOTATION.patterns["digit"]
_TRAILING, _ABBREVIATIONS = NOTATION.words("trailing"), NOTATION.words("abbreviations")


class AmbiguityError(Exception):
    """An expression has no value, or could mean more than one thing; the message may say why."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with units.

    Attributes:
        value: the number.
        units: what it counts: stems of nouns, symbols of currencies.
        per: the units that it is divided by; "miles per hour" counts miles per hour.
        percent: whether the number is in percent.

    Raises:
        AmbiguityError: the numerator or denominator has more than sixty digits.
    """

    value: Fraction
    units: frozenset[str] = frozenset()
    per: frozenset[str] = frozenset()
    percent: bool = False

    def __post_init__(self) -> None:
        if max(abs(self.value.numerator), self.value.denominator) >= _MAGNITUDE_LIMIT:
            raise AmbiguityError("a number has more than 60 digits")

    def __neg__(self) -> "Quantity":
        return Quantity(-self.value, self.units, self.per, self.percent)

    def __add__(self, other: "Quantity") -> "Quantity":
        """Add quantities that share a unit. A plain number has any unit; with a percentage it must be 1."""
        for units, others in ((self.units, other.units), (self.per, other.per)):
            if units and others and not units & others:
                raise AmbiguityError
        if self.percent != other.percent:
            return self._fraction() + other._fraction()
        units, per = self.units or other.units, self.per or other.per
        return Quantity(self.value + other.value, units, per, self.percent)

    def __mul__(self, other: "Quantity") -> "Quantity":
        """Multiply. A percentage takes its share of the other quantity, but "* 100%" makes a percentage."""
        value, percent = self.value * other.value, self.percent and other.percent
        if other.percent and other.value == 100 and not self.percent and self.units.isdisjoint(CURRENCIES):
            if self.value.denominator == 1 and not self.per:
                raise AmbiguityError("ambiguous: * 100% may keep the number or make it a percentage")
            percent = True
        elif self.percent or other.percent:
            value /= 100
        units, per = _cancel(self.units | other.units, self.per | other.per)
        return Quantity(value, units, per, percent)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        if not other.value:
            raise AmbiguityError("division by zero")
        value = self.value / other.value
        if other.percent and not self.percent:
            value *= 100
        units, per = _cancel(self.units | other.per, self.per | other.units)
        return Quantity(value, units, per, self.percent and not other.percent)

    def __pow__(self, exponent: int) -> "Quantity":
        if self.units or self.percent:
            raise AmbiguityError
        return Quantity(self.value**exponent)

    def _fraction(self) -> "Quantity":
        """Convert a term next to a percentage: "1 - 20%" is 0.8, but "100 - 20%" may mean 99.8 or 80."""
        if self.percent:
            return Quantity(self.value / 100, self.units, self.per)
        if self.value != 1 or self.units:
            raise AmbiguityError("ambiguous: a percentage is added to a number, or taken from it")
        return self


def parse_units(words: Sequence[str], abbreviated: bool = False) -> tuple[frozenset[str], frozenset[str]]:
    """Parse the words after a number: "red apples a day" counts apples per day.

    Args:
        words: the words in lower case, in order; may be empty.
        abbreviated: whether the first word follows the number without a space, as only well-known units do.

    Returns:
        The fields `units` and `per` of a Quantity.

    Raises:
        AmbiguityError: the words may be variables, or part of the number.
    """
    if words[:1] in (["of"], ["the"]) or len(words) > NOTATION.limits["unit_words"]:
        raise AmbiguityError
    if abbreviated and words[0] not in _ABBREVIATIONS:
        raise AmbiguityError
    if any(_is_no_unit(word) for index, word in enumerate(words) if not (index and word == "a")):
        raise AmbiguityError
    if words == ["in"]:
        return frozenset(words), frozenset()  # inches; in "5 in the box" it is a link
    link = next((index for index, word in enumerate(words) if word in LINKS), len(words))
    counted = [word for word in words[:link] if word not in _TRAILING][-1:]
    divisors = [after for word, after in pairwise(words) if word in _PER]
    return frozenset(map(_stem, counted)), frozenset(map(_stem, divisors))


def _is_no_unit(word: str) -> bool:
    variable = len(word) == 1 or _DIGIT.search(word) is not None
    return variable or word in NUMBER_WORDS or word in CONNECTIVES


def _stem(noun: str) -> str:
    stem = noun.removesuffix("s").removesuffix("e")
    return "$" if stem == "dollar" else stem


def _cancel(units: frozenset[str], per: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    return units - per, per - units
