r"""Parser for the sides of equations: "3 * $1.50", "12 eggs + 6 eggs", "\frac{3}{4} \times 8"."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .lexer import Lexeme
from .notation import NOTATION

PERCENT = "%"
_BRACKETS_MAX = NOTATION.limits["brackets"]
_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["magnitude_digits"]  # of a numerator or denominator
_THOUSANDS = 3  # digits after a point that may be a separator of thousands
_RANKS = {"+": 0, "-": 0, "\u2013": 0, "*": 1, "/": 2}  # a tight sign binds more than a spaced one
_END = Lexeme("end", "", 0, 0, False)

_NOUN, _PLURAL = NOTATION.patterns["noun"], NOTATION.patterns["plural"]
_SYMBOLS = NOTATION.words["symbols"]
_NO_NOUNS = NOTATION.words["parts"] | NOTATION.words["bases"] | NOTATION.words["suffixes"]


class UnreadError(Exception):
    """The grammar does not read an expression."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with at most one unit.

    Attributes:
        value: the number; 20% is 1/5.
        unit: symbol of a currency, percent sign, stem of a noun or of a symbol; empty for a plain number.

    Raises:
        UnreadError: the numerator or denominator has more than sixty digits.
    """

    value: Fraction
    unit: str = ""

    def __post_init__(self) -> None:
        if max(abs(self.value.numerator), self.value.denominator) >= _MAGNITUDE_LIMIT:
            raise UnreadError

    def __neg__(self) -> "Quantity":
        return Quantity(-self.value, self.unit)

    def __add__(self, other: "Quantity") -> "Quantity":
        if self.unit != other.unit:
            raise UnreadError
        return Quantity(self.value + other.value, self.unit)

    def __mul__(self, other: "Quantity") -> "Quantity":
        units = [unit for unit in (self.unit, other.unit) if unit not in ("", PERCENT)]
        if len(units) > 1:
            raise UnreadError
        return Quantity(self.value * other.value, "".join(units))

    def __truediv__(self, other: "Quantity") -> "Quantity":
        if other.unit or not other.value:
            raise UnreadError
        return Quantity(self.value / other.value, self.unit)


def stem(unit: str) -> str:
    """A unit without the end of a plural: "egg", "box"; shorter symbols have none."""
    return _PLURAL.sub("", unit)


@dataclass(frozen=True, slots=True)
class Side:
    """A side of an equation.

    Attributes:
        quantity: its value.
        operators: its operators in order; empty for a single number.
        doubtful: whether another reading is possible: "9-5" may be a range.
        lexemes: what it consists of.
        number: its first number.
    """

    quantity: Quantity
    operators: str
    doubtful: bool
    lexemes: Sequence[Lexeme]
    number: Lexeme


def parse_side(lexemes: Sequence[Lexeme], start: int) -> tuple[Side, int] | None:
    """Parse the expression that begins at a lexeme.

    Returns:
        The expression and the index after it; None if the grammar does not read it.
    """
    parser = _Parser(lexemes, start)
    try:
        quantity = parser.sum()
    except UnreadError:
        return None
    own, operators = lexemes[start : parser.position], "".join(one.text for one in parser.operators)
    signs = [one for one in parser.operators if one.kind == "operator"]
    tight, spaced = ([_RANKS[one.text] for one in signs if one.tight is kind] for kind in (True, False))
    if tight and spaced and min(tight) <= max(spaced):
        return None  # "2-3 * 5", "6 / 2*3"
    doubtful = (
        "\u2013" in operators  # a range?
        or ("-" in operators and 0 in tight)  # "9-5"
        or (own[0].text == "-" and operators != "")  # "-5 + 3": a dash?
        or "/*" in operators  # "6 / 2 * 3"
        or "//" in operators
        or any(one.kind == "percent" for one in own)  # "20% + 20% = 44%"
        or any(len(one.text.partition(".")[2]) == _THOUSANDS for one in own)
    )
    number = next(one for one in own if one.kind == "number")
    return Side(quantity, operators, doubtful, own, number), parser.position


class _Parser:
    """Recursive-descent parser with one method per level of precedence.

    Attributes:
        position: index of the next lexeme.
        operators: the operators so far, in order.
    """

    def __init__(self, lexemes: Sequence[Lexeme], position: int) -> None:
        self._lexemes, self.position, self._brackets = [*lexemes, _END], position, 0
        self.operators = list[Lexeme]()

    def _accept(self, kind: str, *texts: str) -> Lexeme | None:
        """Consume the next lexeme if it has this kind and, if texts are given, one of them."""
        lexeme = self._lexemes[self.position]
        if lexeme.kind != kind or (texts and lexeme.text not in texts):
            return None
        self.position += 1
        return lexeme

    def _operator(self, *texts: str) -> Lexeme | None:
        operator = self._accept("operator", *texts)
        self.operators += [operator] if operator else []
        return operator

    def sum(self) -> Quantity:
        """Read an expression."""
        total = self._product()
        while operator := self._operator("+", "-", "\u2013"):
            term = self._product()
            total += term if operator.text == "+" else -term
        return total

    def _product(self) -> Quantity:
        value = self._signed()
        while operator := self._operator("*", "/"):
            factor = self._signed()
            value = value / factor if operator.text == "/" else value * factor
        return value

    def _signed(self) -> Quantity:
        sign = self._accept("operator", "-")
        if sign and self._lexemes[self.position].start != sign.end:
            raise UnreadError  # "- 5"
        value = self._operand()
        return -value if sign else value

    def _operand(self) -> Quantity:
        if fraction := self._accept("fraction"):
            self.operators.append(fraction)
            return self._enclosed("{", "}") / self._enclosed("{", "}")
        if self._lexemes[self.position].kind == "open":
            return self._enclosed("(", ")")
        currency, number = self._accept("currency"), self._accept("number")
        if not number:
            raise UnreadError
        if not currency and self._accept("percent"):
            return Quantity(number.value / 100, PERCENT)
        return Quantity(number.value, currency.text[-1] if currency else self._noun())

    def _noun(self) -> str:
        """Read the noun or symbol of a unit, if one follows."""
        word = self._lexemes[self.position]
        is_symbol, noun = word.text in _SYMBOLS, word.text.lower()
        is_noun = not word.tight and _NOUN.search(noun) and _NO_NOUNS.isdisjoint(noun.split("-"))
        if word.kind != "word" or not (is_symbol or is_noun):
            return ""
        self.position += 1
        return stem(word.text if is_symbol else noun)

    def _enclosed(self, opens: str, closes: str) -> Quantity:
        self._brackets += 1
        if self._brackets > _BRACKETS_MAX or not self._accept("open", opens):
            raise UnreadError
        value = self.sum()
        if not self._accept("close", closes):
            raise UnreadError
        return value
