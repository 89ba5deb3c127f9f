r"""Parser for arithmetic expressions in prose: "3 apples * $1.50/apple", "\frac{3}{4} \times 8".

An expression that may be part of a larger one, or may mean something else, is not parsed at all: its result
would be wrong with confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile

from .final_answer import VULGAR_FRACTIONS
from .lexer import OPERAND_ENDS, Lexeme, lex
from .notation import NOTATION
from .units import CONNECTIVES, LINKS, NUMBER_WORDS, AmbiguityError, Quantity, parse_units

DIGITS_MAX = NOTATION.limits["digits"]  # of a number
_AMBIGUOUS = "ambiguous: add parentheses"
_NESTING_MAX = NOTATION.limits["nesting"]  # parentheses
_EXPONENT_MAX = NOTATION.limits["exponent"]

_OPERAND_STARTS, _WORDS = NOTATION.lists["kinds"]["operand_starts"], NOTATION.lists["kinds"]["words"]
_FOLLOWERS = NOTATION.lists["kinds"]["followers"]  # kinds that do not continue an expression
_CLOSING = {opening: tuple(closing) for opening, closing in NOTATION.lists["brackets"].items()}

# Words before a number: some change it, some join it to the text before, some only label it.
_MODIFIERS, _OPERATOR_WORDS = NOTATION.words("modifiers"), NOTATION.words("operator_words")
_LABELS, _FUNCTION_WORDS = NOTATION.words("labels"), NOTATION.words("function_words")
_JOINERS, _REMAINDERS = NOTATION.words("joiners"), NOTATION.words("remainders")


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        quantity: its value.
        operators: operators in order; empty for a single number.
        lexemes: all of its lexemes.
    """

    quantity: Quantity
    operators: tuple[str, ...]
    lexemes: Sequence[Lexeme]

    def first(self, kind: str) -> str:
        """The text of the first lexeme of a kind; empty if there is none."""
        return next((lexeme.text for lexeme in self.lexemes if lexeme.kind == kind), "")


def parse_left_side(text: str, start: int, end: int, bounded: bool) -> Expression | None:
    """Parse the expression that ends at a position.

    Args:
        text: result of blank_markup().
        start: position of the first character to read.
        end: position after the expression.
        bounded: whether the expression cannot begin before `start`.

    Returns:
        The expression; None if it may be part of a larger one or mean something else.
    """
    lexemes = list(lex(text, start, end, bounded))
    first = _expression_start(lexemes)
    if first is None or not _is_independent(lexemes, first):
        return None
    expression = _parse(lexemes[first:])
    return expression if expression and len(expression.lexemes) == len(lexemes) - first - 1 else None


def parse_right_side(text: str, start: int, end: int) -> Expression | None:
    """Parse the expression that begins at a position and ends at or before another.

    Returns:
        The expression; None if it may continue in the text after it.
    """
    _, *lexemes = lex(text, start, end)
    expression = _parse(lexemes, before_prose=True)
    if expression is None:
        return None
    rest = lexemes[len(expression.lexemes) :]
    if _has_second_part(expression.lexemes, rest):
        return None
    after = rest[0].kind
    has_unit = expression.lexemes[-1].kind == "word"  # a number after it is another expression
    return expression if after in _FOLLOWERS or (has_unit and after in _OPERAND_STARTS) else None


def evaluate(text: str) -> Quantity:
    """Evaluate a text that is an expression and nothing else; `text` is a result of blank_markup().

    Raises:
        AmbiguityError: it is none, may mean something else, or has no value, or one that is too large.
    """
    _, *lexemes = lex(f" {text}", 1, len(text) + 1)  # a space before it, so that it begins no list item
    parser = _ExpressionParser(lexemes, before_prose=False)
    quantity = parser.sum()
    if (after := lexemes[parser.position]).kind != "end":
        raise AmbiguityError("a parenthesis was not opened" if after.kind == "close" else "")
    return quantity


def _expression_start(lexemes: Sequence[Lexeme]) -> int | None:
    """Find the last operand that follows a word, or what follows the last break if that begins an operand."""
    for index in range(len(lexemes) - 2, 0, -1):
        kind, previous = lexemes[index].kind, lexemes[index - 1].kind
        if previous == "break":
            negated = lexemes[index].text == "-" and lexemes[index + 1].tight
            return index if kind in _OPERAND_STARTS or negated else None
        if previous in _WORDS and kind in _OPERAND_STARTS:
            return index
    return None


def _is_independent(lexemes: Sequence[Lexeme], first: int) -> bool:
    """Return whether nothing before an expression belongs to it."""
    index = first
    while lexemes[index - 1].kind in _WORDS:
        index -= 1
    words, previous = [lexeme.text.lower() for lexeme in lexemes[index:first]], lexemes[index - 1]
    if lexemes[first].kind == "open" and words and (lexemes[first].tight or previous.kind in OPERAND_ENDS):
        return False  # "f(3) + 1", "5 apples (3 red) + 2"
    last = next((word for word in reversed(words) if word not in _FUNCTION_WORDS), "")
    if previous.kind in OPERAND_ENDS and (
        last in _OPERATOR_WORDS or _joins(words, lexemes[first:]) or _is_second(words, lexemes[:index])
    ):
        return False
    word = last.rpartition("-")[2]
    if word in _MODIFIERS or word.removesuffix("s") in _LABELS or _is_variable(word):
        return False
    if previous.kind == "break":
        return not _continues(lexemes[:index], lexemes[first])
    return previous.kind not in ("open", "operator") or (previous.text == "/" and previous.tight)


def _is_variable(word: str) -> bool:
    return (len(word) == 1 and word != "i") or any(c == "_" or c.isdecimal() for c in word)


def _joins(words: Sequence[str], lexemes: Sequence[Lexeme]) -> bool:
    """Return whether words make one quantity of two numbers: "3 boxes of 12", "2 hours 30 minutes"."""
    adjacent = words[-1] == "and" or (len(words) == 1 and words[0] not in CONNECTIVES)
    has_unit = any(lexeme.kind == "word" for lexeme in lexemes)
    return len(words) <= 3 and ("of" in words[-2:] or (adjacent and has_unit))


def _is_second(words: Sequence[str], before: Sequence[Lexeme]) -> bool:
    """Return whether words make an expression the second operand: "multiply 12 by", "the sum of 12 and"."""
    if words[-1] != "and":
        return words[-1] in _JOINERS
    start, *others = before
    after_sign = start.kind == "break" and start.start > 0  # "3 * 4 = 12 and 5 * 2" has two equations
    return not after_sign or any(lexeme.kind in ("operator", "break", *_WORDS) for lexeme in others)


def _has_second_part(side: Sequence[Lexeme], rest: Sequence[Lexeme]) -> bool:
    """Return whether a right side is only a part of the result: "3 hours 20 minutes", "3, remainder 2"."""
    if rest[0].kind == "open" or rest[0].text == ",":
        words = _leading_words(rest[1:])
        return "remainder" in words and words[0] in ("remainder", "with")
    words = _leading_words(side[::-1])[::-1]
    if words[-1:] == ["and"]:
        words.pop()
    is_unit = len(words) == 1 and words[0] not in CONNECTIVES | LINKS
    kinds = [lexeme.kind for lexeme in rest[:3]]
    return is_unit and kinds[:2] == ["number", "word"] and kinds[2] != "operator"


def _leading_words(lexemes: Sequence[Lexeme]) -> list[str]:
    return [lexeme.text.lower() for lexeme in takewhile(lambda lexeme: lexeme.kind == "word", lexemes)]


def _continues(lexemes: Sequence[Lexeme], first: Lexeme) -> bool:
    """Return whether an expression continues the text before the break that ends the lexemes."""
    line = list(takewhile(lambda lexeme: lexeme.kind != "break", reversed(lexemes[:-1])))
    last = next((lexeme for lexeme in reversed(lexemes) if lexeme.kind != "break"), None)
    if last and last.kind in ("operator", "open"):
        return True
    mark = lexemes[-1].text.strip()[-1:]
    if mark == "," and line[1:] and line[0].kind == "number":
        return len(line[0].text) <= 3 == len(first.text)  # "in 14, 400 / 80"
    has_operator = any(lexeme.kind == "operator" for lexeme in line)
    return has_operator and mark in ("-", "\u2013", "*")  # the mark is an operator, not a bullet


def _parse(lexemes: Sequence[Lexeme], before_prose: bool = False) -> Expression | None:
    parser = _ExpressionParser(lexemes, before_prose)
    try:
        quantity = parser.sum()
    except AmbiguityError:
        return None
    return Expression(quantity, tuple(parser.operators), lexemes[: parser.position])


class _ExpressionParser:
    """Recursive-descent parser with one method per level of precedence.

    Attributes:
        lexemes: the last has the kind "end".
        before_prose: whether prose may follow; then words without an operator after them need not be a unit.
        position: index of the next lexeme.
        operators: the operators so far, in order.
    """

    def __init__(self, lexemes: Sequence[Lexeme], before_prose: bool) -> None:
        self.lexemes, self.before_prose = lexemes, before_prose
        self.position = self._nesting = 0
        self.operators: list[str] = []
        self._spaced = any(lexeme.kind == "operator" and not lexeme.tight for lexeme in lexemes)

    @property
    def _next(self) -> Lexeme:
        return self.lexemes[self.position]

    @property
    def _second(self) -> Lexeme:
        return self.lexemes[min(self.position + 1, len(self.lexemes) - 1)]

    def _accept(self, kind: str, *texts: str) -> Lexeme | None:
        """Consume the next lexeme if it has this kind and, if texts are given, one of them."""
        lexeme = self._next
        if lexeme.kind != kind or (texts and lexeme.text not in texts):
            return None
        self.position += 1
        return lexeme

    def _operator(self, *texts: str) -> Lexeme | None:
        lexeme = self._accept("operator", *texts)
        if lexeme:
            self.operators.append(lexeme.text)
        return lexeme

    def sum(self) -> Quantity:
        total = self._product()
        while operator := self._operator("+", "-"):
            term = self._product()
            if operator.text == "-" and operator.tight and self._spaced and total.value < term.value:
                raise AmbiguityError(_AMBIGUOUS)  # a range: "2-3 * 5"
            total += term if operator.text == "+" else -term
        return total

    def _product(self) -> Quantity:
        value, last = self._signed(), None
        while operator := self._operator("*", "/", "of") or self._implicit_product():
            is_share = value.percent or (0 < value.value < 1 and not value.units)
            if _is_ambiguous(last, operator):
                raise AmbiguityError(_AMBIGUOUS)
            if operator.text == "of" and not is_share:
                raise AmbiguityError  # "2 of 3"
            factor, last = self._signed(), operator
            value = value / factor if operator.text == "/" else value * factor
            if operator.text == "of" and self._next.text in ("+", "-"):
                raise AmbiguityError(_AMBIGUOUS)  # "20% of 85 + 15"
        return value

    def _implicit_product(self) -> Lexeme | None:
        """Return the parenthesis of "2(3 + 4)" without consuming it."""
        if self._next.kind != "open" or not self._next.tight:
            return None
        if self.lexemes[self.position - 1].kind not in ("number", "close"):
            return None
        self.operators.append("*")
        return self._next

    def _signed(self) -> Quantity:
        if self._next.kind == "operator" and self._next.text == "-" and self._second.tight:
            self.position += 1
            return -self._operand()
        return self._operand()

    def _operand(self) -> Quantity:
        currency = self._accept("currency")
        value = self._primary()
        if self._operator("^"):
            value **= self._exponent()
            if self._next.text == "^":
                raise AmbiguityError(_AMBIGUOUS)  # "2^3^2"
        if self._accept("percent"):
            value = replace(value, percent=True)
        currency = currency or self._accept("currency")
        if value.units and (currency or value.percent):
            raise AmbiguityError
        units, per = self._units(bool(currency or value.units))
        symbol = {currency.text[-1]} if currency else set()
        return replace(value, units=value.units | units | symbol, per=value.per | per)

    def _primary(self) -> Quantity:
        last = self.lexemes[self.position - 1]
        if number := self._accept("number"):
            if last.kind == "operator" and _is_two_numbers(last, number):
                raise AmbiguityError(_AMBIGUOUS)
            return Quantity(_parse_mixed_number(number.text))
        if self._accept("fraction"):
            numerator = self._group("brace")
            self.operators.append("/")
            return numerator / self._group("brace")
        return self._group("open")

    def _group(self, kind: str) -> Quantity:
        opening = self._accept(kind)
        self._nesting += 1
        if not opening or opening.text not in _CLOSING:
            raise AmbiguityError
        if self._nesting > _NESTING_MAX:
            raise AmbiguityError(f"more than {_NESTING_MAX} parentheses are open")
        value = self.sum()
        if not self._accept(*_CLOSING[opening.text]):
            raise AmbiguityError("a parenthesis is not closed" if self._next.kind == "end" else "")
        self._nesting -= 1
        return value

    def _exponent(self) -> int:
        braced = self._accept("brace", "{")
        number = self._accept("number")
        if not number or not number.text.isdecimal() or int(number.text) > _EXPONENT_MAX:
            raise AmbiguityError(f"an exponent must be a whole number up to {_EXPONENT_MAX}")
        if braced and not self._accept("brace", "}"):
            raise AmbiguityError
        return int(number.text)

    def _units(self, has_unit: bool) -> tuple[frozenset[str], frozenset[str]]:
        """Parse the unit after a number: "red apples", "miles/hour", or "/hour" if the number has a unit."""
        abbreviated = self._next.kind == "word" and self._next.tight
        words = self._words()
        has_unit |= self.before_prose and len(self._second.text) > 1
        while (words or has_unit) and self._next.text == "/" and self._second.kind == "word":
            self.position += 1
            words += ["per", *self._words()]
        if self.before_prose and self._next.kind != "operator":
            near = words[1:3] if words[:1] == ["and"] else words[:1]  # "3 and a half"
            if not abbreviated and NUMBER_WORDS.isdisjoint(near) and _REMAINDERS.isdisjoint(words):
                words = []
        return parse_units(words, abbreviated)

    def _words(self) -> list[str]:
        words = []
        while word := self._accept("word"):
            words.append(word.text.lower())
        return words


def _is_ambiguous(last: Lexeme | None, operator: Lexeme) -> bool:
    """Return whether an operator after a division may be meant to bind first: "8 / 1/2", "6/2(1 + 2)"."""
    if last is None or last.text != "/" or not operator.tight:
        return False
    return operator.kind == "open" or not last.tight


def _is_two_numbers(operator: Lexeme, number: Lexeme) -> bool:
    """Return whether a mixed number may be two: "1/2 1/2" and "3 * 4 and 1/2" contain no 2 1/2 and 4 1/2."""
    return "and" in number.text or (operator.text == "/" and number.tight and " " in number.text)


def _parse_mixed_number(text: str) -> Fraction:
    """Parse a number with an optional fraction: "12", "2 1/2", "2 and 1/2", "2½"."""
    parts = text.replace(",", "").replace("and", " ").translate(VULGAR_FRACTIONS).split()
    try:
        values = [Fraction(part) for part in parts]
    except ZeroDivisionError:
        raise AmbiguityError("division by zero") from None
    digits = max(len(part.replace(".", "")) for part in parts)
    if digits > DIGITS_MAX:
        raise AmbiguityError(f"a number has more than {DIGITS_MAX} digits")
    if (
        (text[:1] == "0" and (text[1:2].isdecimal() or text[1:2] == ","))  # 007, or 0,5 with zeros
        or not all(0 < part < 1 for part in values[1:])
    ):
        raise AmbiguityError
    return sum(values, Fraction())
