r"""Parser for the sides of equations: "3 * $1.50", "12 eggs + 6 eggs", "\frac{3}{4} \times 8"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from .final_answer import VULGAR_FRACTIONS
from .lexer import Lexeme
from .notation import NOTATION

DIGITS_MAX = NOTATION.limits["digits"]  # of a number
_NESTING_MAX, _EXPONENT_MAX = NOTATION.limits["nesting"], NOTATION.limits["exponent"]
_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["magnitude_digits"]  # of a numerator or denominator
_SYMBOL_CHARS = 2  # at most, of units without a plural
_THOUSANDS = 3  # digits after a point that may be a separator of thousands

_SYMBOLS = NOTATION.words["symbols"]
_NO_NOUNS = NOTATION.words["parts"] | NOTATION.words["bases"] | NOTATION.words["suffixes"]
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_ES = ("s", "x", "z", "ch", "sh", "o")  # a plural after these ends in "es"
_END = Lexeme("end", "", 0, 0, False)


class UnreadError(Exception):
    """The grammar does not read an expression."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with at most one unit.

    Attributes:
        value: the number; 20% is 1/5.
        unit: symbol of a currency, noun, or symbol of a unit; empty for a plain number.
        percent: whether it is written in percent.

    Raises:
        UnreadError: the numerator or denominator has more than sixty digits.
    """

    value: Fraction
    unit: str = ""
    percent: bool = False

    def __post_init__(self) -> None:
        if max(abs(self.value.numerator), self.value.denominator) >= _MAGNITUDE_LIMIT:
            raise UnreadError

    def __add__(self, other: "Quantity") -> "Quantity":
        """Add a quantity of the same unit; percent only to percent."""
        unit = common_unit(self, other)
        if unit is None or self.percent != other.percent:
            raise UnreadError
        return Quantity(self.value + other.value, unit, self.percent)

    def __mul__(self, other: "Quantity") -> "Quantity":
        if self.unit and other.unit:
            raise UnreadError
        return Quantity(self.value * other.value, self.unit or other.unit)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        if other.unit or not other.value:
            raise UnreadError
        return Quantity(self.value / other.value, self.unit, self.percent and not other.percent)


def common_unit(one: Quantity, other: Quantity) -> str | None:
    """The unit of two quantities if they have the same: "1 egg", "2 eggs"; None if they differ."""
    for singular, plural in ((one, other), (other, one)):
        noun = singular.unit
        is_one = singular.value == 1 and len(noun) > _SYMBOL_CHARS
        if plural.unit == noun or (is_one and plural.unit == noun + ("es" if noun.endswith(_ES) else "s")):
            return plural.unit
    return None


@dataclass(frozen=True, slots=True)
class Side:
    """A side of an equation.

    Attributes:
        quantity: its value.
        operators: its operators in order; empty for a single number.
        doubtful: whether another reading is possible: "9-5" may be a range.
        start: position of its first character.
        end: position after its last character, without a noun there.
        number: its first number as written.
    """

    quantity: Quantity
    operators: tuple[str, ...]
    doubtful: bool
    start: int
    end: int
    number: str


def parse_side(lexemes: Sequence[Lexeme], start: int) -> tuple[Side, int] | None:
    """Parse the expression that begins at a lexeme.

    Returns:
        The expression and the index after it; None if the grammar does not read it.
    """
    parser = _Parser(lexemes, start)
    try:
        quantity = parser.read()
    except UnreadError:
        return None
    doubtful = parser.doubtful or (lexemes[start].text == "-" and parser.operators != [])  # "-5 + 3": a dash?
    number = next(one.text for one in lexemes[start:] if one.kind == "number")
    end = next(one.end for one in reversed(lexemes[: parser.position]) if one.kind != "word")
    operators = tuple(parser.operators)
    return Side(quantity, operators, doubtful, lexemes[start].start, end, number), parser.position


class _Parser:
    """Recursive-descent parser with one method per level of precedence.

    Attributes:
        position: index of the next lexeme.
        operators: the operators so far, in order.
        doubtful: see Side.
    """

    def __init__(self, lexemes: Sequence[Lexeme], position: int) -> None:
        self._lexemes, self.position, self._nesting = lexemes, position, 0
        self.operators, self._styles = list[str](), set[tuple[bool, bool]]()
        self.doubtful = False

    @property
    def _next(self) -> Lexeme:
        return self._lexemes[self.position] if self.position < len(self._lexemes) else _END

    def _accept(self, kind: str, *texts: str) -> Lexeme | None:
        """Consume the next lexeme if it has this kind and, if texts are given, one of them."""
        lexeme = self._next
        if lexeme.kind != kind or (texts and lexeme.text not in texts):
            return None
        self.position += 1
        return lexeme

    def _operator(self, *texts: str) -> Lexeme | None:
        if lexeme := self._accept("operator", *texts):
            self.operators.append(lexeme.text)
            self._styles.add((lexeme.tight, lexeme.text in "+-"))
        return lexeme

    def read(self) -> Quantity:
        """Read an expression."""
        quantity = self._sum()
        if (True, True) in self._styles and not all(tight for tight, _ in self._styles):
            raise UnreadError  # "2-3 * 5"
        return quantity

    def _sum(self) -> Quantity:
        total = self._product()
        while operator := self._operator("+", "-", "\u2013"):
            term = self._product()
            self.doubtful |= operator.text == "\u2013" or (operator.text == "-" and operator.tight)  # "9-5"
            total += term if operator.text == "+" else replace(term, value=-term.value)
        return total

    def _product(self) -> Quantity:
        value, last = self._signed(), _END
        while operator := self._operator("*", "/"):
            if last.text == "/" and operator.tight and not last.tight:
                raise UnreadError  # "8 / 1/2"
            self.doubtful |= last.text == "/"  # "6 / 2 * 3"
            factor, last = self._signed(), operator
            value = value / factor if operator.text == "/" else value * factor
        return value

    def _signed(self) -> Quantity:
        sign = self._accept("operator", "-")
        if not sign:
            return self._power()
        count, is_dash = len(self.operators), self._next.start != sign.end
        value = self._power()
        if is_dash or "^" in self.operators[count:]:
            raise UnreadError  # "- 5", "-3^2"
        return replace(value, value=-value.value)

    def _power(self) -> Quantity:
        base = self._operand()
        if not self._operator("^"):
            return base
        braced, number = self._accept("brace", "{"), self._accept("number")
        if not number or not number.text.isdecimal() or int(number.text) > _EXPONENT_MAX:
            raise UnreadError
        if (braced and not self._accept("brace", "}")) or self._next.text == "^" or base.unit or base.percent:
            raise UnreadError
        return Quantity(base.value ** int(number.text))

    def _operand(self) -> Quantity:
        currency = self._accept("currency")
        number = self._accept("number")
        if not number:
            return self._group(currency)
        self.doubtful |= len(number.text.partition(".")[2]) == _THOUSANDS
        value = parse_mixed_number(number.text)
        if not currency and self._accept("percent"):
            self.doubtful = True  # "20% + 20% = 44%"
            return Quantity(value / 100, percent=True)
        if not currency and self._next.tight:
            currency = self._accept("currency")
        return Quantity(value, currency.text[-1] if currency else self._noun())

    def _noun(self) -> str:
        word = self._next
        is_symbol = word.text in _SYMBOLS
        if word.kind != "word" or not (is_symbol or (is_noun(word.text.lower()) and not word.tight)):
            return ""
        self.position += 1
        return word.text if is_symbol else word.text.lower()

    def _group(self, currency: Lexeme | None) -> Quantity:
        """Parse an expression in parentheses, or a fraction of two in braces."""
        if currency:
            raise UnreadError
        if not self._accept("fraction"):
            return self._enclosed("open", "close")
        numerator = self._enclosed("brace", "brace")
        self.operators.append("/")
        return numerator / self._enclosed("brace", "brace")

    def _enclosed(self, opens: str, closes: str) -> Quantity:
        opening = self._accept(opens)
        self._nesting += 1
        if not opening or self._nesting > _NESTING_MAX:
            raise UnreadError
        value = self._sum()
        self._nesting -= 1
        if not self._accept(closes, _CLOSING.get(opening.text, "")):
            raise UnreadError
        return value


def is_noun(word: str) -> bool:
    """Return whether a word after a number, in lower case, may be what it counts, and does not calculate."""
    parts = word.split("-")  # "push-ups"
    is_word = len(word) > 1 and word.isascii() and all(map(str.isalpha, parts))
    return is_word and _NO_NOUNS.isdisjoint(parts) and not word.endswith(("ed", "ing"))


def parse_mixed_number(text: str) -> Fraction:
    """Parse a number of the table "lexemes": "12", "1,234.5", "2½".

    Raises:
        UnreadError: it is too long.
    """
    if sum(map(str.isdigit, text)) > DIGITS_MAX:
        raise UnreadError
    return sum(map(Fraction, text.replace(",", "").translate(VULGAR_FRACTIONS).split()), Fraction())
