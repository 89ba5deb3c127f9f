"""Exact quantities with units: which ones may be added in prose, and which units a result has."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, takewhile

from .notation import NOTATION

CURRENCIES = NOTATION.texts["fragments"]["currencies"]
CARDINALS = NOTATION.words("cardinals")
CLAUSES = NOTATION.words("clauses")  # they begin another clause
CONNECTIVES = NOTATION.words("connectives")

_NO_UNITS = CARDINALS | CONNECTIVES | (CLAUSES - NOTATION.words("links"))
_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["magnitude_digits"]  # of a numerator or denominator
_PER = NOTATION.words("per")
_DIGIT = NOTATION.patterns["digit"]
_LINKS = NOTATION.words("links")  # they end the noun before them
_TRAILING, _ABBREVIATIONS = NOTATION.words("trailing"), NOTATION.words("abbreviations")
_ARITHMETIC = NOTATION.words("arithmetic")
_NOUNS = NOTATION.words("nouns") | _ABBREVIATIONS  # that do not end in "s"


class AmbiguityError(Exception):
    """An expression has no value, or could mean more than one thing."""


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
            raise AmbiguityError

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
                raise AmbiguityError  # "80 * 100%": 80, or 8000%?
            percent = True
        elif self.percent or other.percent:
            value /= 100
        units, per = _cancel(self.units | other.units, self.per | other.per)
        return Quantity(value, units, per, percent)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        if not other.value:
            raise AmbiguityError
        value = self.value / other.value
        if other.percent and not self.percent:
            value *= 100
        units, per = _cancel(self.units | other.per, self.per | other.units)
        return Quantity(value, units, per, self.percent and not other.percent)

    def __pow__(self, exponent: int) -> "Quantity":
        if self.units or self.percent:
            raise AmbiguityError
        return Quantity(self.value**exponent)

    def agrees_with(self, result: "Quantity") -> bool:
        """Return whether a result of this value has its units; either may leave them out."""
        if self.per and result.per and self.per != result.per:
            return False
        money, result_money = (units.intersection(CURRENCIES) for units in (self.units, result.units))
        if not (money or result_money):
            return not result.units or self.units <= result.units
        return money == result_money or not (self.units and result.units)

    def _fraction(self) -> "Quantity":
        """Convert a term next to a percentage: "1 - 20%" is 0.8, but "100 - 20%" may mean 99.8 or 80."""
        if self.percent:
            return Quantity(self.value / 100, self.units, self.per)
        if self.value != 1 or self.units:
            raise AmbiguityError
        return self


def parse_units(
    words: Sequence[str], *, abbreviated: bool, single: bool
) -> tuple[frozenset[str], frozenset[str]]:
    """Parse the words after a number: "red apples a day" counts apples per day.

    Args:
        words: the words in lower case, in order; may be empty.
        abbreviated: whether the first word follows the number without a space, as only well-known units do.
        single: whether the number is 1: its noun needs no plural.

    Returns:
        The fields `units` and `per` of a Quantity.

    Raises:
        AmbiguityError: the words may be variables, or part of the number.
    """
    if words[:1] in (["of"], ["the"], ["a"]) or len(words) > NOTATION.limits["unit_words"]:
        raise AmbiguityError
    if abbreviated and words[0] not in _ABBREVIATIONS:
        raise AmbiguityError
    if any(is_variable(word) or is_arithmetic(word, _NO_UNITS) for word in words):
        raise AmbiguityError
    if words == ["in"]:
        return frozenset(words), frozenset()  # inches; in "5 in the box" it is a link
    noun = takewhile(lambda word: word not in _LINKS, words)
    counted = [word for word in noun if word not in _TRAILING][-1:]
    if not (single or all(map(_is_noun, counted))):
        raise AmbiguityError
    return frozenset(map(_stem, counted)), _divisors(words)


def parse_result_units(
    words: Sequence[str], *, abbreviated: bool
) -> tuple[frozenset[str], frozenset[str]] | None:
    """Parse the words after a result, where the clause goes on: "red apples that he eats" may count apples.

    See parse_units(), but `units` has all words of the noun. None if it may be no noun.
    """
    if words == ["in"]:
        return frozenset(words), frozenset()
    ends = _LINKS | _TRAILING | CONNECTIVES | CLAUSES
    noun = list(takewhile(lambda word: word not in ends, words))
    if words and abbreviated and words[0] not in _ABBREVIATIONS:
        return None
    if not all(map(_is_noun, noun[-1:])):
        return None
    return frozenset(map(_stem, noun)), _divisors(words)


def is_arithmetic(words: str, others: frozenset[str] = frozenset()) -> bool:
    """Return whether a word, or a part of a compound, calculates or negates, or is one of the others."""
    return not (_ARITHMETIC | others).isdisjoint(words.lower().split("-"))


def is_variable(word: str) -> bool:
    """Return whether a word may be a variable."""
    return (len(word) == 1 and word not in "ai") or "_" in word or _DIGIT.search(word) is not None


def _is_noun(word: str) -> bool:
    return word in _NOUNS or (word.endswith("s") and not word.endswith("ss"))


def _divisors(words: Sequence[str]) -> frozenset[str]:
    return frozenset(_stem(after) for word, after in pairwise(words) if word in _PER)


def _stem(noun: str) -> str:
    stem = noun.removesuffix("s").removesuffix("e")
    return "$" if stem == "dollar" else stem


def _cancel(units: frozenset[str], per: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    return units - per, per - units
