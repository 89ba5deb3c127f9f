r"""Parser for the sides of equations: "3 * $1.50", "12 eggs + 6 eggs", "\frac{3}{4} \times 8"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import NamedTuple

from .lexer import CURRENCIES, PATTERNS, WORDS, Lexeme

PERCENT = "%"
DASH = "\u2013"  # a minus, or a range
_BRACKETS_MAX = 20
_NO_NOUNS = "phstb"  # letters of words
_END = Lexeme("end", "", 0, 0, False)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError  # the grammar does not read the expression


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with at most one unit."""

    value: Fraction  # 20% is 1/5
    unit: str = ""  # symbol of a currency, percent sign, stem of a noun or of a symbol

    def __add__(self, other: "Quantity") -> "Quantity":
        units = {self.unit, other.unit}
        _require(len(units) == 1 or ("" in units and units <= {"", *CURRENCIES}))  # "$80 - 25"
        return Quantity(self.value + other.value, max(units))

    def __sub__(self, other: "Quantity") -> "Quantity":
        return self + Quantity(-other.value, other.unit)

    def __mul__(self, other: "Quantity") -> "Quantity":
        units = [unit for unit in (self.unit, other.unit) if unit not in ("", PERCENT)]
        _require(len(units) <= 1)
        return Quantity(self.value * other.value, "".join(units))

    def __truediv__(self, other: "Quantity") -> "Quantity":
        _require(not other.unit and other.value != 0)
        return Quantity(self.value / other.value, self.unit)


_Operations = Mapping[str, Callable[[Quantity, Quantity], Quantity]]
_SUMS: _Operations = {"+": add, "-": sub, DASH: sub}
_PRODUCTS: _Operations = {"*": mul, "/": truediv}
_RANKS = {**dict.fromkeys(_SUMS, 0), "*": 1, "/": 2}  # a tight sign must bind more than a spaced one


def stem(unit: str) -> str:
    """A unit without the end of a plural: "egg", "box"; shorter symbols have none."""
    return PATTERNS["plural_end"].sub("", unit)


class Side(NamedTuple):
    """A side of an equation."""

    quantity: Quantity
    lexemes: Sequence[Lexeme]
    operators: str  # in order; empty for a single number

    @property
    def text(self) -> str:
        """Its lexemes in canonical spelling, with a space before those that are not tight."""
        return "".join(" " * (not one.tight) + one.text for one in self.lexemes).lstrip()

    @property
    def doubtful(self) -> bool:
        """Whether another reading is possible."""
        return PATTERNS["doubtful"].search(self.text) is not None


def parse_side(lexemes: Sequence[Lexeme], start: int) -> tuple[Side, int] | None:
    """Parse the expression at an index; return it and the index after it, or None if it is not read."""
    parser = _Parser(lexemes, start)
    try:
        quantity = parser.sum()
    except ValueError:
        return None
    signs = [one for one in parser.operators if one.kind == "operator"]
    tight, spaced = ([_RANKS[one.text] for one in signs if one.tight is kind] for kind in (True, False))
    if tight and spaced and min(tight) <= max(spaced):
        return None  # "2-3 * 5", "6 / 2*3"
    operators = "".join(one.text for one in parser.operators)
    return Side(quantity, lexemes[start : parser.position], operators), parser.position


class _Parser:
    def __init__(self, lexemes: Sequence[Lexeme], position: int) -> None:
        self._lexemes, self.position, self._brackets = [*lexemes, _END], position, 0
        self.operators = list[Lexeme]()

    def _accept(self, kind: str, *texts: str) -> Lexeme | None:
        lexeme = self._lexemes[self.position]
        if lexeme.kind != kind or (texts and lexeme.text not in texts):
            return None
        self.position += 1
        return lexeme

    def _chain(self, operand: Callable[[], Quantity], operations: _Operations) -> Quantity:
        value = operand()
        while operator := self._accept("operator", *operations):
            self.operators.append(operator)
            value = operations[operator.text](value, operand())
        return value

    def sum(self) -> Quantity:
        """Read an expression."""
        return self._chain(self._product, _SUMS)

    def _product(self) -> Quantity:
        return self._chain(self._signed, _PRODUCTS)

    def _signed(self) -> Quantity:
        sign = self._accept("operator", "-")
        _require(sign is None or self._lexemes[self.position].start == sign.end)  # not "- 5"
        operand = self._operand()
        return Quantity(-operand.value, operand.unit) if sign else operand

    def _operand(self) -> Quantity:
        if fraction := self._accept("fraction"):
            self.operators.append(fraction)
            return self._enclosed("{", "}") / self._enclosed("{", "}")
        if self._lexemes[self.position].text == "(":
            return self._enclosed("(", ")")
        currency, number = self._accept("currency"), self._accept("number")
        if not number:
            raise ValueError
        if not currency and self._accept("percent"):
            return Quantity(number.value / 100, PERCENT)
        return Quantity(number.value, currency.text[-1] if currency else self._noun())

    def _noun(self) -> str:
        word = self._lexemes[self.position]
        is_symbol, noun = word.text in WORDS["symbols"], word.text.lower()
        is_noun = not word.tight and PATTERNS["noun"].fullmatch(noun) and word.letter not in _NO_NOUNS
        if word.kind != "word" or not (is_symbol or is_noun):
            return ""
        self.position += 1
        return stem(word.text if is_symbol else noun)

    def _enclosed(self, opens: str, closes: str) -> Quantity:
        self._brackets += 1
        _require(self._brackets <= _BRACKETS_MAX and self._lexemes[self.position].text == opens)
        self.position += 1
        value = self.sum()
        _require(self._accept("close", closes) is not None)
        return value
